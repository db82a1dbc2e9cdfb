"""Rules for the attestation of a call: A, B, C or no signature, by its source and parties (RFC 8588 §4). No I/O.

The first rule that matches decides. A call that no rule matches gets no signature: without a rule the operator
attests nothing.

A (full) says that the operator has authenticated the caller, who has a right to the number; B (partial) that it has
authenticated the caller only; C (gateway) that the call came in from elsewhere.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from voice_dpki.errors import MalformedError
from voice_dpki.names import Tn
from voice_dpki.stir import matching
from voice_dpki.stir.call import SigningRequest
from voice_dpki.stir.matching import unlisted
from voice_dpki.stir.pattern import Patterns, all_covered, any_covers, some_covered
from voice_dpki.stir.sign import SigningRefused
from voice_dpki.stir.tn import canonical_tn

WEAKEST_FIRST: Final = "CBA"
"""The attestations in their order (RFC 8588 §4)."""


class Outcome(StrEnum):
    """The attestation that a rule gives."""

    A = "A"
    B = "B"
    C = "C"
    REFUSE = "refuse"
    """The call gets no signature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationRule:
    """One rule; it matches a call if all its conditions do, and a condition that is not set matches every call."""

    name: str
    attest: Outcome | None = None
    """The attestation, whatever the proxy asked for; None where `at_most` decides."""
    at_most: str = ""
    """The highest attestation; a lower one that the proxy asks for is kept. Empty where `attest` decides."""
    peers: frozenset[str] = frozenset()
    """Proxies, by the names of their bearer tokens (`Source.peer`)."""
    trunks: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()
    """The proxy must say that it has authenticated one of these users."""
    authenticated: bool | None = None
    """Whether the proxy says that it has authenticated a user."""
    owns_number: bool | None = None
    """Whether the authenticated user is the calling number itself."""
    asked: frozenset[str] = frozenset()
    """Attestations that the proxy asks for."""
    orig: Patterns = ()
    dest: Patterns = ()
    """Every called party must match; for a rule that refuses, at least one."""

    def __post_init__(self) -> None:
        if (self.attest is None) == (not self.at_most):
            raise MalformedError("a rule has either attest or at_most")

    def mismatch(self, call: SigningRequest) -> str:
        """Return the name of the first condition that does not match a call; "" if all match."""
        source = call.source
        conditions = (
            ("peers", self.peers, source.peer),
            ("trunks", self.trunks, source.trunk),
            ("users", self.users, source.user),
            ("asked", self.asked, call.attest),
        )
        if name := unlisted(conditions):
            return name
        if self.authenticated not in (None, bool(source.user)):
            return "authenticated"
        if self.owns_number not in (None, _is_number(source.user, call.orig)):
            return "owns_number"
        if self.orig and not any_covers(self.orig, call.orig):
            return "orig"
        covered = some_covered if self.attest is Outcome.REFUSE else all_covered
        return "dest" if self.dest and not covered(self.dest, call.dest) else ""

    def outcome(self, asked: str) -> Outcome:
        """Return the outcome for a call for which the proxy asks for the attestation `asked`."""
        if self.attest is not None:
            return self.attest
        return Outcome(min(asked, self.at_most, key=WEAKEST_FIRST.index))


AttestationRules = Sequence[AttestationRule]
Considered = tuple[AttestationRule, str]
"""A rule, and the name of its first condition that does not match the call; "" if the rule decides."""


def considered(rules: AttestationRules, call: SigningRequest) -> Iterator[Considered]:
    """Yield the rules up to the deciding one, each with its first condition that does not match, or ""."""
    return matching.considered(rules, lambda rule: rule.mismatch(call))


def attested(rules: AttestationRules, call: SigningRequest) -> tuple[SigningRequest, str]:
    """Return a call with the attestation that the rules give it, and the name of the rule that decided.

    A request without an attestation is returned unchanged, unless the deciding rule refuses. Raises SigningRefused
    with the code "no-rule" or "rule"; the latter names the rule.
    """
    rule = matching.deciding(rules, lambda rule: rule.mismatch(call))
    if rule is None:
        raise SigningRefused("no-rule", "no rule of this server's operator covers it")
    if rule.attest is Outcome.REFUSE:
        raise RuleRefused(rule.name)
    return (replace(call, attest=rule.outcome(call.attest)) if call.attest else call), rule.name


class RuleRefused(SigningRefused):
    """A rule says that a call gets no signature."""

    def __init__(self, rule: str) -> None:
        super().__init__("rule", f"the rule {rule} of this server's operator refuses it")
        self.rule = rule


def _is_number(user: str, number: Tn) -> bool:
    """Tell whether a user's name is the number, alone or as the user of a SIP URI."""
    name = user.removeprefix("sip:").removeprefix("sips:").removeprefix("tel:").partition("@")[0]
    try:
        return canonical_tn(name) == number
    except MalformedError:
        return False
