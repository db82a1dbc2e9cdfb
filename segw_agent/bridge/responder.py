"""The OCSP responder: each answer is made for one request, from what the ledger proves at that moment."""

import asyncio
import base64
import binascii
import logging
from collections.abc import Mapping
from time import perf_counter

from cryptography import x509
from cryptography.x509.ocsp import OCSPCertStatus

from segw_agent.bridge.ocsp import MAX_REQUEST_BYTES, AnswerSigner, Failure, Query, Status, failure, parse_query
from segw_agent.bridge.serial import is_serial
from segw_agent.bridge.vouching import NotVouchedError, Vouched, Vouching
from segw_agent.metrics import REFUSALS
from voice_dpki.effects import Clock
from voice_dpki.errors import MalformedError
from voice_dpki.ledger.answers import InquiryCode, InquiryError
from voice_dpki.metrics import counters, gauge, histogram
from voice_dpki.shell.http import HttpApp, Request, Response, Route
from voice_dpki.shell.metrics import HEALTH_ROUTE, METRICS_ROUTE
from voice_dpki.shell.readiness import Finding, Readiness, failed_if
from voice_dpki.wire.seldom import Seldom
from voice_dpki.wire.tasks import Background

log = logging.getLogger(__name__)
_SAID_MALFORMED, _SAID_UNKNOWN, _SAID_ANSWERED, _SAID_FAILED = (Seldom(log) for _ in range(4))

PATH = "/ocsp"

MAX_AT_ONCE = 64
"""Most requests that wait for the ledger at the same time; further ones are answered tryLater."""

AGAIN_S = 1.0
"""How often a ledger that does not answer is asked again: a load balancer then sends no requests that would."""

COST = 10
"""Cost of a request, counted against `[limits]`: two inquiries and a signature."""

ANSWERS = counters(
    "segw_ocsp_answers",
    "OCSP requests answered, by outcome.",
    outcome=("good", "malformed-request", "unauthorized", "try-later", "internal-error", *REFUSALS),
)
SECONDS = histogram(
    "segw_ocsp_seconds",
    "Time from an OCSP request to its answer.",
    buckets=(0.001, 0.002, 0.003, 0.005, 0.01, 0.03, 0.1, 0.3, 1, 3),
)
NOT_AFTER = gauge("segw_ocsp_responder_not_after", "When the responder's certificate expires, in Unix time.")

_TRY_LATER = frozenset({InquiryCode.UNREACHABLE, InquiryCode.STALE, InquiryCode.CLOCK})

_REVOKED: Mapping[str, x509.ReasonFlags | None] = {
    "revoked": None,
    "suspended": x509.ReasonFlags.certificate_hold,
    "not-a-member": x509.ReasonFlags.cessation_of_operation,
    "organization": x509.ReasonFlags.privilege_withdrawn,
    "identity-denied": x509.ReasonFlags.privilege_withdrawn,
    "identity-not-allowed": x509.ReasonFlags.privilege_withdrawn,
    "subject": x509.ReasonFlags.privilege_withdrawn,
    "key-usage": x509.ReasonFlags.privilege_withdrawn,
    "numbers": x509.ReasonFlags.privilege_withdrawn,
    "domain": x509.ReasonFlags.privilege_withdrawn,
    "uri-number": x509.ReasonFlags.privilege_withdrawn,
}
"""Refusal codes that are answered as revoked, with the CRLReason; all others are answered as unknown."""

_NOBODYS = 1
"""A serial number that belongs to no certificate in practice, for probing the ledger."""

_UNSAID = frozenset({x509.ReasonFlags.unspecified, x509.ReasonFlags.remove_from_crl})
"""Reasons that an answer omits (RFC 5280 §5.3.1)."""


