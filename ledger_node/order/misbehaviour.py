"""Reporting that a validator misbehaved: it is never an accident, and its operator's keys may be stolen."""

import logging

from prometheus_client import Counter

log = logging.getLogger(__name__)

MISBEHAVIOR = Counter("voice_dpki_ledger_validators_misbehaved", "Pieces of evidence in blocks")
UNPROVED = Counter(
    "voice_dpki_ledger_evidence_unproved", "Pieces of evidence in blocks whose signatures do not verify here"
)


def report(kind: str, validator: bytes, height: int) -> None:
    """Log and count evidence of this `kind` (ABCI's name) that convicts the validator with this address."""
    MISBEHAVIOR.inc()
    log.critical("validator-misbehaved", extra={"fields": _fields(kind, validator, height)})


def report_unproved(kind: str, validator: bytes, height: int) -> None:
    """Log and count evidence whose signatures do not verify here, so that the convict may not have signed it."""
    UNPROVED.inc()
    log.critical("evidence-unproved", extra={"fields": _fields(kind, validator, height)})


def _fields(kind: str, validator: bytes, height: int) -> dict[str, object]:
    return {"kind": kind, "validator": validator.hex(), "height": height}
