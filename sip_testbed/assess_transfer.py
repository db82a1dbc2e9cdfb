"""Assessment of a transferred call: the new call must be heard both ways, under keys of its own.

The caller transfers the callee to a third telephone; see `sip_testbed.assess` for everything else.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sip_testbed.assess import heard
from sip_testbed.evidence import Evidence
from sip_testbed.likeness import likeness_of
from sip_testbed.report import Direction
from sip_testbed.result import Purpose
from sip_testbed.scenarios import PASSED
from sip_testbed.transfer import ATTENDED, TRANSFER
from voice_dpki.stage.report import Check

_PURPOSES: Final[Mapping[str, Purpose]] = {TRANSFER: "call", ATTENDED: "transferred"}
"""Purpose of the new call at the third telephone, by kind of transfer; a consultation was a call before it."""


def third_is(transfer: str) -> Purpose:
    """Return the purpose of the new call at the third telephone, by the kind of transfer."""
    return _PURPOSES[transfer]


def directions(evidence: Evidence) -> dict[str, Direction]:
    """Return both directions of the new call's media; empty where nothing was transferred."""
    transfer = evidence.transfer
    if transfer is None:
        return {}
    third = "third" if third_is(transfer) == "call" else "transferred-third"
    ends = {"callee": "transferred-callee", "third": third}
    results = {
        "callee": evidence.result("callee", "transferred"),
        "third": evidence.result("third", third_is(transfer)),
    }
    return {
        f"{one}_to_{other}": _direction(evidence, f"{ends[one]}.said", f"{ends[other]}.heard", results[other])
        for one, other in (("callee", "third"), ("third", "callee"))
    }


def _direction(evidence: Evidence, said: str, heard_: str, result: Mapping[str, Any]) -> Direction:
    media = result.get("media") or {}
    spoken, other = evidence.recordings.get(said), evidence.recordings.get(heard_)
    likeness = likeness_of(spoken, other) if spoken and other else None
    return Direction(
        packets=media.get("received", 0),
        lost=sum(media.get(name, 0) for name in ("lost", "late", "overflow")),
        correlation=None if likeness is None else round(likeness, 5),
        mos=media.get("mos"),
        jitter_ms=media.get("jitter_ms"),
    )


def checks(evidence: Evidence) -> Iterable[Check]:
    """Yield a check for each expectation of a transfer; none where nothing was to be transferred."""
    transfer = evidence.transfer
    if transfer is None:
        return
    callee, third = evidence.result("callee", "transferred"), evidence.result("third", third_is(transfer))
    for name, result in (("callee", callee), ("third one", third)):
        up = bool(result.get("established"))
        detail = "yes" if up else f"no: {result.get('reason') or 'there was no new call'}"
        yield Check(f"The {name} spoke to the end of the new call", up, detail)
    for name, direction in directions(evidence).items():
        yield heard(name.replace("_", " "), direction)
    if evidence.scenario.protected:
        verstat = third.get("verstat")
        yield Check("Verdict on the callee's number in the new call", verstat == PASSED, str(verstat))
        key = callee.get("peer_key")
        yield Check("Key of the third one", key in (None, "first", "known"), str(key or "not pinned"))
    if evidence.srtp:
        yield _keys_of_its_own(evidence)


def _keys_of_its_own(evidence: Evidence) -> Check:
    """Check that no SSRC of the callee's first call is in its new one: keys and SSRCs are agreed together."""
    ssrcs: dict[str, set[bytes]] = {}
    for packet in evidence.rtp():
        if packet.actor == "callee":
            ssrcs.setdefault(packet.dst, set()).add(packet.clear[8:12])
    distinct = len(ssrcs) > 1 and sum(map(len, ssrcs.values())) == len(set().union(*ssrcs.values()))
    return Check("The new call has keys of its own", distinct, f"{len(ssrcs)} streams of the callee's")
