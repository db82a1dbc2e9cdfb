"""The command `voice-dpki device provision`: keys and certificates for a list of devices, recorded in bulk.

The output folder holds all progress, so that the command can be interrupted and repeated: a device keeps its key,
and a certificate that is recorded is not sent again.
"""

import argparse
import asyncio
import csv
import json
import re
import sys
from collections import Counter, deque
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from segw_agent.assembly import first_of
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.names import ascii_lower
from voice_dpki.shell.config import read_secret
from voice_dpki.shell.files import append_line, make_folder, write_private
from voice_dpki.shell.ledger import read_genesis
from voice_dpki.shell.options import whole_number
from voice_dpki.shell.output import output_folder
from voice_dpki.shell.program import Parser, run
from voice_dpki.shell.tls import COMMAND_HELP, command_context
from voice_dpki.wire.ledger.client import LedgerClient, SubmissionError
from voice_dpki.x509.keys import LocalSigner, from_pem, generate_es256, generate_rsa, to_pem
from voice_dpki.x509.profile import ProfileError, build_certificate, digest_of

EXIT_INCOMPLETE = 1
"""Exit status when a certificate was refused or not sent, or the command was stopped."""

MAX_DEVICES = 1_000_000
MAX_DAYS = 14_600
RETRIES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Pauses before the retries of a submission whose outcome is unknown; then it is left to the next run."""

AT_ONCE = 16
"""Submissions at the same time: one block records many, so they wait for the same block and not for one each."""

_DAY_S = 86_400
_NAME = re.compile(r"(?=.{1,253}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_KEYS = {"ec": generate_es256, "rsa": generate_rsa}
_COLUMNS = frozenset({"identity", "common_name", "key", "days"})

HELP = """\
Makes keys and self-signed certificates for the devices in a CSV file, and has them recorded on the ledger through
the vendor's submission node.

The file's first line names its columns: identity (the device's DNS name, which it shows as IDi), and if wanted
common_name, key (ec or rsa) and days.

  identity,key
  enb1.vendor.example,ec
  enb2.vendor.example,rsa

  voice-dpki device provision --csv devices.csv --out devices --organization "Vendor V" \\
      --url http://127.0.0.1:26681 --token-file vendor.token --genesis genesis.json

Each device gets NAME.pem (its key) and NAME.der, or with --pkcs12 NAME.p12 and NAME.der. After a break, give the
command again: it goes on where it stopped. report.json says for every device what became of it.

Exit status: 0 if all are recorded, 1 if some were refused or could not be sent, 2 if nothing could be done.
"""


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """One device of the CSV file."""

    identity: str
    common_name: str
    key: str
    days: int


@dataclass(frozen=True, slots=True)
class Done:
    """The outcome for one device: "recorded", "refused" (and why), or "not-sent"."""

    identity: str
    digest: str
    outcome: str
    height: int | None = None
    code: int | None = None
    name: str | None = None
    detail: str | None = None


def command(argv: list[str]) -> int:
    """Make keys and certificates for devices, and have them recorded."""
    parser = Parser(prog="voice-dpki device provision", description=HELP)
    parser.add_argument("--csv", type=Path, required=True, metavar="FILE", help="the devices")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for keys, certificates and report")
    parser.add_argument("--organization", required=True, metavar="NAME", help="the vendor, as the ledger knows it")
    parser.add_argument(
        "--days", type=whole_number(1, MAX_DAYS), default=3650, metavar="N", help="validity (default: 3650)"
    )
    parser.add_argument("--pkcs12", action="store_true", help="keys as PKCS#12 files")
    parser.add_argument("--password-file", type=Path, metavar="FILE", help="for the PKCS#12 files")
    ledger = parser.add_argument_group("ledger")
    ledger.add_argument("--url", metavar="URL", help="the vendor's submission node; left out: nothing is sent")
    ledger.add_argument("--token-file", type=Path, metavar="FILE", help="its bearer token")
    ledger.add_argument("--genesis", type=Path, metavar="FILE", help="the ledger's genesis")
    ledger.add_argument("--tls", type=Path, metavar="FILE", help=COMMAND_HELP)
    return provision(parser.parse_args(argv))


def provision(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit status; raises LocalError."""
    rows = read_rows(arguments.csv, arguments.days)
    with output_folder(arguments.out, "voice-dpki device provision", mode=0o700):
        return _provision(rows, arguments)


