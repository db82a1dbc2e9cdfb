"""The edge: an inquiry node without a state. It asks another node, verifies the answers, and keeps the proofs.

A proof holds for one AppHash. While the AppHash stays the same, the edge answers with the kept proofs under newer
headers. When it changes, the edge fetches new proofs for the most recently used certificates in one request. While
the other node is unreachable, the edge answers from the proofs that it has, and the header shows their age.
Inquiries of other kinds are forwarded unverified, because their callers verify the answers anyway. A request that
waits for changes is held here and forwarded once there are some, so that it holds none of the few connections to
the other node meanwhile.
"""

import asyncio
import base64
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import msgspec

from ledger_node.answer.api import INQUIRIES
from ledger_node.answer.contact import Contact
from ledger_node.answer.openapi import described
from ledger_node.answer.questions import MAX_LIST_BODY_BYTES, ONE_COST, QUESTIONS, Question, listed_digests
from ledger_node.answer.ready import DEFAULT_BLOCK_AGE_S
from ledger_node.answer.requests import (
    BadRequestError,
    changes_after,
    description,
    parse_digest,
    rules_described,
    wait_s,
)
from ledger_node.keep.store import parse_signed_header
from ledger_node.keep.waiters import HeightWaiters
from voice_dpki.effects import Clock
from voice_dpki.ledger.answer_forms import (
    MAX_BATCH,
    AnswerForm,
    BatchForm,
    EntryForm,
    EvidenceForm,
    answer_bytes,
    tail_bytes,
)
from voice_dpki.ledger.answers import InquiryCode, InquiryError
from voice_dpki.ledger.clock import ClockError
from voice_dpki.ledger.header import Header
from voice_dpki.ledger.members import Member
from voice_dpki.ledger.records import CertRecord
from voice_dpki.ledger.standing import status_of
from voice_dpki.names import CertDigest
from voice_dpki.shell.http import Handler, HttpApp, Request, Response, Route, problem
from voice_dpki.shell.metrics import HEALTH_ROUTE, METRICS_ROUTE
from voice_dpki.shell.readiness import Check, Finding, Readiness, failed_if, warned_if, worst
from voice_dpki.shell.trace import Tracer, ms_since
from voice_dpki.wire.http_client import HttpClient, HttpError
from voice_dpki.wire.ledger.client import LedgerClient, NodeSilentError
from voice_dpki.wire.ledger.subscription import compare
from voice_dpki.wire.tasks import running
from voice_dpki.x509.profile import MAX_CERTIFICATE_BYTES, digest_of

log = logging.getLogger(__name__)

WAIT_S = 1.0
"""How long the other node may hold the inquiry for headers. Then it answers even without a new one, so that an edge
that is cut off notices soon."""

FORWARD_TIMEOUT_S = 15.0
"""Time for one forwarded inquiry, including the wait for a connection."""

LAG_MS = 100
"""How long the other node may hold an inquiry for existing changes: its feed lags a little."""

RETRY_S = (0.1, 0.5, 1.0, 2.0)
"""Pauses after the first failure in a row, the second, and so on; the last value repeats."""


@dataclass(frozen=True, slots=True)
class _Proved:
    """A certificate's proved record and member, with the evidence."""

    record: CertRecord | None
    member: Member | None
    evidence: EvidenceForm


@dataclass(frozen=True, slots=True)
class _Tip:
    header: Header
    signed_header: bytes


