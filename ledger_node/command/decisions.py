"""`voice-dpki ledger propose`, `vote`, `withdraw`, `proposals` and `members`: members, and decisions on them."""

import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path

from rich.table import Table

from ledger_node.command.details import Count, count, date, lines, outlook
from ledger_node.command.difference import Difference, describe_member, difference_of
from ledger_node.command.member_export import export_member
from ledger_node.command.reading import all_members, read_members
from ledger_node.command.rules import (
    add_first_block,
    check_executable,
    describe_ready,
    describe_rules_change,
    propose_rules,
)
from ledger_node.command.session import Commands, Session, add_endorser, parse_digest
from ledger_node.command.stalling import add_force, checked_weight, on_validators, weight_of
from ledger_node.command.versions import read_versions
from ledger_node.make import member_file
from ledger_node.make.member_file import load_member
from voice_dpki.errors import LocalError, MalformedError, PeerError
from voice_dpki.ledger.activation import read_notice
from voice_dpki.ledger.governance import UNDECIDED
from voice_dpki.ledger.members import Member
from voice_dpki.ledger.parameters import PARAMETERS_LEAF
from voice_dpki.ledger.proposals import (
    LIST_LEAF,
    PROPOSAL_LEAF,
    Change,
    Proposal,
    RemoveMember,
    ResumeMember,
    SetMember,
    SetStatus,
    SuspendMember,
    encode_change,
    parse_change,
    proposal_id,
)
from voice_dpki.ledger.records import REASONS, CertStatus
from voice_dpki.ledger.rules import rules_for
from voice_dpki.ledger.transactions import (
    Propose,
    Transaction,
    Vote,
    endorse,
)
from voice_dpki.shell.options import number

DAY_S = 86_400
MAX_VOTING_DAYS = 366


_ID = "the proposal's id, or its first digits"


def add_governance_commands(commands: Commands) -> None:
    """Add the commands about members and decisions."""
    propose = commands.add_parser(
        "propose",
        help="ask the operators for a change",
        description=f"Ask operators for a change. To admit or change a member, its file:\n\n{member_file.EXAMPLE}",
    )
    propose.set_defaults(work=_propose)
    voting_days = number(above=0, most=MAX_VOTING_DAYS, unit="days")
    propose.add_argument("what", choices=sorted(_PROPOSALS), help="what to do")
    about = "a member's file; an organisation; certificates; or a version of the rules"
    propose.add_argument("about", nargs="+", help=about)
    add_first_block(propose)
    propose.add_argument(
        "--days", type=voting_days, default=7, help="how long operators can vote (default: %(default)s)"
    )
    propose.add_argument(
        "--reason", choices=sorted(REASONS), default="keyCompromise", help="(default: %(default)s)"
    )
    add_force(propose)
    add_endorser(propose)
    vote = commands.add_parser("vote", help="vote on a proposal")
    vote.set_defaults(work=_vote)
    vote.add_argument("proposal", help=_ID)
    vote.add_argument("--reject", action="store_true", help="vote against it")
    add_force(vote)
    add_endorser(vote)
    withdraw = commands.add_parser("withdraw", help="take back a proposal of one's own that is not in effect")
    withdraw.set_defaults(work=_withdraw)
    withdraw.add_argument("proposal", help=_ID)
    add_endorser(withdraw)
    listed = commands.add_parser("proposals", help="list the proposals on the ledger, or show one whole")
    listed.set_defaults(work=_proposals)
    listed.add_argument("proposal", nargs="?", help=_ID)
    members = commands.add_parser("members", help="list the members and what is theirs, or show one whole")
    members.set_defaults(work=_members)
    members.add_argument("name", nargs="?", help="an organisation")
    members.add_argument(
        "--export",
        type=Path,
        metavar="FILE",
        help="write its file, which `propose change` takes",
    )


async def _propose(session: Session) -> None:
    options = session.options
    if options.first_block is not None and options.what != "rules":
        raise LocalError("--from is the first block of a version of the rules, and of nothing else")
    change = await _PROPOSALS[options.what](session)
    await check_executable(session, change)
    weight = await checked_weight(session, change)
    until_s = int(time.time() + options.days * DAY_S)
    body = Propose(session.genesis.chain_id, options.organization, until_s, encode_change(change))
    raw = endorse(body, [session.signer])
    height = await session.sent(raw)
    identity = proposal_id(Transaction.parse(raw).body_bytes).hex()
    session.tell(
        {"proposal": identity, "height": height, "validators": weight},
        f"Proposed in block {height}, with your approval: {identity}",
        f"Other operators vote with: voice-dpki ledger vote ... {identity[:12]}",
        *on_validators(weight),
    )


async def _admit(session: Session) -> Change:
    return SetMember(load_member(Path(_only(session))), None)


