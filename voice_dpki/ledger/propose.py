"""Proposing a change to the operators.

"propose"       "until_s": uint, "change": bytes                            -- `voice_dpki.ledger.proposals`

docs/spec/encodings.md#transactions specifies it.
"""

from dataclasses import dataclass

from voice_dpki.ledger import governance, proposals
from voice_dpki.ledger.draft import Block, Draft
from voice_dpki.ledger.kind import BY_MEMBER, Body, Kind, SignedBody, long_bytes, number
from voice_dpki.ledger.members import Member
from voice_dpki.ledger.parameters import parameters_of
from voice_dpki.ledger.proposals import Proposal, ProposalState
from voice_dpki.ledger.refusals import Refusal, Refused


@dataclass(frozen=True, slots=True)
class Propose(Body):
    """Propose a change (`voice_dpki.ledger.proposals.Change`) that the operators can decide on until `until_s`."""

    until_s: int
    change: bytes


def _execute(draft: Draft, block: Block, member: Member, signed: SignedBody[Propose]) -> None:
    """Enter a proposal, with its proposer's approval; raises Refused."""
    body = signed.body
    governance.check_operator(member)
    parameters = parameters_of(draft)
    if not block.time_s < body.until_s <= block.time_s + parameters.voting_s:
        raise Refused(Refusal.DEADLINE)
    identity = proposals.proposal_id(signed.body_bytes)
    if proposals.proposal_of(draft, identity) is not None:
        raise Refused(Refusal.PROPOSED)
    listed = [entry.by for entry in proposals.entries_of(draft)]
    if len(listed) >= proposals.MAX_PROPOSALS or listed.count(body.by) >= parameters.proposals_per_operator:
        raise Refused(Refusal.PROPOSALS)
    governance.check_possible(draft, block, body.change)
    state = ProposalState.OPEN
    proposal = Proposal(body.by, body.change, body.until_s, state, None, (body.by,), (), 0, 0)
    governance.enter(draft, block, identity, proposal)


PROPOSE = Kind(
    name="propose",
    since=1,
    body=Propose,
    members={"until_s": number, "change": long_bytes},
    sender=BY_MEMBER,
    execute=_execute,
    leaves=governance.DECISION_LEAVES,
)
