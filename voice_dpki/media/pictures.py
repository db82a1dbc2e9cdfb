"""Numbered pictures for tests, VP8 (RFC 6386) on aiortc's coders, and recordings as WebM.

In each picture 16 blocks of black or white are the bits of its number, and 16 others are their complements, so that
a number is read correctly or not at all. aiortc and its FFmpeg are imported when the first coder is made.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

import numpy as np

from voice_dpki.errors import MalformedError

if TYPE_CHECKING:
    from av import VideoFrame

WIDTH: Final = 160
HEIGHT: Final = 120
PICTURES_A_SECOND: Final = 10
"""Size and rate of the pictures that we send: small, because the telephone shares the processor with the coder."""

PICTURE_S: Final = 1 / PICTURES_A_SECOND

CLOCK_RATE: Final = 90_000
"""Ticks of the RTP clock a second (RFC 7741 §4.1)."""

NUMBERS: Final = 1 << 16
"""Picture numbers run from 0 to one less than this, and then start again at 0."""

MAX_SIDE: Final = 1280
"""Largest width or height of a picture that is decoded, in pixels."""

_BLOCK: Final = 16
_BITS_A_ROW: Final = 8
_MARGIN: Final = 4
"""Pixels at each edge of a block that are ignored, because coders blur them."""

_KEY_HEADER_BYTES: Final = 10


def picture(number: int) -> "VideoFrame":
    """Draw the picture of a number on a moving background."""
    from av import VideoFrame

    luma = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH) + 3 * number) % 128 + 64
    for bit in range(2 * _BITS_A_ROW):
        is_white = number >> bit & 1
        for x, y, white in ((*_place(bit, 0), is_white), (*_place(bit, 3), not is_white)):
            luma[y : y + _BLOCK, x : x + _BLOCK] = 235 if white else 16
    chroma = np.full((HEIGHT // 2, WIDTH), 128)
    return VideoFrame.from_ndarray(np.vstack([luma, chroma]).astype(np.uint8), format="yuv420p")


def number_in(frame: "VideoFrame") -> int | None:
    """Read the number of a picture; None if it is not one of ours, or too damaged."""
    if (frame.width, frame.height) != (WIDTH, HEIGHT):
        return None
    luma = np.asarray(frame.to_ndarray(format="gray"), dtype=np.uint8)
    number = 0
    for bit in range(2 * _BITS_A_ROW):
        is_white, is_black = (_level(luma, *_place(bit, row)) > 128 for row in (0, 3))
        if is_white == is_black:
            return None
        number |= is_white << bit
    return number


def check_size(encoded: bytes) -> None:
    """Raise MalformedError for a key frame of VP8 with larger pictures than are decoded (RFC 6386 §9.1)."""
    if not is_key(encoded):
        return
    width, height = (int.from_bytes(encoded[at : at + 2], "little") & 0x3FFF for at in (6, 8))
    if len(encoded) < _KEY_HEADER_BYTES or not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise MalformedError(f"a key frame of VP8 is cut off, or has sides over {MAX_SIDE} pixels")


def is_key(encoded: bytes) -> bool:
    """Return whether an encoded picture is a key frame, which needs no picture before it (RFC 6386 §9.1)."""
    return bool(encoded) and not encoded[0] & 1


class PictureEncoder:
    """Encoder of numbered pictures to VP8, in payloads of RTP (RFC 7741)."""

    def __init__(self) -> None:
        from aiortc.codecs.vpx import Vp8Encoder

        self._encoder = Vp8Encoder()

    def encode(self, number: int, ticks: int, *, key: bool) -> list[bytes]:
        """Return the payloads of a picture at `ticks` of the RTP clock; `key` makes it a key frame."""
        frame = picture(number % NUMBERS)
        frame.pts, frame.time_base = ticks, Fraction(1, CLOCK_RATE)
        payloads, _ = self._encoder.encode(frame, force_keyframe=key)
        return payloads


class PictureDecoder:
    """Decoder of VP8."""

    def __init__(self) -> None:
        from aiortc.codecs.vpx import Vp8Decoder

        self._decoder = Vp8Decoder()

    def number(self, encoded: bytes, ticks: int) -> int | None:
        """Decode a picture and return its number, or None if it has none; raises MalformedError."""
        from aiortc.jitterbuffer import JitterFrame
        from av import FFmpegError, VideoFrame

        check_size(encoded)
        try:
            decoded = self._decoder.decode(JitterFrame(data=encoded, timestamp=ticks))
        except FFmpegError as error:
            raise MalformedError(f"VP8 cannot be decoded: {error.strerror}") from None
        numbers = [number_in(frame) for frame in decoded if isinstance(frame, VideoFrame)]
        return numbers[-1] if numbers else None


def load_coders() -> None:
    """Import and start the coders in advance, because this takes longer than setting up a call."""
    payloads = PictureEncoder().encode(0, 0, key=True)
    PictureDecoder().number(b"".join(Descriptor.parse(payload).data for payload in payloads), 0)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """The payload descriptor of RFC 7741 §4.2, and the part of a picture after it."""

    begins: bool
    """Whether the payload begins a picture."""
    data: bytes

    @classmethod
    def parse(cls, payload: bytes) -> "Descriptor":
        """Read a payload; raises MalformedError."""
        from aiortc.codecs.vpx import VpxPayloadDescriptor

        try:
            told, data = VpxPayloadDescriptor.parse(payload)
        except (ValueError, IndexError):
            raise MalformedError("a payload of VP8 is cut off (RFC 7741 §4.2)") from None
        if not data:
            raise MalformedError("a payload of VP8 is empty (RFC 7741 §4.2)")
        return cls(bool(told.partition_start) and told.partition_id == 0, data)


def webm(pictures: Sequence[tuple[bytes, float]]) -> bytes:
    """Write encoded pictures, with the seconds at which they were shown, as a WebM file without new encoding.

    Pictures before the first key frame are left out. Returns b"" if there is no key frame.
    """
    import av

    first = next((at for at, (data, _) in enumerate(pictures) if is_key(data)), len(pictures))
    kept = pictures[first:]
    if not kept:
        return b""
    file = io.BytesIO()
    width, height = (int.from_bytes(kept[0][0][at : at + 2], "little") & 0x3FFF for at in (6, 8))
    with av.open(file, "w", format="webm") as container:
        stream = container.add_stream("libvpx", rate=PICTURES_A_SECOND)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        last_ms = -1
        for data, at_s in kept:
            packet = av.Packet(data)
            last_ms = max(last_ms + 1, round(1000 * (at_s - kept[0][1])))
            packet.pts = packet.dts = last_ms
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 1000), stream, is_key(data)
            container.mux(packet)
    return file.getvalue()


def _place(bit: int, row: int) -> tuple[int, int]:
    return _BLOCK * (1 + bit % _BITS_A_ROW), _BLOCK * (row + bit // _BITS_A_ROW)


def _level(luma: "np.typing.NDArray[np.uint8]", x: int, y: int) -> float:
    inner = luma[y + _MARGIN : y + _BLOCK - _MARGIN, x + _MARGIN : x + _BLOCK - _MARGIN]
    return float(inner.mean())
