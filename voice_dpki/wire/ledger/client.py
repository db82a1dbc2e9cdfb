"""HTTP client for ledger nodes: it verifies every answer, and raises an error for one that it cannot verify."""

import logging
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated, Self, TypeVar

import msgspec

from voice_dpki.clock_health import HEALTH
from voice_dpki.effects import Clock, SystemClock
from voice_dpki.errors import LocalError, MalformedError, PeerError
from voice_dpki.ledger.answer_forms import MAX_BATCH, MAX_BATCH_BYTES, MAX_LEAVES
from voice_dpki.ledger.answers import (
    AnswerVerifier,
    HeaderUnknownError,
    InquiryCode,
    InquiryError,
    PrefixResolution,
    Resolution,
    inquiry_error,
    unreadable,
)
from voice_dpki.ledger.changes import ChangesForm, changed_keys, parse_changes
from voice_dpki.ledger.clock import ClockError, LedgerClock
from voice_dpki.ledger.genesis import Genesis
from voice_dpki.ledger.header import Header, SignedHeader
from voice_dpki.ledger.leaf import Leaf
from voice_dpki.ledger.light import Fork, LightBlock, LightClient, LightError, TrustPoint
from voice_dpki.ledger.names import NAME_LEAF
from voice_dpki.ledger.proof import ProofError
from voice_dpki.ledger.records import CertStatus
from voice_dpki.ledger.rules import VERSIONS
from voice_dpki.names import CertDigest, Height
from voice_dpki.shortfalls import SHORTFALLS
from voice_dpki.wire.http_client import HttpAnswer, HttpAnswerError, HttpClient, HttpError
from voice_dpki.x509.profile import digest_of

DEFAULT_MAX_AGE_S = 30.0
"""Several heartbeats of an engine; an answer proved by an older header is refused."""

DEFAULT_TIMEOUT_S = 2.0
SUBMISSION_TIMEOUT_S = 15.0

KEEP_TRUST_S = 3600.0
"""How much newer than the saved header a trusted one must be before the trust file is written again."""

RETRY_TRUST_S = 60.0
"""The same after a failed write."""

log = logging.getLogger(__name__)

_V = TypeVar("_V")

CHANGES = {
    CertStatus.REVOKED: "/ledger/v1/revocations",
    CertStatus.SUSPENDED: "/ledger/v1/suspensions",
    CertStatus.VALID: "/ledger/v1/resumptions",
}
"""A submission node's path for each change of status."""


class NodeSilentError(InquiryError):
    """The node sent no answer at all, or not in time."""

    def __init__(self, error: HttpError) -> None:
        super().__init__(InquiryCode.UNREACHABLE, f"the ledger node does not answer: {error}")


