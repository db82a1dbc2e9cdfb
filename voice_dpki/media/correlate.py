"""Measure of how much of what was said was heard: the correlation of two recordings, aligned in time.

Needs numpy, which costs a process about 10 MB; a call itself does not import this module.
"""

from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from voice_dpki.errors import LocalError
from voice_dpki.media.pcm import Pcm

MAX_LAG_S = 5.0
"""Largest shift that is tried between the recordings, in seconds."""


@dataclass(frozen=True, slots=True)
class Correlation:
    """Correlation coefficient from -1 to 1 at the best alignment, and how far `heard` is behind `said`."""

    coefficient: float
    lag_ms: float


def correlate(said: Pcm, heard: Pcm) -> Correlation:
    """Compare two recordings; `heard` is brought to the rate of `said`.

    The coefficient is Pearson's over the length of `said`; missing parts of `heard` count as silence. It does not
    depend on loudness, and is 0 if `heard` is silent. Raises LocalError if `said` is silent.
    """
    reference, other = _signal(said), _signal(heard.resampled(said.rate))
    energy = float(reference @ reference)
    if not energy:
        raise LocalError("there is nothing to compare with: what was said is silent")
    lag = _best_lag(reference, other, int(MAX_LAG_S * said.rate))
    aligned = _shifted(other, lag, len(reference))
    aligned_energy = float(aligned @ aligned)
    if not aligned_energy:
        return Correlation(0.0, 0.0)
    coefficient = float(reference @ aligned) / (energy * aligned_energy) ** 0.5
    return Correlation(coefficient, 1000 * lag / said.rate)


def _signal(pcm: Pcm) -> NDArray[numpy.float64]:
    samples = numpy.frombuffer(pcm.data, dtype="<i2").astype(numpy.float64)
    return samples - samples.mean() if len(samples) else samples


def _best_lag(reference: NDArray[numpy.float64], other: NDArray[numpy.float64], limit: int) -> int:
    """Return the shift, in samples, at which the two correlate most, by a product of their spectra."""
    size = 1 << (len(reference) + len(other)).bit_length()
    spectrum = numpy.fft.rfft(other, size) * numpy.conj(numpy.fft.rfft(reference, size))
    products = numpy.fft.irfft(spectrum, size)
    limit = min(limit, size // 2 - 1)
    lags = numpy.arange(-limit, limit + 1)
    return int(lags[int(numpy.argmax(products[lags]))])


def _shifted(signal: NDArray[numpy.float64], lag: int, length: int) -> NDArray[numpy.float64]:
    """Cut `length` samples from `lag` on; places outside the signal are silent."""
    aligned = numpy.zeros(length)
    start, end = max(lag, 0), min(lag + length, len(signal))
    if end > start:
        aligned[start - lag : end - lag] = signal[start:end]
    return aligned
