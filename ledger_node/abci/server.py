"""ABCI over a Unix socket: messages preceded by their length as a varint, answered in the order of arrival.

CometBFT opens four connections (consensus, mempool, query, snapshots) and sends requests without waiting for the
answers; after a request that it does wait for, it sends a flush. Handlers are synchronous, so that one connection's
change to the state is complete before another connection's request is handled. A request that fails is answered
with an exception, and CometBFT then stops: a node that cannot follow the others must not vote.

CheckTx requests, of which thousands may wait, give way to all others, and reading comes before answering. Otherwise
CometBFT's socket fills up, and CometBFT 0.38 then spins (its flush timer is set to 20 ns), neglects its peers, and
fails rounds of consensus by the dozen.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from google.protobuf.message import DecodeError, Message

from ledger_node.abci.abci_pb2 import Echo, Failure, Flush, Request, Response
from ledger_node.order.framing import encode_message, take_messages
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.shell.files import make_folder
from voice_dpki.shell.unix_socket import claim

log = logging.getLogger(__name__)

MAX_SOCKET_PATH_BYTES = 107
"""sockaddr_un's sun_path without its final zero."""

_TURN_S = 0.001
"""How long a connection answers its requests before all sockets are read again."""

_MAX_WAITING = 10_000
"""Backlog of CheckTx requests from which they are answered even while more arrive; below it, they are only read."""

_GIVES_WAY = "check_tx"

Handler = Callable[[Any], Message]
"""Answers one kind of request: takes the message in `Request.value` and returns the one for `Response.value`."""

Handlers = dict[str, Handler]
"""The dispatch table: handlers by the name of the field in Request; the answer's field in Response has the same."""


def parse_request(data: bytes) -> tuple[str, Message]:
    """Parse an encoded request: its kind, which is the name of the field in Request, and its message.

    Raises MalformedError for bytes that are no request.
    """
    try:
        request = Request.FromString(data)
    except DecodeError:
        raise MalformedError("ABCI: not a request") from None
    kind = request.WhichOneof("value")
    if kind is None:
        raise MalformedError("ABCI: a request that asks for nothing")
    return kind, getattr(request, kind)


def answer(handlers: Handlers, kind: str, message: Message) -> bytes:
    """Answer a request with a delimited response.

    Raises MalformedError for a kind that has no handler, and whatever its handler raises.
    """
    if kind not in handlers:
        raise MalformedError("ABCI: a request of a kind that this application does not know")
    value: dict[str, Any] = {kind: handlers[kind](message)}
    return encode(Response(**value))


def encode(message: Message) -> bytes:
    """Encode a message, preceded by its length."""
    return encode_message(message.SerializeToString())


@asynccontextmanager
async def serve_abci(handlers: Handlers, socket: Path) -> AsyncIterator[asyncio.Event]:
    """Serve the application on `socket`; yields an event that is set when a request has failed.

    Only the socket's owner can connect. Raises LocalError where its name is too long or it cannot be made.
    """
    if len(str(socket).encode()) > MAX_SOCKET_PATH_BYTES:
        raise LocalError(f"{socket}: a socket's path has at most {MAX_SOCKET_PATH_BYTES} bytes")
    failed = asyncio.Event()
    make_folder(socket.parent, 0o700)
    lock = claim(socket)
    table = _CONNECTION | handlers
    connections: set[_Connection] = set()
    try:
        server = await asyncio.get_running_loop().create_unix_server(
            lambda: _Connection(table, failed, connections), str(socket)
        )
    except OSError as error:
        lock.close()
        raise LocalError(f"{socket}: cannot serve on this socket: {error.strerror}") from None
    socket.chmod(0o600)  # noqa: ASYNC240
    try:
        yield failed
    finally:
        server.close()
        for connection in tuple(connections):
            connection.close()
        await server.wait_closed()
        socket.unlink(missing_ok=True)  # noqa: ASYNC240
        lock.close()


def _echo(request: Echo.Request) -> Echo.Response:
    return Echo.Response(message=request.message)


def _flush(_: Flush.Request) -> Flush.Response:
    return Flush.Response()


_CONNECTION: Handlers = {"echo": _echo, "flush": _flush}
"""Requests that concern the connection and not the application."""


class _Connection(asyncio.Protocol):
    """One of CometBFT's connections."""

    def __init__(self, handlers: Handlers, failed: asyncio.Event, connections: "set[_Connection]") -> None:
        self._handlers = handlers
        self._failed = failed
        self._connections = connections
        self._buffer = bytearray()
        self._waiting: deque[tuple[str, Message]] = deque()
        self._has_news = False
        self._has_turn = False
        self._gives_way = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)

    def pause_writing(self) -> None:
        """Take no more requests while CometBFT does not read the answers."""
        assert self._transport is not None
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        assert self._transport is not None
        self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self._has_news = True
        self._buffer += data
        try:
            self._waiting += map(parse_request, take_messages(self._buffer))
        except MalformedError as error:
            self._fail(error)
            return
        self._ask_for_turn()

    def _ask_for_turn(self) -> None:
        if self._waiting and not self._has_turn:
            self._has_turn = True
            asyncio.get_running_loop().call_soon(self._take_turn)

    def _take_turn(self) -> None:
        """Answer pending requests until the turn is over; the rest follow once all sockets were read again."""
        self._has_turn = False
        assert self._transport is not None
        if self._transport.is_closing():
            return
        if self._gives_way and self._has_news and len(self._waiting) < _MAX_WAITING:
            self._has_news = False
            self._ask_for_turn()
            return
        answers: list[bytes] = []
        error = self._answer_until(time.monotonic() + _TURN_S, answers)
        if answers:
            self._transport.write(b"".join(answers))
        if error is not None:
            self._fail(error)
            return
        self._ask_for_turn()

    def _answer_until(self, end_s: float, answers: list[bytes]) -> Exception | None:
        """Append answers to `answers` until `end_s`, at least one unless it must give way; return a failure."""
        while self._waiting:
            kind, message = self._waiting[0]
            self._gives_way = kind == _GIVES_WAY
            if self._gives_way and any(other.is_urgent for other in self._connections):
                break
            self._waiting.popleft()
            try:
                answers.append(answer(self._handlers, kind, message))
            except Exception as error:
                return error
            if time.monotonic() >= end_s:
                break
        return None

    @property
    def is_urgent(self) -> bool:
        """Whether a request is pending or partly received here that CheckTx on other connections give way to."""
        return not self._gives_way and bool(self._waiting or self._buffer)

    def _fail(self, error: Exception) -> None:
        """Answer with an exception, which stops CometBFT, set `failed`, and close."""
        assert self._transport is not None
        log.error("abci-failed", exc_info=error)
        self._transport.write(encode(Response(exception=Failure(error=str(error) or type(error).__name__))))
        self._failed.set()
        self.close()

    def close(self) -> None:
        """Close once everything written has been sent."""
        if self._transport is not None:
            self._transport.close()
