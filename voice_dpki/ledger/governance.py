"""Decisions of the operators: proposals, votes, and when changes take effect.

A change needs the approval of more than two thirds of the operators, that is, of the members of kind operator that
are not suspended. The proposer's approval is implied. An operator that approves another version of the rules says
that its validators can execute it, so the validators of those that approve must also have more than two thirds of
the power.

A change of members or rules takes effect with the first block after the ledger's delay, if the quorum still holds
then and the change is still possible. The responses to a compromise (suspending a member, revoking or suspending
certificates) take effect at once. A proposal is removed from the state after its deadline, or when it has taken
effect if that is later. It cannot be submitted again, because its deadline is signed with it.

From version 3 of the rules on, open proposals are counted again when the operators have changed, and a proposer can
withdraw its own.

docs/spec/state.md#decisions specifies it.
"""

from collections.abc import Callable, Collection
from dataclasses import replace

from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.ledger import (
    activation,
    compromise,
    directory,
    organizations,
    owners,
    probation,
    proposals,
    quotas,
    validators,
)
from voice_dpki.ledger.draft import Block, Draft
from voice_dpki.ledger.members import MEMBER_LEAF, Member
from voice_dpki.ledger.parameters import parameters_of
from voice_dpki.ledger.proposals import (
    BeginRules,
    Change,
    Proposal,
    ProposalState,
    RemoveMember,
    ResumeMember,
    SetMember,
    SetStatus,
    SuspendMember,
    parse_change,
    proposal_of,
)
from voice_dpki.ledger.records import CERTIFICATE_LEAF, Authority, CertRecord, CertStatus
from voice_dpki.ledger.refusals import Refusal, Refused
from voice_dpki.ledger.single_numbers import singles_of
from voice_dpki.ledger.view import StateView

UNDECIDED = frozenset({ProposalState.OPEN, ProposalState.PASSED})
"""States in which votes count. A passed change still takes them, because its quorum is checked again."""

DECISION_LEAVES = (
    proposals.PROPOSAL_LEAF,
    proposals.LIST_LEAF,
    MEMBER_LEAF,
    directory.DIRECTORY_LEAF,
    validators.VALIDATORS_LEAF,
    activation.RULES_LEAF,
    owners.KEY_LEAF,
    CERTIFICATE_LEAF,
)
"""The kinds of leaves that proposals write, and the changes that they decide on."""


def take_effect(draft: Draft, block: Block) -> None:
    """Make the changes that are due at this block, in the order of their due times, and drop expired proposals.

    Raises LocalError if a listed proposal is missing.
    """
    due = [
        entry
        for entry in proposals.entries_of(draft)
        if block.height >= entry.height and block.time_s >= entry.time_s
    ]
    if not due:  # in most blocks; the members are then not read
        return
    operators = directory.operators_of(draft)
    for entry in sorted(due, key=lambda entry: (entry.height, entry.time_s, entry.proposal_id)):
        proposal = proposal_of(draft, entry.proposal_id)
        if proposal is None:
            raise LocalError("the ledger's state is damaged: a proposal is missing")
        if proposal.state is ProposalState.PASSED:
            proposal = _executed(draft, block, proposal)
        if block.time_s > proposal.until_s:
            proposals.drop(draft, entry.proposal_id)
        else:
            proposals.put(draft, entry.proposal_id, proposal)
    _recount(draft, block, operators)


def enter(draft: Draft, block: Block, identity: bytes, proposal: Proposal) -> None:
    """Write a proposal that has a new vote, and decide it if its votes suffice."""
    operators = directory.operators_of(draft)
    proposals.put(draft, identity, counted(draft, block, proposal))
    _recount(draft, block, operators)


def _recount(draft: Draft, block: Block, before: frozenset[str]) -> None:
    """Count the votes on open proposals again if the operators are no longer those `before`.

    A proposal that passes in a recount can suspend an operator at once, so this repeats until no operator changes.
    """
    while draft.rules.recounts and (operators := directory.operators_of(draft)) != before:
        for entry in proposals.entries_of(draft):
            proposal = proposal_of(draft, entry.proposal_id)
            if proposal is not None and (decided := counted(draft, block, proposal)) != proposal:
                proposals.put(draft, entry.proposal_id, decided)
        before = operators


