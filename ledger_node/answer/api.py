"""The HTTP interface of a node with a store: inquiries from anyone, and what else its roles offer."""

import asyncio
import re
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from ledger_node.answer.blocks import BlockRoutes
from ledger_node.answer.feed import Feed
from ledger_node.answer.inquiry import Inquiry, NoBlockError
from ledger_node.answer.openapi import described
from ledger_node.answer.questions import (
    MAX_LIST_BODY_BYTES,
    ONE_COST,
    QUESTIONS,
    LeavesQuestion,
    Question,
    listed_digests,
)
from ledger_node.answer.requests import (
    BadRequestError,
    PrunedError,
    description,
    guarded,
    parse_digest,
    parse_number,
    rules_described,
    short,
)
from ledger_node.answer.submissions import Submissions
from ledger_node.keep.chain import Chain
from ledger_node.keep.store import parse_signed_header
from ledger_node.order.orderer import Orderer
from ledger_node.order.submission import Submission
from voice_dpki.effects import Clock
from voice_dpki.errors import MalformedError
from voice_dpki.ledger.activation import scheduled, version_at
from voice_dpki.ledger.leaf import Leaf
from voice_dpki.ledger.names import KINDS_OF_NAMES
from voice_dpki.ledger.records import CertStatus
from voice_dpki.ledger.tree import TooManyLeavesError
from voice_dpki.metrics import counters
from voice_dpki.names import CertDigest
from voice_dpki.shell.http import Handler, HttpApp, Request, Response, Route, json_response, problem
from voice_dpki.shell.limits import MAX_COST
from voice_dpki.shell.metrics import METRICS_ROUTE, Health, health_route, healthy
from voice_dpki.shell.readiness import Check, Readiness
from voice_dpki.shell.reload import Live
from voice_dpki.shell.trace import Tracer, ms_since
from voice_dpki.x509.profile import MAX_CERTIFICATE_BYTES, digest_of

SEARCH_COST = MAX_COST

INQUIRIES = counters("ledger_inquiries", "Answers about certificates", status=CertStatus)
_COUNTED = {status: INQUIRIES.labels(status) for status in CertStatus}

_PREFIX = re.compile("[0-9a-f]{1,64}")


