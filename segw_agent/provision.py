"""The command `voice-dpki device provision`: keys and certificates for a list of devices, recorded in bulk.

The output folder holds all progress, so that the command can be interrupted and repeated: a device keeps its key,
and a certificate that is recorded is not sent again.
"""

import argparse
import asyncio
import json
from collections import Counter, deque
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from segw_agent.assembly import first_of
from segw_agent.device_list import MAX_DAYS, DeviceRow, read_rows
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.ledger.refusals import Refusal
from voice_dpki.shell.config import read_secret
from voice_dpki.shell.files import append_line, make_folder, write_private
from voice_dpki.shell.ledger import read_genesis
from voice_dpki.shell.options import whole_number
from voice_dpki.shell.output import output_folder
from voice_dpki.shell.program import Parser, run
from voice_dpki.shell.result import add_json, errors_in_json, make_console, print_result
from voice_dpki.shell.tls import COMMAND_HELP, command_context
from voice_dpki.wire.ledger.client import LedgerClient, SubmissionError
from voice_dpki.x509.keys import LocalSigner, from_pem, generate_es256, generate_rsa, to_pem
from voice_dpki.x509.profile import ProfileError, build_certificate, digest_of, read_profile

EXIT_INCOMPLETE = 1
"""Exit status when a certificate was refused or not sent, or the command was stopped."""

RETRIES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Pauses before the retries of a submission whose outcome is unknown; then it is left to the next run."""

AT_ONCE = 16
"""Submissions at the same time: one block records many, so they wait for the same block and not for one each."""

_DAY_S = 86_400
_KEYS = {"ec": generate_es256, "rsa": generate_rsa}

HELP = """\
Makes keys and self-signed certificates for the devices in a CSV file, and has them recorded on the ledger through
the vendor's submission node.

The file's first line names its columns: identity (the device's DNS name, which it shows as IDi), and if wanted
common_name, key (ec or rsa) and days. Columns are separated by commas, semicolons or tabs.

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
class Done:
    """The outcome for one certificate of a device: "recorded", "refused" (and why), or "not-sent"."""

    identity: str
    digest: str
    outcome: str
    height: int | None = None
    code: int | None = None
    name: str | None = None
    detail: str | None = None
    ledger: str = ""
    """Fingerprint of the ledger's genesis: what one ledger has recorded, another one has not."""


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
    add_json(parser)
    arguments = parser.parse_args(argv)
    with errors_in_json(arguments):
        return provision(arguments)