class Responder:
    """The OCSP service."""

    def __init__(
        self,
        vouching: Vouching,
        signer: AnswerSigner,
        clock: Clock,
        *,
        validity_s: float,
        max_age_s: float,
        skew_s: float = 0.0,
        ahead_s: float = 0.0,
    ) -> None:
        """Make answers that expire after `validity_s`, or earlier when their proof is `max_age_s` old.

        thisUpdate is `skew_s` before the proof, for clients whose clocks are behind; it does not move nextUpdate.
        nextUpdate is `ahead_s` later, for clients whose clocks are ahead; clients that cache answers then keep them
        longer.
        """
        self._vouching, self._signer, self._clock = vouching, signer, clock
        self._validity_s, self._max_age_s = validity_s, max_age_s
        self._skew_s, self._ahead_s = skew_s, ahead_s
        self._waiting = 0
        self._silence = ""
        """Why the last inquiry had no answer; empty if it had one."""
        self._asking = Background(log)
        self.readiness = Readiness({"certificate": self._certificate, "ledger": lambda: failed_if(self._silence)})
        NOT_AFTER.set(signer.not_after_s)

    def app(self) -> HttpApp:
        """Return the HTTP application: OCSP by POST and GET, metrics, and the liveness route."""
        post = Route("POST", PATH, self._post, max_body_bytes=MAX_REQUEST_BYTES, cost=COST)
        get = Route("GET", f"{PATH}/{{request*}}", self._get, cost=COST)  # base64 may hold slashes (RFC 6960, A.1)
        return HttpApp([post, get, METRICS_ROUTE, HEALTH_ROUTE, self.readiness.route()])

    async def answer(self, data: bytes) -> bytes:
        """Answer a request, which may be any bytes; if anything goes wrong, the answer is an OCSP error."""
        began_s = perf_counter()
        outcome, answer = await self._answered(data)
        ANSWERS.labels(outcome).inc()
        SECONDS.observe(perf_counter() - began_s)
        return answer

    async def aclose(self) -> None:
        """End the background tasks."""
        await self._asking.close()

    def _certificate(self) -> Finding:
        expired = self._clock.now_s() > self._signer.not_after_s
        return failed_if("the responder's certificate has expired: segw-agent bridge renew" if expired else "")

    async def _post(self, request: Request) -> Response:
        return _response(await self.answer(request.body))

    async def _get(self, request: Request) -> Response:
        try:
            data = base64.b64decode(request.path_args["request"], validate=True)
        except (binascii.Error, ValueError):
            data = b""  # no valid request, so it is answered as malformed
        return _response(await self.answer(data))

    async def _answered(self, data: bytes) -> tuple[str, bytes]:
        try:
            query = parse_query(data)
        except MalformedError as error:
            _SAID_MALFORMED.warning("malformed request", reason=str(error))
            return "malformed-request", failure(Failure.MALFORMED_REQUEST)
        if not self._signer.serves(query) or not is_serial(query.serial):
            return "unauthorized", failure(Failure.UNAUTHORIZED)
        if self._waiting >= MAX_AT_ONCE:
            return "try-later", failure(Failure.TRY_LATER)
        self._waiting += 1
        try:
            return await self._judged(query)
        except InquiryError as error:
            _SAID_UNKNOWN.warning("the ledger gives no answer", code=error.code, reason=str(error))
            self._fall_silent(error)
            late = error.code in _TRY_LATER
            outcome = "try-later" if late else "internal-error"
            return outcome, failure(Failure.TRY_LATER if late else Failure.INTERNAL_ERROR)
        except Exception as error:  # fail closed: an error must not look like a status
            _SAID_FAILED.error("a certificate could not be judged", error)
            return "internal-error", failure(Failure.INTERNAL_ERROR)
        finally:
            self._waiting -= 1

    def _fall_silent(self, error: InquiryError) -> None:
        self._silence = f"the ledger gave the last question no answer: {error}"
        if not self._asking:
            self._asking.run(self._ask_until_answered())

    async def _ask_until_answered(self) -> None:
        """Probe the ledger until it answers, with the serial number of no certificate."""
        while self._silence:
            await asyncio.sleep(AGAIN_S)
            try:
                await self._vouched(_NOBODYS)
            except NotVouchedError:
                pass  # a refusal is an answer too
            except InquiryError as error:
                self._silence = f"the ledger gave the last question no answer: {error}"
            except Exception as error:  # must not end the probes: the service would stay unready
                _SAID_FAILED.error("the ledger could not be asked", error)

    async def _vouched(self, serial: int) -> Vouched:
        try:
            vouched = await self._vouching.about_serial(serial)
        except NotVouchedError:
            self._silence = ""
            raise
        self._silence = ""
        return vouched

    async def _judged(self, query: Query) -> tuple[str, bytes]:
        try:
            vouched = await self._vouched(query.serial)
        except NotVouchedError as refused:
            outcome, status = refused.code, self._refused(refused)
        else:
            outcome, status = "good", Status(OCSPCertStatus.GOOD, *self._times_s(vouched.time_s))
        if self._clock.now_s() > self._signer.not_after_s:
            _SAID_UNKNOWN.warning("the responder's certificate has expired: segw-agent bridge renew")
            return "internal-error", failure(Failure.INTERNAL_ERROR)
        fields = {"serial": f"{query.serial:x}", "status": status.status.name.lower(), "outcome": outcome}
        _SAID_ANSWERED.info("answered", **fields)
        return outcome, self._signer.answer(query, status)

    def _times_s(self, proved_s: float) -> tuple[int, int]:
        """Return thisUpdate and nextUpdate of an answer that a header of time `proved_s` proves."""
        now_s = self._clock.now_s()
        known_s = min(proved_s, now_s)
        next_s = max(int(known_s), int(min(now_s + self._validity_s, known_s + self._max_age_s)))
        return int(known_s - self._skew_s), next_s + int(self._ahead_s)

    def _refused(self, refused: NotVouchedError) -> Status:
        this_s, next_s = self._times_s(refused.time_s)
        if refused.code not in _REVOKED:
            return Status(OCSPCertStatus.UNKNOWN, this_s, next_s)
        known_s = int(min(refused.time_s, self._clock.now_s()))
        revoked_s = known_s if refused.changed_s is None else min(known_s, int(refused.changed_s))
        return Status(OCSPCertStatus.REVOKED, this_s, next_s, revoked_s, _reason(refused))


def _reason(refused: NotVouchedError) -> x509.ReasonFlags | None:
    reason = _REVOKED[refused.code]
    if refused.code == "revoked" and refused.record is not None and refused.record.reason is not None:
        reason = x509.ReasonFlags(refused.record.reason)
    return None if reason in _UNSAID else reason


def _response(answer: bytes) -> Response:
    """Return the HTTP response; caches must not keep it, or it would be served when it is out of date."""
    return Response(200, answer, "application/ocsp-response", (("Cache-Control", "no-store"),))
