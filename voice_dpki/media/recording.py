"""Speech as WAV files (RIFF WAVE, format 1: linear samples), read, written and collected from a call."""

import io
import wave

from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.media.pcm import SAMPLE_BYTES, Pcm

MAX_WAV_BYTES = 64 << 20
"""Longest WAV that is read: more than ten minutes at 48 kHz."""

RATES = (8000, 16_000, 24_000, 32_000, 44_100, 48_000)
"""Sampling rates that are read, in Hz."""


def read_wav(data: bytes) -> Pcm:
    """Read a WAV file's bytes; raises MalformedError unless it is mono, 16 bits, of a usual rate and not empty."""
    if len(data) > MAX_WAV_BYTES:
        raise MalformedError(f"the WAV file is longer than {MAX_WAV_BYTES} bytes")
    try:
        with wave.open(io.BytesIO(data)) as file:
            form = (file.getnchannels(), file.getsampwidth())
            pcm = Pcm(file.getframerate(), file.readframes(file.getnframes()))
    except (wave.Error, EOFError, RuntimeError) as error:  # RuntimeError: a chunk that ends outside of its parent
        raise MalformedError(f"not a WAV file: {error}") from None
    if form != (1, SAMPLE_BYTES) or pcm.rate not in RATES or not pcm.data:
        raise MalformedError("the WAV file is not mono, of 16 bits and of a usual sampling rate, or it is empty")
    return pcm


def write_wav(pcm: Pcm) -> bytes:
    """Write a WAV file's bytes."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(SAMPLE_BYTES)
        file.setframerate(pcm.rate)
        file.writeframes(pcm.data)
    return buffer.getvalue()


class Recorder:
    """A recording in progress: each piece is stored at its place in time, and gaps are silent."""

    def __init__(self, rate: int, max_s: float = 120.0) -> None:
        if max_s <= 0:
            raise LocalError("a recording must be allowed some time")
        self._rate = rate
        self._max_bytes = int(max_s * rate) * SAMPLE_BYTES
        self._data = bytearray()

    def put(self, position: int, data: bytes) -> None:
        """Record `data` from sample `position` on; anything beyond the longest recording is dropped."""
        start = position * SAMPLE_BYTES
        end = min(start + len(data), self._max_bytes)
        if position < 0 or end <= start:
            return
        if len(self._data) < start:
            self._data.extend(bytes(start - len(self._data)))
        self._data[start:end] = data[: end - start]

    def pcm(self) -> Pcm:
        """Return the recording so far."""
        return Pcm(self._rate, bytes(self._data))
