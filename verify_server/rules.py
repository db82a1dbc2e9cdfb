"""The rule file of verdicts: TOML for operators, and the rules that are made from it."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from voice_dpki.errors import LocalError
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
from voice_dpki.stir.handling import EMERGENCY, Dialect, Handling, HandlingRule, Ppi
from voice_dpki.stir.pattern import Pattern
from voice_dpki.stir.treatment import Act
from voice_dpki.stir.verdict import Trust, Verstat

EXAMPLE = """\
# The first rule that matches decides. A call that no rule matches is tagged with its verstat.

monitor = false                                  # true: no rule has an effect, and answers say what it would do
ppi = "compact"                                  # or "full", "none": the PASSporT in a Reason (RFC 9410)
emergency = ["112", "110", "urn:service:sos*"]   # never rejected, and never without their number

[verstat.pbx]                                    # how the client with this name spells verstat
TN-Validation-Passed-B = "TN-Validation-Passed"
No-TN-Validation = "TN-Validation-Unknown"

[[rules]]
name = "forged"
verstats = ["TN-Validation-Failed"]
act = "reject"                                   # with the verdict's own code: 437 or 438

[[rules]]
name = "an operator that has just begun"
trunks = ["operator-c"]
act = "tag"

[[rules]]
name = "must be signed by now"
trunks = ["operator-a", "operator-b"]
codes = [428]
act = "reject"
monitor = true                                   # only said until now

[[rules]]
name = "our own numbers from elsewhere"
verstats = ["No-TN-Validation"]
orig = ["4420794600*"]
act = "withhold"
"""

TREATED = counters(
    "treatments",
    "Verified calls, by what is done with them and by the rule that decided; it is empty where none did.",
    act=Act,
    rule=("",),
)

Status = Literal[403, 428, 436, 437, 438, 603, 607, 608]
Spelling = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9-]{1,64}\Z")]
Spelled = Literal[
    "TN-Validation-Passed",
    "TN-Validation-Passed-A",
    "TN-Validation-Passed-B",
    "TN-Validation-Passed-C",
    "TN-Validation-Failed",
    "No-TN-Validation",
]


class HeadConfig(Config, frozen=True, kw_only=True):
    """The keys beside the rules; see EXAMPLE."""

    monitor: bool = False
    ppi: Ppi = Ppi.COMPACT
    emergency: PatternTexts = EMERGENCY
    verstat: dict[str, dict[Spelled, Spelling]] = msgspec.field(default_factory=dict)


class RuleConfig(Config, frozen=True, kw_only=True):
    """One rule of the file; see EXAMPLE."""

    name: Name
    act: Act
    status: Status | None = None
    monitor: bool = False
    peers: Listed | None = None
    trunks: Listed | None = None
    bypasses: Listed | None = None
    signers: Listed | None = None
    trusts: Annotated[frozenset[Trust], msgspec.Meta(min_length=1)] | None = None
    verstats: Annotated[frozenset[Verstat], msgspec.Meta(min_length=1)] | None = None
    codes: Annotated[frozenset[Literal[403, 428, 436, 437, 438]], msgspec.Meta(min_length=1)] | None = None
    attests: Annotated[frozenset[Literal["A", "B", "C"]], msgspec.Meta(min_length=1)] | None = None
    out_of_band: bool | None = None
    caller: bool | None = None
    orig: PatternTexts | None = None
    dest: PatternTexts | None = None

    def rule(self) -> HandlingRule:
        """Return the rule; raises MalformedError that names the member."""
        if self.status is not None and self.act is not Act.REJECT:
            raise MemberError("status", "only a rule that rejects has one")
        return HandlingRule(
            name=self.name,
            act=self.act,
            status=self.status or 0,
            monitor=self.monitor,
            peers=self.peers or frozenset(),
            trunks=self.trunks or frozenset(),
            bypasses=self.bypasses or frozenset(),
            signers=self.signers or frozenset(),
            trusts=self.trusts or frozenset(),
            verstats=self.verstats or frozenset(),
            codes=frozenset(self.codes or ()),
            attests=frozenset(self.attests or ()),
            out_of_band=self.out_of_band,
            caller=self.caller,
            orig=read_each("orig", self.orig or (), Pattern.parse),
            dest=read_each("dest", self.dest or (), Pattern.parse),
        )


def load_handling(path: Path, clients: frozenset[str], bypasses: frozenset[str] = frozenset()) -> Handling:
    """Read a rule file, whose peers are names among `clients`, and whose bypasses are among `bypasses`.

    Raises LocalError with file, rule and member.
    """
    head, rules = load_rule_file(path, HeadConfig, RuleConfig, RuleConfig.rule)
    for rule in rules:
        check_clients(path, f"rule {rule.name!r}: peers", rule.peers, clients)
        check_clients(path, f"rule {rule.name!r}: bypasses", rule.bypasses, bypasses)
    check_clients(path, "verstat", head.verstat.keys(), clients)
    try:
        emergency = read_each("emergency", head.emergency, Pattern.parse)
    except MemberError as error:
        raise LocalError(f"{path}: {error}") from None
    TREATED.admit("rule", (rule.name for rule in rules))
    dialects = {
        peer: Dialect({str(verstat): text for verstat, text in spelled.items()})
        for peer, spelled in head.verstat.items()
    }
    return Handling(rules, emergency, head.monitor, head.ppi, dialects)
