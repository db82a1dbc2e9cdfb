"""A client that sends transactions to a node: one by one, or certificates by the thousand in batches."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import msgspec

from ledger_node.order.orderer import MAX_OUTCOME_BYTES, OutcomeForm
from voice_dpki.effects import Signer
from voice_dpki.errors import LocalError, MalformedError, PeerError
from voice_dpki.ledger.answer_forms import MAX_BATCH as MAX_QUESTION
from voice_dpki.ledger.answers import Resolution
from voice_dpki.ledger.refusals import Refusal
from voice_dpki.ledger.transactions import MAX_BATCH, MAX_TRANSACTION_BYTES, Batch, Submit, endorse
from voice_dpki.names import CertDigest
from voice_dpki.shell.again import BUSY, Pauses, SeldomTell, Tell, again, retry_after_s
from voice_dpki.wire.bounded import UNPACKED, read_body
from voice_dpki.wire.http_client import check_tls_url, tls_failure
from voice_dpki.x509.profile import MAX_CERTIFICATE_BYTES, ProfileError, der_of, digest_of

TIMEOUT_S = 30.0
ENVELOPE_BYTES = 1024
"""Most bytes that a batch has besides its certificates."""

WORKERS = 4
"""Batches sent at the same time: enough that a block never waits for the network."""

MAX_FILE_BYTES = 2 * MAX_CERTIFICATE_BYTES
"""Most bytes read of a file: PEM is a third longer than DER, and a larger file is not a certificate."""

SUFFIXES = frozenset({".der", ".pem", ".crt", ".cer"})


class TransactionRefusedError(PeerError):
    """The ledger refuses a transaction; `name` is the name of the refusal."""

    def __init__(self, verdict: OutcomeForm) -> None:
        super().__init__(f"refused ({verdict.name}): {verdict.detail}")
        self.name = verdict.name


class Sender:
    """Sends transactions to the node at `url`, with `tls` as its TLS context if given; use as a context."""

    def __init__(self, url: str, tls: ssl.SSLContext | None = None, tell: Tell | None = None) -> None:
        """Raise LocalError where TLS is configured and the URL is not https. `tell` reports retries to the user."""
        self._tell = tell or SeldomTell()
        if tls is not None:
            check_tls_url(url)
        self._http = httpx.AsyncClient(
            base_url=url, timeout=TIMEOUT_S, trust_env=False, verify=tls or True, headers=UNPACKED
        )

    async def __aenter__(self) -> "Sender":
        """Enter."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self._http.aclose()

    @property
    def tell(self) -> Tell:
        """The function that reports retries to the user."""
        return self._tell

    async def verdict(self, raw: bytes) -> OutcomeForm:
        """Send a transaction, with retries while the node is busy or unreachable, and return its answer.

        A retry waits at least for the node's Retry-After (RFC 9110 §10.2.3). Raises PeerError when the retries are
        used up, and at once where one side does not accept the other's certificate.
        """
        pauses, may_repeat = Pauses(self._tell), True
        while may_repeat:
            busy, wished_s = False, 0.0
            try:
                async with (
                    asyncio.timeout(TIMEOUT_S),
                    self._http.stream("POST", "/ledger/v1/transactions", content=raw) as answer,
                ):
                    if answer.status_code in (200, 422):
                        return OutcomeForm.parse(await read_body(answer, MAX_OUTCOME_BYTES))
                why, busy = f"status {answer.status_code}", answer.status_code in BUSY
                wished_s = retry_after_s(answer.headers.get("retry-after", ""))
            except (httpx.HTTPError, TimeoutError, MalformedError, ValueError) as error:  # ValueError: no JSON
                if refused := tls_failure(error):
                    raise PeerError(f"the node takes no transaction: {refused}") from None
                why = str(error) or type(error).__name__
            said = f"the node does not take a transaction now ({why})"
            may_repeat = await pauses.pause(said, busy=busy, wished_s=wished_s)
        raise PeerError(f"the node does not take the transaction: {why}; repeating the command does no harm")

    async def send(self, raw: bytes) -> OutcomeForm:
        """Send a transaction that must be accepted; raises TransactionRefusedError and PeerError."""
        verdict = await self.verdict(raw)
        if verdict.code:
            raise TransactionRefusedError(verdict)
        return verdict


@dataclass(frozen=True, slots=True)
class CertificateFile:
    """A certificate and the file that it came from."""

    path: Path
    der: bytes

    @property
    def digest(self) -> CertDigest:
        """H(CERT)."""
        return digest_of(self.der)


