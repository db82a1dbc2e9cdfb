"""`voice-dpki ledger`: the commands for people who use a ledger, with keys named by file.

The node need not be trusted: its answers are verified from the genesis file on, and transactions are signed here.
"""

import argparse
import asyncio
import time
from argparse import Namespace
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ledger_node.command.sending import Bulk, Report, Sender, collect, read_certificate
from ledger_node.make import member_file
from ledger_node.make.member_file import load_member
from voice_dpki.effects import Signer
from voice_dpki.errors import LocalError, PeerError
from voice_dpki.ledger.answers import MAX_LEAVES, Resolution
from voice_dpki.ledger.directory import DIRECTORY_KEY, parse_organizations
from voice_dpki.ledger.genesis import Genesis
from voice_dpki.ledger.members import Member, member_key
from voice_dpki.ledger.proposals import (
    LIST_KEY,
    Change,
    Proposal,
    RemoveMember,
    SetMember,
    SetStatus,
    SuspendMember,
    encode_change,
    parse_change,
    parse_entries,
    proposal_id,
    proposal_key,
)
from voice_dpki.ledger.records import REASONS, CertRecord, CertStatus
from voice_dpki.ledger.transactions import (
    Body,
    ChangeStatus,
    OwnerStatus,
    Propose,
    Renew,
    Transaction,
    Vote,
    endorse,
    renewal_bytes,
)
from voice_dpki.names import CertDigest
from voice_dpki.shell.credentials import read_signer
from voice_dpki.shell.files import write_file
from voice_dpki.shell.ledger import read_genesis
from voice_dpki.shell.options import number
from voice_dpki.shell.program import Parser, run, run_command
from voice_dpki.shell.tls import COMMAND_HELP, command_context
from voice_dpki.wire.ledger.client import LedgerClient
from voice_dpki.x509.profile import digest_of

DAY_S = 86_400
MAX_VOTING_DAYS = 366
DEFAULT_URL = "http://127.0.0.1:26680"

TRUST_FILE = "ledger-trust.json"
"""The newest trusted header, beside the genesis; without it, commands fail 14 days after it (`ledger.light`)."""

DESCRIPTION = """\
Certificates, members and decisions on a ledger. Every answer is verified from the genesis file on.

  voice-dpki ledger submit --genesis genesis.json --organization "Operator A" --key endorsing-a.pem certificates/
  voice-dpki ledger status --genesis genesis.json device.pem
  voice-dpki ledger revoke --genesis genesis.json --owner-key device-key.pem --reason keyCompromise device.pem
  voice-dpki ledger propose --genesis genesis.json --organization "Operator A" --key endorsing-a.pem admit e.toml
  voice-dpki ledger vote --genesis genesis.json --organization "Operator B" --key endorsing-b.pem 1f0c..
"""

CONSOLE = Console(highlight=False)


@dataclass(frozen=True, slots=True)
class Session:
    """One command's options, and its client and sender for a node."""

    options: Namespace
    genesis: Genesis
    client: LedgerClient
    sender: Sender
    stop: asyncio.Event

    @property
    def signer(self) -> Signer:
        """The member's endorsing key."""
        return read_signer(self.options.key, "key")

    async def endorsed(self, body: Body) -> int:
        """Sign a transaction with the endorsing key and send it; return the height of its block.

        Raises PeerError where the ledger refuses it.
        """
        return await self.sent(endorse(body, [self.signer]))

    async def sent(self, raw: bytes) -> int:
        """Send a transaction; return the height of its block. Raises PeerError where the ledger refuses it."""
        return (await self.sender.send(raw)).height or 0


def command(arguments: list[str]) -> int:
    """Record, renew and revoke certificates on a ledger; propose and vote on its members."""
    options = _parser().parse_args(arguments)
    genesis = read_genesis(options.genesis)
    if options.work is _submit:  # it stops between two batches, so that no transaction's fate is left open
        return run(lambda stop: _work(options, genesis, stop), hangup_stops=True)
    return run_command(_work(options, genesis, asyncio.Event()))


