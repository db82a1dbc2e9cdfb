"""Rules for the treatment of a call by the verdict on its caller: pass, tag, withhold, reject. No I/O.

The first rule that matches decides. A call that no rule matches is tagged: it goes on with its verstat, which is
TN-Validation-Passed for a proven caller only. Calls to emergency numbers are never rejected, and their caller's
number is never withheld: where a rule says so, they are tagged.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from voice_dpki.errors import MalformedError
from voice_dpki.stir.call import NO_CALLER_NUMBER, Call
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.matching import considered, deciding, unlisted
from voice_dpki.stir.pattern import Pattern, Patterns, all_covered, any_covers, some_covered
from voice_dpki.stir.treatment import Act, Treatment
from voice_dpki.stir.verdict import REASON_TEXTS, Trust, Verdict, Verstat, overall

TEXTS: Final = REASON_TEXTS | {428: "Use Identity Header", 603: "Decline", 607: "Unwanted", 608: "Rejected"}
"""Reason phrases of the statuses that rules may give (RFC 8224 §6.2.2, RFC 3261, RFC 8197, RFC 8688)."""
UNPROVEN_STATUS: Final = 438
"""The status of a call that a rule rejects although its verdict has no reason code."""
EMERGENCY: Final = ("112", "911", "999", "110", "urn:service:sos*")
"""Default emergency numbers, for operators that configure none."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+\Z")


class Ppi(StrEnum):
    """The form in which a Reason shows the PASSporT that failed (RFC 9410 §4)."""

    NONE = "none"
    COMPACT = "compact"
    """The signature alone, which contains no number."""
    FULL = "full"


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlingRule:
    """One rule; it matches a call if all its conditions do, and a condition that is not set matches every call."""

    name: str
    act: Act
    status: int = 0
    """The status of a rejection; 0 for the verdict's own reason code."""
    monitor: bool = False
    """Whether the rule only observes: the call is tagged, and log, metric and Reason tell the rule's act."""
    peers: frozenset[str] = frozenset()
    trunks: frozenset[str] = frozenset()
    bypasses: frozenset[str] = frozenset()
    """Operators that could not sign the call (`Source.bypass`)."""
    signers: frozenset[str] = frozenset()
    """Organisations, as on the ledger, that recorded the certificate which the Identity names."""
    trusts: frozenset[Trust] = frozenset()
    """Bases of the trust in the signer."""
    verstats: frozenset[Verstat] = frozenset()
    codes: frozenset[int] = frozenset()
    """Reason codes of the verdict."""
    attests: frozenset[str] = frozenset()
    """Attestations of a proven caller."""
    out_of_band: bool | None = None
    """Whether the PASSporT came from a call placement service."""
    caller: bool | None = None
    """Whether the call names a caller's number."""
    orig: Patterns = ()
    dest: Patterns = ()
    """Every called party must match."""

    def mismatch(self, verdict: Verdict, call: Call) -> str:
        """Return the name of the first condition that does not match; "" if all match."""
        conditions = (
            ("peers", self.peers, call.source.peer),
            ("trunks", self.trunks, call.source.trunk),
            ("bypasses", self.bypasses, call.source.bypass),
            ("signers", self.signers, "" if verdict.trust is Trust.LIST else verdict.signer),
            ("trusts", self.trusts, verdict.trust),
            ("verstats", self.verstats, verdict.verstat),
            ("codes", self.codes, verdict.reasoncode),
            ("attests", self.attests, verdict.attest if verdict.ok else ""),
        )
        if name := unlisted(conditions):
            return name
        if self.out_of_band not in (None, verdict.out_of_band):
            return "out_of_band"
        if self.caller not in (None, call.orig != NO_CALLER_NUMBER):
            return "caller"
        if self.orig and not any_covers(self.orig, call.orig):
            return "orig"
        return "dest" if self.dest and not all_covered(self.dest, call.dest) else ""


