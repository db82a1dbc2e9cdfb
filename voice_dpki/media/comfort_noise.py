"""Comfort noise: the background of a pause, by its level and its spectrum (RFC 3389 §3).

| level, 1 byte | reflection coefficients of an all-pole model of the spectrum, 1 byte each |

RFC 3389 leaves the sign of the coefficients to G.711 Appendix II. Here it is FFmpeg's: the first is minus the
correlation of neighbouring samples, so noise of low frequencies has a negative one.
"""

import math
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import shake_256
from itertools import count
from operator import mul
from typing import Final

from voice_dpki.errors import MalformedError
from voice_dpki.media.pcm import SAMPLE_BYTES, Pcm

PAYLOAD_TYPE: Final = 13
"""The static payload type, for a clock of 8000 Hz (§4)."""

CLOCK_RATE: Final = 8000
ENCODING: Final = "CN/8000"

OVERLOAD: Final = 4 * 8031
"""0 dBov: the level of a square wave between the largest samples of mu-law (§3.1), in samples of 16 bits."""

MAX_LEVEL: Final = 127
"""The faintest level, in -dBov: with samples of 16 bits it is silence."""

MAX_ORDER: Final = 12
"""Most coefficients that are used: a receiver may leave out those of higher order (§3)."""

ORDER: Final = 10
"""Number of coefficients that we send, as in G.711 Appendix II."""

_RESERVED: Final = 255
"""A reserved index, which stands for no coefficient (§3.2)."""

_STEP: Final = 258 / 32_768
"""Difference between the coefficients of two consecutive indices (§3.2)."""

_LARGEST: Final = 32_767

_WHITE_LEVEL: Final = 32_768 / math.sqrt(3)
"""Level of samples of 16 bits that are all equally likely."""


@dataclass(frozen=True, slots=True)
class ComfortNoise:
    """Noise of a `level` from 0 to 127, in -dBov, and a spectrum by its reflection coefficients, in -1 to 1."""

    level: int
    coefficients: tuple[float, ...] = ()

    @classmethod
    def parse(cls, payload: bytes) -> "ComfortNoise":
        """Read a payload; raises MalformedError if it is empty. The spectrum ends before a reserved index."""
        if not payload:
            raise MalformedError("an empty payload of comfort noise (RFC 3389 §3.3)")
        indices = payload[1 : 1 + MAX_ORDER].partition(bytes([_RESERVED]))[0]
        return cls(payload[0] & MAX_LEVEL, tuple((index - 127) * _STEP for index in indices))

    def serialize(self) -> bytes:
        """Write the payload."""
        indices = (round(coefficient / _STEP) + 127 for coefficient in self.coefficients)
        return bytes([self.level, *(max(0, min(_RESERVED - 1, index)) for index in indices)])

    @classmethod
    def of(cls, frame: bytes) -> "ComfortNoise":
        """Describe one frame of samples; digital silence has no spectrum."""
        level = Pcm(CLOCK_RATE, frame).level
        if not level:
            return cls(MAX_LEVEL)
        quiet = round(20 * math.log10(OVERLOAD / level))
        return cls(max(0, min(MAX_LEVEL, quiet)), _reflections(memoryview(frame).cast("h").tolist()))


class NoiseGenerator:
    """Generator of one stream's comfort noise, which continues without a break when its description changes.

    The noise is the same in every call, because it need not be unpredictable.
    """

    def __init__(self) -> None:
        self._frames = count()
        self._payload = b""
        self._gain = 0.0
        """Factor from a 16-bit sample of white noise to the filter's input."""
        self._filter: tuple[float, ...] = ()
        self._past: deque[float] = deque()
        """The last samples, the newest first."""

    def noise(self, payload: bytes, samples: int) -> bytes:
        """Return `samples` samples of the noise that a payload describes; raises MalformedError."""
        if payload != self._payload:
            self._describe(ComfortNoise.parse(payload))
            self._payload = payload
        seed = next(self._frames).to_bytes(8, "big")
        white = memoryview(shake_256(seed).digest(samples * SAMPLE_BYTES)).cast("h")
        return array("h", map(self._filtered, white)).tobytes()

    def _describe(self, noise: ComfortNoise) -> None:
        """Set filter and gain; the filter raises the power of white noise by 1 / (1 - k^2) per coefficient k."""
        self._filter = _predictor(noise.coefficients)
        reduction = math.prod(1 - coefficient * coefficient for coefficient in noise.coefficients)
        self._gain = OVERLOAD / _WHITE_LEVEL * 10 ** (-noise.level / 20) * math.sqrt(reduction)
        order = len(self._filter)
        self._past = deque([*self._past, *[0.0] * order][:order], maxlen=order)

    def _filtered(self, white: int) -> int:
        sample: float = self._gain * white - sum(map(mul, self._filter, self._past))
        self._past.appendleft(sample)
        return round(max(-_LARGEST, min(_LARGEST, sample)))


def _predictor(reflections: Sequence[float]) -> tuple[float, ...]:
    """Return the coefficients of the all-pole filter with these reflection coefficients (the step-up recursion)."""
    direct: tuple[float, ...] = ()
    for reflection in reflections:
        mirrored = map(mul, direct[::-1], [reflection] * len(direct))
        direct = (*(one + other for one, other in zip(direct, mirrored, strict=True)), reflection)
    return direct


def _reflections(samples: Sequence[int]) -> tuple[float, ...]:
    """Return the reflection coefficients of a frame that is not silent, by the Levinson-Durbin recursion."""
    correlations = [float(sum(map(mul, samples, samples[lag:]))) for lag in range(ORDER + 1)]
    error, direct = correlations[0], list[float]()
    reflections: list[float] = []
    for lag in range(1, ORDER + 1):
        predicted = sum(map(mul, direct, correlations[lag - 1 : 0 : -1]))
        reflection = -(correlations[lag] + predicted) / error
        direct = [*(one + reflection * other for one, other in zip(direct, direct[::-1], strict=True)), reflection]
        reflections.append(reflection)
        error *= 1 - reflection**2
        if error <= 0:
            break
    return tuple(reflections)
