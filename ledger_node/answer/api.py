"""The HTTP interface of a node: inquiries from anyone, submissions from token holders, blocks for followers."""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
from prometheus_client import Counter

from ledger_node.answer.feed import Feed
from ledger_node.answer.inquiry import Inquiry, NoBlockError
from ledger_node.answer.requests import (
    BadRequestError,
    changes_after,
    description,
    parse_digest,
    parse_number,
    wait_s,
)
from ledger_node.keep.chain import Chain
from ledger_node.keep.store import StoredBlock, parse_signed_header
from ledger_node.order.orderer import BusyError, Orderer, RefusedByLedgerError, UnavailableError
from ledger_node.order.submission import Recorded, Submission
from voice_dpki.effects import Clock
from voice_dpki.ledger import names
from voice_dpki.ledger.answers import MAX_BATCH, MAX_LEAVES
from voice_dpki.ledger.records import CertStatus
from voice_dpki.ledger.replica import content_json
from voice_dpki.ledger.state import TxResult
from voice_dpki.ledger.transactions import (
    MAX_KEY_BYTES,
    MAX_SIGNATURE_BYTES,
    MAX_TEXT_LENGTH,
    MAX_TRANSACTION_BYTES,
)
from voice_dpki.ledger.tree import TooManyLeavesError
from voice_dpki.names import CertDigest, Tn
from voice_dpki.shell.http import (
    DEFAULT_MAX_BODY_BYTES,
    Charge,
    Handler,
    HttpApp,
    Price,
    Request,
    Response,
    Route,
    bearer_token_matches,
    json_response,
    problem,
)
from voice_dpki.shell.limits import MAX_COST, TooManyError
from voice_dpki.shell.metrics import HEALTH_ROUTE, METRICS_ROUTE
from voice_dpki.shell.trace import Tracer, ms_since
from voice_dpki.wire.ledger.client import CHANGES
from voice_dpki.x509.profile import MAX_CERTIFICATE_BYTES, MAX_NAME_LENGTH, digest_of

log = logging.getLogger(__name__)

MAX_BLOCKS = 64
MAX_BLOCKS_BYTES = 4 * 1024 * 1024
"""A list of blocks ends with the block that passes this size."""

MAX_BATCH_BODY_BYTES = 80 * MAX_BATCH

ONE_COST = 1
"""Cost of an inquiry about one certificate, block or member, against the client's `[limits]`."""
SEVERAL_COST = 20
"""Least cost of an inquiry about all certificates with a name or a prefix."""
BLOCKS_COST = 5
BLOCKS_OF_1_COST = 4
"""Number of blocks that cost 1 more."""
BYTES_OF_1_COST = 32 * 1024
"""Bytes of blocks or changes that cost 1 more, because they are encoded and sent."""
TRANSACTION_COST = 10
"""Cost of a transaction: its signature must be verified, even if it turns out to be false."""
TRANSACTION_BYTES_OF_1_COST = 256
"""Bytes of a transaction that cost 1 more, because the certificates in it are verified."""
SEARCH_COST = MAX_COST

_LISTED_BYTES = len('"",') + 64
"""Bytes that one digest or key takes in a list: 64 hexadecimal digits, quotes and a comma."""

INQUIRIES = Counter("voice_dpki_ledger_inquiries", "Answers about certificates", ["status"])
_COUNTED = {status: INQUIRIES.labels(status) for status in CertStatus}
SUBMISSIONS = Counter("voice_dpki_ledger_submissions", "Requests to the submission role", ["outcome"])


_PREFIX = re.compile("[0-9a-f]{1,64}")


class _BatchForm(msgspec.Struct, forbid_unknown_fields=True):
    digests: Annotated[list[str], msgspec.Meta(min_length=1, max_length=MAX_BATCH)]


_Key = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class _LeavesForm(msgspec.Struct, forbid_unknown_fields=True):
    keys: Annotated[list[_Key], msgspec.Meta(min_length=1, max_length=MAX_LEAVES)]


_NAMES: dict[str, Callable[[str, str], list[bytes]]] = {
    "subject": lambda name, organization: [names.subject_key(organization, name)],
    "number": lambda number, _: names.number_keys(_tn(number)),
    "uri": lambda uri, _: [names.uri_key(uri)],
    "dns": lambda host, _: [names.dns_key(host)],
    "spc": lambda code, _: [names.spc_key(code)],
}
"""For each kind of name, the function from name and organisation to the keys of the lists of its certificates."""