@dataclass(frozen=True, slots=True)
class Dialect:
    """A peer's spellings of verstat; a verstat without one is spelt as in the standard."""

    spellings: Mapping[str, str] = field(default_factory=dict)
    """By verstat, and for a proven caller also by verstat and attestation, such as "TN-Validation-Passed-B"."""

    def spell(self, verdict: Verdict) -> str:
        """Return the verstat of a verdict as the peer spells it."""
        by_attest = self.spellings.get(f"{verdict.verstat}-{verdict.attest}") if verdict.ok else None
        return by_attest or self.spellings.get(verdict.verstat, verdict.verstat)


@dataclass(frozen=True, slots=True)
class Handling:
    """The rules of one server."""

    rules: Sequence[HandlingRule]
    emergency: Patterns = tuple(map(Pattern.parse, EMERGENCY))
    monitor: bool = False
    """Whether all rules only observe, as `HandlingRule.monitor` says of one."""
    ppi: Ppi = Ppi.COMPACT
    dialects: Mapping[str, Dialect] = field(default_factory=dict)
    """By the name of the peer."""

    def considered(self, verdict: Verdict, call: Call) -> Iterator[tuple[HandlingRule, str]]:
        """Yield the rules up to the deciding one, each with its first condition that does not match, or ""."""
        return considered(self.rules, lambda rule: rule.mismatch(verdict, call))

    def deciding(self, verdict: Verdict, call: Call) -> HandlingRule | None:
        """Return the rule that decides, or None if none matches."""
        return deciding(self.rules, lambda rule: rule.mismatch(verdict, call))


def treatment_of(handling: Handling, verdicts: Sequence[Verdict], call: Call) -> Treatment:
    """Return the treatment of a call by the verdicts on its Identities, in their order; at least one."""
    verdict = overall(verdicts)
    rule = handling.deciding(verdict, call)
    said = rule.act if rule is not None else Act.TAG
    is_emergency = some_covered(handling.emergency, call.dest)
    watches = handling.monitor or (rule is not None and rule.monitor)
    act = Act.TAG if watches or (is_emergency and said in (Act.REJECT, Act.WITHHOLD)) else said
    status = _status(rule, verdict)
    return Treatment(
        act,
        rule=rule.name if rule is not None else "",
        status=status,
        text=TEXTS.get(status, ""),
        reasons=tuple(_reasons(verdicts, call, handling.ppi)) if status else (),
        verstat=_spelled(handling, verdict, call) if act is Act.TAG or act is Act.WITHHOLD else "",
        instead_of=said if said is not act else None,
        is_emergency=is_emergency,
    )


def _status(rule: HandlingRule | None, verdict: Verdict) -> int:
    if rule is None or rule.act is not Act.REJECT:
        return 0
    return rule.status or verdict.reasoncode or UNPROVEN_STATUS


def _spelled(handling: Handling, verdict: Verdict, call: Call) -> str:
    return handling.dialects.get(call.source.peer, Dialect()).spell(verdict)


def _reasons(verdicts: Sequence[Verdict], call: Call, ppi: Ppi) -> Iterator[str]:
    """Yield a value of Reason for each Identity that failed (RFC 9410 §3, RFC 9366)."""
    identities = call.identities or ("",) * len(verdicts)
    for verdict, identity in zip(verdicts, identities, strict=False):
        if verdict.reasoncode is not None:
            token = _token(identity, ppi)
            shown = f' ;ppi="{token}"' if token else ""
            yield f'STIR ;cause={verdict.reasoncode} ;text="{verdict.reasontext}"{shown}'


def _token(identity: str, ppi: Ppi) -> str:
    """Return the token to show; "" if `ppi` is NONE or the Identity holds no well-formed token."""
    if ppi is Ppi.NONE:
        return ""
    try:
        token = IdentityHeader.parse(identity).token
    except MalformedError:
        return ""
    if not _TOKEN.match(token):
        return ""
    return token if ppi is Ppi.FULL else f"..{token.rpartition('.')[2]}"
