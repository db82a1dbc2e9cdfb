"""Asking a ledger node over HTTP: every answer is verified, and what cannot be verified is an error."""

from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from voice_dpki.effects import Clock, SystemClock
from voice_dpki.errors import PeerError
from voice_dpki.http_client import HttpAnswerError, HttpClient, HttpError
from voice_dpki.ledger.answers import MAX_ANSWER_BYTES, AnswerVerifier, InquiryCode, InquiryError, Resolution
from voice_dpki.ledger.genesis import Genesis
from voice_dpki.ledger.light import LightClient, TrustPoint
from voice_dpki.ledger.records import CertStatus
from voice_dpki.names import CertDigest, Height
from voice_dpki.x509.profile import digest_of

DEFAULT_MAX_AGE_S = 30.0
"""Several heartbeats of an engine: an answer proved by an older header is not relied on."""

DEFAULT_TIMEOUT_S = 2.0
SUBMISSION_TIMEOUT_S = 15.0

GENESIS_TRUST_S = 10 * 366 * 86_400.0
"""How long after genesis its validators are trusted: their set does not change yet, so that no one has left it."""

CHANGES = {
    CertStatus.REVOKED: "/ledger/v1/revocations",
    CertStatus.SUSPENDED: "/ledger/v1/suspensions",
    CertStatus.VALID: "/ledger/v1/resumptions",
}
"""Where a submission node takes requests for each change of status."""


class SubmissionError(PeerError):
    """A submission node did not do what it was asked for.

    `code` and `name` are those of the ledger's refusal; without one, `code` is None and `name` says what failed:
    "unauthorized", or "unavailable" when the outcome is not known and the request can be repeated.
    """

    def __init__(self, name: str, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.name = name
        self.code = code


@dataclass(frozen=True, slots=True)
class Receipt:
    """A submission or change that is on the ledger, durably; `repeated` if it was so before."""

    digest: CertDigest
    status: CertStatus
    height: Height
    repeated: bool


class NodeInfo(msgspec.Struct, frozen=True):
    """What a node says of itself; nothing of it is proved."""

    name: str
    role: str
    chain_id: str
    height: int
    app_hash: str
    time: str | None
    age_s: float | None


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
    """Asks one node, over connections that are kept. Close it with `aclose` or `async with`."""

    def __init__(
        self,
        url: str,
        light: LightClient,
        *,
        clock: Clock | None = None,
        max_age_s: float = DEFAULT_MAX_AGE_S,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        """Ask the node at `url`, and believe what `light` can trace to its trusted headers; raises LocalError."""
        self._clock = clock or SystemClock()
        self._verifier = AnswerVerifier(light, max_age_s=max_age_s)
        self._http = HttpClient(url, timeout_s=timeout_s, max_answer_bytes=MAX_ANSWER_BYTES)

    @classmethod
    def of_genesis(
        cls,
        url: str,
        genesis: Genesis,
        *,
        clock: Clock | None = None,
        max_age_s: float = DEFAULT_MAX_AGE_S,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> "LedgerClient":
        """Make a client that trusts the validators of a genesis."""
        return cls(url, light_client(genesis), clock=clock, max_age_s=max_age_s, timeout_s=timeout_s)

    async def __aenter__(self) -> Self:
        """Enter a context at whose end the connections are closed."""
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

        Raises InquiryError: then nothing is known, and whoever relies on the certificate must refuse.
        """
        kind = "certificates" if with_certificate else "status"
        min_height = self._verifier.latest_height
        data = await self._get(f"/ledger/v1/{kind}/{digest.hex()}")
        return self._verifier.verify(
            data, digest, self._clock.now_s(), min_height=min_height, with_certificate=with_certificate
        )

    async def node_info(self) -> NodeInfo:
        """Ask what the node says of itself; raises InquiryError."""
        try:
            return msgspec.json.decode(await self._get("/ledger/v1/node"), type=NodeInfo)
        except ValueError as error:  # msgspec's errors, and bytes that are not UTF-8
            raise InquiryError(InquiryCode.MALFORMED, f"the node's description is malformed: {error}") from None

    async def submit(self, der: bytes, token: str) -> Receipt:
        """Have a certificate endorsed and recorded; returns once that is durable, and may be repeated.

        Raises SubmissionError.
        """
        return await self._post("/ledger/v1/submissions", der, token, digest_of(der))

    async def revoke(self, digest: CertDigest, reason: str, token: str) -> Receipt:
        """Have a certificate revoked, for a reason of RFC 5280 §5.3.1; raises SubmissionError."""
        return await self.change_status(digest, CertStatus.REVOKED, reason, token)

    async def change_status(self, digest: CertDigest, status: CertStatus, reason: str, token: str) -> Receipt:
        """Have a certificate revoked, suspended or resumed (VALID); raises SubmissionError."""
        body = msgspec.json.encode({"digest": digest.hex(), "reason": reason})
        return await self._post(CHANGES[status], body, token, digest)

    async def _get(self, path: str) -> bytes:
        try:
            answer = await self._http.request("GET", path)
        except HttpAnswerError as error:
            raise InquiryError(InquiryCode.MALFORMED, f"the ledger node's answer cannot be read: {error}") from None
        except HttpError as error:
            raise InquiryError(InquiryCode.UNREACHABLE, f"the ledger node does not answer: {error}") from None
        if answer.status != 200:
            raise InquiryError(InquiryCode.UNREACHABLE, f"the ledger node answers {answer.status}")
        return answer.body

    async def _post(self, path: str, body: bytes, token: str, digest: CertDigest) -> Receipt:
        headers = {"authorization": f"Bearer {token}"}
        try:
            answer = await self._http.request("POST", path, body, headers=headers, timeout_s=SUBMISSION_TIMEOUT_S)
        except HttpError as error:
            raise SubmissionError("unavailable", f"the submission node does not answer: {error}") from None
        if answer.status not in (200, 201):
            raise _refusal(answer.status, answer.body)
        form = _decode(answer.body, _ReceiptForm)
        return Receipt(digest, form.status, Height(form.height), form.repeated)


def light_client(genesis: Genesis) -> LightClient:
    """Make a light client that trusts the validators of a genesis."""
    trust = TrustPoint.genesis(genesis.validators, genesis.time_ns)
    return LightClient(genesis.chain_id, trust, trusting_period_s=GENESIS_TRUST_S)


def _refusal(status: int, data: bytes) -> SubmissionError:
    form = _decode(data, _ProblemForm)
    names = {401: "unauthorized", 503: "unavailable"}
    return SubmissionError(form.name or names.get(status, "refused"), form.detail or f"status {status}", form.code)


_T = TypeVar("_T", _ReceiptForm, _ProblemForm)


def _decode(data: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(data, type=kind)
    except ValueError:
        raise SubmissionError("unavailable", "the submission node's answer is malformed") from None