class _ChangeForm(msgspec.Struct, forbid_unknown_fields=True):
    digest: str
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT_LENGTH)]


class _RenewalForm(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a renewal, in JSON; bytes are base64."""

    certificate: Annotated[bytes, msgspec.Meta(max_length=MAX_CERTIFICATE_BYTES)]
    replaces: str
    owner_key: Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_KEY_BYTES)]
    owner_signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=MAX_SIGNATURE_BYTES)]


def price_of_list(request: Request) -> int:
    """Price a list of digests or keys at 1 each, before it is parsed."""
    return len(request.body) // _LISTED_BYTES


def _price_of_transaction(request: Request) -> int:
    return len(request.body) // TRANSACTION_BYTES_OF_1_COST


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
        tokens: Sequence[str],
        clock: Clock,
        tracer: Tracer,
    ) -> None:
        self._chain = chain
        self._feed = feed
        self._name = name
        self._role = role
        self._folder = folder
        self._orderer = orderer
        self._submission = submission
        self._tokens = tokens
        self._clock = clock
        self._tracer = tracer
        self._inquiry = Inquiry(chain, clock)
        self._search: Callable[[str | None, str | None], dict[str, object]] | None = None
        self._searcher = ThreadPoolExecutor(1, thread_name_prefix="ledger-search")
        """Searches one at a time; a search that has not begun is dropped with its request."""
        self._sending = asyncio.Lock()
        """Held while a list of blocks is encoded, one list at a time."""

    def app(self) -> HttpApp:
        """Return the whole application."""
        return HttpApp(self.routes())

    def routes(self) -> list[Route]:
        """Return all routes; those of the submission role only if the node has it."""
        answers = [
            Route("GET", "/ledger/v1/status/{digest}", self._status, cost=ONE_COST),
            *self._inquiry_routes(),
            Route("GET", "/ledger/v1/node", _guarded(self._node)),
            *self._block_routes(),
            HEALTH_ROUTE,
            METRICS_ROUTE,
        ]
        return answers if self._submission is None else answers + self._submission_routes()

    def _inquiry_routes(self) -> list[Route]:
        one: list[tuple[str, str, Handler]] = [
            ("POST", "status", self._status_of_body),
            ("GET", "certificates/{digest}", self._certificate),
            ("GET", "headers/{height}", self._header),
            ("GET", "members/{organization}", self._member),
        ]
        several: list[tuple[str, str, Handler, int, Price | None]] = [
            ("POST", "statuses", self._statuses, ONE_COST, price_of_list),
            ("POST", "leaves", self._leaves, ONE_COST, price_of_list),
            ("GET", "prefix/{prefix}", self._prefix, SEVERAL_COST, None),
            ("GET", "names", self._names, SEVERAL_COST, None),
        ]
        return [
            *(
                Route(method, f"/ledger/v1/{path}", _guarded(handler), MAX_CERTIFICATE_BYTES, ONE_COST)
                for method, path, handler in one
            ),
            *(
                Route(
                    method,
                    f"/ledger/v1/{path}",
                    _guarded(handler),
                    MAX_BATCH_BODY_BYTES,
                    cost,
                    price,
                    waits=True,
                )
                for method, path, handler, cost, price in several
            ),
            Route("GET", "/ledger/v1/search", _guarded(self._find), cost=SEARCH_COST, waits=True),
        ]

    def _block_routes(self) -> list[Route]:
        return [
            Route("GET", "/ledger/v1/changes", _guarded(self._changes), cost=ONE_COST, waits=True),
            Route("GET", "/ledger/v1/blocks", _guarded(self._blocks), cost=BLOCKS_COST, waits=True),
            Route("GET", "/ledger/v1/blocks/{height}", _guarded(self._block), cost=ONE_COST, waits=True),
            Route(
                "POST",
                "/ledger/v1/transactions",
                _guarded(self._transaction),
                MAX_TRANSACTION_BYTES,
                TRANSACTION_COST,
                _price_of_transaction,
            ),
        ]

    def _submission_routes(self) -> list[Route]:
        endorsed = {
            "/ledger/v1/submissions": (self._submit, MAX_CERTIFICATE_BYTES),
            "/ledger/v1/renewals": (self._renew, 4 * MAX_CERTIFICATE_BYTES),
            **{path: (self._change(status), DEFAULT_MAX_BODY_BYTES) for status, path in CHANGES.items()},
        }
        return [
            Route("POST", path, _guarded(handler), max_bytes, TRANSACTION_COST, authorize=self._authorize)
            for path, (handler, max_bytes) in endorsed.items()
        ]

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
            text = f"inquiry H(CERT) {_short(digest)}, {answer.status} at height {answer.height}"
            self._tracer.note(text, ms=ms_since(started), status=answer.status, digest=digest.hex())
        return Response(200, answer.body)

    async def _statuses(self, request: Request) -> Response:
        try:
            form = msgspec.json.decode(request.body, type=_BatchForm)
        except ValueError as error:  # msgspec's errors, and bytes that are not UTF-8
            raise BadRequestError(f'the body must be {{"digests": [hex, ...]}}: {error}') from None
        return Response(200, await self._inquiry.batch([parse_digest(text) for text in form.digests]))

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
            form = msgspec.json.decode(request.body, type=_LeavesForm)
        except ValueError as error:  # msgspec's errors, and bytes that are not UTF-8
            raise BadRequestError(f'the body must be {{"keys": [hex, ...]}}: {error}') from None
        return Response(200, self._inquiry.leaves([bytes.fromhex(key) for key in form.keys]))

    async def _names(self, request: Request) -> Response:
        """Answer with the lists of all certificates of a name."""
        query = dict(request.query)
        organization = query.pop("organization", "")
        if len(query) != 1 or (kind := next(iter(query))) not in _NAMES:
            raise BadRequestError(f"ask for one of {', '.join(_NAMES)}; for a subject, with its organization")
        return Response(200, self._inquiry.leaves(_NAMES[kind](query[kind], organization)))

    async def _header(self, request: Request) -> Response:
        height = parse_number(request.path_args["height"], "height")
        block = self._inquiry.light_block(height)
        if block is None:
            return problem(404, "Not Found", f"there is no header {height} here, or its validators are not known")
        return Response(200, block)

    async def _changes(self, request: Request) -> Response:
        root, height = changes_after(request)
        changes = await self._feed.changes(root, height, wait_s(request))
        if changes is None:
            raise NoBlockError("this node has no block yet; ask again in a moment")
        request.charge(len(changes) // BYTES_OF_1_COST)
        return Response(200, changes)

    async def _member(self, request: Request) -> Response:
        organization = request.path_args["organization"]
        if len(organization) > MAX_NAME_LENGTH:
            raise BadRequestError(f"an organisation's name has at most {MAX_NAME_LENGTH} characters")
        return Response(200, self._inquiry.member(organization))

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
        header = parse_signed_header(tip).header if tip else None
        chain_id, now_s = self._chain.genesis.chain_id, self._clock.now_s()
        return description(self._name, self._role, chain_id, height, header, now_s)

    async def _block(self, request: Request) -> Response:
        height = parse_number(request.path_args["height"], "height")
        await self._chain.wait_for(height, wait_s(request))
        with self._chain.snapshot() as view:
            block = view.block(height)
        if block is None:
            return problem(404, "Not Found", f"there is no block {height} yet")
        request.charge(_size(block) // BYTES_OF_1_COST)
        return json_response(200, _block_json(block))

    async def _blocks(self, request: Request) -> Response:
        first = parse_number(request.query.get("from", "1"), "from")
        count = min(parse_number(request.query.get("count", "1"), "count"), MAX_BLOCKS)
        await self._chain.wait_for(first, wait_s(request))
        request.charge(count // BLOCKS_OF_1_COST)
        async with self._sending:
            return json_response(200, {"blocks": await self._encoded(first, count, request.charge)})

    async def _encoded(self, first: int, count: int, charge: Charge) -> list[msgspec.Raw]:
        """Encode blocks one at a time, until the client's limit or MAX_BLOCKS_BYTES is reached.

        Raises TooManyError if the limit does not even allow the first.
        """
        blocks: list[msgspec.Raw] = []
        size = 0
        with self._chain.snapshot() as view:
            for height in range(first, first + count):
                block = view.block(height)
                if block is None or size > MAX_BLOCKS_BYTES:
                    break
                try:
                    charge(_size(block) // BYTES_OF_1_COST)
                except TooManyError:
                    if not blocks:
                        raise
                    break
                blocks.append(msgspec.Raw(msgspec.json.encode(_block_json(block))))
                size += _size(block)
                await asyncio.sleep(0)
        return blocks

    async def _transaction(self, request: Request) -> Response:
        verdict = await self._orderer.submit(request.body)
        return json_response(
            422 if verdict.result.code else 200, {**asdict(verdict.result), "height": verdict.height}
        )

    async def _submit(self, request: Request) -> Response:
        assert self._submission is not None
        started = time.perf_counter()
        recorded = await self._submission.submit(request.body)
        return self._recorded("submission", recorded, started, created=not recorded.repeated)

    async def _renew(self, request: Request) -> Response:
        assert self._submission is not None
        started = time.perf_counter()
        recorded = await self._submission.renew(*_renewal_body(request.body))
        return self._recorded("renewal", recorded, started, created=not recorded.repeated)

    def _change(self, status: CertStatus) -> Handler:
        async def change(request: Request) -> Response:
            assert self._submission is not None
            started = time.perf_counter()
            digest, reason = _change_body(request.body)
            recorded = await self._submission.change_status(digest, status, reason)
            return self._recorded("status change", recorded, started, created=False)

        return change

    def _authorize(self, request: Request) -> Response | None:
        """Refuse a request without one of the submission role's tokens, before its body is read."""
        if bearer_token_matches(request, self._tokens):
            return None
        SUBMISSIONS.labels("unauthorized").inc()
        return _unauthorized()

    def _recorded(self, what: str, recorded: Recorded, started: float, *, created: bool) -> Response:
        SUBMISSIONS.labels("repeated" if recorded.repeated else "recorded").inc()
        text = f"{what} H(CERT) {_short(recorded.digest)}, {recorded.status} since height {recorded.height}"
        self._tracer.note(text, ms=ms_since(started), status=recorded.status, digest=recorded.digest.hex())
        body = {
            "digest": recorded.digest.hex(),
            "status": recorded.status,
            "height": recorded.height,
            "repeated": recorded.repeated,
        }
        return json_response(201 if created else 200, body)


def _guarded(handler: Handler) -> Handler:
    """Turn the errors that a handler may raise into problem documents."""

    async def guarded(request: Request) -> Response:
        try:
            return await handler(request)
        except BadRequestError as error:
            return problem(400, "Bad Request", str(error))
        except RefusedByLedgerError as refused:
            SUBMISSIONS.labels("refused").inc()
            return _refused(refused.result)
        except (BusyError, UnavailableError, NoBlockError) as error:
            answer = problem(503, "Service Unavailable", str(error))
            return replace(answer, headers=(("Retry-After", "1"),))

    return guarded


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
        form = msgspec.json.decode(body, type=_ChangeForm)
    except ValueError as error:  # msgspec's errors, and bytes that are not UTF-8
        raise BadRequestError(f'the body must be {{"digest": hex, "reason": text}}: {error}') from None
    return parse_digest(form.digest), form.reason


def _renewal_body(body: bytes) -> tuple[bytes, CertDigest, bytes, bytes]:
    try:
        form = msgspec.json.decode(body, type=_RenewalForm)
    except ValueError as error:  # msgspec's errors, and bytes that are not UTF-8
        raise BadRequestError(
            'the body must be {"certificate", "replaces", "owner_key", "owner_signature"}, '
            f"base64 but for the digest in hex: {error}"
        ) from None
    return form.certificate, parse_digest(form.replaces), form.owner_key, form.owner_signature


def _tn(text: str) -> Tn:
    digits = text.removeprefix("+")
    if not re.fullmatch("[0-9]{1,15}", digits):
        raise BadRequestError("a telephone number has 1 to 15 digits")
    return Tn(digits)


def _size(block: StoredBlock) -> int:
    return sum(map(len, (*block.transactions, *block.evidence)))


def _block_json(block: StoredBlock) -> dict[str, object]:
    content = content_json(block.transactions, block.evidence)
    return {"signed_header": msgspec.Raw(block.signed_header_json), **content}


def _short(digest: CertDigest) -> str:
    return f"{digest[:4].hex()}.."