def _provision(rows: Sequence[DeviceRow], arguments: argparse.Namespace) -> int:
    store = Store(arguments.out, _password(arguments))
    console = Console(stderr=True)
    with _progress(console) as progress:
        task = progress.add_task("make keys and certificates", total=len(rows))
        for row in rows:
            store.make(row, arguments.organization)
            progress.advance(task)
    if arguments.url is None:
        console.print(f"{len(rows)} devices are in {store.folder}; nothing was sent, for there is no --url")
        return 0
    submitter = _submitter(arguments, store)
    try:
        status = run(lambda stop: submitter.submit_all(rows, console, stop), hangup_stops=True)
    finally:
        outcomes = store.report(rows)
    _show(outcomes, store, console)
    return status or (0 if all(done.outcome == "recorded" for done in outcomes) else EXIT_INCOMPLETE)


def read_rows(path: Path, days: int) -> list[DeviceRow]:
    """Read the CSV file; `days` is the default validity. Raises LocalError that names the wrong line."""
    rows: dict[str, DeviceRow] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            columns = set(reader.fieldnames or ())
            if "identity" not in columns or not columns <= _COLUMNS:
                raise LocalError(f"{path}: the first line must name identity, and else only {sorted(_COLUMNS)}")
            for number, line in enumerate(reader, 2):
                row = _row(line, days, f"{path}, line {number}")
                if row.identity in rows or len(rows) >= MAX_DEVICES:
                    raise LocalError(f"{path}, line {number}: a device twice, or more than {MAX_DEVICES}")
                rows[row.identity] = row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LocalError(f"{path}: cannot be read as CSV: {error}") from None
    return list(rows.values())


def _row(line: Mapping[str, str | None], days: int, where: str) -> DeviceRow:
    given = {name: (value or "").strip() for name, value in line.items() if name in _COLUMNS}
    identity = ascii_lower(given["identity"])
    key = given.get("key") or "ec"
    lifetime = given.get("days") or str(days)
    if not _NAME.match(identity):
        raise LocalError(f"{where}: the identity is not a DNS name")
    if key not in _KEYS:
        raise LocalError(f"{where}: the key is ec or rsa")
    if not (lifetime.isascii() and lifetime.isdigit() and 1 <= int(lifetime[:9]) <= MAX_DAYS):
        raise LocalError(f"{where}: days is a number from 1 to {MAX_DAYS}")
    return DeviceRow(identity, given.get("common_name") or identity[:64], key, int(lifetime))


class Store:
    """The output folder: keys, certificates, progress and the report."""

    def __init__(self, folder: Path, password: bytes | None) -> None:
        """Make the folder and read its progress; with a password, keys are kept as PKCS#12. Raises LocalError."""
        self.folder = folder
        self._password = password
        self._progress = folder / "progress.jsonl"
        make_folder(folder, 0o700)
        self.done = {done.identity: done for done in self._load()}

    def certificate(self, row: DeviceRow) -> bytes:
        """Return a device's certificate."""
        return self._file(row, "der").read_bytes()

    def make(self, row: DeviceRow, organization: str) -> None:
        """Make key and certificate unless the device has them; the key is written first, so that none is lost."""
        if self._file(row, "der").exists():
            return
        kept = self._file(row, "pem")
        signer = from_pem(kept.read_bytes()) if kept.exists() else _KEYS[row.key]()
        if not kept.exists():
            write_private(kept, to_pem(signer))
        der = _certificate(row, organization, signer)
        if self._password is not None:
            write_private(self._file(row, "p12"), _pkcs12(row, signer, der, self._password))
            kept.unlink()
        write_private(self._file(row, "der"), der)

    def note(self, done: Done) -> None:
        """Record the outcome for a device."""
        self.done[done.identity] = done
        append_line(self._progress, json.dumps(asdict(done)).encode("utf-8"))

    def report(self, rows: Sequence[DeviceRow]) -> list[Done]:
        """Write report.json, and return the outcomes in the order of `rows`."""
        outcomes = [
            self.done.get(row.identity) or Done(row.identity, digest_of(self.certificate(row)).hex(), "not-sent")
            for row in rows
        ]
        counts = Counter(done.outcome for done in outcomes)
        value = {"devices": len(rows), **counts, "outcomes": [asdict(done) for done in outcomes]}
        write_private(self.folder / "report.json", (json.dumps(value, indent=2) + "\n").encode("utf-8"))
        return outcomes

    def _load(self) -> Iterator[Done]:
        """Read the progress; a line that a crash cut short is skipped, and its device is submitted again."""
        if not self._progress.exists():
            return
        text = self._progress.read_text(encoding="utf-8", errors="replace")
        if not text.endswith("\n"):
            append_line(self._progress, b"")
        for line in text.splitlines():
            try:
                yield Done(**json.loads(line))
            except (ValueError, TypeError):
                continue

    def _file(self, row: DeviceRow, kind: str) -> Path:
        return self.folder / f"{row.identity}.{kind}"


