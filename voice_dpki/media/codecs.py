"""Speech codecs: PCMU and PCMA (ITU-T G.711) by tables, and Opus (RFC 6716, RFC 7587) on aiortc's coders.

aiortc and its FFmpeg are imported when the first coder of Opus is made: they cost a process about 25 MB.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.media.g711 import Law, a_law, mu_law
from voice_dpki.media.pcm import SAMPLE_BYTES, audio_frame, samples_of

if TYPE_CHECKING:
    from av import AudioFrame
    from av.frame import Frame

FRAME_S = 0.020
"""Length of a frame in seconds; each packet holds one frame (RFC 3551 §4.2)."""

MAX_OPUS_PACKET_S = 0.120
"""Longest duration of one Opus packet (RFC 6716 §3.2.5)."""

CONCEALED_FRAMES = 3
"""Most lost frames in a row that repeat the last frame, each at half the previous level; silence follows."""


@dataclass(frozen=True, slots=True)
class Codec:
    """A codec as SDP names it. Its samples are one channel at `clock_rate`, which is also the RTP clock rate."""

    name: str
    payload_type: int
    clock_rate: int
    rtpmap: str
    channels: int
    """Channels of the encoder's input: Opus is always stereo in RTP (RFC 7587 §7); both channels are the same."""
    impairment: float
    """Ie of the E-model: the codec's impairment without loss (ITU-T G.113, appendix I)."""
    loss_robustness: float
    """Bpl of the E-model: how well the codec bears loss (4.3 for G.711 without concealment, G.113)."""
    duration: Callable[[bytes], int]
    """Function from a payload to its duration in ticks of the RTP clock; raises MalformedError."""
    law: Callable[[], Law] | None = None
    """The law of a G.711 codec; None for any other codec."""

    @property
    def frame_samples(self) -> int:
        """Samples of one frame, and ticks of the RTP clock."""
        return int(self.clock_rate * FRAME_S)


def _g711_duration(payload: bytes) -> int:
    if not payload:
        raise MalformedError("an empty G.711 payload")
    return len(payload)


_OPUS_TICKS = (
    *((480, 960, 1920, 2880) * 3),  # SILK, three bandwidths
    *((480, 960) * 2),  # hybrid, two bandwidths
    *((120, 240, 480, 960) * 4),  # CELT, four bandwidths
)
"""Ticks of a frame by the configuration in a packet's first byte (RFC 6716 §3.1, Table 2)."""


def _opus_duration(payload: bytes) -> int:
    """Return the ticks of an Opus packet from its first two bytes (RFC 6716 §3.1, §3.2.5)."""
    if not payload:
        raise MalformedError("an empty Opus payload")
    config, code = payload[0] >> 3, payload[0] & 3
    if code == 3 and len(payload) < 2:
        raise MalformedError("an Opus packet without its frame count")
    frames = payload[1] & 0x3F if code == 3 else min(code, 1) + 1
    ticks = _OPUS_TICKS[config] * frames
    if not 0 < ticks <= MAX_OPUS_PACKET_S * 48_000:
        raise MalformedError("an Opus packet lasts more than 120 ms, or nothing (RFC 6716 §3.2.5)")
    return ticks


CODECS = {
    codec.name: codec
    for codec in (
        Codec("PCMU", 0, 8000, "PCMU/8000", 1, 0.0, 4.3, _g711_duration, mu_law),
        Codec("PCMA", 8, 8000, "PCMA/8000", 1, 0.0, 4.3, _g711_duration, a_law),
        Codec("opus", 96, 48_000, "opus/48000/2", 2, 0.0, 10.0, _opus_duration),
    )
}
"""The codecs by their names in SDP (RFC 3551 §6, RFC 7587 §7).

G.113 has no figures for Opus. Assumed: no impairment, and a Bpl between G.711's without and with concealment.
"""


