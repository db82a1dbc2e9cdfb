"""An estimate of speech quality: the E-model of ITU-T G.107, with its defaults except delay, codec and loss."""

from voice_dpki.errors import LocalError
from voice_dpki.media.codecs import Codec

DEFAULT_R = 93.2
"""R with all of G.107's default values and no delay, loss or codec impairment (G.107 §7.7)."""

_STEEP_DELAY_MS = 177.3
"""Delay above which the impairment Idd grows faster (Cole and Rosenbluth's approximation)."""


MIN_PACKETS = 25
"""Fewest packets for an estimate, half a second of speech: the loss among fewer is not representative."""


def r_factor(codec: Codec, loss: float, delay_ms: float) -> float:
    """Compute R from 0 to 100, for random loss (a fraction) and a one-way delay from mouth to ear.

    Ie,eff = Ie + (95 - Ie) * Ppl / (Ppl + Bpl), G.107 §7.5 with BurstR = 1.
    """
    if not 0 <= loss <= 1 or delay_ms < 0:
        raise LocalError("loss is a fraction, and delay is not negative")
    percent = 100 * loss
    equipment = codec.impairment + (95 - codec.impairment) * percent / (percent + codec.loss_robustness)
    delay = 0.024 * delay_ms + 0.11 * max(0.0, delay_ms - _STEEP_DELAY_MS)
    return max(0.0, min(100.0, DEFAULT_R - equipment - delay))


def mos(r: float) -> float:
    """Convert R to a mean opinion score from 1 to 4.5 (G.107, annex B)."""
    if r <= 0:
        return 1.0
    if r >= 100:
        return 4.5
    return max(1.0, 1 + 0.035 * r + 7e-6 * r * (r - 60) * (100 - r))