class Api:
    """The handlers of one node, and their routes."""

    def __init__(
        self,
        chain: Chain,
        *,
        name: str,
        role: str,
        folder: Path,
        orderer: Orderer,
        feed: Feed,
        submission: Submission | None,
        tokens: Live[tuple[str, ...]],
        clock: Clock,
        tracer: Tracer,
        health: Callable[[], Health] = healthy,
        checks: Mapping[str, Check] = MappingProxyType({}),
        history: str | None = None,
    ) -> None:
        """Make the handlers; `submission` is None unless the node has that role, and `tokens` are for that.

        `checks` are those of /readyz. `history` is the URL of a node that has the blocks that this one removed.
        """
        self._history = history
        self._chain = chain
        self._name = name
        self._role = role
        self._folder = folder
        self._health = health
        self._readiness = Readiness(checks)
        self._blocks = BlockRoutes(chain, feed, orderer, history)
        self._submission = submission
        self._submissions = Submissions(submission, tokens, tracer) if submission else None
        self._clock = clock
        self._tracer = tracer
        self._inquiry = Inquiry(chain, clock)
        self._search: Callable[[str | None, str | None], dict[str, object]] | None = None
        self._searcher = ThreadPoolExecutor(1, thread_name_prefix="ledger-search")
        """Searches one at a time; a search that has not begun is dropped with its request."""

    async def aclose(self) -> None:
        """Stop endorsing."""
        if self._submission is not None:
            await self._submission.close()

    def watches(self) -> list[Coroutine[object, object, None]]:
        """Return what has to run while the node serves: the watch over the token of its endorsing key."""
        return [self._submission.watch()] if self._submission else []

    def app(self) -> HttpApp:
        """Return the whole application."""
        return HttpApp(self.routes())

    def routes(self) -> list[Route]:
        """Return all routes; those of the submission role only if the node has it."""
        routes = [
            Route("GET", "/ledger/v1/status/{digest}", self._status, cost=ONE_COST),
            *(self._route(question) for question in QUESTIONS if question.path != "status/{digest}"),
            Route("GET", "/ledger/v1/search", guarded(self._find), cost=SEARCH_COST, waits=True),
            Route("GET", "/ledger/v1/node", guarded(self._node)),
            *self._blocks.routes(),
            health_route(self._health),
            self._readiness.route(),
            METRICS_ROUTE,
            *(self._submissions.routes() if self._submissions else ()),
        ]
        return described(routes)

    def _route(self, question: Question) -> Route:
        return Route(
            question.method,
            question.pattern,
            guarded(self._handler(question)),
            MAX_LIST_BODY_BYTES if question.about_several else MAX_CERTIFICATE_BYTES,
            question.cost,
            question.price,
            waits=question.about_several,
        )

    def _handler(self, question: Question) -> Handler:
        """Return the handler for a question: its own, or the one for all kinds of leaves."""
        own: dict[str, Handler] = {
            "status": self._status_of_body,
            "certificates/{digest}": self._certificate,
            "headers/{height}": self._header,
            "statuses": self._statuses,
            "leaves": self._leaves,
            "prefix/{prefix}": self._prefix,
            "names": self._names,
        }
        return own[question.path] if question.leaf is None or question.path in own else self._leaf(question.leaf)

    def _status(self, request: Request) -> Response:
        """Answer the most frequent inquiry without a coroutine, which would cost a task."""
        try:
            return self._answer(parse_digest(request.path_args["digest"]), with_certificate=False)
        except BadRequestError as error:
            return problem(400, "Bad Request", str(error))
        except NoBlockError as error:
            return problem(503, "Service Unavailable", str(error))

    async def _status_of_body(self, request: Request) -> Response:
        return self._answer(digest_of(request.body), with_certificate=False)

    async def _certificate(self, request: Request) -> Response:
        name = request.path_args["digest"]
        if not name.endswith(".der"):
            return self._answer(parse_digest(name), with_certificate=True)
        with self._chain.snapshot() as view:
            der = view.get(b"certificates", parse_digest(name.removesuffix(".der")))
        if der is None:
            return problem(404, "Not Found", "no certificate with this digest is recorded")
        return Response(200, der, content_type="application/pkix-cert")

    def _answer(self, digest: CertDigest, *, with_certificate: bool) -> Response:
        started = time.perf_counter()
        answer = self._inquiry.status(digest, with_certificate=with_certificate)
        _COUNTED[answer.status].inc()
        if self._tracer.on:
            text = f"inquiry H(CERT) {short(digest)}, {answer.status} at height {answer.height}"
            self._tracer.note(text, ms=ms_since(started), status=answer.status, digest=digest.hex())
        return Response(200, answer.body)

    async def _statuses(self, request: Request) -> Response:
        return Response(200, await self._inquiry.batch(listed_digests(request)))

    async def _prefix(self, request: Request) -> Response:
        prefix = request.path_args["prefix"]
        if not _PREFIX.fullmatch(prefix):
            raise BadRequestError("a prefix of H(CERT) is 1 to 64 hexadecimal digits, in lower case")
        try:
            return Response(200, await self._inquiry.prefix(prefix, lambda count: request.charge(count // 2)))
        except TooManyLeavesError as error:
            raise BadRequestError(str(error)) from None

    async def _leaves(self, request: Request) -> Response:
        try:
            form = msgspec.json.decode(request.body, type=LeavesQuestion)
        except ValueError as error:  # msgspec's errors, and bytes that are not UTF-8
            raise BadRequestError(f'the body must be {{"keys": [hex, ...]}}: {error}') from None
        return Response(200, self._inquiry.leaves([bytes.fromhex(key) for key in form.keys]))

    def _leaf(self, leaf: Leaf[Any]) -> Handler:
        async def answer(request: Request) -> Response:
            assert leaf.lookup is not None
            argument = leaf.lookup.argument
            text = request.path_args[argument.name]
            try:
                key = leaf.key(argument.of_text(text))
            except MalformedError as error:
                raise BadRequestError(str(error)) from None
            return Response(200, self._inquiry.leaf(leaf.kind, argument.name, text, key))

        return answer

    async def _names(self, request: Request) -> Response:
        """Answer with the lists of all certificates of a name."""
        query = dict(request.query)
        organization = query.pop("organization", "")
        if len(query) != 1 or (kind := next(iter(query))) not in KINDS_OF_NAMES:
            kinds = ", ".join(KINDS_OF_NAMES)
            raise BadRequestError(f"ask for one of {kinds}; for a subject, with its organization")
        try:
            keys = KINDS_OF_NAMES[kind](query[kind], organization)
        except MalformedError as error:
            raise BadRequestError(str(error)) from None
        return Response(200, self._inquiry.leaves(keys))

    async def _header(self, request: Request) -> Response:
        height = parse_number(request.path_args["height"], "height")
        block = self._inquiry.light_block(height)
        if block is None:
            with self._chain.snapshot() as view:
                if 0 < height < view.first:
                    raise PrunedError.below(height, view.first, self._history)
            return problem(404, "Not Found", f"there is no header {height} here, or its validators are not known")
        return Response(200, block)

    async def _find(self, request: Request) -> Response:
        subject, organization = request.query.get("subject"), request.query.get("organization")
        search = partial(self._search_blocking, subject, organization)
        return json_response(200, await asyncio.get_running_loop().run_in_executor(self._searcher, search))

    def _search_blocking(self, subject: str | None, organization: str | None) -> dict[str, object]:
        if self._search is None:
            from ledger_node.answer.catalogue import Catalogue  # its libraries take half a second and 40 MB to load

            self._search = Catalogue(self._folder, self._chain.store).search
        return self._search(subject, organization)

    async def _node(self, _request: Request) -> Response:
        with self._chain.snapshot() as view:
            tip, height = view.tip_json, view.height
            rules = rules_described(version_at(view, height + 1), scheduled(view, height + 1))
        header = parse_signed_header(tip).header if tip else None
        chain_id, now_s = self._chain.genesis.chain_id, self._clock.now_s()
        return description(self._name, self._role, chain_id, height, header, rules, now_s)