async def _work(options: Namespace, genesis: Genesis, stop: asyncio.Event) -> int | None:
    tls, trust = command_context(options.tls), options.trust or options.genesis.with_name(TRUST_FILE)
    async with (
        LedgerClient.of_genesis(options.url, genesis, trust_file=trust, tls=tls) as client,
        Sender(options.url, tls) as sender,
    ):
        work: Coroutine[object, object, int | None] = options.work(Session(options, genesis, client, sender, stop))
        return await work


def _parser() -> Parser:
    parser = Parser(prog="voice-dpki ledger", description=DESCRIPTION)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    _add_certificate_commands(commands)
    _add_governance_commands(commands)
    for each in commands.choices.values():
        each.add_argument("--url", default=DEFAULT_URL, help="the node to talk to (default: %(default)s)")
        each.add_argument(
            "--genesis", type=Path, required=True, help="the ledger's genesis file: the root of trust"
        )
        each.add_argument(
            "--trust",
            type=Path,
            metavar="FILE",
            help=f"where the newest trusted header is kept (default: {TRUST_FILE} beside the genesis)",
        )
        each.add_argument("--tls", type=Path, metavar="FILE", help=COMMAND_HELP)
    return parser


_Commands = argparse._SubParsersAction
_Add = Callable[[Parser], None]


def _add_certificate_commands(commands: "_Commands[Parser]") -> None:
    submit = commands.add_parser("submit", help="have certificates recorded: files, or folders with thousands")
    submit.set_defaults(work=_submit)
    submit.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="certificate in DER or PEM, or folder")
    submit.add_argument("--report", type=Path, help="write what became of them to this file, as JSON")
    _add_endorser(submit)
    renew = commands.add_parser("renew", help="have a certificate follow another, which stays valid")
    renew.set_defaults(work=_renew)
    renew.add_argument("old", help="the certificate to be renewed: file or H(CERT)")
    renew.add_argument("new", type=Path, help="the certificate that follows it")
    renew.add_argument("--owner-key", type=Path, required=True, help="private key of the old certificate")
    _add_endorser(renew)
    for name, status, reason in (
        ("revoke", CertStatus.REVOKED, "unspecified"),
        ("suspend", CertStatus.SUSPENDED, "certificateHold"),
        ("resume", CertStatus.VALID, "removeFromCRL"),
    ):
        change = commands.add_parser(name, help=f"{name} a certificate, as its owner or its endorser")
        change.set_defaults(work=_change_status, status=status)
        change.add_argument("certificate", help="file or H(CERT)")
        change.add_argument("--reason", choices=sorted(REASONS), default=reason, help="(default: %(default)s)")
        change.add_argument("--owner-key", type=Path, help="the certificate's private key; or:")
        _add_endorser(change, required=False)
    ask = commands.add_parser("status", help="tell what the ledger proves about a certificate")
    ask.set_defaults(work=_status)
    ask.add_argument("certificate", help="file or H(CERT)")


def _add_governance_commands(commands: "_Commands[Parser]") -> None:
    propose = commands.add_parser(
        "propose",
        help="ask the operators for a change",
        description=f"Ask operators for a change. To admit or change a member, its file:\n\n{member_file.EXAMPLE}",
    )
    propose.set_defaults(work=_propose)
    voting_days = number(above=0, most=MAX_VOTING_DAYS, unit="days")
    propose.add_argument("what", choices=sorted(_PROPOSALS), help="what to do")
    propose.add_argument("about", nargs="+", help="a member's file; an organisation; or certificates")
    propose.add_argument(
        "--days", type=voting_days, default=7, help="how long operators can vote (default: %(default)s)"
    )
    propose.add_argument(
        "--reason", choices=sorted(REASONS), default="keyCompromise", help="(default: %(default)s)"
    )
    _add_endorser(propose)
    vote = commands.add_parser("vote", help="vote on a proposal")
    vote.set_defaults(work=_vote)
    vote.add_argument("proposal", help="the proposal's id, or its first digits")
    vote.add_argument("--reject", action="store_true", help="vote against it")
    _add_endorser(vote)
    commands.add_parser("proposals", help="list the proposals on the ledger").set_defaults(work=_proposals)
    commands.add_parser("members", help="list the members and what is theirs").set_defaults(work=_members)