class SubmissionError(PeerError):
    """A submission node did not carry out a request.

    `code` and `name` are those of the ledger's refusal. Without one, `code` is None and `name` says what failed:
    "unauthorized", "refused", or "unavailable" when the outcome is not known and the request can be repeated.
    """

    retry_after: str | None = None
    """As `InquiryError.retry_after`."""

    def __init__(self, name: str, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.name = name
        self.code = code


@dataclass(frozen=True, slots=True)
class Receipt:
    """A submission or change that is durably on the ledger; `repeated` if it already was before the request."""

    digest: CertDigest
    status: CertStatus
    height: Height
    repeated: bool


MAX_VERSIONS = 1000
"""Versions of the rules in a node's description of itself."""

MAX_SOFTWARE_LENGTH = 100
"""Characters of the name of a node's release."""


class NextRules(msgspec.Struct, frozen=True):
    """A version of the rules that is decided, and the height of its first block."""

    version: int
    height: int


class RulesInfo(msgspec.Struct, frozen=True):
    """The versions of the ledger's rules that a node's release has, the present one and the next."""

    versions: Annotated[tuple[int, ...], msgspec.Meta(max_length=MAX_VERSIONS)] = (1,)
    present: int | None = 1
    next: NextRules | None = None


class NodeInfo(msgspec.Struct, frozen=True):
    """A node's description of itself; none of it is proved. Releases with version 1 of the rules alone say less."""

    name: str
    role: str
    chain_id: str
    height: int
    app_hash: str
    time: str | None
    age_s: float | None
    software: Annotated[str, msgspec.Meta(max_length=MAX_SOFTWARE_LENGTH)] = ""
    rules: RulesInfo = RulesInfo()


class _ReceiptForm(msgspec.Struct):
    status: CertStatus
    height: int
    repeated: bool


class _ProblemForm(msgspec.Struct):
    title: str = ""
    detail: str = ""
    code: int | None = None
    name: str | None = None


class LedgerClient:
    """A client of one node, over persistent connections. Close it with `aclose` or `async with`."""

    def __init__(
        self,
        url: str,
        light: LightClient,
        *,
        clock: Clock | None = None,
        max_age_s: float = DEFAULT_MAX_AGE_S,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        trust_file: Path | None = None,
        tls: ssl.SSLContext | None = None,
        ledger_clock: LedgerClock | None = None,
    ) -> None:
        """Make a client of the node at `url` that trusts what `light` can verify; raises LocalError.

        Newer trusted headers are saved in `trust_file` for the next start. `tls` protects the connection only, as
        answers prove themselves. Clients of several nodes of one ledger share a `ledger_clock`, which then replaces
        `clock`.
        """
        self.clock = ledger_clock or watched_clock(clock or SystemClock(), light)
        """This machine's clock, checked against the verified headers."""
        self._light = light
        self._verifier = AnswerVerifier(light, max_age_s=max_age_s)
        self._timeout_s = timeout_s
        self._http = HttpClient(url, timeout_s=timeout_s, max_answer_bytes=MAX_BATCH_BYTES, tls=tls)
        self._trust_file = trust_file
        self._kept = light.latest
        self._unkept = False
        SHORTFALLS.watch(self)
        self._reported = False
        self.max_age_s = max_age_s

    @classmethod
    def of_genesis(
        cls,
        url: str,
        genesis: Genesis,
        *,
        clock: Clock | None = None,
        max_age_s: float = DEFAULT_MAX_AGE_S,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        trust_file: Path | None = None,
        keeps_trust: bool = True,
        tls: ssl.SSLContext | None = None,
    ) -> "LedgerClient":
        """Make a client that trusts the validators of a genesis, or the newer header saved in `trust_file`.

        Unless it `keeps_trust`, it saves no newer headers there. Raises LocalError.
        """
        light = light_client(genesis, trust_file)
        kept = trust_file if keeps_trust else None
        return cls(url, light, clock=clock, max_age_s=max_age_s, timeout_s=timeout_s, trust_file=kept, tls=tls)

    @property
    def fork(self) -> Fork | None:
        """Evidence that the validators signed two histories; from then on every answer is refused."""
        return self._light.fork

    async def __aenter__(self) -> Self:
        """Enter a context that closes the connections at its end."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def resolve(self, digest: CertDigest, *, with_certificate: bool = True) -> Resolution:
        """Ask for a certificate's status, record, member and (by default) bytes.

        Raises InquiryError if nothing is known; a caller that relies on the certificate must then refuse.
        """
        return (await self.resolve_raw(digest, with_certificate=with_certificate))[0]

    async def resolve_raw(self, digest: CertDigest, *, with_certificate: bool = True) -> tuple[Resolution, bytes]:
        """Do what `resolve` does; also return the verified answer's bytes, which prove it to others."""
        kind = "certificates" if with_certificate else "status"
        min_height = self._verifier.latest_height
        data = await self._get(f"/ledger/v1/{kind}/{digest.hex()}")
        resolution = await self._verified(
            lambda: self._verifier.verify(
                data, digest, self._now_s(), min_height=min_height, with_certificate=with_certificate
            )
        )
        return resolution, data

    async def resolve_all(self, digests: Sequence[CertDigest]) -> tuple[Resolution, ...]:
        """Ask for the status, record and member of at most MAX_BATCH certificates at once; raises InquiryError."""
        return (await self.resolve_all_raw(digests))[0]

    async def resolve_all_raw(self, digests: Sequence[CertDigest]) -> tuple[tuple[Resolution, ...], bytes]:
        """Do what `resolve_all` does; also return the verified answer's bytes, which prove it to others."""
        min_height = self._verifier.latest_height
        body = msgspec.json.encode({"digests": [digest.hex() for digest in digests]})
        data = await self._fetch("POST", "/ledger/v1/statuses", body)
        resolutions = await self._verified(
            lambda: self._verifier.verify_batch(data, digests, self._now_s(), min_height=min_height)
        )
        return resolutions, data

    async def resolve_hidden(self, digest: CertDigest, *, digits: int) -> Resolution:
        """Ask for a certificate's status, record and member, but show the node only its first hexadecimal digits.

        The certificate hides among all that begin with the same digits; each further digit leaves a sixteenth of
        them. Raises InquiryError, also if they are too many for one answer.
        """
        return (await self.resolve_prefix(digest.hex()[:digits])).about(digest)

    async def resolve_prefix(self, prefix: str) -> PrefixResolution:
        """Ask for all certificates whose H(CERT) begins with the hexadecimal `prefix`; raises InquiryError."""
        min_height = self._verifier.latest_height
        data = await self._get(f"/ledger/v1/prefix/{prefix}")
        return await self._verified(
            lambda: self._verifier.verify_prefix(data, prefix, self._now_s(), min_height=min_height)
        )

    async def leaves(self, keys: Sequence[bytes]) -> tuple[bytes | None, ...]:
        """Ask for the values of at most MAX_LEAVES leaves, None for each absent one; raises InquiryError."""
        return (await self.proved_leaves(keys))[0]

    async def proved_leaves(self, keys: Sequence[bytes]) -> tuple[tuple[bytes | None, ...], Height]:
        """Do what `leaves` does; also return the height of the header that proves them."""
        min_height = self._verifier.latest_height
        body = msgspec.json.encode({"keys": [key.hex() for key in keys]})
        data = await self._fetch("POST", "/ledger/v1/leaves", body)
        return await self._verified(
            lambda: self._verifier.prove_leaves(data, keys, self._now_s(), min_height=min_height)
        )

    async def read(self, leaf: Leaf[_V], keys: Sequence[bytes]) -> list[_V | None]:
        """Ask for any number of leaves of one kind by their keys, None for each absent one; raises InquiryError."""
        values: list[bytes | None] = []
        for start in range(0, len(keys), MAX_LEAVES):
            values += await self.leaves(keys[start : start + MAX_LEAVES])
        return [None if value is None else self.parsed(leaf, value) for value in values]

    def parsed(self, leaf: Leaf[_V], value: bytes) -> _V:
        """Read the value of a leaf that was proved; raises InquiryError."""
        try:
            return leaf.parse(value)
        except MalformedError as error:
            newest = self._light.latest.signed_header
            raise unreadable(error, newest.header.version_app if newest else VERSIONS[-1]) from None

    async def listed(self, keys: Sequence[bytes]) -> tuple[Resolution, ...]:
        """Ask for every certificate of a name, by the keys of the name's lists (`voice_dpki.ledger.names`).

        The keys are for instance `subject_key(organization, common_name)`, or all of `number_keys(tn)`. The node
        cannot leave one out. Raises InquiryError.
        """
        lists = [listed for listed in await self.read(NAME_LEAF, keys) if listed is not None]
        digests = sorted({digest for listed in lists for digest in listed})
        found: list[Resolution] = []
        for start in range(0, len(digests), MAX_BATCH):
            found += await self.resolve_all(digests[start : start + MAX_BATCH])
        return tuple(found)

    async def changes(self, since: Header | None, *, wait_s: float) -> tuple[Header, frozenset[bytes] | None]:
        """Wait at most `wait_s` for a header newer than `since`, and ask what changed.

        Returns the newest header, and the keys whose leaves may have changed, or None if they are not known. Raises
        InquiryError.
        """
        root, height = (since.app_hash.hex(), since.height) if since else ("", 0)
        form, header = await self._changes(root, height, wait_s)
        if since is None or form.steps is None:
            return header, None
        try:
            return header, changed_keys(since.app_hash, form.steps, header.app_hash)
        except MalformedError as error:
            raise InquiryError(InquiryCode.MALFORMED, f"the answer is malformed: {error}") from None
        except ProofError as error:
            raise InquiryError(InquiryCode.UNPROVEN, f"the answer is not proved: {error}") from None

    async def newest(self, height: int, *, wait_s: float) -> tuple[Header, bytes]:
        """Wait at most `wait_s` for a header above `height`; return the newest one, and its signed form in JSON.

        Raises InquiryError.
        """
        form, header = await self._changes("", height, wait_s)
        return header, bytes(form.signed_header)

    async def _changes(self, root: str, height: int, wait_s: float) -> tuple[ChangesForm, Header]:
        path = f"/ledger/v1/changes?root={root}&height={height}&wait_ms={int(wait_s * 1000)}"
        data = await self._fetch("GET", path, timeout_s=wait_s + self._timeout_s)
        try:
            form = parse_changes(data)
        except MalformedError as error:
            raise InquiryError(InquiryCode.MALFORMED, f"the answer is malformed: {error}") from None
        raw = bytes(form.signed_header)
        trust = self._verifier.trust
        return form, await self._verified(lambda: trust(raw, self._now_s(), min_height=height))

    async def compare(self, witness: "LedgerClient") -> None:
        """Compare the newest trusted header with the one that another node, a witness, has at its height.

        Raises InquiryError: FORK if they differ and the validators signed both, and from then on every answer is
        refused; another code if the witness has no header there, or one that is not properly signed.
        """
        latest = self._light.latest
        if latest.signed_header is None:
            return
        block = await witness.light_block(latest.height)
        try:
            self._light.verify(block.signed_header, block.validators, self._now_s(), min_height=0)
        except LightError as error:
            raise inquiry_error(error) from None
        finally:
            self._report_fork()

    async def light_block(self, height: int) -> LightBlock:
        """Fetch a header with its commit and validators, without verifying them; raises InquiryError."""
        data = await self._get(f"/ledger/v1/headers/{height}")
        try:
            return LightBlock.from_json(msgspec.json.decode(data))
        except (ValueError, RecursionError, MalformedError) as error:
            raise InquiryError(InquiryCode.MALFORMED, f"the node's header is malformed: {error}") from None

    async def node_info(self) -> NodeInfo:
        """Ask for the node's description of itself; raises InquiryError."""
        try:
            return msgspec.json.decode(await self._get("/ledger/v1/node"), type=NodeInfo)
        except ValueError as error:  # msgspec's errors, and bytes that are not UTF-8
            raise InquiryError(InquiryCode.MALFORMED, f"the node's description is malformed: {error}") from None

    async def submit(self, der: bytes, token: str) -> Receipt:
        """Have a certificate endorsed and recorded; return once the record is durable.

        The call may be repeated. Raises SubmissionError.
        """
        return await self._post("/ledger/v1/submissions", der, token, digest_of(der))

    async def revoke(self, digest: CertDigest, reason: str, token: str) -> Receipt:
        """Have a certificate revoked, for a reason of RFC 5280 §5.3.1; raises SubmissionError."""
        return await self.change_status(digest, CertStatus.REVOKED, reason, token)

    async def change_status(self, digest: CertDigest, status: CertStatus, reason: str, token: str) -> Receipt:
        """Have a certificate revoked, suspended or resumed (VALID); raises SubmissionError."""
        body = msgspec.json.encode({"digest": digest.hex(), "reason": reason})
        return await self._post(CHANGES[status], body, token, digest)

    async def _verified(self, verify: Callable[[], "_V"]) -> "_V":
        """Verify an answer, fetching other headers if its own does not follow directly from a trusted one."""
        try:
            try:
                found = verify()
            except HeaderUnknownError as unknown:
                await self._approach(unknown.signed_header)
                found = verify()
            self.clock.heard(self._light.latest.time_ns / 1e9)
            self._now_s()
            return found
        except InquiryError as error:
            raise self._blamed(error) from None
        finally:
            self._keep_trust()
            self._report_fork()
            HEALTH.problem()

    def _now_s(self) -> float:
        """Return the time at which to judge answers; raises InquiryError if our clock is wrong."""
        try:
            return self.clock.checked_s()
        except ClockError as error:
            raise InquiryError(InquiryCode.CLOCK, str(error)) from None

    def _blamed(self, error: InquiryError) -> InquiryError:
        """Return the error to raise: CLOCK for an answer that only looks stale because our clock was set forward.

        An error that says that our clock is wrong is passed on to the clock, which reports it for a while.
        """
        if error.code is InquiryCode.STALE and self.clock.set_forward_s():
            return InquiryError(InquiryCode.CLOCK, f"{self.clock.problem()} ({error})")
        if error.code is InquiryCode.CLOCK and not self.clock.problem():
            self.clock.refused(str(error))
        return error

    async def _approach(self, signed_header: SignedHeader) -> None:
        way = self._light.approach(signed_header, self._now_s(), min_height=0)
        try:
            height = next(way)
            while True:
                height = way.send(await self.light_block(height))
        except StopIteration:
            return
        except LightError as error:
            raise inquiry_error(error) from None

    def _keep_trust(self) -> None:
        latest = self._light.latest
        if self._trust_file is None or latest.light_block is None:
            return
        newer_s = (latest.time_ns - self._kept.time_ns) / 1e9
        changed = latest.validators.hash() != self._kept.validators.hash()
        due = changed or newer_s > KEEP_TRUST_S or not self._is_kept(self._trust_file)
        if newer_s > RETRY_TRUST_S if self._unkept else due:
            self._kept = latest
            self._unkept = not save_trust(self._trust_file, latest.light_block)

    @staticmethod
    def _is_kept(trust_file: Path) -> bool:
        """Tell whether there is a trust file; if the disk does not tell, writing it will report the problem."""
        try:
            return _exists(trust_file)
        except LocalError:
            return False

    def shortfall(self) -> str:
        """Return a sentence if the newest trusted header could not be written to its file."""
        return "the trusted header cannot be written: the next start takes an older one" if self._unkept else ""

    def _report_fork(self) -> None:
        if self.fork is not None and not self._reported:
            self._reported = True
            evidence = msgspec.json.encode(self.fork.to_json()).decode("utf-8")
            log.critical("fork", extra={"fields": {"evidence": evidence}})

    async def _get(self, path: str) -> bytes:
        return await self._fetch("GET", path)

    async def _fetch(self, method: str, path: str, body: bytes = b"", timeout_s: float | None = None) -> bytes:
        try:
            answer = await self._http.request(method, path, body, timeout_s=timeout_s)
        except HttpAnswerError as error:
            raise InquiryError(InquiryCode.MALFORMED, f"the ledger node's answer cannot be read: {error}") from None
        except HttpError as error:
            raise NodeSilentError(error) from None
        if answer.status != 200:
            said = _GONE if answer.status == 410 else f"the ledger node answers {answer.status}"
            unanswered = InquiryError(InquiryCode.UNREACHABLE, said)
            unanswered.retry_after = _retry_after(answer)
            raise unanswered
        return answer.body

    async def _post(self, path: str, body: bytes, token: str, digest: CertDigest) -> Receipt:
        headers = {"authorization": f"Bearer {token}"}
        try:
            answer = await self._http.request("POST", path, body, headers=headers, timeout_s=SUBMISSION_TIMEOUT_S)
        except HttpError as error:
            raise SubmissionError("unavailable", f"the submission node does not answer: {error}") from None
        if answer.status not in (200, 201):
            refusal = _refusal(answer.status, answer.body)
            refusal.retry_after = _retry_after(answer)
            raise refusal
        form = _decode(answer.body, _ReceiptForm)
        return Receipt(digest, form.status, Height(form.height), form.repeated)


def watched_clock(clock: Clock, light: LightClient) -> LedgerClock:
    """Make a clock that is checked against what a light client trusts, and watched by the process's health."""
    ledger_clock = LedgerClock(clock, light.latest.time_ns / 1e9)
    HEALTH.watch(ledger_clock)
    return ledger_clock


def light_client(genesis: Genesis, trust_file: Path | None = None) -> LightClient:
    """Make a light client that trusts the saved header if there is one, else the validators of a genesis.

    Raises LocalError for a trust file of another ledger, or one that cannot be read.
    """
    trust = TrustPoint.genesis(genesis.validators, genesis.time_ns)
    if trust_file is not None and _exists(trust_file):
        kept = load_trust(trust_file)
        if kept.signed_header.header.chain_id != genesis.chain_id:
            raise LocalError(f"{trust_file}: this header is another ledger's")
        trust = TrustPoint.at(kept.signed_header, kept.validators)
    return LightClient(genesis.chain_id, trust)


def _exists(path: Path) -> bool:
    """Tell whether a file exists; raises LocalError if the disk does not tell, for instance EACCES or ESTALE."""
    try:
        return path.exists()
    except OSError as error:
        raise LocalError(f"{path}: cannot be read: {error.strerror}") from None


def load_trust(path: Path) -> LightBlock:
    """Read a trusted header: a file of `save_trust`, or a trusted node's answer to GET /ledger/v1/headers/{height}.

    Raises LocalError.
    """
    try:
        block = LightBlock.from_json(msgspec.json.decode(path.read_bytes()))
        TrustPoint.at(block.signed_header, block.validators)
    except (OSError, ValueError, RecursionError, MalformedError, LightError) as error:
        raise LocalError(
            f"{path}: no trusted header: {error}. Remove it to begin with the genesis, or put there what "
            "GET /ledger/v1/headers/HEIGHT gives at a node that you trust"
        ) from None
    return block


def save_trust(path: Path, block: LightBlock) -> bool:
    """Save a trusted header; return whether this succeeded.

    A failure is logged. The old file then stays, and the next start uses it.
    """
    unfinished = path.with_name(f"{path.name}.new")
    try:
        unfinished.write_bytes(msgspec.json.encode(block.to_json()))
        unfinished.replace(path)
    except OSError as error:
        log.warning("trusted header not kept", extra={"fields": {"file": str(path), "reason": error.strerror}})
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        return False
    return True


BUSY = (429, 503)
"""Statuses of a node that has accepted nothing, so that a retry is safe (RFC 6585 §4, RFC 9110 §15.6.4)."""


def _retry_after(answer: HttpAnswer) -> str | None:
    return answer.retry_after if answer.status in BUSY else None


_GONE = (
    "the ledger node no longer has a header as old as the one that is needed: begin with a newer trusted header, "
    "or ask a node that keeps the whole history"
)


def _refusal(status: int, data: bytes) -> SubmissionError:
    if status in BUSY and not data.startswith(b"{"):  # from a proxy before the node
        return SubmissionError("unavailable", f"the submission node answers {status}")
    form = _decode(data, _ProblemForm)
    names = {401: "unauthorized", 429: "unavailable", 503: "unavailable"}
    return SubmissionError(form.name or names.get(status, "refused"), form.detail or f"status {status}", form.code)


_T = TypeVar("_T", _ReceiptForm, _ProblemForm)


def _decode(data: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(data, type=kind)
    except ValueError:
        raise SubmissionError("unavailable", "the submission node's answer is malformed") from None