def is_quorum(votes: int, operators: int) -> bool:
    """Return whether `votes` are more than two thirds of `operators`."""
    return 3 * votes > 2 * operators


def least_quorum(number: int) -> int:
    """Return the smallest count that is more than two thirds of `number`."""
    return 2 * number // 3 + 1


def counted(draft: Draft, block: Block, proposal: Proposal) -> Proposal:
    """Return the proposal, decided if it was open and its votes suffice to pass or to fail it."""
    if proposal.state is not ProposalState.OPEN:
        return proposal
    operators = directory.operators_of(draft)
    if _has_quorum(draft, proposal):
        if is_at_once(parse_change(proposal.change)):
            return _executed(draft, block, proposal)
        parameters = parameters_of(draft)
        due = block.height + max(parameters.delay_blocks, 1), block.time_s + parameters.delay_s
        return replace(proposal, state=ProposalState.PASSED, due_height=due[0], due_s=due[1])
    if not is_quorum(len(operators) - len(operators.intersection(proposal.rejecting)), len(operators)):
        return _failed(proposal, Refusal.QUORUM)
    return proposal


def is_at_once(change: Change) -> bool:
    """Tell whether a change responds to a compromise, so that it takes effect without a delay."""
    if isinstance(change, SetStatus):
        return change.status is not CertStatus.VALID
    return isinstance(change, SuspendMember)


def withdrawn(proposal: Proposal) -> Proposal:
    """Return an undecided proposal as failed, because its proposer has withdrawn it."""
    return _failed(proposal, Refusal.WITHDRAWN)


def _executed(draft: Draft, block: Block, proposal: Proposal) -> Proposal:
    """Make the change if its quorum still holds and it is still possible; return the proposal, done or failed."""
    own = draft.nested()
    try:
        if not _has_quorum(draft, proposal):
            raise Refused(Refusal.QUORUM)
        _make(own, block, parse_change(proposal.change))
    except Refused as refused:
        return _failed(proposal, refused.refusal)
    draft.take_over(own)
    return replace(proposal, state=ProposalState.DONE)


def _failed(proposal: Proposal, refusal: Refusal) -> Proposal:
    return replace(proposal, state=ProposalState.FAILED, why=refusal.kebab)


def _has_quorum(draft: Draft, proposal: Proposal) -> bool:
    """Return whether the approvals of the present operators make a quorum."""
    operators = directory.operators_of(draft)
    approving = operators.intersection(proposal.approving)
    if not is_quorum(len(approving), len(operators)):
        return False
    return not isinstance(parse_change(proposal.change), BeginRules) or is_quorum(*ready(draft, approving))


def ready(view: StateView, approving: Collection[str]) -> tuple[int, int]:
    """Return the voting power of the `approving` members' validators, and that of all validators."""
    powers = validators.powers(view)
    theirs = {key for name in approving if (member := view.member(name)) for key in member.validators}
    return sum(powers.get(key, 0) for key in theirs), sum(powers.values())


def check_operator(member: Member) -> None:
    """Raise Refused unless the member may propose and vote."""
    if not member.votes:
        raise Refused(Refusal.NOT_OPERATOR)


def since(change: Change) -> int:
    """Return the first version of the rules under which a change can be proposed."""
    if isinstance(change, SetStatus) and change.status is CertStatus.VALID:
        return 3
    if isinstance(change, SetMember) and (change.member.cps or singles_of(change.member.ranges)):
        return 4
    return _SINCE.get(type(change), 1)


def check_possible(draft: Draft, block: Block, data: bytes) -> None:
    """Raise Refused for a change, as encoded, that could not take effect in this block."""
    try:
        change = parse_change(data)
    except MalformedError:
        raise Refused(Refusal.CHANGE) from None
    if since(change) > draft.rules.version:
        raise Refused(Refusal.CHANGE)
    _make(draft.nested(), block, change)