def _add_endorser(parser: Parser, *, required: bool = True) -> None:
    parser.add_argument("--organization", required=required, help="the member in whose name this is done")
    parser.add_argument("--key", type=Path, required=required, help="its endorsing key, PEM")


async def _submit(session: Session) -> int:
    options = session.options
    if options.report:
        options.report.touch()  # a report that cannot be written fails the command before the work, not after
    items = collect(options.paths)
    bulk = Bulk(session.sender, session.genesis.chain_id, options.organization, session.signer)
    columns = TextColumn("Recording"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    started = time.monotonic()
    with Progress(*columns, console=CONSOLE, transient=True) as progress:
        task = progress.add_task("", total=len(items))
        report = await bulk.record(
            items,
            session.client.resolve_all,
            on_progress=lambda count: progress.advance(task, count),
            stop=session.stop,
        )
    if options.report:
        write_file(options.report, report.to_json())
    return _show_report(report, len(items), time.monotonic() - started)


def _show_report(report: Report, total: int, seconds: float) -> int:
    CONSOLE.print(f"{report.recorded} recorded in {seconds:.1f} s, {report.already} were on the ledger already")
    for item, why in report.refused:
        CONSOLE.print(f"{item.path}: refused ({why.name}): {why.detail}", soft_wrap=True)
    left = total - report.recorded - report.already - len(report.refused)
    if left:
        CONSOLE.print(f"Stopped with {left} to go; the same command goes on with them")
    return 1 if report.refused or left else 0


async def _renew(session: Session) -> None:
    options, chain_id = session.options, session.genesis.chain_id
    replaces, new = _digest(options.old), read_certificate(options.new)
    owner = read_signer(options.owner_key, "key")
    signature = owner.sign(renewal_bytes(chain_id, replaces, digest_of(new)))
    body = Renew(chain_id, options.organization, new, replaces, owner.public_key_der, signature)
    height = await session.endorsed(body)
    CONSOLE.print(f"H(CERT) {digest_of(new).hex()} follows {replaces.hex()[:12]}.. since block {height}")


async def _change_status(session: Session) -> None:
    options, chain_id = session.options, session.genesis.chain_id
    digest = _digest(options.certificate)
    record = await _record(session, digest)
    change = digest, record.revision, str(options.status), options.reason
    if options.owner_key is not None:
        owner = read_signer(options.owner_key, "key")
        body = OwnerStatus(chain_id, record.organization, *change, owner.public_key_der)
        height = await session.sent(endorse(body, [owner]))
    elif options.key is not None:
        organization = options.organization or record.organization
        height = await session.endorsed(ChangeStatus(chain_id, organization, *change))
    else:
        raise LocalError("give --owner-key, or the endorser's --key")
    CONSOLE.print(f"H(CERT) {digest.hex()} is {options.status} since block {height}")


async def _status(session: Session) -> int:
    digest = _digest(session.options.certificate)
    found = await session.client.resolve(digest, with_certificate=False)
    for line in _describe_resolution(found):
        CONSOLE.print(line, soft_wrap=True)
    return 0 if found.status is CertStatus.VALID else 1


def _describe_resolution(found: Resolution) -> list[str]:
    lines = [f"{found.status}, proved by block {found.height}, {found.age_s:.1f} s old"]
    if (record := found.record) is None:
        return lines
    lines.append(f"recorded for {record.organization} in block {record.recorded_height}")
    if record.revision:
        by = record.changed_by.name.lower()
        lines.append(f"{record.status} since block {record.changed_height}, by its {by}: {record.reason}")
    if record.replaced_by:
        lines.append(f"renewed: followed by {record.replaced_by.hex()}")
    if record.replaces:
        lines.append(f"renewal: follows {record.replaces.hex()}")
    return lines


async def _propose(session: Session) -> None:
    options = session.options
    change = await _PROPOSALS[options.what](session)
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


async def _revoke_certificates(session: Session) -> Change:
    digests = tuple(map(_digest, session.options.about))
    return SetStatus(digests, CertStatus.REVOKED, session.options.reason)


async def _suspend_certificates(session: Session) -> Change:
    digests = tuple(map(_digest, session.options.about))
    return SetStatus(digests, CertStatus.SUSPENDED, session.options.reason)


_PROPOSALS: dict[str, Callable[[Session], Coroutine[object, object, Change]]] = {
    "admit": _admit,
    "change": _alter,
    "remove": _remove,
    "suspend": _suspend,
    "revoke-certificates": _revoke_certificates,
    "suspend-certificates": _suspend_certificates,
}
"""For each kind of proposal, the function that makes the change from the command's arguments."""


async def _vote(session: Session) -> None:
    options = session.options
    matching = [
        identity for identity, _ in await _read_proposals(session) if identity.hex().startswith(options.proposal)
    ]
    if len(matching) != 1:
        raise LocalError(f"{len(matching)} proposals on the ledger begin with {options.proposal}")
    height = await session.endorsed(
        Vote(session.genesis.chain_id, options.organization, matching[0], not options.reject)
    )
    ((_, proposal),) = [each for each in await _read_proposals(session) if each[0] == matching[0]]
    CONSOLE.print(f"Voted in block {height}; the proposal is {describe_state(proposal)}")


async def _proposals(session: Session) -> None:
    table = Table("id", "by", "change", "state", "for", "against")
    for identity, proposal in await _read_proposals(session):
        votes = ", ".join(proposal.approving), ", ".join(proposal.rejecting)
        change = describe_change(parse_change(proposal.change))
        table.add_row(identity.hex()[:12], proposal.by, change, describe_state(proposal), *votes)
    CONSOLE.print(table)


async def _members(session: Session) -> None:
    (listed,) = await session.client.leaves([DIRECTORY_KEY])
    table = Table("organization", "kind", "domains", "numbers", "codes", "validators", "keys", "revision")
    for member in await _read_members(session, parse_organizations(listed or b"")):
        if member is not None:
            table.add_row(*_row(member))
    CONSOLE.print(table)


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
        case SetMember(member, revision):
            return f"{'admit' if revision is None else 'change'} {member.organization}"
        case RemoveMember(organization):
            return f"remove {organization}"
        case SuspendMember(organization):
            return f"suspend {organization}"
        case SetStatus(digests, status, reason):
            return f"{status}: {len(digests)} certificates ({reason})"


def describe_state(proposal: Proposal) -> str:
    """Return a proposal's state, why it failed if it did, and when it takes effect if that is known."""
    why = f" ({proposal.why})" if proposal.why else ""
    due = f", takes effect {_date(proposal.due_s)}" if proposal.due_s and not why else ""
    return f"{proposal.state}{why}{due}"


async def _read_proposals(session: Session) -> list[tuple[bytes, Proposal]]:
    (listed,) = await session.client.leaves([LIST_KEY])
    identities = [] if listed is None else [entry.proposal_id for entry in parse_entries(listed)]
    values = await _leaves(session, [proposal_key(identity) for identity in identities])
    return [(identity, Proposal.parse(value)) for identity, value in zip(identities, values, strict=True) if value]


async def _read_members(session: Session, organizations: "tuple[str, ...] | list[str]") -> list[Member | None]:
    values = await _leaves(session, [member_key(organization) for organization in organizations])
    return [None if value is None else Member.parse(value) for value in values]


async def _leaves(session: Session, keys: list[bytes]) -> list[bytes | None]:
    found: list[bytes | None] = []
    for start in range(0, len(keys), MAX_LEAVES):
        found += await session.client.leaves(keys[start : start + MAX_LEAVES])
    return found


async def _record(session: Session, digest: CertDigest) -> CertRecord:
    record = (await session.client.resolve(digest, with_certificate=False)).record
    if record is None:
        raise PeerError(f"no certificate with H(CERT) {digest.hex()} is on the ledger")
    return record


def _only(session: Session) -> str:
    (about, *others) = session.options.about
    if others:
        raise LocalError(f"{session.options.what} takes one argument")
    return str(about)


def _digest(text: str) -> CertDigest:
    """Return H(CERT), given as 64 hexadecimal digits or as the name of a certificate's file; raises LocalError."""
    path = Path(text)
    if len(text) == 64 and not path.exists():
        try:
            return CertDigest(bytes.fromhex(text))
        except ValueError:
            pass
    return digest_of(read_certificate(path))


def _date(time_s: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(time_s))
