"""Readiness checks of a node with a store: new blocks, and rules that this release has."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from ledger_node.keep.chain import Chain
from ledger_node.keep.store import parse_signed_header
from voice_dpki.effects import Clock
from voice_dpki.metrics import follow, gauge
from voice_dpki.shell.metrics import Health
from voice_dpki.shell.readiness import Check, Finding, failed_if, warned_if, worst

BLOCK_AGE_S = gauge("ledger_block_age_seconds", "Age of this node's newest block by its header; +Inf without one.")

DEFAULT_BLOCK_AGE_S = 60.0
"""How old the newest block may be: some heartbeats, and time to agree while a validator is down."""


@dataclass(frozen=True, slots=True)
class BlockAge:
    """The newest block of a chain, and how old it may be."""

    chain: Chain
    clock: Clock
    max_age_s: float

    def watched(self) -> "BlockAge":
        """Let the metric show the age from now on."""
        follow(BLOCK_AGE_S, self.age_s)
        return self

    def age_s(self) -> float:
        """Return its age in seconds, infinite without a block."""
        if self.chain.closed:
            return math.inf
        with self.chain.snapshot() as view:
            tip = view.tip_json
        return parse_signed_header(tip).header.age_s(self.clock.now_s()) if tip else math.inf

    def check(self) -> Finding:
        """Return a finding on whether it is recent enough for callers that limit the age of an answer."""
        age_s = self.age_s()
        if math.isinf(age_s):
            return failed_if("this node has no block yet")
        late = age_s > self.max_age_s
        return failed_if(f"the newest block is {age_s:.0f} s old, more than {self.max_age_s:g} s" if late else "")


def release_check(health: Callable[[], Health], coming: Callable[[], str]) -> Check:
    """Return the check of the rules: fails where this release lacks them, warns where it is about to."""

    def check() -> Finding:
        facts = health()
        lacking = "" if facts.ok else facts.facts.get("detail", "this release is outdated")
        return worst(failed_if(lacking), warned_if(coming()))

    return check
