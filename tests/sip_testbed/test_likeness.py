"""Comparing what was said with what was heard, over the changes of a call."""

import random
import struct

import pytest

from sip_testbed.likeness import likeness_of
from voice_dpki.media.pcm import Pcm
from voice_dpki.media.recording import write_wav

RATE = 8000


def noise(seconds: float, seed: int = 1) -> bytes:
    source = random.Random(seed)
    return b"".join(struct.pack("<h", source.randint(-9000, 9000)) for _ in range(int(seconds * RATE)))


def silence(seconds: float) -> bytes:
    return bytes(2 * int(seconds * RATE))


def wav(data: bytes) -> bytes:
    return write_wav(Pcm(RATE, data))


def test_each_part_is_aligned_by_itself() -> None:
    first, second = noise(1.0), noise(1.0, 2)
    later = silence(0.01) + first + silence(0.05) + second
    assert likeness_of(wav(first + second), wav(later), 2) == pytest.approx(1.0, abs=1e-3)
    assert (likeness_of(wav(first + second), wav(later)) or 0) < 0.9


def test_streams_that_begin_later_than_planned_are_aligned_by_themselves() -> None:
    """As on a busy machine, where the answer to an offer of another codec takes a second."""
    first, second = noise(2.3), noise(0.7, 2)
    later = first + silence(0.0065) + second
    assert (likeness_of(wav(first + second), wav(later), 2) or 0) < 0.9
    assert likeness_of(wav(first + second), wav(later), 2, (2.3, 0.7)) == pytest.approx(1.0, abs=1e-3)
    other = first + noise(0.7, 3)
    assert (likeness_of(wav(first + second), wav(other), 2, (2.3, 0.7)) or 0) < 0.2


@pytest.mark.parametrize("streams_s", [(), (3.0,), (0.0, 3.0), (1.5, 1.5), (1.4, 0.1, 1.5), (2.9, 0.1), (0.5,) * 6])
def test_streams_may_begin_anywhere(streams_s: tuple[float, ...]) -> None:
    said = noise(3.0)
    assert likeness_of(wav(said), wav(said), 2, streams_s) == pytest.approx(1.0, abs=1e-3)


def test_the_worst_part_counts() -> None:
    """As with one-way audio after a hold: the beginning was heard."""
    said = noise(1.0) + noise(1.0, 2)
    assert (likeness_of(wav(said), wav(noise(1.0) + silence(1.0)), 2) or 0) < 0.2
    assert (likeness_of(wav(said), wav(noise(1.0) + noise(1.0, 3)), 2) or 0) < 0.2


def test_a_hold_is_a_pause_in_which_nothing_is_compared() -> None:
    said = noise(1.0) + silence(1.0) + noise(1.0, 2)
    assert likeness_of(wav(said), wav(said), 3) == pytest.approx(1.0, abs=1e-3)
    assert likeness_of(wav(silence(2.0)), wav(silence(2.0)), 2) is None
    assert likeness_of(wav(silence(2.0)), wav(silence(2.0))) is None
