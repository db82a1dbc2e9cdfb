"""HTTP serving: raw ASGI on uvicorn, for routes where a framework would cost more than the work.

A handler takes a `Request`, whose body was read whole within the route's bound, and returns a `Response`. What
a handler does not catch becomes a 500 without details for the caller and a traceback in the log.
"""
# ruff: noqa: TID251 - this is a shell: it serves sockets

import asyncio
import hmac
import logging
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from voice_dpki.errors import LocalError
from voice_dpki.shell.config import Listen
from voice_dpki.shell.limits import LATE, SAID, Account, Door, Limits, SeldomFilter, TooManyError, Unbounded

log = logging.getLogger(__name__)

_PROTOCOL_LOG = logging.getLogger(f"{__name__}.protocol")
_PROTOCOL_LOG.addFilter(SeldomFilter())  # uvicorn warns of each request that is not HTTP

DEFAULT_MAX_BODY_BYTES = 64 * 1024
MAX_QUERY_BYTES = 4096
MAX_LENGTH_DIGITS = 15
"""Digits of a Content-Length that are read; no body bound needs more, and int() refuses thousands."""
BODY_TIMEOUT_S = 10.0
"""How long a client may take to send the whole body; slower ones are cut off."""
MAX_CONNECTIONS = 1000
KEEP_ALIVE_S = 30
HEAD_TIMEOUT_S = 10.0
"""How long a client may take over the head of a request, and from connecting to its first one."""
HANDSHAKE_TIMEOUT_S = 5.0
"""How long a TLS handshake may take."""

TOO_MANY_CONNECTIONS = (
    b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
)

UNBOUNDED = Unbounded()


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request: header names are lower-case, the path is decoded, the body is whole."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    client: str
    query: Mapping[str, str] = field(default_factory=dict)
    path_args: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP response."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[Request], Awaitable[Response]]
ErrorHook = Callable[[Request, int, str], Response]
"""Builds the response for a request that no handler sees: (request, status, what was wrong)."""