class Submitter:
    """Submits the certificates that are not recorded yet."""

    def __init__(self, client: LedgerClient, token: str, store: Store) -> None:
        self._client, self._token, self._store = client, token, store

    async def submit_all(self, rows: Sequence[DeviceRow], console: Console, stop: asyncio.Event) -> int:
        """Send all, AT_ONCE at a time, until `stop`; return an exit status. Raises LocalError for a wrong token."""
        waiting = deque(row for row in rows if not self._is_recorded(row))
        async with self._client:
            with _progress(console) as progress:
                task = progress.add_task("have them recorded", total=len(rows), completed=len(rows) - len(waiting))

                async def work() -> None:
                    while waiting and not stop.is_set():
                        await self._submit(waiting.popleft(), stop)
                        progress.advance(task)

                await _all_of(work() for _ in range(AT_ONCE))
        return EXIT_INCOMPLETE if stop.is_set() else 0

    def _is_recorded(self, row: DeviceRow) -> bool:
        done = self._store.done.get(row.identity)
        return done is not None and done.outcome == "recorded"

    async def _submit(self, row: DeviceRow, stop: asyncio.Event) -> None:
        der = self._store.certificate(row)
        digest = digest_of(der).hex()
        for pause_s in (*RETRIES_S, None):
            try:
                receipt = await self._client.submit(der, self._token)
                self._store.note(Done(row.identity, digest, "recorded", int(receipt.height)))
                return
            except SubmissionError as error:
                if error.name == "unauthorized":
                    raise LocalError("the submission node does not know the token") from None
                if error.code is not None:
                    refused = Done(row.identity, digest, "refused", None, error.code, error.name, str(error))
                    self._store.note(refused)
                    return
                if pause_s is None or stop.is_set():
                    self._store.note(Done(row.identity, digest, "not-sent", detail=str(error)))
                    return
            await asyncio.sleep(pause_s)


async def _all_of(work: Iterable[Coroutine[object, object, None]]) -> None:
    """Wait for all. If one fails, the others are cancelled, and its exception is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for each in work:
                group.create_task(each)
    except BaseExceptionGroup as errors:
        raise first_of(errors) from None


def _submitter(arguments: argparse.Namespace, store: Store) -> Submitter:
    if arguments.token_file is None or arguments.genesis is None:
        raise LocalError("--url needs --token-file and --genesis")
    tls = command_context(arguments.tls)
    client = LedgerClient.of_genesis(arguments.url, read_genesis(arguments.genesis), tls=tls)
    return Submitter(client, read_secret(arguments.token_file), store)


def _password(arguments: argparse.Namespace) -> bytes | None:
    if not arguments.pkcs12:
        return None
    if arguments.password_file is None:
        raise LocalError("--pkcs12 needs --password-file")
    return read_secret(arguments.password_file).encode("utf-8")


def _certificate(row: DeviceRow, organization: str, signer: LocalSigner) -> bytes:
    now_s = int(SystemClock().now_s())
    try:
        return build_certificate(
            signer,
            organization=organization,
            common_name=row.common_name,
            dns_names=[row.identity],
            not_before_s=now_s - _DAY_S,
            not_after_s=now_s + row.days * _DAY_S,
            random=SystemRandom(),
        )
    except (ProfileError, ValueError) as error:
        raise LocalError(f"{row.identity}: no certificate can be made: {error}") from None


def _pkcs12(row: DeviceRow, signer: LocalSigner, der: bytes, password: bytes) -> bytes:
    certificate = x509.load_der_x509_certificate(der)
    encryption = BestAvailableEncryption(password)
    name = row.identity.encode("ascii")
    return pkcs12.serialize_key_and_certificates(name, signer.private_key, certificate, None, encryption)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console)


def _show(outcomes: Sequence[Done], store: Store, console: Console) -> None:
    counts = Counter(done.outcome for done in outcomes)
    print(", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())), file=sys.stdout)
    problems = Counter((done.outcome, done.detail or "") for done in outcomes if done.outcome != "recorded")
    if problems:
        table = Table("devices", "outcome", "why")
        for (outcome, detail), count in problems.most_common(20):
            table.add_row(str(count), outcome, detail)
        console.print(table)
    console.print(f"{store.folder / 'report.json'} says what became of each")
