"""HTTP requests, responses and routes, and who may use the routes. No sockets.

A request is judged in three steps: by its head (`HttpApp.admit`: is there such a resource, and may this client use
it), with its body (`Route.price`: what it will cost the server), and by its handler. So a client without permission
is refused before a byte of the body is read.
"""

import hmac
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

from voice_dpki.codec.http1 import RequestHead
from voice_dpki.shell.limits import TooManyError

DEFAULT_MAX_BODY_BYTES: Final = 64 * 1024
MAX_QUERY_BYTES: Final = 4096


def _free(_cost: int) -> None:
    """Charge nothing: the client has no limits."""


class Request(msgspec.Struct, frozen=True):
    """One HTTP request: header names are lower-case, the body is whole."""

    method: str
    path: str
    """Decoded, so an encoded slash looks like a separator; `path_args` and `target` tell them apart."""
    headers: Mapping[str, str]
    body: bytes
    client: str
    """Address and port."""
    query: Mapping[str, str] = {}
    path_args: Mapping[str, str] = {}
    """The segments that the route's pattern names, each decoded once."""
    target: str = ""
    """Path and query as they were sent, for a handler that forwards the request."""
    charge: Callable[[int], None] = _free
    """Charges the client, for a handler that learns the cost only while it works."""
    notes: dict[str, Any] = {}
    """Values computed from the head alone; requests with the same head share them."""


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP response."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[Request], Awaitable[Response]]
"""Answers a request, in its own task."""
QuickHandler = Callable[[Request], Response]
"""Answers a request at once."""
AnyHandler = Callable[[Request], Response | Awaitable[Response]]
"""Answers at once where it can."""
ErrorHook = Callable[[Request, int, str], Response]
"""Builds the response for a request that reaches no handler: (request, status, what was wrong).

A request that could not be parsed has neither method nor path.
"""
Authorize = Callable[[Request], Response | None]
"""Judges a request by its head, before its body is read: None admits it, a response refuses it."""
Charge = Callable[[int], None]
"""Charges a further cost of a request to its client; raises TooManyError."""
Price = Callable[[Request], int]
"""Returns the cost of a request on top of `Route.cost`, before its handler begins."""


