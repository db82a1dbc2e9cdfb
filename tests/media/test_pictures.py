"""Numbered pictures through VP8, payloads as RFC 7741 has them, and recordings that others read."""

import contextlib
import io

import av
import pytest

from voice_dpki.errors import MalformedError
from voice_dpki.media.pictures import (
    CLOCK_RATE,
    HEIGHT,
    MAX_SIDE,
    NUMBERS,
    PICTURES_A_SECOND,
    WIDTH,
    Descriptor,
    PictureDecoder,
    PictureEncoder,
    check_size,
    is_key,
    number_in,
    picture,
    webm,
)

TICKS = CLOCK_RATE // PICTURES_A_SECOND


def encoded(numbers: list[int], keys: tuple[int, ...] = (0,)) -> list[bytes]:
    encoder = PictureEncoder()
    payloads = [encoder.encode(number, at * TICKS, key=at in keys) for at, number in enumerate(numbers)]
    return [b"".join(Descriptor.parse(payload).data for payload in each) for each in payloads]


@pytest.mark.parametrize("number", [0, 1, 0x5555, 0xAAAA, NUMBERS - 1])
def test_a_number_is_read_from_its_picture(number: int) -> None:
    assert number_in(picture(number)) == number


def test_a_spoiled_picture_has_no_number() -> None:
    luma = picture(3).to_ndarray()
    luma[:HEIGHT] = 128
    assert number_in(av.VideoFrame.from_ndarray(luma, format="yuv420p")) is None


def test_numbers_survive_the_coder() -> None:
    numbers = [at * 211 % NUMBERS for at in range(60)]
    decoder = PictureDecoder()
    data = encoded(numbers)
    assert [decoder.number(each, at * TICKS) for at, each in enumerate(data)] == numbers
    assert [is_key(each) for each in data] == [True] + [False] * 59


def test_a_whole_picture_comes_when_it_is_asked_for() -> None:
    assert [at for at, each in enumerate(encoded(list(range(9)), (0, 4))) if is_key(each)] == [0, 4]


def test_a_key_frame_says_its_size_where_the_standard_has_it() -> None:
    """RFC 6386 §9.1: 3 octets, the start code 9d 01 2a, then width and height in little-endian order."""
    data = encoded([7])[0]
    assert data[3:10] == bytes([0x9D, 0x01, 0x2A, WIDTH, 0, HEIGHT, 0])


@pytest.mark.parametrize(
    "sides", [(MAX_SIDE + 1, 120), (160, MAX_SIDE + 1), (0, 120), (160, 0), (0x3FFF, 0x3FFF), None]
)
def test_a_picture_without_bounds_is_not_decoded(sides: tuple[int, int] | None) -> None:
    data = encoded([7])[0]
    if sides is None:
        data = data[:9]
    else:
        data = data[:6] + b"".join(side.to_bytes(2, "little") for side in sides) + data[10:]
    with pytest.raises(MalformedError):
        check_size(data)
    with pytest.raises(MalformedError):
        PictureDecoder().number(data, 0)


@pytest.mark.parametrize("data", [b"\x00", b"\x01", b"\xff" * 40, b"\x10\x02\x00\x9d\x01\x2a\xa0\x00\x78\x00" * 3])
def test_junk_is_malformed_or_shows_no_number(data: bytes) -> None:
    with contextlib.suppress(MalformedError):
        assert PictureDecoder().number(data, 0) is None


@pytest.mark.parametrize(
    ("payload", "begins", "data"),
    [
        (b"\x10\xaa", True, b"\xaa"),
        (b"\x00\xaa\xbb", False, b"\xaa\xbb"),
        (b"\x11\xaa", False, b"\xaa"),
        (b"\x90\x80\x05\xaa", True, b"\xaa"),
        (b"\x90\x80\x85\x01\xaa", True, b"\xaa"),
        (b"\x90\xf0\x85\x01\x02\x03\xaa", True, b"\xaa"),
    ],
)
def test_descriptors_of_the_standard(payload: bytes, begins: bool, data: bytes) -> None:
    assert Descriptor.parse(payload) == Descriptor(begins, data)


@pytest.mark.parametrize("payload", [b"", b"\x10", b"\x90", b"\x90\x80", b"\x90\x80\x85", b"\x90\xf0\x85\x01\x02"])
def test_descriptors_that_are_cut_off(payload: bytes) -> None:
    with pytest.raises(MalformedError):
        Descriptor.parse(payload)


def test_a_recording_is_read_by_others_with_its_times() -> None:
    data = encoded(list(range(5)), (0, 3))
    times = [3.0, 3.1, 3.1, 3.35, 3.5]
    with av.open(io.BytesIO(webm(list(zip(data, times, strict=True)))), "r") as container:
        assert container.streams.video[0].codec_context.name == "vp8"
        frames = [(number_in(frame), round(float(frame.time or 0), 3)) for frame in container.decode(video=0)]
    assert frames == [(0, 0.0), (1, 0.1), (2, 0.101), (3, 0.35), (4, 0.5)]


def test_a_recording_begins_with_a_whole_picture() -> None:
    data = encoded(list(range(5)), (0, 3))
    with av.open(io.BytesIO(webm([(each, float(at)) for at, each in enumerate(data[1:])])), "r") as container:
        assert [number_in(frame) for frame in container.decode(video=0)] == [3, 4]
    assert webm([(data[1], 0.0)]) == webm([]) == b""
