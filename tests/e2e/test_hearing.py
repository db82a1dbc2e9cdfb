"""What the tests of calls hear: helpers that are wrong make good calls fail, or bad ones pass."""

import pytest

from tests.e2e.gateways import speech
from tests.e2e.hearing import LONG_SPEECH_S, PART_S, assert_is_of
from voice_dpki.media.pcm import SAMPLE_BYTES, Pcm

SAID, OTHER = speech("callee", LONG_SPEECH_S), speech("caller", LONG_SPEECH_S)
OVER_AND_OVER = Pcm(SAID.rate, SAID.data * 3)
SEAMS_S = [SAID.duration_s * at - 0.6 for at in (1, 2)]


def with_another_voice(recording: Pcm, *numbers: int) -> Pcm:
    """The recording, with parts of these numbers from another's speech."""
    size, data = int(PART_S * recording.rate) * SAMPLE_BYTES, bytearray(recording.data)
    for number in numbers:
        data[number * size : (number + 1) * size] = OTHER.data[size : 2 * size]
    return Pcm(recording.rate, bytes(data))


@pytest.mark.parametrize("start_s", [0.0, *SEAMS_S])
@pytest.mark.parametrize("lost", [0, 1, 2])
def test_one_part_of_three_may_be_lost(start_s: float, lost: int) -> None:
    recording = OVER_AND_OVER.part(start_s, start_s + 1.2)
    assert_is_of(SAID, recording)
    assert_is_of(SAID, with_another_voice(recording, lost))


def test_a_part_in_a_pause_does_not_count() -> None:
    recording = SAID.part(0.7, 1.9)
    assert_is_of(SAID, recording)
    for lost in (1, 2):
        with pytest.raises(AssertionError):
            assert_is_of(SAID, with_another_voice(recording, lost))


def test_most_parts_may_not_be_lost() -> None:
    with pytest.raises(AssertionError):
        assert_is_of(SAID, with_another_voice(SAID.part(0, 1.2), 0, 2))
    with pytest.raises(AssertionError):
        assert_is_of(SAID, Pcm(SAID.rate, bytes(2 * SAID.rate)))