async def _alter(session: Session) -> Change:
    member = load_member(Path(_only(session)))
    present = (await read_members(session, [member.organization]))[0]
    if present is None:
        raise LocalError(f"{member.organization} is no member")
    return SetMember(member, present.revision)


async def _remove(session: Session) -> Change:
    return RemoveMember(_only(session))


async def _suspend(session: Session) -> Change:
    return SuspendMember(_only(session))


async def _resume(session: Session) -> Change:
    return ResumeMember(_only(session))


async def _rules(session: Session) -> Change:
    return await propose_rules(session, _only(session))


async def _revoke_certificates(session: Session) -> Change:
    digests = tuple(map(parse_digest, session.options.about))
    return SetStatus(digests, CertStatus.REVOKED, session.options.reason)


async def _suspend_certificates(session: Session) -> Change:
    digests = tuple(map(parse_digest, session.options.about))
    return SetStatus(digests, CertStatus.SUSPENDED, session.options.reason)


async def _resume_certificates(session: Session) -> Change:
    return SetStatus(tuple(map(parse_digest, session.options.about)), CertStatus.VALID, "removeFromCRL")


_PROPOSALS: dict[str, Callable[[Session], Coroutine[object, object, Change]]] = {
    "admit": _admit,
    "change": _alter,
    "remove": _remove,
    "suspend": _suspend,
    "resume": _resume,
    "rules": _rules,
    "revoke-certificates": _revoke_certificates,
    "suspend-certificates": _suspend_certificates,
    "resume-certificates": _resume_certificates,
}
"""For each kind of proposal, the function that makes the change from the command's arguments."""


async def _vote(session: Session) -> None:
    options = session.options
    identity, proposal = await _the_proposal(session)
    weight = None
    if not options.reject:
        change = asked_change(proposal)
        await check_executable(session, change)
        weight = await checked_weight(session, change)
    height, proposal = await _voted(session, identity, approve=not options.reject)
    said = f"Voted in block {height}; the proposal is {describe_state(proposal)}"
    result = {"proposal": identity, "height": height, "state": proposal.state, "why": proposal.why}
    session.tell(result | {"validators": weight}, said, *on_validators(weight))


async def _withdraw(session: Session) -> None:
    identity, proposal = await _the_proposal(session)
    if proposal.by != session.options.organization:
        raise LocalError(f"{proposal.by} has made this proposal, and only {proposal.by} can withdraw it")
    known = await read_versions(session.client)
    if not rules_for(known.present, known.height + 1).withdraws:
        raise LocalError(f"the ledger follows version {known.present} of its rules, and this needs version 3")
    height, proposal = await _voted(session, identity, approve=False)
    said = f"Withdrawn in block {height}; the proposal is {describe_state(proposal)}"
    session.tell({"proposal": identity, "height": height, "state": proposal.state, "why": proposal.why}, said)


async def _voted(session: Session, identity: bytes, *, approve: bool) -> tuple[int, Proposal]:
    """Vote; return the vote's block, and the proposal after it."""
    vote = Vote(session.genesis.chain_id, session.options.organization, identity, approve)
    height = await session.endorsed(vote)
    ((_, proposal),) = [each for each in await _read_proposals(session) if each[0] == identity]
    return height, proposal


async def _the_proposal(session: Session) -> tuple[bytes, Proposal]:
    """Return the one proposal whose id begins with the command's argument; raises LocalError."""
    begun = session.options.proposal
    matching = [each for each in await _read_proposals(session) if each[0].hex().startswith(begun)]
    if len(matching) != 1:
        raise LocalError(f"{len(matching)} proposals on the ledger begin with {begun}")
    return matching[0]


async def _proposals(session: Session) -> None:
    members = await all_members(session)
    if session.options.proposal:
        identity, proposal = await _the_proposal(session)
        result, said = await _whole(session, identity, proposal, members)
        session.tell(result, *said)
        return
    table, results = Table("id", "by", "change", "state", "for", "against"), []
    for identity, proposal in await _read_proposals(session):
        votes = ", ".join(proposal.approving), ", ".join(proposal.rejecting)
        about = await _about(session, proposal)
        table.add_row(identity.hex()[:12], proposal.by, about, describe_state(proposal), *votes)
        results.append(_form(identity, proposal, about, count(proposal, members)))
    session.tell(results, table)


async def _whole(
    session: Session, identity: bytes, proposal: Proposal, members: Sequence[Member]
) -> tuple[dict[str, object], list[str]]:
    """Return all about a proposal, for programs and for people."""
    about, counted = await _about(session, proposal), count(proposal, members)
    try:
        change = asked_change(proposal)
    except LocalError:
        change = None
    (parameters,) = await session.client.read(PARAMETERS_LEAF, [PARAMETERS_LEAF.key()])
    if parameters is None:
        raise PeerError("the ledger has no parameters, which is proved")
    comes, found, weight = outlook(proposal, change, counted, parameters), Difference(), None
    if change is not None and proposal.state in UNDECIDED:
        weight = await weight_of(session, members, change)
        present = (await read_versions(session.client)).present
        found = await difference_of(session, change, present)
    result = _form(identity, proposal, about, counted)
    result |= {"outlook": comes, "gone": found.gone, "come": found.come, "note": found.note, "validators": weight}
    return result, [*lines(identity, proposal, about, counted, found, comes), *on_validators(weight)]


