"""G.711 by tables, against FFmpeg's coders and by its definition."""

import struct
from collections.abc import Callable
from typing import Any

import pytest
from aiortc.codecs.g711 import PcmaDecoder, PcmaEncoder, PcmuDecoder, PcmuEncoder
from aiortc.jitterbuffer import JitterFrame

from voice_dpki.media.g711 import Law, a_law, mu_law
from voice_dpki.media.pcm import audio_frame, samples_of

CODES = bytes(range(256))
SAMPLES = struct.pack("<65536h", *range(-32_768, 32_768))
LAWS = [(mu_law, PcmuEncoder, PcmuDecoder), (a_law, PcmaEncoder, PcmaDecoder)]


def values(samples: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(samples) // 2}h", samples)


@pytest.mark.parametrize(("law", "_encoder", "decoder"), LAWS)
def test_every_code_is_decoded_as_ffmpeg_does(law: Callable[[], Law], _encoder: Any, decoder: Any) -> None:
    frames = decoder().decode(JitterFrame(CODES, 0))
    assert law().decode(CODES) == b"".join(samples_of(frame) for frame in frames)


@pytest.mark.parametrize(("law", "encoder", "_decoder"), LAWS)
def test_every_sample_gets_the_nearest_code(law: Callable[[], Law], encoder: Any, _decoder: Any) -> None:
    """FFmpeg's may be another one where two are as near, and then only."""
    made, theirs = law().encode(SAMPLES), encoder()
    judged = b"".join(
        b"".join(theirs.encode(audio_frame(SAMPLES[at : at + 320].ljust(320, b"\0"), 8000, 1, at // 2))[0])
        for at in range(0, len(SAMPLES), 320)
    )[: len(made)]
    meant, of_judge = values(law().decode(made)), values(law().decode(judged))
    samples = values(SAMPLES)
    errors = [abs(value - sample) for value, sample in zip(meant, samples, strict=True)]
    assert all(ours <= abs(other - sample) for ours, other, sample in zip(errors, of_judge, samples, strict=True))
    others = sum(one != other for one, other in zip(made, judged, strict=True))
    assert others <= 1024, "ties at the edges of the segments"


@pytest.mark.parametrize("law", [mu_law, a_law])
def test_no_other_code_of_the_sign_is_nearer(law: Callable[[], Law]) -> None:
    levels = values(law().decode(CODES))
    made = law().encode(SAMPLES)
    for at in range(0, 65_536, 89):
        sample, code = at - 32_768, made[at]
        same_sign = levels[128:] if sample >= 0 else levels[:128]
        assert abs(levels[code] - sample) == min(abs(level - sample) for level in same_sign)


def test_values_of_the_standard() -> None:
    """Ends and middle of G.711's tables 1a and 2a: 8159 of 14 bits is decoded as 8031, 4096 of 13 as 4032."""
    assert values(mu_law().decode(b"\x80\x00\xff\x7f")) == (8031 * 4, -8031 * 4, 0, 0)
    assert values(a_law().decode(b"\xaa\x2a\xd5\x55")) == (4032 * 8, -4032 * 8, 8, -8)
    assert mu_law().encode(struct.pack("<4h", 32_767, -32_768, 0, -1)) == b"\x80\x00\xff\x7f"
    assert a_law().encode(struct.pack("<4h", 32_767, -32_768, 0, -1)) == b"\xaa\x2a\xd5\x55"


def test_frames_of_any_length() -> None:
    assert mu_law().encode(b"") == mu_law().decode(b"") == b""
    assert len(a_law().decode(a_law().encode(bytes(2 * 163)))) == 2 * 163
