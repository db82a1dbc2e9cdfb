"""The common parts of the two STIR services: one POST route for authenticated clients (`voice_dpki.stir.forms`)."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Annotated, Protocol

import msgspec

from voice_dpki.codec.openapi import OPENAPI_PATH, encode
from voice_dpki.effects import Random, SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.metrics import counters, histograms
from voice_dpki.shell.config import Config, Listen, read_secrets, resolve
from voice_dpki.shell.current import work_for, work_on
from voice_dpki.shell.http import HttpApp, Request, Response, Route, bearer_token_matches, serve
from voice_dpki.shell.http_app import AnyHandler
from voice_dpki.shell.limits import Limits
from voice_dpki.shell.log import LogConfig
from voice_dpki.shell.metrics import HEALTH_ROUTE, METRICS_ROUTE
from voice_dpki.shell.notify import tell_ready
from voice_dpki.shell.readiness import Readiness
from voice_dpki.shell.reload import RELOADABLE, Live
from voice_dpki.shell.tls import ServerSide, ServerTls
from voice_dpki.shell.trace import CallTraceConfig, Tracer
from voice_dpki.shell.worker import MAX_WORKERS
from voice_dpki.stir import openapi
from voice_dpki.stir.faults import MESSAGE_IDS, RequestError, error_of_status
from voice_dpki.stir.forms import MEDIA_TYPE, SIP_MEDIA_TYPES, SIP_PATH, check_headers
from voice_dpki.stir.members import MAX_BODY_BYTES
from voice_dpki.stir.national import Country
from voice_dpki.wire.seldom import Seldom

log = logging.getLogger(__name__)
_SAID = Seldom(log)

OPERATIONS = ("signing", "verification")

OUTCOMES = ("answered", *MESSAGE_IDS)

REQUESTS = counters(
    "stir_requests",
    "Requests, by what came of them.",
    operation=OPERATIONS,
    outcome=OUTCOMES,
)
SECONDS = histograms(
    "stir_request_seconds",
    "Time from a request's arrival to its answer.",
    operation=OPERATIONS,
    buckets=(0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.03, 0.1, 0.3, 1, 3),
)

Perform = Callable[[bytes, str], bytes | Awaitable[bytes]]
"""The service itself: takes the body of a request and the name of its client, "" for a client without one.

Returns the body of the response, at once where it need not wait for anything; raises RequestError.
"""

Header = tuple[str, str]
"""A header field's name and value."""