def _form(identity: bytes, proposal: Proposal, about: str, counted: Count) -> dict[str, object]:
    """Return a proposal as JSON shows it (docs/ledger-command.md)."""
    known = {name: getattr(proposal, name) for name in ("by", "state", "why", "until_s", "due_height", "due_s")}
    votes = {name: getattr(counted, name) for name in ("approving", "rejecting", "missing", "operators", "quorum")}
    return {"id": identity, "about": about, **known, **votes, "needed": counted.needed, "change": proposal.change}


async def _about(session: Session, proposal: Proposal) -> str:
    try:
        change = asked_change(proposal)
    except LocalError as error:
        return str(error)
    share = await describe_ready(session, proposal, change)
    return f"{describe_change(change)} ({share})" if share else describe_change(change)


def asked_change(proposal: Proposal) -> Change:
    """Return what a proposal asks for; raises LocalError if this release does not know it."""
    try:
        return parse_change(proposal.change)
    except MalformedError:
        raise LocalError("only a later release of voice-dpki knows what this proposal asks for") from None


async def _members(session: Session) -> None:
    if session.options.name:
        await _member(session)
        return
    if session.options.export:
        raise LocalError("--export writes one member's file: name the member")
    table = Table("organization", "kind", "domains", "numbers", "codes", "validators", "keys", "revision")
    found = await all_members(session)
    members = [member for member in found if read_notice(member.organization) is None]
    for member in members:
        table.add_row(*_row(member))
    notices = len(found) - len(members)
    note = f"Not listed: notices of versions of the rules ({notices}); see voice-dpki ledger rules"
    session.tell(members, table, *([note] if notices else []))


async def _member(session: Session) -> None:
    """Show a member's whole record, and write its file if requested."""
    name, path = session.options.name, session.options.export
    (member,) = await read_members(session, [name])
    if member is None:
        raise PeerError(f"{name} is no member, which is proved")
    if path is None:
        session.tell(member, *describe_member(member))
        return
    files = export_member(member, path)
    said = [f"Made {path}, and {len(files) - 1} files with its keys beside it."]
    if member.suspended:
        said.append(f"To propose this file as a change also ends the suspension of {name}.")
    session.tell({"files": [str(each) for each in files]}, *said)


def _row(member: Member) -> tuple[str, ...]:
    numbers = ", ".join(f"+{entry.start} ({entry.count})" for entry in member.ranges)
    return (
        member.organization,
        f"{member.kind} (suspended)" if member.suspended else str(member.kind),
        ", ".join(member.domains),
        numbers,
        ", ".join(member.spcs),
        str(len(member.validators)),
        str(len(member.endorsing_keys)),
        str(member.revision),
    )


def describe_change(change: Change) -> str:
    """Return in a few words what a proposal asks for."""
    match change:
        case SetMember(member, revision) if not read_notice(member.organization):
            return f"{'admit' if revision is None else 'change'} {member.organization}"
        case RemoveMember(organization) if not read_notice(organization):
            return f"remove {organization}"
        case SuspendMember(organization) if not read_notice(organization):
            return f"suspend {organization}"
        case ResumeMember(organization):
            return f"end the suspension of {organization}"
        case SetStatus(digests, CertStatus.VALID, _):
            return f"end the suspension of {len(digests)} certificate{'s' if len(digests) > 1 else ''}"
        case SetStatus(digests, status, reason):
            return f"{status}: {len(digests)} certificates ({reason})"
    return describe_rules_change(change)


def describe_state(proposal: Proposal) -> str:
    """Return a proposal's state, why it failed if it did, and when it takes effect if that is known."""
    why = f" ({proposal.why})" if proposal.why else ""
    due = f", takes effect {date(proposal.due_s)}" if proposal.due_s and not why else ""
    return f"{proposal.state}{why}{due}"


async def _read_proposals(session: Session) -> list[tuple[bytes, Proposal]]:
    (listed,) = await session.client.read(LIST_LEAF, [LIST_LEAF.key()])
    identities = [entry.proposal_id for entry in listed or ()]
    found = await session.client.read(PROPOSAL_LEAF, [PROPOSAL_LEAF.key(identity) for identity in identities])
    return [(identity, proposal) for identity, proposal in zip(identities, found, strict=True) if proposal]


def _only(session: Session) -> str:
    (about, *others) = session.options.about
    if others:
        raise LocalError(f"{session.options.what} takes one argument")
    return str(about)
