"""Counts of verdicts by the signing certificate's operator, to show whose calls fail."""

from typing import Final

from voice_dpki.metrics import OTHER, counters
from voice_dpki.stir.verdict import Trust, Verdict, Verstat

MAX_OPERATORS: Final = 500
"""Most operators with series of their own, further ones count as others: members are admitted by votes alone."""

VERDICTS = counters(
    "operator_verdicts",
    "Verdicts on tokens that name a certificate on the ledger, by the operator that recorded it.",
    operator=(OTHER,),
    verstat=Verstat,
)

_KNOWN: set[str] = set()


def count_operator(verdict: Verdict) -> None:
    """Count a verdict by its signer's operator, if the ledger says who that is."""
    if verdict.trust is not Trust.LEDGER or not verdict.signer:
        return
    if verdict.signer not in _KNOWN and len(_KNOWN) < MAX_OPERATORS:
        _KNOWN.add(verdict.signer)
        VERDICTS.admit("operator", [verdict.signer])
    VERDICTS.labels(verdict.signer if verdict.signer in _KNOWN else OTHER, verdict.verstat).inc()
