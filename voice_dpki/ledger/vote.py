"""Voting on a proposal.

"vote"          "proposal": bytes .size 32, "approve": bool

docs/spec/encodings.md#transactions specifies it.
"""

from dataclasses import dataclass, replace

from voice_dpki.ledger import governance, proposals
from voice_dpki.ledger.draft import Block, Draft
from voice_dpki.ledger.kind import BY_MEMBER, Body, Kind, SignedBody, digest, flag
from voice_dpki.ledger.members import Member
from voice_dpki.ledger.refusals import Refusal, Refused


@dataclass(frozen=True, slots=True)
class Vote(Body):
    """The vote of the operator `by` on a proposal."""

    proposal: bytes
    approve: bool


def _execute(draft: Draft, block: Block, member: Member, signed: SignedBody[Vote]) -> None:
    """Count an operator's vote, one for each proposal; raises Refused.

    From version 3 of the rules on, a proposer that votes against its proposal withdraws it.
    """
    body = signed.body
    governance.check_operator(member)
    proposal = proposals.proposal_of(draft, body.proposal)
    if proposal is None:
        raise Refused(Refusal.NO_PROPOSAL)
    if proposal.state not in governance.UNDECIDED or block.time_s > proposal.until_s:
        raise Refused(Refusal.NOT_OPEN)
    if draft.rules.withdraws and body.by == proposal.by and not body.approve:
        proposals.put(draft, body.proposal, governance.withdrawn(proposal))
        return
    if body.by in proposal.approving + proposal.rejecting:
        raise Refused(Refusal.VOTED)
    if body.approve:
        proposal = replace(proposal, approving=tuple(sorted((*proposal.approving, body.by))))
    else:
        proposal = replace(proposal, rejecting=tuple(sorted((*proposal.rejecting, body.by))))
    governance.enter(draft, block, body.proposal, proposal)


VOTE = Kind(
    name="vote",
    since=1,
    body=Vote,
    members={"proposal": digest, "approve": flag},
    sender=BY_MEMBER,
    execute=_execute,
    leaves=governance.DECISION_LEAVES,
)