class Edge:
    """Answers about certificates from kept proofs; `run` keeps them fresh."""

    def __init__(
        self,
        client: LedgerClient,
        upstream: HttpClient,
        *,
        witnesses: Sequence[LedgerClient] = (),
        name: str,
        chain_id: str,
        max_entries: int,
        clock: Clock,
        tracer: Tracer,
        checks: Mapping[str, Check] = MappingProxyType({}),
        max_age_s: float = DEFAULT_BLOCK_AGE_S,
    ) -> None:
        """`client` verifies the other node's answers, of any age; `upstream` forwards the other inquiries to it.

        `witnesses` are clients of other operators' nodes, whose headers must be the same. The checks of /readyz are
        `checks`, and that the newest header is at most `max_age_s` old.
        """
        self._client = client
        self._upstream = upstream
        self._witnesses = witnesses
        self._name = name
        self._chain_id = chain_id
        self._max_entries = max_entries
        self._clock = clock
        self._tracer = tracer
        self._tip: _Tip | None = None
        self._contact = Contact()
        self._waiters = HeightWaiters()
        self._stopping = False
        self._max_age_s = max_age_s
        self._readiness = Readiness({"ledger": self._ledger_heard, **checks})
        self._kept: dict[CertDigest, _Proved] = {}
        """Proofs under the tip's AppHash, the least recently used first."""
        self._stale: dict[CertDigest, _Proved] = {}
        """Proofs under an earlier AppHash, until new ones are fetched."""

    def app(self) -> HttpApp:
        """Return the whole application."""
        return HttpApp(self.routes())

    def routes(self) -> list[Route]:
        """Return all routes."""
        routes = [
            *map(self._route, QUESTIONS),
            Route("GET", "/ledger/v1/node", self._guarded(self._node)),
            Route("GET", "/ledger/v1/changes", self._guarded(self._changes), cost=ONE_COST, waits=True),
            Route("GET", "/ledger/v1/search", _no_search),
            HEALTH_ROUTE,
            self._readiness.route(),
            METRICS_ROUTE,
        ]
        return described(routes)

    def _route(self, question: Question) -> Route:
        """Return the route of a question, which is forwarded unless the kept proofs answer it."""
        own: dict[tuple[str, str], Handler] = {
            ("GET", "status/{digest}"): self._status,
            ("POST", "status"): self._status_of_body,
            ("GET", "certificates/{digest}"): self._certificate,
            ("POST", "statuses"): self._statuses,
        }
        handler = own.get((question.method, question.path))
        return Route(
            question.method,
            question.pattern,
            self._guarded(handler or self._forward),
            MAX_LIST_BODY_BYTES if question.about_several or not handler else MAX_CERTIFICATE_BYTES,
            question.cost,
            question.price,
            waits=True,
        )

    async def run(self) -> None:
        """Follow the other node's headers until cancelled."""
        async with running(compare(self._client, self._witnesses)):
            await self._follow()

    def stop_waiting(self) -> None:
        """End all waiting for changes, now and later."""
        self._stopping = True
        self._waiters.release()

    def _ledger_heard(self) -> Finding:
        """Return whether the other node answers; cut off from it, the edge answers what it holds."""
        if self._client.fork is not None:
            return failed_if("the ledger's validators contradict themselves")
        if self._tip is None:
            return failed_if("the node that is asked has not been heard yet")
        age_s = self._tip.header.age_s(self._clock.now_s())
        late = f"the newest header is {age_s:.0f} s old, more than {self._max_age_s:g} s"
        return worst(failed_if(late if age_s > self._max_age_s else ""), warned_if(self._contact.shortfall()))

    async def _follow(self) -> None:
        failures = 0
        while True:
            try:
                height = self._tip.header.height if self._tip else 0
                self._adopt(*await self._client.newest(height, wait_s=0 if self._contact.lost else WAIT_S))
                await self._renew()
                self._contact.regain()
                failures = 0
            except InquiryError as error:
                if isinstance(error, NodeSilentError):
                    self._contact.lose(str(error))
                if failures == 0:
                    log.warning("no headers come", extra={"fields": {"reason": str(error)}})
                await asyncio.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])
                failures += 1

    async def answer(self, digest: CertDigest, *, with_certificate: bool) -> bytes:
        """Answer about a certificate; raises InquiryError where no proof is kept and the other node gives none."""
        began_s = time.perf_counter()
        proved, tip = await self._proved(digest)
        return self._answer(digest, proved, tip, began_s, with_certificate=with_certificate)

    async def _proved(self, digest: CertDigest) -> tuple[_Proved, _Tip]:
        """Return the proof about a certificate, kept or fetched, and the header that it holds under."""
        if self._client.fork is not None:
            raise InquiryError(InquiryCode.FORK, "the validators contradict themselves")
        tip = self._tip
        proved = self._kept.pop(digest, None)
        if tip is None or proved is None:
            async with self._contact.asking():
                proved, tip = await self._ask(digest)
        if tip.header.app_hash == (self._tip or tip).header.app_hash:
            self._keep(digest, proved)
        return proved, tip

    async def _ask(self, digest: CertDigest) -> tuple[_Proved, _Tip]:
        resolution, data = await self._client.resolve_raw(digest)
        form = msgspec.json.decode(data, type=AnswerForm)
        raw = bytes(form.signed_header)
        tip = _Tip(parse_signed_header(raw).header, raw)
        self._adopt(tip.header, raw)
        evidence = EvidenceForm(
            record=form.record, proof=form.proof, member=form.member, certificate=form.certificate
        )
        return _Proved(resolution.record, resolution.member, evidence), tip

    def _adopt(self, header: Header, raw: bytes) -> None:
        """Make a header the tip if it is newer; proofs under another AppHash become stale."""
        before = self._tip
        if before is not None and header.height <= before.header.height:
            return
        self._tip = _Tip(header, raw)
        self._waiters.reach(header.height)
        if before is not None and before.header.app_hash != header.app_hash:
            self._stale |= self._kept
            self._kept = {}

    async def _renew(self) -> None:
        """Fetch new proofs for the MAX_BATCH most recently used certificates, and drop the other stale proofs."""
        old = dict(list(self._stale.items())[-MAX_BATCH:])
        if not old:
            return
        found, data = await self._client.resolve_all_raw(list(old))
        self._stale = {}
        form = msgspec.json.decode(data, type=BatchForm)
        raw = bytes(form.signed_header)
        header = parse_signed_header(raw).header
        self._adopt(header, raw)
        if self._tip is None or header.app_hash != self._tip.header.app_hash:
            return
        for resolution, entry in zip(found, form.entries, strict=True):
            if resolution.record is not None:
                member = form.members[resolution.record.organization]
                der = old[resolution.digest].evidence.certificate
                evidence = EvidenceForm(record=entry.record, proof=entry.proof, member=member, certificate=der)
                self._keep(resolution.digest, _Proved(resolution.record, resolution.member, evidence))

    def _keep(self, digest: CertDigest, proved: _Proved) -> None:
        """Keep a proof as the most recently used, unless it proves absence: anybody can ask for many of those."""
        if proved.record is None:
            return
        self._kept[digest] = proved
        if len(self._kept) > self._max_entries:
            del self._kept[next(iter(self._kept))]

    def _answer(
        self, digest: CertDigest, proved: _Proved, tip: _Tip, began_s: float, *, with_certificate: bool
    ) -> bytes:
        status = status_of(proved.record, proved.member, self._now_s())
        INQUIRIES.labels(status).inc()
        if self._tracer.on:
            text = f"inquiry H(CERT) {digest[:4].hex()}.., {status} at height {tip.header.height}"
            self._tracer.note(text, ms=ms_since(began_s), status=status)
        evidence = proved.evidence if with_certificate else _without_certificate(proved.evidence)
        tail = tail_bytes(tip.header.height, tip.signed_header)
        return answer_bytes(digest, status, msgspec.json.encode(evidence), tail)

    def _now_s(self) -> float:
        try:
            return self._client.clock.checked_s()
        except ClockError as error:
            raise InquiryError(InquiryCode.CLOCK, str(error)) from None

    async def _status(self, request: Request) -> Response:
        return Response(200, await self.answer(parse_digest(request.path_args["digest"]), with_certificate=False))

    async def _status_of_body(self, request: Request) -> Response:
        return Response(200, await self.answer(digest_of(request.body), with_certificate=False))

    async def _statuses(self, request: Request) -> Response:
        """Answer about several certificates, if all their proofs are kept."""
        digests, tip = listed_digests(request), self._tip
        proved = [(digest, self._kept[digest]) for digest in digests if digest in self._kept]
        if tip is None or len(proved) < len(digests) or self._client.fork is not None:
            return await self._forward(request)
        self._now_s()
        return Response(200, _several(proved, tip))

    async def _certificate(self, request: Request) -> Response:
        name = request.path_args["digest"]
        if not name.endswith(".der"):
            return Response(200, await self.answer(parse_digest(name), with_certificate=True))
        proved, _ = await self._proved(parse_digest(name.removesuffix(".der")))
        if proved.evidence.certificate is None:
            return problem(404, "Not Found", "no certificate with this digest is recorded")
        return Response(200, base64.b64decode(proved.evidence.certificate), content_type="application/pkix-cert")

    async def _node(self, _request: Request) -> Response:
        header = self._tip.header if self._tip else None
        height = header.height if header else 0
        rules = rules_described(header.version_app if header else None, None)
        return description(self._name, "edge", self._chain_id, height, header, rules, self._clock.now_s())

    async def _changes(self, request: Request) -> Response:
        """Wait here until the tip passes the height, and only then ask the other node for the changes."""
        root, height = changes_after(request)
        may_wait_s = 0 if self._contact.lost else wait_s(request)
        if may_wait_s and not self._stopping and not self._has_passed(height):
            await self._waiters.wait(height + 1, may_wait_s)
        wait_ms = min(LAG_MS, int(may_wait_s * 1000)) if self._has_passed(height) else 0
        target = f"{request.path}?root={root.hex()}&height={height}&wait_ms={wait_ms}"
        return await self._ask_upstream("GET", target)

    def _has_passed(self, height: int) -> bool:
        return self._tip is not None and self._tip.header.height > height

    async def _forward(self, request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        return await self._ask_upstream(method, request.target, request.body)

    async def _ask_upstream(self, method: str, target: str, body: bytes = b"") -> Response:
        async with self._contact.asking():
            answer = await self._upstream.request(method, target, body, timeout_s=FORWARD_TIMEOUT_S)
        kind = "application/json" if answer.status == 200 else "application/problem+json"
        headers = (("Retry-After", "1"),) if answer.status in (429, 503) else ()
        return Response(answer.status, answer.body, content_type=kind, headers=headers)

    def _guarded(self, handler: Handler) -> Handler:
        """Turn the errors that a handler can raise into problem documents."""

        async def guarded(request: Request) -> Response:
            try:
                return await handler(request)
            except BadRequestError as error:
                return problem(400, "Bad Request", str(error))
            except (InquiryError, HttpError) as error:
                return problem(503, "Service Unavailable", _blame(error))

        return guarded


def _several(proved: Sequence[tuple[CertDigest, _Proved]], tip: _Tip) -> bytes:
    """Write the answer about several certificates (`voice_dpki.ledger.answer_forms`)."""
    members = {each.record.organization: each.evidence.member for _, each in proved if each.record is not None}
    entries = [EntryForm(digest.hex(), each.evidence.record, each.evidence.proof) for digest, each in proved]
    front = msgspec.json.encode({"entries": entries, "members": members})
    return front[:-1] + tail_bytes(tip.header.height, tip.signed_header)


def _blame(error: InquiryError | HttpError) -> str:
    if isinstance(error, InquiryError) and error.code is InquiryCode.CLOCK:
        return str(error)
    return f"the node that is asked is of no help: {error}"


async def _no_search(_request: Request) -> Response:
    return problem(
        404,
        "Not Found",
        "an edge node has no catalogue. GET /ledger/v1/names gives all certificates of a whole name, with proof; "
        "parts of names can be looked for at an inquiry node with a store, and nothing proves its answer",
    )


def _without_certificate(evidence: EvidenceForm) -> EvidenceForm:
    return msgspec.structs.replace(evidence, certificate=None)