@dataclass
class Report:
    """The outcome of recording many certificates."""

    recorded: int = 0
    already: int = 0
    refused: list[tuple[CertificateFile, OutcomeForm]] = field(default_factory=list)

    def plain(self) -> dict[str, object]:
        """Return the report as JSON has it."""
        refused = [
            {
                "file": str(item.path),
                "digest": item.digest.hex(),
                "code": why.code,
                "name": why.name,
                "detail": why.detail,
            }
            for item, why in self.refused
        ]
        return {"recorded": self.recorded, "already": self.already, "refused": refused}

    def to_json(self) -> bytes:
        """Return the report as JSON."""
        return msgspec.json.format(msgspec.json.encode(self.plain())) + b"\n"


def collect(paths: Iterable[Path]) -> list[CertificateFile]:
    """Read the certificates in files and folders, each once; raises LocalError for a file that cannot be read.

    A file that holds no certificate is included as it is: the ledger says what is wrong with it.
    """
    found: dict[CertDigest, CertificateFile] = {}
    for path in paths:
        inside = sorted(each for each in path.rglob("*") if each.suffix in SUFFIXES) if path.is_dir() else [path]
        for each in inside:
            data = _read(each)
            try:
                item = CertificateFile(each, der_of(data))
            except ProfileError:
                item = CertificateFile(each, data)
            found.setdefault(item.digest, item)
    return list(found.values())


def read_certificate(path: Path) -> bytes:
    """Read a certificate in DER or PEM and return its DER; raises LocalError. The ledger judges its content."""
    try:
        return der_of(_read(path))
    except ProfileError as error:
        raise LocalError(f"{path}: {error}") from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise LocalError(f"{path}: cannot read this certificate: {error.strerror}") from None


Resolve = Callable[[Sequence[CertDigest]], Awaitable[Sequence[Resolution]]]
"""Looks up the records of certificates, each with proof."""


class Bulk:
    """Has many certificates recorded in the name of `organization`, except those that are on the ledger already.

    A batch is recorded whole or not at all. A refused batch is halved, again and again, until each certificate that
    caused the refusal is alone. Nothing is lost when it stops early: the next run records the missing ones.
    """

    def __init__(self, sender: Sender, chain_id: str, organization: str, signer: Signer) -> None:
        self._sender = sender
        self._chain_id = chain_id
        self._organization = organization
        self._signer = signer
        self.report = Report()

    async def record(
        self,
        items: Sequence[CertificateFile],
        resolve: Resolve,
        *,
        on_progress: Callable[[int], None],
        stop: asyncio.Event,
    ) -> Report:
        """Record `items` until all are settled or `stop` is set.

        Calls `on_progress` with the number of certificates settled since its last call. Raises PeerError where the
        node stops answering.
        """
        missing = await self._missing(items, resolve, on_progress)
        batches = iter(pack(missing))

        async def work() -> None:
            for batch in batches:
                if stop.is_set():
                    return
                await self._settle(batch, on_progress)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(WORKERS):
                    group.create_task(work())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return self.report

    async def _missing(
        self, items: Sequence[CertificateFile], resolve: Resolve, on_progress: Callable[[int], None]
    ) -> list[CertificateFile]:
        missing: list[CertificateFile] = []
        for start in range(0, len(items), MAX_QUESTION):
            part = items[start : start + MAX_QUESTION]
            digests = [item.digest for item in part]
            answers = await again(partial(resolve, digests), self._sender.tell)
            absent = [item for item, answer in zip(part, answers, strict=True) if answer.record is None]
            self.report.already += len(part) - len(absent)
            on_progress(len(part) - len(absent))
            missing += absent
        return missing

    async def _settle(self, batch: Sequence[CertificateFile], on_progress: Callable[[int], None]) -> None:
        verdict = await self._sender.verdict(self._transaction(batch))
        if verdict.code and len(batch) > 1:
            half = len(batch) // 2
            await self._settle(batch[:half], on_progress)
            await self._settle(batch[half:], on_progress)
            return
        if not verdict.code:
            self.report.recorded += len(batch)
        elif verdict.code == Refusal.RECORDED.code:
            self.report.already += 1
        else:
            self.report.refused.append((batch[0], verdict))
        on_progress(len(batch))

    def _transaction(self, batch: Sequence[CertificateFile]) -> bytes:
        if len(batch) == 1:
            return endorse(Submit(self._chain_id, self._organization, batch[0].der), [self._signer])
        return endorse(Batch(self._chain_id, self._organization, tuple(item.der for item in batch)), [self._signer])


def pack(items: Iterable[CertificateFile]) -> Iterable[list[CertificateFile]]:
    """Divide certificates into batches that fit into transactions."""
    batch: list[CertificateFile] = []
    size = ENVELOPE_BYTES
    for item in items:
        if batch and (len(batch) == MAX_BATCH or size + len(item.der) + 5 > MAX_TRANSACTION_BYTES):
            yield batch
            batch, size = [], ENVELOPE_BYTES
        batch.append(item)
        size += len(item.der) + 5
    if batch:
        yield batch
