"""`voice-dpki ledger submit`, `renew`, `revoke`, `suspend`, `resume` and `status`: certificates on a ledger."""

import time
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ledger_node.command.sending import Bulk, Report, collect, read_certificate
from ledger_node.command.session import CONSOLE, Commands, Session, add_endorser, parse_digest
from voice_dpki.errors import LocalError, PeerError
from voice_dpki.ledger.answers import Resolution
from voice_dpki.ledger.records import REASONS, CertRecord, CertStatus
from voice_dpki.ledger.transactions import (
    ChangeStatus,
    OwnerStatus,
    Renew,
    endorse,
    renewal_bytes,
)
from voice_dpki.names import CertDigest
from voice_dpki.shell.credentials import read_signer
from voice_dpki.shell.files import write_file
from voice_dpki.shell.options import key_option
from voice_dpki.x509.profile import digest_of


def add_certificate_commands(commands: Commands) -> None:
    """Add the commands about certificates."""
    several = commands.add_parser("submit", help="have certificates recorded: files, or folders with thousands")
    several.set_defaults(work=submit)
    several.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="certificate in DER or PEM, or folder")
    several.add_argument("--report", type=Path, help="write what became of them to this file, as JSON")
    add_endorser(several)
    renew = commands.add_parser("renew", help="have a certificate follow another, which stays valid")
    renew.set_defaults(work=_renew)
    renew.add_argument("old", help="the certificate to be renewed: file or H(CERT)")
    renew.add_argument("new", type=Path, help="the certificate that follows it")
    renew.add_argument("--owner-key", type=key_option, required=True, help="private key of the old certificate")
    add_endorser(renew)
    for name, status, reason in (
        ("revoke", CertStatus.REVOKED, "unspecified"),
        ("suspend", CertStatus.SUSPENDED, "certificateHold"),
        ("resume", CertStatus.VALID, "removeFromCRL"),
    ):
        change = commands.add_parser(name, help=f"{name} a certificate, as its owner or its endorser")
        change.set_defaults(work=_change_status, status=status)
        change.add_argument("certificate", help="file or H(CERT)")
        change.add_argument("--reason", choices=sorted(REASONS), default=reason, help="(default: %(default)s)")
        change.add_argument("--owner-key", type=key_option, help="the certificate's private key; or:")
        add_endorser(change, required=False)
    ask = commands.add_parser("status", help="tell what the ledger proves about a certificate")
    ask.set_defaults(work=_status)
    ask.add_argument("certificate", help="file or H(CERT)")


async def submit(session: Session) -> int:
    """Have certificates recorded; return the program's exit status. It stops between batches when it is told to."""
    options = session.options
    if options.report:
        options.report.touch()  # a report that cannot be written fails the command before the work, not after
    items = collect(options.paths)
    bulk = Bulk(session.sender, session.genesis.chain_id, options.organization, session.signer)
    columns = TextColumn("Recording"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    started = time.monotonic()
    with Progress(*columns, console=CONSOLE, transient=True, disable=options.json) as progress:
        task = progress.add_task("", total=len(items))
        report = await bulk.record(
            items,
            session.client.resolve_all,
            on_progress=lambda count: progress.advance(task, count),
            stop=session.stop,
        )
    if options.report:
        write_file(options.report, report.to_json())
    return _show_report(session, report, len(items), time.monotonic() - started)


def _show_report(session: Session, report: Report, total: int, seconds: float) -> int:
    lines = [f"{report.recorded} recorded in {seconds:.1f} s, {report.already} were on the ledger already"]
    lines += [f"{item.path}: refused ({why.name}): {why.detail}" for item, why in report.refused]
    left = total - report.recorded - report.already - len(report.refused)
    if left:
        lines.append(f"Stopped with {left} to go; the same command goes on with them")
    session.tell({**report.plain(), "left": left}, *lines)
    return 1 if report.refused or left else 0


async def _renew(session: Session) -> None:
    options, chain_id = session.options, session.genesis.chain_id
    replaces, new = parse_digest(options.old), read_certificate(options.new)
    owner = read_signer(options.owner_key, "key")
    signature = owner.sign(renewal_bytes(chain_id, replaces, digest_of(new)))
    body = Renew(chain_id, options.organization, new, replaces, owner.public_key_der, signature)
    height = await session.endorsed(body)
    said = f"H(CERT) {digest_of(new).hex()} follows {replaces.hex()[:12]}.. since block {height}"
    session.tell({"digest": digest_of(new), "replaces": replaces, "height": height}, said)


async def _change_status(session: Session) -> None:
    options, chain_id = session.options, session.genesis.chain_id
    digest = parse_digest(options.certificate)
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
    said = f"H(CERT) {digest.hex()} is {options.status} since block {height}"
    session.tell({"digest": digest, "status": options.status, "height": height}, said)


async def _status(session: Session) -> int:
    digest = parse_digest(session.options.certificate)
    found = await session.client.resolve(digest, with_certificate=False)
    result = {
        "digest": digest,
        "status": found.status,
        "height": found.height,
        "time_s": found.time_s,
        "record": found.record,
    }
    session.tell(result, *_describe_resolution(found))
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


async def _record(session: Session, digest: CertDigest) -> CertRecord:
    record = (await session.client.resolve(digest, with_certificate=False)).record
    if record is None:
        raise PeerError(f"no certificate with H(CERT) {digest.hex()} is on the ledger")
    return record
