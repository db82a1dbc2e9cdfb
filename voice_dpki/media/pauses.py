"""The pauses in what we say: which frames are sent, which as comfort noise, and which not at all (RFC 3389 §5)."""

from typing import Final

from voice_dpki.media.comfort_noise import OVERLOAD, ComfortNoise
from voice_dpki.media.pcm import Pcm

QUIET_LEVEL: Final = OVERLOAD * 10 ** (-50 / 20)
"""Below this level, -50 dBov, a frame may be one of a pause: rooms are fainter, and speech is 20 dB louder."""

HANGOVER_FRAMES: Final = 5
"""How many faint frames in a row are still sent as speech: words end faintly."""

UPDATE_FRAMES: Final = 10
"""A pause is described once in so many frames, so that the other side hears of us five times a second."""


class Pauses:
    """Detector of the pauses of one speech; it is asked about each frame."""

    def __init__(self) -> None:
        self._faint = 0
        """How many faint frames there have been in a row."""

    def payload_for(self, frame: bytes) -> bytes | None:
        """Return the comfort noise that is sent in place of a frame, b"" if nothing is; None if the frame is."""
        if Pcm(0, frame).level >= QUIET_LEVEL:
            self._faint = 0
            return None
        self._faint += 1
        paused = self._faint - HANGOVER_FRAMES - 1
        if paused < 0:
            return None
        return b"" if paused % UPDATE_FRAMES else ComfortNoise.of(frame).serialize()
