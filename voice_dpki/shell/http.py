"""HTTP serving: an application of routes behind a socket (docs/adr/0017).

A handler takes a `Request`, whose body was read whole within the route's bound, and returns a `Response`. An
exception that it does not catch becomes a 500 without details for the client, and a traceback in the log.
"""

import asyncio
import logging
import resource
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from voice_dpki.errors import LocalError
from voice_dpki.shell.config import Listen, is_loopback
from voice_dpki.shell.handed import check_handed
from voice_dpki.shell.http_app import (
    DEFAULT_MAX_BODY_BYTES,
    MAX_QUERY_BYTES,
    Authorize,
    Charge,
    ErrorHook,
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
from voice_dpki.shell.http_connection import Connection
from voice_dpki.shell.http_handshake import Handshakes
from voice_dpki.shell.http_traced import TracedConnection
from voice_dpki.shell.limits import DISPLACED, FULL, SAID, UNREAD, Account, Door, Limits, TooManyError
from voice_dpki.shell.reload import Live
from voice_dpki.shell.tls import ServerSide
from voice_dpki.shell.trace import Tracer
from voice_dpki.shell.worker import SOCKET, handed_sockets, is_worker, retires
from voice_dpki.wire.seldom import Seldom
from voice_dpki.wire.tasks import running

__all__ = [
    "DEFAULT_MAX_BODY_BYTES",
    "MAX_QUERY_BYTES",
    "Authorize",
    "Charge",
    "ErrorHook",
    "Handler",
    "HttpApp",
    "Price",
    "Request",
    "Response",
    "Route",
    "bearer_token_matches",
    "bind",
    "json_response",
    "problem",
    "serve",
]

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 1000
OPEN_FILES = 2 * MAX_CONNECTIONS + 1024
"""Limit on open files to which a serving process raises a lower one."""
ROOM_FOR_KNOWN = 200
"""Connections reserved for clients that are known by a listed TLS certificate or a token."""
MAX_REFUSED = 100
"""Refused connections that stay open for a moment, so that their clients can read why."""
MAX_HELD_BYTES = 64 * 1024 * 1024
"""Memory for incomplete requests and unread answers, of all connections together."""
BACKLOG = 1024
DRAIN_S = 5.0
"""How long clients are still answered, and told to reconnect, after another process has taken over."""
GRACE_S = 3.0
"""How long requests in progress may take when the server stops."""


class _Server:
    """The connections of one listener; it decides which one is closed when there are too many."""

    def __init__(self, app: HttpApp, door: Door, tls: Live[ServerSide] | None = None) -> None:
        """With TLS, `Handshakes` charges the addresses for their connections."""
        self.app = app
        self._tls = tls
        self.stopping = False
        self.draining = False
        self.said_malformed = Seldom(log)
        self._door = door
        self._placed: set[Connection] = set()
        self._holders: dict[Account, set[Connection]] = {}
        """The same connections, by address."""
        self._refused: set[Connection] = set()
        self._gone = asyncio.Event()

    def serves(self, certificate: bytes) -> bool:
        """Whether clients with the certificate of that SHA-256 are still listed."""
        return self._tls is not None and certificate in self._tls.value.listed

    def enter(self, connection: Connection, host: str) -> Account | Response | None:
        """Give a connection a place, and close another one for it if necessary.

        Returns the account of the client, that is of its listed certificate or its address; or the response that
        refuses the connection; or None to close it without a response because the client connects too often.
        """
        account = self._door.enter(host, connection.certificate)
        if account is None:
            return self._refuse(
                connection, self.app.too_many(TooManyError("too many connections from this client", 1))
            )
        if not (self._tls or self._door.knock(host)):
            account.connections -= 1
            return None
        known = connection.is_known or account.is_known
        if len(self._placed) >= MAX_CONNECTIONS - (0 if known else ROOM_FOR_KNOWN) and not self._make_room(known):
            FULL.inc()
            SAID.warning("no room for another connection", client=host)
            account.connections -= 1
            return self._refuse(connection, self.app.no_room())
        self._placed.add(connection)
        self._holders.setdefault(account, set()).add(connection)
        return account

    def _refuse(self, connection: Connection, response: Response) -> Response:
        if len(self._refused) >= MAX_REFUSED:
            next(iter(self._refused)).abort()
        self._refused.add(connection)
        return response

    def _make_room(self, is_for_known: bool) -> bool:
        """Close a waiting connection, and tell whether there was one; for a known client, also one of another.

        Unknown clients come first, then the address with the most connections, then the longest wait.
        """
        holders = sorted(self._holders, key=lambda each: each.connections, reverse=True)
        for spares_known in (True, False) if is_for_known else (True,):
            for account in holders:
                if not (spares_known and account.is_known) and self._displace_one_of(account, spares_known):
                    return True
        return False

    def _displace_one_of(self, account: Account, spares_known: bool) -> bool:
        waiting = [each for each in self._holders[account] if each.can_go and not (spares_known and each.is_known)]
        if not waiting:
            return False
        going = min(waiting, key=lambda each: each.since_s)
        DISPLACED.inc()
        self._forget(going)
        going.give_way()
        return True

    def leave(self, connection: Connection) -> None:
        """Remove a closed connection."""
        self._refused.discard(connection)
        self._forget(connection)
        if not (self._placed or self._refused):
            self._gone.set()

    def _forget(self, connection: Connection) -> None:
        if connection in self._placed and connection.account is not None:
            self._placed.discard(connection)
            connection.account.connections -= 1
            held = self._holders[connection.account]
            held.discard(connection)
            if not held:
                del self._holders[connection.account]

    def check_memory(self) -> None:
        """Abort connections until all together no longer hold too much memory.

        The next to go is the connection that holds most, of the address that holds most.
        """
        held = {each: each.held_bytes for each in self._placed}
        total = sum(held.values())
        while total > MAX_HELD_BYTES and held:
            of_account: dict[Account | None, int] = {}
            for each, size in held.items():
                of_account[each.account] = of_account.get(each.account, 0) + size
            worst = max(held, key=lambda each: (of_account[each.account], held[each]))
            total -= held.pop(worst)
            UNREAD.inc()
            worst.abort()

    async def stop(self) -> None:
        """Close all connections; one with a request in progress is closed when that is answered, or after GRACE_S.

        If another process takes over, clients do not expect an end: their requests on open connections within
        DRAIN_S are answered with `Connection: close`.
        """
        if retires():
            self.draining = True
            await self._are_gone(DRAIN_S)
        self.stopping = True
        for connection in (*self._placed, *self._refused):
            connection.stop()
        for within_s in (GRACE_S, 1.0):
            if await self._are_gone(within_s):
                return
            for connection in (*self._placed, *self._refused):
                connection.abort()

    async def _are_gone(self, within_s: float) -> bool:
        self._gone.clear()
        if not (self._placed or self._refused):
            return True
        try:
            async with asyncio.timeout(within_s):
                await self._gone.wait()
        except TimeoutError:
            return False
        return True


def _bind(listen: Listen) -> socket.socket:
    """Return a bound socket: the one that a supervisor hands over, if there is one; raises LocalError.

    The supervisor's socket has the address from the start of the service, whatever the configuration says now.
    """
    handed = handed_sockets(SOCKET)
    if not handed:
        return bind(listen, shared=is_worker())
    (sock,) = handed
    check_handed(sock, "listen", listen.host, listen.port)
    return sock


def _check_clear(sock: socket.socket, listen: Listen) -> None:
    """Check the address of a socket without TLS: only programs on this machine should reach it.

    Otherwise log a warning, or raise LocalError if the configuration names a loopback address and no `insecure`.
    """
    host = sock.getsockname()[0]
    if is_loopback(host):
        return
    if listen.is_loopback and not listen.insecure:
        raise LocalError(f"listen: {listen.host} is {host}, where others could read what is said: add [tls]")
    log.warning(
        "serving WITHOUT TLS on a network: others can read and change what is said; add [tls]",
        extra={"fields": {"host": host}},
    )


def bind(listen: Listen, *, shared: bool) -> socket.socket:
    """Bind a TCP socket; with `shared`, other shared sockets may bind its address too. Raises LocalError."""
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((listen.host, listen.port))
    except OSError as error:
        sock.close()
        raise LocalError(f"cannot listen on {listen.host}:{listen.port}: {error.strerror}") from None
    return sock


def _allow_sockets() -> None:
    """Raise the limit on open files to OPEN_FILES, because shells often set it to 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < OPEN_FILES:
        most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


@asynccontextmanager
async def serve(
    app: HttpApp,
    listen: Listen,
    *,
    tls: Live[ServerSide] | None = None,
    limits: Limits | None = None,
    tracer: Tracer | None = None,
) -> AsyncIterator[int]:
    """Serve `app` while the context lasts, and yield the port; at its end, requests under way are finished.

    `limits` bounds the use by one client. A `tracer` with a file records received and sent data. Raises
    LocalError if the address cannot be bound.
    """
    sock = _bind(listen)
    if tls is None:
        try:
            _check_clear(sock, listen)
        except LocalError:
            sock.close()
            raise
    _allow_sockets()
    loop = asyncio.get_running_loop()
    door = Door(limits)
    server = _Server(app, door, tls)
    try:
        async with _listening(sock, _connections(server, loop, tracer), tls, door.knock):
            yield int(sock.getsockname()[1])
    finally:
        await server.stop()
        sock.close()


def _connections(
    server: _Server, loop: asyncio.AbstractEventLoop, tracer: Tracer | None
) -> Callable[[], Connection]:
    if tracer is not None and tracer.writes:
        return partial(TracedConnection, tracer, server, loop)
    return partial(Connection, server, loop)


@asynccontextmanager
async def _listening(
    sock: socket.socket,
    factory: Callable[[], Connection],
    tls: Live[ServerSide] | None,
    knock: Callable[[str], bool],
) -> AsyncIterator[None]:
    """Accept connections while the context lasts."""
    loop = asyncio.get_running_loop()
    if tls is None:
        listener = await loop.create_server(factory, sock=sock, backlog=BACKLOG)
        try:
            yield
        finally:
            listener.close()
        return
    sock.setblocking(False)
    sock.listen(BACKLOG)
    async with running(Handshakes(factory, loop, tls, knock).accept(sock)):
        yield
