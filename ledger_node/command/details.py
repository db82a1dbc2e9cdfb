"""A proposal as its voters see it: its change, the votes, the approvals still needed, and its outcome."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from ledger_node.command.difference import Difference
from voice_dpki.ledger import governance
from voice_dpki.ledger.members import Member
from voice_dpki.ledger.parameters import Parameters
from voice_dpki.ledger.proposals import Change, Proposal, ProposalState


@dataclass(frozen=True, slots=True)
class Count:
    """The votes of the present operators."""

    operators: int
    quorum: int
    """How many must approve: more than two thirds."""
    approving: tuple[str, ...]
    rejecting: tuple[str, ...]
    missing: tuple[str, ...]
    """Those who have not voted."""

    @property
    def needed(self) -> int:
        """How many more must approve."""
        return max(0, self.quorum - len(self.approving))


def count(proposal: Proposal, members: Sequence[Member]) -> Count:
    """Count the votes on a proposal among the present operators."""
    names = [member.organization for member in members if member.votes]
    approving = tuple(name for name in names if name in proposal.approving)
    rejecting = tuple(name for name in names if name in proposal.rejecting)
    missing = tuple(name for name in names if name not in approving + rejecting)
    return Count(len(names), governance.least_quorum(len(names)), approving, rejecting, missing)


def outlook(proposal: Proposal, change: Change | None, counted: Count, parameters: Parameters) -> str:
    """Return a proposal's expected outcome, and when it takes effect."""
    if proposal.state is ProposalState.DONE:
        return "It is in effect"
    if proposal.state is ProposalState.FAILED:
        return f"It has failed ({proposal.why}), and changes nothing"
    if proposal.state is ProposalState.PASSED:
        return (
            f"It takes effect with the first block from {proposal.due_height} on that is not before "
            f"{date(proposal.due_s)}, if more than two thirds of the operators approve it then, too"
        )
    at_once = change is not None and governance.is_at_once(change)
    delay = "at once" if at_once else f"{parameters.delay_s / 3600:.1f} hours later"
    blocked = "" if counted.needed else "; enough approve, and another condition or the next vote decides"
    return (
        f"{counted.needed} more of {counted.operators} operators must approve until {date(proposal.until_s)}"
        f"{blocked}: then it takes effect {delay}. Otherwise it lapses, and nothing changes"
    )


def lines(
    identity: bytes, proposal: Proposal, about: str, counted: Count, found: Difference, comes: str
) -> list[str]:
    """Return all about a proposal, for people."""
    return [
        f"proposal:  {identity.hex()}",
        f"by:        {proposal.by}",
        f"asks:      {about}",
        f"state:     {proposal.state}",
        f"for:       {', '.join(counted.approving) or 'nobody'}",
        f"against:   {', '.join(counted.rejecting) or 'nobody'}",
        f"not voted: {', '.join(counted.missing) or 'nobody'}",
        f"{comes}.",
        *(["Changes:", *(f"  {line}" for line in found.lines())] if found.lines() else []),
        *([found.note + "."] if found.note else []),
    ]


def date(time_s: int) -> str:
    """Return a time for people."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(time_s))
