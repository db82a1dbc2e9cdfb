"""The rule file of attestations: TOML for operators, and the rules that are made of it."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from voice_dpki.metrics import counters
from voice_dpki.shell.config import Config
from voice_dpki.shell.rule_file import (
    Listed,
    MemberError,
    Name,
    PatternTexts,
    check_clients,
    load_rule_file,
    read_each,
)
from voice_dpki.stir.attestation import AttestationRule, Outcome
from voice_dpki.stir.pattern import Pattern, Patterns

EXAMPLE = """\
# The first rule that matches decides. A call that no rule matches gets no signature.

[[rules]]
name = "own subscribers"
peers = ["proxy"]                                # lines "proxy TOKEN" of the tokens file
owns_number = true                               # the proxy has authenticated the very number that calls
orig = ["493023125000-493023125999"]
attest = "A"

[[rules]]
name = "company with several numbers"
peers = ["proxy"]
users = ["company-7"]                            # the user that the proxy has authenticated
orig = ["4930231251*"]
attest = "A"

[[rules]]
name = "other users we know"
peers = ["proxy"]
authenticated = true
attest = "B"

[[rules]]
name = "no premium numbers from other networks"
trunks = ["transit-1", "transit-2"]
orig = ["49900*"]
attest = "refuse"

[[rules]]
name = "from other networks"
trunks = ["transit-1", "transit-2"]
attest = "C"

[[rules]]
name = "a PBX that knows best but never A"
peers = ["pbx"]
at_most = "B"                                    # what it asks for, but no more than this
"""

REFUSED = "refused"
ATTESTED = counters(
    "attestations",
    "Calls to sign, by the attestation and the rule that decided; it is empty where no rule did.",
    attest=(*"ABC", "", REFUSED),
    rule=("",),
)

Attest = Literal["A", "B", "C"]


class _Head(Config, frozen=True, kw_only=True):
    """There is nothing beside the rules."""


class RuleConfig(Config, frozen=True, kw_only=True):
    """One rule of the file; see EXAMPLE."""

    name: Name
    attest: Outcome | None = None
    at_most: Attest | None = None
    peers: Listed | None = None
    trunks: Listed | None = None
    users: Listed | None = None
    authenticated: bool | None = None
    owns_number: bool | None = None
    asked: Annotated[frozenset[Attest], msgspec.Meta(min_length=1)] | None = None
    orig: PatternTexts | None = None
    dest: PatternTexts | None = None

    def rule(self) -> AttestationRule:
        """Return the rule; raises MalformedError that names the member."""
        if (self.attest is None) == (self.at_most is None):
            raise MemberError("attest", "a rule has either attest or at_most")
        return AttestationRule(
            name=self.name,
            attest=self.attest,
            at_most=self.at_most or "",
            peers=self.peers or frozenset(),
            trunks=self.trunks or frozenset(),
            users=self.users or frozenset(),
            authenticated=self.authenticated,
            owns_number=self.owns_number,
            asked=self.asked or frozenset(),
            orig=_patterns("orig", self.orig),
            dest=_patterns("dest", self.dest),
        )


def load_rules(path: Path, clients: frozenset[str]) -> tuple[AttestationRule, ...]:
    """Read a rule file, whose peers are names among `clients`; raises LocalError with file, rule and member."""
    _, rules = load_rule_file(path, _Head, RuleConfig, RuleConfig.rule)
    for rule in rules:
        check_clients(path, f"rule {rule.name!r}: peers", rule.peers, clients)
    ATTESTED.admit("rule", (rule.name for rule in rules))
    return rules


def _patterns(member: str, texts: tuple[str, ...] | None) -> Patterns:
    return read_each(member, texts or (), Pattern.parse)
