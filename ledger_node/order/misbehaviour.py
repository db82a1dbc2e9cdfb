"""Reporting that a validator misbehaved: it is never an accident, and its operator's keys may be stolen."""

import logging

from voice_dpki.metrics import counter

log = logging.getLogger(__name__)

MISBEHAVIOR = counter("ledger_validators_misbehaved", "Pieces of evidence in blocks")
UNPROVED = counter("ledger_evidence_unproved", "Pieces of evidence in blocks whose signatures do not verify here")


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