Namespace = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9!%*_+`'~-]{1,32}$")]
"""A namespace of Resource-Priority, such as "ets" (RFC 4412 §3.1)."""

_CLIENT = re.compile(r"[A-Za-z0-9_.:/-]{1,64}\Z")
_CLIENT_NOTE, _MEDIA_TYPE_NOTE = "stir client", "stir media type"
_REQUEST_ID = re.compile(r"[!-~]{1,128}\Z")


class SipServer(Protocol):
    """The same service over SIP, such as `voice_dpki.shell.stir_sip.StirSip`."""

    @property
    def addresses(self) -> Mapping[str, str]:
        """Where it listens, as "host:port" by name."""
        ...

    async def start(self) -> None:
        """Begin to listen; raises LocalError."""
        ...

    async def close(self) -> None:
        """Stop at once."""
        ...


class StirConfig(Config, frozen=True, kw_only=True):
    """The options of both services."""

    listen: Listen
    domain: str
    tokens: Annotated[str, RELOADABLE]
    """File with the bearer tokens of the proxies, one per line, perhaps with a name before it: `NAME TOKEN`."""
    tls: Annotated[ServerTls | None, RELOADABLE] = None
    log: LogConfig = LogConfig()
    trace: CallTraceConfig = CallTraceConfig()
    limits: Limits = Limits()
    """Limits on each client address; requests with one of the tokens do not count."""
    workers: Annotated[int, msgspec.Meta(ge=1, le=MAX_WORKERS)] = 1
    """Processes that serve HTTP together (`voice_dpki.shell.workers`); SIP is served by one of them."""

    country: Annotated[str, msgspec.Meta(pattern="^[A-Z]{2}$")] | None = None
    """Country (ISO 3166-1) by whose dialling plan numbers in requests are read; international without it."""

    def read_country(self) -> Country | None:
        """Return the dialling plan, None without one; raises LocalError."""
        return None if self.country is None else Country(self.country)

    def check_secrecy(self, path: Path) -> None:
        """Check that the proxies' tokens do not cross a network in the clear; raises LocalError."""
        self.listen.check_secrecy(path, "the proxies' tokens", has_tls=self.tls is not None)

    def check_workers(self, path: Path) -> None:
        """Check that several workers can share the address; raises LocalError."""
        if self.workers > 1 and self.listen.port == 0:
            raise LocalError(f"{path}: workers: several share one port, so listen.port must name it")

    def read_tokens(self, path: Path) -> tuple[str, ...]:
        """Read the tokens that the configuration at `path` names, each with its name; raises LocalError."""
        file = resolve(path, self.tokens)
        lines = read_secrets(file)
        for number, line in enumerate(lines, 1):
            name, *token = line.split()
            if len(token) > 1 or (token and not _CLIENT.match(name)):
                raise LocalError(f"{file}: secret {number}: a line is TOKEN, or NAME TOKEN with a plain name")
        return lines

    def client_names(self, path: Path) -> frozenset[str]:
        """Return the names of the clients that have one; raises LocalError."""
        return frozenset(line.split()[0] for line in self.read_tokens(path) if len(line.split()) == 2)


def client_of(request: Request, tokens: Sequence[str]) -> str | None:
    """Return the name of the client whose token a request has, "" for one without a name; None for a stranger.

    Every token is compared, each in constant time.
    """
    lines = [line.split() for line in tokens]
    names = [words[0] if len(words) > 1 else "" for words in lines if bearer_token_matches(request, words[-1:])]
    return names[0] if names else None


def _media_type(request: Request, media_types: Sequence[str]) -> str:
    """Return what `check_headers` does, which is worked out once for the same head; raises RequestError."""
    noted: str | None = request.notes.get(_MEDIA_TYPE_NOTE)
    if noted is None:
        noted = request.notes[_MEDIA_TYPE_NOTE] = check_headers(request.headers, media_types)
    return noted


def document_route(operation: str) -> Route:
    """Return the route of the OpenAPI document, which anybody may read."""
    response = Response(200, encode(openapi.document(operation)))
    return Route("GET", OPENAPI_PATH, lambda _request: response)


@dataclass(frozen=True, slots=True)
class StirRoute:
    """A route for authenticated clients only, which answers every error in the format of the interface."""

    operation: str
    """Name in logs and metrics, one of OPERATIONS."""
    path: str
    tokens: Live[tuple[str, ...]]
    perform: Perform
    random: Random = SystemRandom()  # noqa: RUF009 - it has no state
    health: Route = HEALTH_ROUTE
    perform_text: Perform | None = None
    """The service for the text of an INVITE, at the same path with SIP_PATH behind it; None if there is none."""
    readiness: Readiness = field(default_factory=lambda: Readiness({}))

    def app(self) -> HttpApp:
        """Return the whole application: this route, /metrics, /healthz, /readyz and /openapi.json."""
        for outcome in OUTCOMES:
            REQUESTS.labels(self.operation, outcome)  # counted from 0 on
        routes = [self._post(self.path, self.handle)]
        if self.perform_text is not None:
            routes.append(self._post(self.path + SIP_PATH, self.handle_text))
        routes += [self.health, self.readiness.route(), METRICS_ROUTE, document_route(self.operation)]
        return HttpApp(routes, on_error=self._refuse_early)

    def _post(self, path: str, handler: AnyHandler) -> Route:
        return Route("POST", path, handler, max_body_bytes=MAX_BODY_BYTES, cost=0, authorize=self._authorize)

    def handle(self, request: Request) -> Response | Awaitable[Response]:
        """Answer one request of an authenticated client."""
        return self._answer(request, self.perform, (MEDIA_TYPE,))

    def handle_text(self, request: Request) -> Response | Awaitable[Response]:
        """Answer the text of an INVITE, in the type that the client gave it."""
        assert self.perform_text is not None
        return self._answer(request, self.perform_text, SIP_MEDIA_TYPES)

    def _answer(
        self, request: Request, perform: Perform, media_types: Sequence[str]
    ) -> Response | Awaitable[Response]:
        request_id = self._request_id(request.headers)
        work_for(request_id[1])
        try:
            return self._begin(request, request_id, perform, media_types)
        finally:
            work_on("")  # what a connection brings next is about another call
            work_for("")

    def _begin(
        self, request: Request, request_id: Header, perform: Perform, media_types: Sequence[str]
    ) -> Response | Awaitable[Response]:
        began_s = perf_counter()
        try:
            media_type = _media_type(request, media_types)
            body = perform(request.body, self._client(request) or "")
        except RequestError as error:
            return self._refused(request, request_id, error)
        if isinstance(body, bytes):
            return self._answered(request_id, body, media_type, began_s)
        return self._answer_later(request, request_id, body, media_type, began_s)

    async def _answer_later(
        self,
        request: Request,
        request_id: Header,
        performing: Awaitable[bytes],
        media_type: str,
        began_s: float,
    ) -> Response:
        work_for(request_id[1])  # the task is a new one, and began after the other had ended
        try:
            body = await performing
        except RequestError as error:
            return self._refused(request, request_id, error)
        return self._answered(request_id, body, media_type, began_s)

    def _answered(self, request_id: Header, body: bytes, media_type: str, began_s: float) -> Response:
        REQUESTS.labels(self.operation, "answered").inc()
        SECONDS.labels(self.operation).observe(perf_counter() - began_s)
        return Response(200, body, media_type, headers=(request_id,))

    def _refused(self, request: Request, request_id: Header, error: RequestError) -> Response:
        response, fields = self._refusal(request, request_id, error)
        log.warning(error.sentence, extra={"fields": fields})
        return response

    def _client(self, request: Request) -> str | None:
        """Return what `client_of` does; the same head is judged once, as long as the tokens are the same."""
        tokens = self.tokens.value
        noted: tuple[tuple[str, ...], str | None] | None = request.notes.get(_CLIENT_NOTE)
        if noted is None or noted[0] is not tokens:
            noted = request.notes[_CLIENT_NOTE] = (tokens, client_of(request, tokens))
        return noted[1]

    def _authorize(self, request: Request) -> Response | None:
        """Refuse a client without one of the tokens, before the body is read."""
        if self._client(request) is not None:
            return None
        error = RequestError("POL4010")
        request_id, scheme = self._request_id(request.headers), ("WWW-Authenticate", 'Bearer realm="stir"')
        response, fields = self._refusal(request, request_id, error, scheme)
        _SAID.warning(error.sentence, **fields)
        return response

    def _refuse_early(self, request: Request, status: int, detail: str) -> Response:
        """Refuse a request that reaches no handler; anybody can send those, so their log lines are rate-limited."""
        error = error_of_status(status, detail)
        response, fields = self._refusal(request, self._request_id(request.headers), error)
        _SAID.warning(error.sentence, **fields)
        return replace(response, status=status)

    def _refusal(
        self, request: Request, request_id: Header, error: RequestError, *headers: Header
    ) -> tuple[Response, dict[str, object]]:
        """Return the response that refuses a request, and the fields to log."""
        REQUESTS.labels(self.operation, error.message_id).inc()
        response = Response(error.status, error.body(), headers=(request_id, *headers))
        fields = {"operation": self.operation, "messageId": error.message_id, "requestId": request_id[1]}
        return response, {**fields, "client": request.client}

    def _request_id(self, headers: Mapping[str, str]) -> Header:
        """Return the X-RequestID header for the response: the client's own if it is well formed, or a new one."""
        given = headers.get("x-requestid", "")
        return "X-RequestID", given if given and _REQUEST_ID.match(given) else self.random.token(16).hex()


async def serve_stir(
    route: StirRoute,
    listen: Listen,
    tls: Live[ServerSide] | None,
    tracer: Tracer,
    stop: asyncio.Event,
    *,
    limits: Limits = Limits(),  # noqa: B008 - it is frozen
    sip: SipServer | None = None,
    **facts: object,
) -> None:
    """Serve HTTP, and SIP with `sip`, until `stop`; raises LocalError.

    Log and trace say when and where the server listens; the log has `facts` too.
    """
    async with (
        serve(route.app(), listen, tls=tls, limits=limits, tracer=tracer) as port,
        _started(sip) as addresses,
    ):
        addresses = {"http": f"{listen.host}:{port}", **addresses}
        log.info("ready", extra={"fields": {**addresses, **facts}})
        tracer.ready(**addresses)
        tell_ready(**addresses)
        await stop.wait()


@asynccontextmanager
async def _started(sip: SipServer | None) -> AsyncIterator[Mapping[str, str]]:
    """Serve SIP, if there is any, while the context lasts, and yield its addresses by name."""
    if sip is None:
        yield {}
        return
    try:
        await sip.start()
        yield sip.addresses
    finally:
        await sip.close()
