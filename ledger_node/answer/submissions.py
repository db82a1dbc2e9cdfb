"""The submission role over HTTP: holders of a token record, renew and change certificates."""

import time
from typing import Annotated

import msgspec

from ledger_node.answer.blocks import TRANSACTION_COST
from ledger_node.answer.requests import BadRequestError, guarded, parse_digest, short
from ledger_node.order.orderer import RefusedByLedgerError
from ledger_node.order.submission import Recorded, Submission
from voice_dpki.ledger.records import CertStatus
from voice_dpki.ledger.state import TxResult
from voice_dpki.ledger.transactions import MAX_KEY_BYTES, MAX_SIGNATURE_BYTES, MAX_TEXT_LENGTH
from voice_dpki.metrics import counters
from voice_dpki.names import CertDigest
from voice_dpki.shell.http import (
    DEFAULT_MAX_BODY_BYTES,
    Handler,
    Request,
    Response,
    Route,
    bearer_token_matches,
    json_response,
    problem,
)
from voice_dpki.shell.reload import Live
from voice_dpki.shell.trace import Tracer, ms_since
from voice_dpki.wire.ledger.client import CHANGES
from voice_dpki.x509.profile import MAX_CERTIFICATE_BYTES

SUBMISSIONS = counters(
    "ledger_submissions",
    "Requests to the submission role",
    outcome=("recorded", "repeated", "refused", "unauthorized"),
)


class StatusChange(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a change of status, in JSON."""

    digest: str
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT_LENGTH)]


class Renewal(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a renewal, in JSON; bytes are base64."""

    certificate: Annotated[bytes, msgspec.Meta(max_length=MAX_CERTIFICATE_BYTES)]
    replaces: str
    owner_key: Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_KEY_BYTES)]
    owner_signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=MAX_SIGNATURE_BYTES)]


class Submissions:
    """The handlers of the submission role, and their routes."""

    def __init__(self, submission: Submission, tokens: Live[tuple[str, ...]], tracer: Tracer) -> None:
        """Make handlers for clients that have one of `tokens`."""
        self._submission = submission
        self._tokens = tokens
        self._tracer = tracer

    def routes(self) -> list[Route]:
        """Return the routes."""
        endorsed = {
            "/ledger/v1/submissions": (self._submit, MAX_CERTIFICATE_BYTES),
            "/ledger/v1/renewals": (self._renew, 4 * MAX_CERTIFICATE_BYTES),
            **{path: (self._change(status), DEFAULT_MAX_BODY_BYTES) for status, path in CHANGES.items()},
        }
        return [
            Route("POST", path, guarded(_refusing(handler)), max_bytes, TRANSACTION_COST, authorize=self._authorize)
            for path, (handler, max_bytes) in endorsed.items()
        ]

    async def _submit(self, request: Request) -> Response:
        started = time.perf_counter()
        recorded = await self._submission.submit(request.body)
        return self._recorded("submission", recorded, started, created=not recorded.repeated)

    async def _renew(self, request: Request) -> Response:
        started = time.perf_counter()
        recorded = await self._submission.renew(*_renewal_body(request.body))
        return self._recorded("renewal", recorded, started, created=not recorded.repeated)

    def _change(self, status: CertStatus) -> Handler:
        async def change(request: Request) -> Response:
            started = time.perf_counter()
            digest, reason = _change_body(request.body)
            recorded = await self._submission.change_status(digest, status, reason)
            return self._recorded("status change", recorded, started, created=False)

        return change

    def _authorize(self, request: Request) -> Response | None:
        """Refuse a request without one of the submission role's tokens, before its body is read."""
        if bearer_token_matches(request, self._tokens.value):
            return None
        SUBMISSIONS.labels("unauthorized").inc()
        return _unauthorized()

    def _recorded(self, what: str, recorded: Recorded, started: float, *, created: bool) -> Response:
        SUBMISSIONS.labels("repeated" if recorded.repeated else "recorded").inc()
        text = f"{what} H(CERT) {short(recorded.digest)}, {recorded.status} since height {recorded.height}"
        self._tracer.note(text, ms=ms_since(started), status=recorded.status, digest=recorded.digest.hex())
        body = {
            "digest": recorded.digest.hex(),
            "status": recorded.status,
            "height": recorded.height,
            "repeated": recorded.repeated,
        }
        return json_response(201 if created else 200, body)


def _refusing(handler: Handler) -> Handler:
    """Turn the ledger's refusal into a problem document."""

    async def refusing(request: Request) -> Response:
        try:
            return await handler(request)
        except RefusedByLedgerError as refused:
            SUBMISSIONS.labels("refused").inc()
            return _refused(refused.result)

    return refusing


def _unauthorized() -> Response:
    answer = problem(401, "Unauthorized", "this needs a bearer token of the submission node (RFC 6750)")
    return Response(answer.status, answer.body, answer.content_type, (("WWW-Authenticate", "Bearer"),))


def _refused(result: TxResult) -> Response:
    body = {
        "title": "Refused by the ledger",
        "status": 422,
        "detail": result.detail,
        "code": result.code,
        "name": result.name,
    }
    return Response(422, msgspec.json.encode(body), content_type="application/problem+json")


def _change_body(body: bytes) -> tuple[CertDigest, str]:
    try:
        form = msgspec.json.decode(body, type=StatusChange)
    except ValueError as error:  # msgspec's errors, and bytes that are not UTF-8
        raise BadRequestError(f'the body must be {{"digest": hex, "reason": text}}: {error}') from None
    return parse_digest(form.digest), form.reason


def _renewal_body(body: bytes) -> tuple[bytes, CertDigest, bytes, bytes]:
    try:
        form = msgspec.json.decode(body, type=Renewal)
    except ValueError as error:  # msgspec's errors, and bytes that are not UTF-8
        raise BadRequestError(
            'the body must be {"certificate", "replaces", "owner_key", "owner_signature"}, '
            f"base64 but for the digest in hex: {error}"
        ) from None
    return form.certificate, parse_digest(form.replaces), form.owner_key, form.owner_signature
