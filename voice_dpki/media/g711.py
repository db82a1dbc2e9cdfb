"""G.711: a sample in 8 bits by mu-law or A-law (ITU-T G.711, tables 1 and 2), for whole frames by tables.

Samples are signed, of 16 bits, little-endian: the 14 bits of mu-law and 13 bits of A-law, shifted to the left.
"""

from collections.abc import Iterable
from functools import cache
from itertools import pairwise

_NEGATIVE = 0x80
"""The sign bit of a code; a code without it is a negative sample."""


class Law:
    """One of the two laws, by the sample that each of its 256 codes stands for."""

    def __init__(self, samples: Iterable[int]) -> None:
        decoded = [sample.to_bytes(2, "little", signed=True) for sample in samples]
        self._low, self._high = (bytes(sample[at] for sample in decoded) for at in (0, 1))
        magnitudes = [abs(int.from_bytes(sample, "little", signed=True)) for sample in decoded]
        positive = _nearest({code: magnitudes[code] for code in range(_NEGATIVE, 256)})
        negative = _nearest({code: magnitudes[code] for code in range(_NEGATIVE)})
        # Indexed by a sample's 16 bits: 0 to 32767, then -32768 to -1.
        self._codes = positive[: 1 << 15] + negative[1 << 15 : 0 : -1]

    def encode(self, samples: bytes) -> bytes:
        """Return the code nearest to each sample."""
        return bytes(map(self._codes.__getitem__, memoryview(samples).cast("H")))

    def decode(self, codes: bytes) -> bytes:
        """Return the sample of each code."""
        samples = bytearray(2 * len(codes))
        samples[0::2] = codes.translate(self._low)
        samples[1::2] = codes.translate(self._high)
        return bytes(samples)


@cache
def mu_law() -> Law:
    """Return the law of North America and Japan, PCMU in RTP."""
    return Law(map(_mu_law_sample, range(256)))


@cache
def a_law() -> Law:
    """Return the law of the rest of the world, PCMA in RTP."""
    return Law(map(_a_law_sample, range(256)))


def _mu_law_sample(code: int) -> int:
    """Decode one code: sign, segment and step, all inverted; a bias of 33 doubles the length of each segment."""
    inverted = code ^ 0xFF
    segment, step = inverted >> 4 & 7, inverted & 0xF
    magnitude = ((2 * step + 33) << segment) - 33 << 2
    return magnitude if code & _NEGATIVE else -magnitude


def _a_law_sample(code: int) -> int:
    """Decode one code: sign, segment and step, with every second bit inverted; the first two segments are alike."""
    inverted = code ^ 0x55
    segment, step = inverted >> 4 & 7, inverted & 0xF
    magnitude = (2 * step + 33 << segment - 1 if segment else 2 * step + 1) << 3
    return magnitude if code & _NEGATIVE else -magnitude


def _nearest(magnitudes: dict[int, int]) -> bytes:
    """Return, for each magnitude from 0 to 32768, the code of the nearest one, the lower if two are as near."""
    codes = sorted(magnitudes, key=magnitudes.__getitem__)
    edges = [(magnitudes[one] + magnitudes[other]) // 2 + 1 for one, other in pairwise(codes)]
    runs = zip(codes, pairwise([0, *edges, (1 << 15) + 1]), strict=True)
    return b"".join(bytes([code]) * (end - start) for code, (start, end) in runs)
