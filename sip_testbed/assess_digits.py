"""Assessment of the digits that the caller dialled during a call."""

from collections.abc import Iterable

from sip_testbed.evidence import Evidence
from voice_dpki.stage.report import Check


def checks(evidence: Evidence, dialled: str) -> Iterable[Check]:
    """Yield the check that the callee got the digits that were `dialled` in a good call, in their order."""
    if not dialled or evidence.scenario.expected.refused_by is not None:
        return
    got = evidence.result("callee").get("digits") or ""
    detail = f"{got or 'none'} received, {dialled} dialled"
    yield Check("The callee got the digits that were dialled", got == dialled, detail)
