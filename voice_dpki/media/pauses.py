"""Pauses in our speech: which frames are sent, which become comfort noise, and which are omitted (RFC 3389 §5)."""

from typing import Final

from voice_dpki.media.comfort_noise import OVERLOAD, ComfortNoise
from voice_dpki.media.pcm import Pcm

QUIET_LEVEL: Final = OVERLOAD * 10 ** (-50 / 20)
"""Level, -50 dBov, below which a frame may be part of a pause: rooms are fainter, and speech is 20 dB louder."""

HANGOVER_FRAMES: Final = 5
"""Number of faint frames in a row that are still sent as speech, because words end faintly."""

UPDATE_FRAMES: Final = 10
"""Frames per comfort noise packet in a pause, so that the other side gets five packets a second."""


class Pauses:
    """Detector of pauses in one stream of speech; call it for each frame."""

    def __init__(self) -> None:
        self._faint = 0
        """Number of faint frames in a row."""

    def payload_for(self, frame: bytes) -> bytes | None:
        """Return None to send the frame as speech, b"" to send nothing, or the comfort noise to send instead."""
        if Pcm(0, frame).level >= QUIET_LEVEL:
            self._faint = 0
            return None
        self._faint += 1
        paused = self._faint - HANGOVER_FRAMES - 1
        if paused < 0:
            return None
        return b"" if paused % UPDATE_FRAMES else ComfortNoise.of(frame).serialize()