def provision(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit status; raises LocalError."""
    rows = read_rows(arguments.csv, arguments.days)
    with output_folder(arguments.out, "voice-dpki device provision", mode=0o700):
        return _provision(rows, arguments)


def _provision(rows: Sequence[DeviceRow], arguments: argparse.Namespace) -> int:
    genesis = read_genesis(arguments.genesis) if arguments.genesis is not None else None
    store = Store(arguments.out, _password(arguments), genesis.fingerprint().hex() if genesis else "")
    console = make_console(stderr=True)
    made = _make(rows, store, arguments.organization, console)
    if made < len(rows):
        console.print(f"stopped: {made} of {len(rows)} devices are in {store.folder}; give the command again")
        print_result(arguments, {"folder": str(store.folder), "devices": len(rows), "made": made})
        return EXIT_INCOMPLETE
    if arguments.url is None:
        console.print(f"{len(rows)} devices are in {store.folder}; nothing was sent, for there is no --url")
        print_result(arguments, {"folder": str(store.folder), "devices": len(rows), "made": made})
        return 0
    submitter = _submitter(arguments, store)
    try:
        status = run(lambda stop: submitter.submit_all(rows, console, stop), hangup_stops=True)
    finally:
        outcomes = store.report(rows)
    _show(outcomes, store, console)
    result = {"folder": str(store.folder), "made": made, **_report(outcomes)}
    print_result(arguments, result, _counted(outcomes))
    return status or (0 if all(done.outcome == "recorded" for done in outcomes) else EXIT_INCOMPLETE)


def _make(rows: Sequence[DeviceRow], store: "Store", organization: str, console: Console) -> int:
    """Make keys and certificates until Ctrl-C; returns for how many devices there are both."""
    made = 0
    with _progress(console) as progress:
        task = progress.add_task("make keys and certificates", total=len(rows))
        try:
            for row in rows:
                store.make(row, organization)
                made += 1
                progress.advance(task)
        except KeyboardInterrupt:
            pass  # each file is whole or not there, and the next run goes on from here
    return made


class Store:
    """The output folder: keys, certificates, progress and the report."""

    def __init__(self, folder: Path, password: bytes | None, ledger: str = "") -> None:
        """Make the folder and read its progress; with a password, keys are kept as PKCS#12. Raises LocalError.

        `ledger` names the ledger that the outcomes are of, by the fingerprint of its genesis.
        """
        self.folder, self.ledger = folder, ledger
        self._password = password
        self._progress = folder / "progress.jsonl"
        make_folder(folder, 0o700)
        self._done = {(done.ledger, done.digest): done for done in self._load()}

    def certificate(self, row: DeviceRow) -> bytes:
        """Return a device's certificate."""
        return self._file(row, "der").read_bytes()

    def make(self, row: DeviceRow, organization: str) -> None:
        """Make key and certificate unless the device has them, for this organisation and in this form.

        The key is written first, so that none is lost, and it stays when the certificate is made anew.
        """
        fits, kept = self._fits(row, organization), self._file(row, "pem")
        if fits and (self._password is None or not kept.exists()):
            return
        signer = self._key(row)
        der = self.certificate(row) if fits else _certificate(row, organization, signer)
        if self._password is not None:
            write_private(self._file(row, "p12"), _pkcs12(row, signer, der, self._password))
        write_private(self._file(row, "der"), der)
        if self._password is not None:
            kept.unlink(missing_ok=True)

    def _fits(self, row: DeviceRow, organization: str) -> bool:
        """Tell whether the device has a certificate, and it is of the organisation."""
        if not self._file(row, "der").exists():
            return False
        return read_profile(self.certificate(row)).organization == organization

    def _key(self, row: DeviceRow) -> LocalSigner:
        """Return the device's key; make and write it if there is none. Raises LocalError if it cannot be read."""
        pem, p12 = self._file(row, "pem"), self._file(row, "p12")
        if pem.exists():
            return from_pem(pem.read_bytes())
        if p12.exists():
            return _from_pkcs12(p12, self._password)
        signer = _KEYS[row.key]()
        write_private(pem, to_pem(signer))
        return signer

    def note(self, done: Done) -> None:
        """Record the outcome for a device's certificate at this ledger."""
        self._done[done.ledger, done.digest] = done
        append_line(self._progress, json.dumps(asdict(done)).encode("utf-8"))

    def outcome(self, row: DeviceRow) -> Done:
        """Return the outcome of the device's present certificate at this ledger."""
        digest = digest_of(self.certificate(row)).hex()
        return self._done.get((self.ledger, digest)) or Done(row.identity, digest, "not-sent", ledger=self.ledger)

    def report(self, rows: Sequence[DeviceRow]) -> list[Done]:
        """Write report.json, and return the outcomes in the order of `rows`."""
        outcomes = [self.outcome(row) for row in rows]
        data = json.dumps(_report(outcomes), indent=2) + "\n"
        write_private(self.folder / "report.json", data.encode("utf-8"))
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
        return self._store.outcome(row).outcome == "recorded"

    async def _submit(self, row: DeviceRow, stop: asyncio.Event) -> None:
        der = self._store.certificate(row)
        done = Done(row.identity, digest_of(der).hex(), "recorded", ledger=self._store.ledger)
        for pause_s in (*RETRIES_S, None):
            try:
                receipt = await self._client.submit(der, self._token)
                self._store.note(replace(done, height=int(receipt.height)))
                return
            except SubmissionError as error:
                if error.name == "unauthorized":
                    raise LocalError("the submission node does not know the token") from None
                if error.name == Refusal.RECORDED.kebab:
                    self._store.note(done)
                    return
                if error.code is not None:
                    refused = replace(done, outcome="refused", code=error.code, name=error.name)
                    self._store.note(replace(refused, detail=str(error)))
                    return
                if pause_s is None or stop.is_set():
                    self._store.note(replace(done, outcome="not-sent", detail=str(error)))
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


def _from_pkcs12(path: Path, password: bytes | None) -> LocalSigner:
    """Read a device's key from its PKCS#12 file; raises LocalError."""
    if password is None:
        raise LocalError(f"{path}: the key is there, and the certificate is to be made anew: give --pkcs12")
    try:
        key, _, _ = pkcs12.load_key_and_certificates(path.read_bytes(), password)
    except ValueError:
        raise LocalError(f"{path}: the password is not this file's") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise LocalError(f"{path}: there is no key of ours in it")
    return LocalSigner(key)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console)


def _report(outcomes: Sequence[Done]) -> dict[str, object]:
    counts = Counter(done.outcome for done in outcomes)
    return {"devices": len(outcomes), **counts, "outcomes": [asdict(done) for done in outcomes]}


def _counted(outcomes: Sequence[Done]) -> str:
    counts = Counter(done.outcome for done in outcomes)
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))


def _show(outcomes: Sequence[Done], store: Store, console: Console) -> None:
    problems = Counter((done.outcome, done.detail or "") for done in outcomes if done.outcome != "recorded")
    if problems:
        table = Table("devices", "outcome", "why")
        for (outcome, detail), count in problems.most_common(20):
            table.add_row(str(count), outcome, detail)
        console.print(table)
    console.print(f"{store.folder / 'report.json'} says what became of each")