def json_response(status: int, value: object, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """Answer with `value` as JSON."""
    return Response(status, msgspec.json.encode(value), headers=headers)


def problem(status: int, title: str, detail: str) -> Response:
    """Answer with a problem document (RFC 9457)."""
    body = msgspec.json.encode({"title": title, "status": status, "detail": detail})
    return Response(status, body, content_type="application/problem+json")


def bearer_token_matches(request: Request, tokens: Iterable[str]) -> bool:
    """Whether the request carries one of `tokens` as its bearer token (RFC 6750 §2.1), in constant time."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    found = [hmac.compare_digest(given.encode("utf-8"), token.encode("utf-8")) for token in tokens]
    return scheme.lower() == "bearer" and any(found)


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a path pattern, in which `{name}` stands for one non-empty path segment."""

    method: str
    pattern: str
    handler: Handler
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
    cost: int = 1
    """What a request costs of what its client may have (`voice_dpki.shell.limits`)."""

    def regex(self) -> re.Pattern[str]:
        """Return the pattern as a regular expression over the whole path."""
        parts = re.split(r"(\{\w+\})", self.pattern)
        return re.compile("".join(f"(?P<{p[1:-1]}>[^/]+)" if p[:1] == "{" else re.escape(p) for p in parts))


class _Refused(Exception):
    """A request that no handler gets to see."""

    def __init__(self, status: int, detail: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers


def too_many(error: TooManyError) -> Response:
    """Answer a client that asks for more than it may (RFC 6585 §4)."""
    answer = problem(429, "Too Many Requests", f"{error}; come again later")
    return replace(answer, headers=(("Retry-After", str(error.retry_after_s)),))


def _default_error(_request: Request, status: int, detail: str) -> Response:
    return problem(status, {404: "Not Found", 405: "Method Not Allowed"}.get(status, "Refused"), detail)


class HttpApp:
    """Routes requests to handlers, as an ASGI application."""

    def __init__(self, routes: Sequence[Route], on_error: ErrorHook | None = None) -> None:
        self._fixed = {(r.method, r.pattern): r for r in routes if "{" not in r.pattern}
        self._routes = [(r, r.regex()) for r in routes]
        self._on_error = on_error or _default_error

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one ASGI HTTP scope."""
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        client = scope.get("client")
        request = Request(
            scope["method"], scope["path"], headers, b"", f"{client[0]}:{client[1]}" if client else ""
        )
        await send_response(send, await self._respond(request, scope, receive))

    async def _respond(self, request: Request, scope: Any, receive: Any) -> Response:
        try:
            route, path_args = self._match(request)
            with _bounded(scope, route.cost):
                body = await _read_body(request.headers, receive, route.max_body_bytes)
                query = _query(scope["query_string"])
                request = replace(request, body=body, query=query, path_args=path_args)
                return await route.handler(request)
        except TooManyError as error:
            SAID.warning(str(error), client=request.client)
            return too_many(error)
        except _Refused as refused:
            response = self._on_error(request, refused.status, refused.detail)
            return replace(response, headers=response.headers + refused.headers)
        except Exception:
            log.exception("request failed", extra={"fields": {"method": request.method}})
            return self._on_error(request, 500, "internal error; the log of this server says more")

    def _match(self, request: Request) -> tuple[Route, dict[str, str]]:
        fixed = self._fixed.get((request.method, request.path))
        if fixed is not None:
            return fixed, {}
        allowed = []
        for route, regex in self._routes:
            found = regex.fullmatch(request.path)
            if found and route.method == request.method:
                return route, {name: unquote(value) for name, value in found.groupdict().items()}
            if found:
                allowed.append(route.method)
        if allowed:
            methods = ", ".join(sorted(set(allowed)))
            raise _Refused(405, f"this resource answers {methods} only", (("Allow", methods),))
        raise _Refused(404, "there is no such resource here")


@contextmanager
def _bounded(scope: Any, cost: int) -> Iterator[None]:
    """Count a request among those of its client; raises TooManyError."""
    account = scope["state"].get("account", UNBOUNDED)
    account.begin(cost)
    try:
        yield
    finally:
        account.end()


def _query(raw: bytes) -> dict[str, str]:
    if len(raw) > MAX_QUERY_BYTES:
        raise _Refused(414, f"the query is longer than {MAX_QUERY_BYTES} bytes")
    try:
        return dict(parse_qsl(raw.decode("ascii"), keep_blank_values=True, max_num_fields=32))
    except ValueError:
        raise _Refused(400, "the query is not a form-encoded list of at most 32 fields") from None


async def _read_body(headers: Mapping[str, str], receive: Any, max_bytes: int) -> bytes:
    length = headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit() or len(length) > MAX_LENGTH_DIGITS or int(length) > max_bytes:
        raise _Refused(413, f"the body is longer than the {max_bytes} bytes allowed here")
    chunks, size = [], 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while True:
                message = await receive()
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > max_bytes:
                    raise _Refused(413, f"the body is longer than the {max_bytes} bytes allowed here")
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return b"".join(chunks)
    except TimeoutError:
        raise _Refused(408, f"the body did not arrive within {BODY_TIMEOUT_S:g} s") from None


async def send_response(send: Any, response: Response) -> None:
    """Send a response to an ASGI server."""
    headers = [
        (b"content-type", response.content_type.encode("latin-1")),
        (b"content-length", str(len(response.body)).encode("ascii")),
    ]
    headers += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


def _bind(listen: Listen) -> socket.socket:
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((listen.host, listen.port))
    except OSError as error:
        sock.close()
        raise LocalError(f"cannot listen on {listen.host}:{listen.port}: {error.strerror}") from None
    return sock


@asynccontextmanager
async def serve(
    app: HttpApp, listen: Listen, *, tls: ssl.SSLContext | None = None, limits: Limits | None = None
) -> AsyncIterator[int]:
    """Serve `app` while the context lasts, and give the port; at its end, requests under way are finished.

    `limits` bound what one client may have. Raises LocalError when the address cannot be bound.
    """
    sock = _bind(listen)
    if tls is None and not listen.is_loopback:
        log.warning(
            "serving WITHOUT TLS on a network: others can read and change what is said; add [tls]",
            extra={"fields": {"host": listen.host}},
        )
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # whoever connects from this machine could otherwise claim any address
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=3,
        ws="none",
    )
    server = _Server(config, tls, Door(limits) if limits else None)
    task = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn offers a flag, no event
            await asyncio.sleep(0.005)
        yield int(sock.getsockname()[1])
    finally:
        server.should_exit = True
        await task
        sock.close()


class _Server(uvicorn.Server):
    """uvicorn without signal handlers of its own, for the program decides when to stop; with bounds on clients."""

    def __init__(self, config: uvicorn.Config, tls: ssl.SSLContext | None, door: Door | None) -> None:
        super().__init__(config)
        self._tls = tls
        self._door = door

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the process's signal handlers as they are."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(
                lambda: _Protocol(self.config, self.server_state, self._door),
                sock=sock,
                backlog=self.config.backlog,
                ssl=self._tls,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S if self._tls else None,
            )
            for sock in sockets or []
        ]
        self.started = True


class _Protocol(HttpToolsProtocol):
    """One connection: uvicorn's, with a bound on connections from one address and on the time a head takes."""

    def __init__(self, config: uvicorn.Config, server_state: Any, door: Door | None) -> None:
        super().__init__(config, server_state, {})
        self.logger = _PROTOCOL_LOG
        self._door = door
        self._account: Account | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._in_head = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or refuse it where its address has enough of them."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_is_late)
        if self._door is None or self.client is None:
            return
        self._account = self._door.enter(self.client[0])
        if self._account is None:
            self.transport.write(TOO_MANY_CONNECTIONS)
            self.transport.close()
        else:
            self.app_state = {"account": self._account}

    def connection_lost(self, exc: Exception | None) -> None:
        """Count the connection out."""
        self._stop_timer()
        if self._account is not None:
            self._account.connections -= 1
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Begin with a request's head."""
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """End with a request's head."""
        self._in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Take in data; a head that is not whole afterwards must be so in time."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if not self._in_head:
            self._stop_timer()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_is_late)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        LATE.inc()
        self.transport.close()