def _make(draft: Draft, block: Block, change: Change) -> None:
    """Make a change; raises Refused if it is not possible."""
    _MAKERS[type(change)](draft, block, change)


def _set_member(draft: Draft, block: Block, change: SetMember) -> None:
    old = draft.member(change.member.organization)
    if (old.revision if old else None) != change.revision:
        raise Refused(Refusal.MEMBER_REVISION)
    if draft.rules.sound_keys:
        _check_keys(change.member)
    if draft.rules.prepares_names and old is None:
        organizations.check_new(draft, change.member.organization)
    revision = old.revision + 1 if old else 0
    admitted_height = old.admitted_height if old else block.height
    before = probation.shares_of(draft) if draft.rules.probation else None
    directory.install(draft, replace(change.member, revision=revision, admitted_height=admitted_height))
    if before is not None:
        probation.check_shares(draft, before)


def _check_keys(member: Member) -> None:
    try:
        member.check_validators()
    except MalformedError:
        raise Refused(Refusal.VALIDATOR_KEY) from None


def _remove_member(draft: Draft, _: Block, change: RemoveMember) -> None:
    _require_member(draft, change.organization)
    directory.remove(draft, change.organization)


def _suspend_member(draft: Draft, _: Block, change: SuspendMember) -> None:
    member = _require_member(draft, change.organization)
    directory.install(draft, replace(member, suspended=True, revision=member.revision + 1))


def _resume_member(draft: Draft, _: Block, change: ResumeMember) -> None:
    member = _require_member(draft, change.organization)
    if not member.suspended:
        raise Refused(Refusal.NOT_SUSPENDED)
    directory.install(draft, replace(member, suspended=False, revision=member.revision + 1))


def _require_member(draft: Draft, organization: str) -> Member:
    member = draft.member(organization)
    if member is None:
        raise Refused(Refusal.MEMBER_REVISION)
    return member


def _set_status(draft: Draft, block: Block, change: SetStatus) -> None:
    """Change the status of certificates; a revoked one stays so, but the first report of a compromised key counts.

    Only certificates that the operators suspended become valid again, because others may have been suspended for
    another reason. Revisions are not compared: otherwise an owner could evade the decision by changing its
    certificate's status.
    """
    fallen = 0
    for digest in change.digests:
        record = draft.record(digest)
        if record is None:
            raise Refused(Refusal.NOT_RECORDED)
        if change.status is CertStatus.VALID and not _is_suspended_by_quorum(record):
            raise Refused(Refusal.NOT_SUSPENDED)
        if change.status is CertStatus.VALID and owners.is_compromised(draft, record.key_id):
            raise Refused(Refusal.COMPROMISED)
        again = compromise.is_due(draft, record.key_id, change.status, change.reason)
        if record.status is CertStatus.REVOKED and not again:
            continue
        changed = replace(
            record,
            status=change.status,
            changed_height=block.height,
            revision=record.revision + 1,
            reason=change.reason,
            changed_by=Authority.QUORUM,
        )
        draft.put_record(digest, changed)
        fallen += compromise.spread(draft, block, digest, changed)
    if fallen > quotas.MAX_BLOCK_CERTIFICATES:
        raise Refused(Refusal.TOO_MANY_FALL)


def _is_suspended_by_quorum(record: CertRecord) -> bool:
    return record.status is CertStatus.SUSPENDED and record.changed_by is Authority.QUORUM


def _begin_rules(draft: Draft, block: Block, change: BeginRules) -> None:
    activation.schedule(draft, block, change.version, change.height)


_MAKERS: dict[type, Callable[..., None]] = {
    SetMember: _set_member,
    RemoveMember: _remove_member,
    SuspendMember: _suspend_member,
    ResumeMember: _resume_member,
    SetStatus: _set_status,
    BeginRules: _begin_rules,
}

_SINCE: dict[type, int] = {BeginRules: 2, ResumeMember: 3}
"""First version of the rules under which each kind of change can be proposed; 1 for the other kinds."""
