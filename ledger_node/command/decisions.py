"""`voice-dpki ledger propose`, `vote`, `proposals` and `members`: what operators decide, and on whom."""

import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path

from rich.table import Table

from ledger_node.command.rules import (
    add_first_block,
    check_executable,
    describe_ready,
    describe_rules_change,
    propose_rules,
)
from ledger_node.command.session import CONSOLE, Commands, Session, add_endorser, parse_digest
from ledger_node.make import member_file
from ledger_node.make.member_file import load_member
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.ledger.activation import read_notice
from voice_dpki.ledger.directory import DIRECTORY_LEAF
from voice_dpki.ledger.members import MEMBER_LEAF, Member, member_key
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
from voice_dpki.ledger.transactions import (
    Propose,
    Transaction,
    Vote,
    endorse,
)
from voice_dpki.shell.options import number

DAY_S = 86_400
MAX_VOTING_DAYS = 366


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
    add_endorser(propose)
    vote = commands.add_parser("vote", help="vote on a proposal")
    vote.set_defaults(work=_vote)
    vote.add_argument("proposal", help="the proposal's id, or its first digits")
    vote.add_argument("--reject", action="store_true", help="vote against it")
    add_endorser(vote)
    commands.add_parser("proposals", help="list the proposals on the ledger").set_defaults(work=_proposals)
    commands.add_parser("members", help="list the members and what is theirs").set_defaults(work=_members)


async def _propose(session: Session) -> None:
    options = session.options
    if options.first_block is not None and options.what != "rules":
        raise LocalError("--from is the first block of a version of the rules, and of nothing else")
    change = await _PROPOSALS[options.what](session)
    await check_executable(session, change)
    until_s = int(time.time() + options.days * DAY_S)
    body = Propose(session.genesis.chain_id, options.organization, until_s, encode_change(change))
    raw = endorse(body, [session.signer])
    height = await session.sent(raw)
    identity = proposal_id(Transaction.parse(raw).body_bytes).hex()
    CONSOLE.print(f"Proposed in block {height}, with your approval: {identity}")
    CONSOLE.print(f"Other operators vote with: voice-dpki ledger vote ... {identity[:12]}")


async def _admit(session: Session) -> Change:
    return SetMember(load_member(Path(_only(session))), None)


async def _alter(session: Session) -> Change:
    member = load_member(Path(_only(session)))
    present = (await _read_members(session, [member.organization]))[0]
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
    matching = [each for each in await _read_proposals(session) if each[0].hex().startswith(options.proposal)]
    if len(matching) != 1:
        raise LocalError(f"{len(matching)} proposals on the ledger begin with {options.proposal}")
    ((identity, proposal),) = matching
    if not options.reject:
        await check_executable(session, asked_change(proposal))
    vote = Vote(session.genesis.chain_id, options.organization, identity, not options.reject)
    height = await session.endorsed(vote)
    ((_, proposal),) = [each for each in await _read_proposals(session) if each[0] == identity]
    CONSOLE.print(f"Voted in block {height}; the proposal is {describe_state(proposal)}")


async def _proposals(session: Session) -> None:
    table = Table("id", "by", "change", "state", "for", "against")
    for identity, proposal in await _read_proposals(session):
        votes = ", ".join(proposal.approving), ", ".join(proposal.rejecting)
        table.add_row(
            identity.hex()[:12], proposal.by, await _about(session, proposal), describe_state(proposal), *votes
        )
    CONSOLE.print(table)


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
    (listed,) = await session.client.read(DIRECTORY_LEAF, [DIRECTORY_LEAF.key()])
    table = Table("organization", "kind", "domains", "numbers", "codes", "validators", "keys", "revision")
    organizations = [name for name in listed or () if read_notice(name) is None]
    for member in await _read_members(session, organizations):
        if member is not None:
            table.add_row(*_row(member))
    CONSOLE.print(table)
    if notices := len(listed or ()) - len(organizations):
        CONSOLE.print(f"Not listed: notices of versions of the rules ({notices}); see voice-dpki ledger rules")


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
    due = f", takes effect {_date(proposal.due_s)}" if proposal.due_s and not why else ""
    return f"{proposal.state}{why}{due}"


async def _read_proposals(session: Session) -> list[tuple[bytes, Proposal]]:
    (listed,) = await session.client.read(LIST_LEAF, [LIST_LEAF.key()])
    identities = [entry.proposal_id for entry in listed or ()]
    found = await session.client.read(PROPOSAL_LEAF, [PROPOSAL_LEAF.key(identity) for identity in identities])
    return [(identity, proposal) for identity, proposal in zip(identities, found, strict=True) if proposal]


async def _read_members(session: Session, organizations: Sequence[str]) -> list[Member | None]:
    return await session.client.read(MEMBER_LEAF, [member_key(organization) for organization in organizations])


def _only(session: Session) -> str:
    (about, *others) = session.options.about
    if others:
        raise LocalError(f"{session.options.what} takes one argument")
    return str(about)


def _date(time_s: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(time_s))