def codec_named(name: str) -> Codec:
    """Return the codec of that name, in any case (RFC 4566 §6); raises LocalError for one that we do not have."""
    for codec in CODECS.values():
        if codec.name.lower() == name.lower():
            return codec
    raise LocalError(f"no such codec: {name[:20]}; there are {', '.join(CODECS)}")


class SpeechEncoder:
    """Encoder of one stream, frame by frame."""

    def __init__(self, codec: Codec) -> None:
        self._encode = codec.law().encode if codec.law else _OpusEncoder(codec).encode

    def encode(self, frame: bytes) -> bytes:
        """Encode one frame of samples; each gives one payload."""
        return self._encode(frame)


class SpeechDecoder:
    """Decoder of one stream: takes payloads in the order of time, and conceals lost ones."""

    def __init__(self, codec: Codec) -> None:
        self._decode = codec.law().decode if codec.law else _OpusDecoder(codec).decode
        self._last = b""
        self._concealed = 0

    def decode(self, payload: bytes) -> bytes:
        """Decode one payload to samples; raises MalformedError if the codec cannot read it."""
        self._last = self._decode(payload)
        self._concealed = 0
        return self._last

    def conceal(self, samples: int) -> bytes:
        """Conceal `samples` lost samples by the last frame, fainter each time, and then by silence."""
        self._concealed += 1
        size = samples * SAMPLE_BYTES
        if self._concealed > CONCEALED_FRAMES or not self._last:
            return bytes(size)
        self._last = _halved(self._last)
        return self._last[-size:].ljust(size, b"\0")


class _OpusEncoder:
    """Encoder in mode "audio", which keeps low frequencies; aiortc's "voip" would remove part of them."""

    def __init__(self, codec: Codec) -> None:
        from aiortc.codecs.opus import OpusEncoder

        self._codec = codec
        self._encoder = OpusEncoder()
        self._encoder.codec.options = {"application": "audio"}
        self._pts = 0

    def encode(self, frame: bytes) -> bytes:
        codec = self._codec
        payloads, _ = self._encoder.encode(
            audio_frame(_doubled(frame), codec.clock_rate, codec.channels, self._pts)
        )
        self._pts += codec.frame_samples
        if len(payloads) != 1:
            raise LocalError(f"{codec.name} gave {len(payloads)} payloads for one frame")
        return payloads[0]


class _OpusDecoder:
    def __init__(self, codec: Codec) -> None:
        from aiortc.codecs.opus import OpusDecoder
        from av import AudioFrame, AudioResampler

        self._codec = codec
        self._decoder = OpusDecoder()
        self._mono = AudioResampler(format="s16", layout="mono", rate=codec.clock_rate)
        self._audio_frame = AudioFrame

    def decode(self, payload: bytes) -> bytes:
        from aiortc.jitterbuffer import JitterFrame
        from av.error import FFmpegError

        try:
            frames = self._decoder.decode(JitterFrame(payload, 0))
            return b"".join(samples_of(mono) for frame in frames for mono in self._mono_frames(frame))
        except FFmpegError as error:
            raise MalformedError(f"not a payload of {self._codec.name}: {error.strerror}") from None

    def _mono_frames(self, frame: "Frame") -> "list[AudioFrame]":
        """Mix a decoded frame to mono, without its time, by which the resampler would fill gaps of lost packets."""
        assert isinstance(frame, self._audio_frame)
        frame.pts = None
        return self._mono.resample(frame)


def _doubled(mono: bytes) -> bytes:
    """Give both channels of a stereo frame the same samples."""
    stereo = bytearray(2 * len(mono))
    for offset in (0, 2):
        stereo[offset::4] = mono[0::2]
        stereo[offset + 1 :: 4] = mono[1::2]
    return bytes(stereo)


def _halved(mono: bytes) -> bytes:
    samples = memoryview(mono).cast("h")
    return b"".join((sample // 2).to_bytes(SAMPLE_BYTES, "little", signed=True) for sample in samples)
