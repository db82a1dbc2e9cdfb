"""Speech as samples: one channel, signed 16 bits, little-endian. FFmpeg is imported when it is first needed."""

import fractions
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av import AudioFrame

SAMPLE_BYTES = 2


@dataclass(frozen=True, slots=True)
class Pcm:
    """Samples of one channel: signed 16 bits, little-endian, at `rate` Hz."""

    rate: int
    data: bytes

    def __len__(self) -> int:
        return len(self.data) // SAMPLE_BYTES

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self) / self.rate

    @property
    def level(self) -> float:
        """Root mean square of the samples; 0 without any."""
        samples = memoryview(self.data).cast("h")
        return math.sqrt(sum(sample * sample for sample in samples) / len(samples)) if samples else 0.0

    def part(self, start_s: float, end_s: float) -> "Pcm":
        """Return the sound between two times in seconds from its beginning, neither negative."""
        start, end = int(start_s * self.rate), int(end_s * self.rate)
        return Pcm(self.rate, self.data[start * SAMPLE_BYTES : end * SAMPLE_BYTES])

    def frames(self, samples: int) -> Iterator[bytes]:
        """Cut into frames of `samples` each; the last is padded with silence."""
        size = samples * SAMPLE_BYTES
        for start in range(0, len(self.data), size):
            yield self.data[start : start + size].ljust(size, b"\0")

    def resampled(self, rate: int) -> "Pcm":
        """Return the same sound at another rate, with a band-limited filter."""
        if rate == self.rate or not self.data:
            return Pcm(rate, self.data)
        from av import AudioResampler

        resampler = AudioResampler(format="s16", layout="mono", rate=rate)
        frames = resampler.resample(audio_frame(self.data, self.rate)) + resampler.resample(None)
        return Pcm(rate, b"".join(samples_of(frame) for frame in frames))


def audio_frame(data: bytes, rate: int, channels: int = 1, pts: int = 0) -> "AudioFrame":
    """Wrap samples for FFmpeg; two channels are interleaved, left first."""
    from av import AudioFrame

    layout = "mono" if channels == 1 else "stereo"
    frame = AudioFrame(format="s16", layout=layout, samples=len(data) // SAMPLE_BYTES // channels)
    frame.planes[0].update(data)
    frame.sample_rate = rate
    frame.pts = pts
    frame.time_base = fractions.Fraction(1, rate)
    return frame


def samples_of(frame: "AudioFrame") -> bytes:
    """Return the samples of a mono frame, without FFmpeg's padding."""
    return bytes(frame.planes[0])[: frame.samples * SAMPLE_BYTES]