def json_response(status: int, value: object, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """Return a response with `value` as JSON."""
    return Response(status, msgspec.json.encode(value), headers=headers)


def problem(status: int, title: str, detail: str) -> Response:
    """Return a response with a problem document (RFC 9457)."""
    body = msgspec.json.encode({"title": title, "status": status, "detail": detail})
    return Response(status, body, content_type="application/problem+json")


def bearer_token_matches(request: Request, tokens: Iterable[str]) -> bool:
    """Whether the request carries one of `tokens` as its bearer token (RFC 6750 §2.1), in constant time."""
    scheme, _, given = request.headers.get("authorization", "").strip(" \t").partition(" ")
    octets = given.lstrip(" ").encode("utf-8")
    found = [hmac.compare_digest(octets, token.encode("utf-8")) for token in tokens]
    return scheme.lower() == "bearer" and any(found)


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a path pattern; GET answers HEAD too (RFC 9110 §9.3.2).

    In the pattern, `{name}` matches one non-empty segment of the path, and `{name*}` at the end matches the rest.
    """

    method: str
    pattern: str
    handler: AnyHandler
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
    cost: int = 1
    """Fixed cost of a request, charged against its client's limits (`voice_dpki.shell.limits`).

    With 0, admitted clients may send any number of requests, also at the same time.
    """
    price: Price | None = None
    """Further cost, which depends on what the request makes the server do."""
    authorize: Authorize | None = None
    """Check of the client. An admitted client counts as known: when room is short, unknown ones must go first."""
    waits: bool = False
    """Whether the handler long-polls: it is cancelled when its client has gone, or when room is short."""

    def match(self, segments: Sequence[str]) -> dict[str, str] | None:
        """Match decoded path segments with the pattern; return the named segments, or None if they do not match."""
        wanted = self.pattern.split("/")
        if wanted[-1].endswith("*}") and len(segments) >= len(wanted):
            segments = [*segments[: len(wanted) - 1], "/".join(segments[len(wanted) - 1 :])]
        if len(wanted) != len(segments):
            return None
        args = {}
        for want, given in zip(wanted, segments, strict=True):
            if want[:1] == "{" and given:
                args[want[1:-1].removesuffix("*")] = given
            elif want != given:
                return None
        return args


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that a route has admitted, before its body is read."""

    route: Route
    request: Request


class Refused(Exception):
    """A request that is refused before it reaches a handler; `response` says why."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


_TITLES: Final = {404: "Not Found", 405: "Method Not Allowed", 429: "Too Many Requests", 503: "Service Unavailable"}


def _default_error(_request: Request, status: int, detail: str) -> Response:
    return problem(status, _TITLES.get(status, "Refused"), detail)


_ENCODED: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
NO_REQUEST: Final = Request("", "", {}, b"", "")


class HttpApp:
    """Routes requests to handlers."""

    def __init__(self, routes: Sequence[Route], on_error: ErrorHook | None = None) -> None:
        self._fixed = {(r.method, r.pattern): r for r in routes if "{" not in r.pattern}
        self._by_prefix = {(r.method, r.pattern[: r.pattern.index("{")]): r for r in routes if _ends_in_name(r)}
        self._routes = list(routes)
        self._on_error = on_error or _default_error

    def admit(
        self, head: RequestHead, client: str, charge: Charge = _free, before: Admitted | None = None
    ) -> Admitted:
        """Find the route for a request and check the head; raises Refused.

        `before` is the result for the connection's last request, reused for the same head. The client's permission
        is checked each time.
        """
        if before is not None and before.request.headers is head.headers:
            admitted = before
        else:
            admitted = self._found(head, client, charge)
        authorize = admitted.route.authorize
        if authorize is not None and (refusal := authorize(admitted.request)) is not None:
            raise Refused(refusal)
        return admitted

    def _found(self, head: RequestHead, client: str, charge: Charge) -> Admitted:
        """Return the route for a request; raises Refused."""
        method = "GET" if head.method == "HEAD" else head.method
        target = f"{head.path}?{head.query}" if head.query else head.path
        try:
            route, path, args = self._find(method, head.path)
            query = _parse_query(head.query) if head.query else {}
        except _Unfit as unfit:
            request = Request(head.method, head.path, head.headers, b"", client, target=target)
            raise Refused(self.error(unfit.status, unfit.detail, request, unfit.headers)) from None
        return Admitted(
            route, Request(head.method, path, head.headers, b"", client, query, args, target, charge, head.notes)
        )

    def error(
        self, status: int, detail: str, request: Request = NO_REQUEST, headers: tuple[tuple[str, str], ...] = ()
    ) -> Response:
        """Return the response for a request that reaches no handler, in the format of the served interface."""
        response = self._on_error(request, status, detail)
        return replace(response, headers=response.headers + headers) if headers else response

    def too_many(self, error: TooManyError, request: Request = NO_REQUEST) -> Response:
        """Return the response for a client above its limits (RFC 6585 §4)."""
        after = (("Retry-After", str(error.retry_after_s)),)
        return self.error(429, f"{error}; come again later", request, after)

    def no_room(self) -> Response:
        """Return the response for a client whose connection gets no place now (RFC 9110 §15.6.4)."""
        return self.error(503, "this server has no room for this connection now", headers=(("Retry-After", "1"),))

    def not_listed(self) -> Response:
        """Return the response for a client whose certificate was taken off the list."""
        return self.error(403, "the certificate of this connection is no longer listed here")

    def _find(self, method: str, path: str) -> tuple[Route, str, dict[str, str]]:
        route = self._fixed.get((method, path))
        if route is not None:
            return route, path, {}
        front, _, last = path.rpartition("/")
        route = self._by_prefix.get((method, f"{front}/"))
        if route is not None and last and "%" not in last:
            return route, path, {route.pattern[len(front) + 2 : -1]: last}
        return self._match(method, path)

    def _match(self, method: str, path: str) -> tuple[Route, str, dict[str, str]]:
        segments = _decode_path(path)
        allowed = set()
        for route in self._routes:
            args = route.match(segments)
            if args is not None and route.method == method:
                return route, "/".join(segments), args
            if args is not None:
                allowed |= {route.method, "HEAD"} if route.method == "GET" else {route.method}
        if allowed:
            methods = ", ".join(sorted(allowed))
            raise _Unfit(405, f"this resource answers {methods} only", (("Allow", methods),))
        raise _Unfit(404, "there is no such resource here")


def _ends_in_name(route: Route) -> bool:
    """Tell whether a pattern's only name is its last segment: such a route is found without trying all of them."""
    return route.pattern.find("{") == route.pattern.rfind("/") + 1 and not route.pattern.endswith("*}")


class _Unfit(Exception):
    """A request that no route can serve."""

    def __init__(self, status: int, detail: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers


def _decode_path(path: str) -> list[str]:
    """Split a path into segments, then decode each once, so that an encoded slash is part of its segment."""
    segments = path.split("/")
    if "%" not in path:
        return segments
    if _ENCODED.search(path):
        raise _Unfit(400, "in a path, a percent sign stands before two hexadecimal digits")
    try:
        return [unquote_to_bytes(segment).decode("utf-8") for segment in segments]
    except UnicodeDecodeError:
        raise _Unfit(400, "the path is not UTF-8 when it is decoded") from None


def _parse_query(query: str) -> dict[str, str]:
    if len(query) > MAX_QUERY_BYTES:
        raise _Unfit(414, f"the query is longer than {MAX_QUERY_BYTES} bytes")
    try:
        fields = parse_qsl(query, keep_blank_values=True, max_num_fields=32, errors="strict")
    except ValueError:
        raise _Unfit(400, "the query is not a form-encoded list of at most 32 fields") from None
    found = dict(fields)
    if len(found) != len(fields):
        raise _Unfit(400, "the query has a field twice")
    return found
