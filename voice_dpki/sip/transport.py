"""UDP and TCP on one address (RFC 3261 §18): datagrams, connections that are reused, and their bounds."""
# ruff: noqa: TID251 - this is a shell: it holds the sockets

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Final, Protocol, cast

from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.sip.framing import PONG, StreamFramer
from voice_dpki.sip.message import Hop
from voice_dpki.sip.transaction import Outgoing

log = logging.getLogger(__name__)

MAX_DATAGRAM_BYTES: Final = 65_507
"""What fits into an IPv4 datagram behind its headers."""

_BIND_TRIES: Final = 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What connections may cost: numbers, bytes and seconds."""

    connections: int = 1_000
    connections_per_host: int = 200
    write_buffer_bytes: int = 256 * 1024
    waiting_messages: int = 256
    """Messages that wait while a connection is being made."""
    connect_s: float = 5.0
    idle_s: float = 300.0
    message_s: float = 10.0
    """How long a message may take to arrive whole."""


class SipTracer(Protocol):
    """Where messages that are sent are recorded (see `voice_dpki.shell.trace`)."""

    @property
    def on(self) -> bool:
        """Whether anything is kept."""
        ...

    def sip(self, transport: str, src: str, dst: str, data: bytes) -> None:
        """Record one message: "udp" or "tcp", and both ends as "host:port"."""
        ...


class Transport:
    """Sends and receives SIP messages at one address.

    `on_message(data, source)` gets each message; `on_failure(outgoing)` each one that could not be sent, never from
    within `send`; `on_lost(peer)` each connection that is gone.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        on_message: Callable[[bytes, Hop], None],
        on_failure: Callable[[Outgoing], None],
        tracer: SipTracer,
        limits: Limits | None = None,
        on_lost: Callable[[Hop], None] | None = None,
    ) -> None:
        self.address = Hop("udp", host, port)
        self._on_message = on_message
        self._on_failure = on_failure
        self._on_lost = on_lost
        self._tracer = tracer
        self._limits = limits or Limits()
        self._udp: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._connections: dict[Hop, _Connection] = {}
        self._connecting: dict[Hop, list[Outgoing]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False
        self.numbers = count(1)
        """Number the connections: a port may come again, and then is another flow."""

    async def start(self) -> None:
        """Bind UDP and TCP to the same port; port 0 chooses one that is free for both. Raises LocalError."""
        wanted = self.address.port
        for left in reversed(range(_BIND_TRIES)):
            try:
                await self._bind(wanted)
                break
            except OSError as error:
                if wanted or not left:
                    raise LocalError(f"cannot listen for SIP on {self.address.address}: {_reason(error)}") from None
        self._sweep()

    async def _bind(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        host = self.address.host
        udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self._on_message), local_addr=(host, port))
        bound = int(udp.get_extra_info("sockname")[1])
        try:
            self._server = await loop.create_server(lambda: _Connection(self), host, bound)
        except OSError:
            udp.close()
            raise
        self._udp = udp
        self.address = Hop("udp", host, bound)

    async def close(self) -> None:
        """Stop listening and close every connection."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for task in self._tasks:
            task.cancel()
        if self._udp is not None:
            self._udp.close()
        for connection in list(self._connections.values()):
            connection.close()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # lets the closed sockets go before the loop does

    def send(self, outgoing: Outgoing) -> None:
        """Send one message; a TCP connection is reused, or made."""
        if outgoing.hop.transport == "udp":
            self._send_datagram(outgoing)
            return
        connection = self._connection(outgoing.hop)
        if connection is None and outgoing.fallback is not None:
            outgoing = Outgoing(outgoing.fallback, outgoing.data, outgoing.key)
            connection = self._connection(outgoing.hop)
        if connection is None and outgoing.hop.flow is not None:
            self._fail(outgoing)  # nobody can connect to where a telephone connected from
        elif connection is None:
            self._queue(outgoing)
        elif not connection.write(outgoing.data):
            self._fail(outgoing)

    def _connection(self, hop: Hop) -> "_Connection | None":
        """Return the open connection to `hop`; where that is a flow, this very connection."""
        connection = self._connections.get(hop)
        return connection if connection is None or hop.flow in (None, connection.peer.flow) else None

    def _send_datagram(self, outgoing: Outgoing) -> None:
        hop = outgoing.hop
        if self._udp is None or self._udp.is_closing() or len(outgoing.data) > MAX_DATAGRAM_BYTES:
            self._fail(outgoing)
            return
        self.trace("udp", self.address.address, hop.address, outgoing.data)
        self._udp.sendto(outgoing.data, (hop.host, hop.port))

    def _queue(self, outgoing: Outgoing) -> None:
        """Let a message wait for a connection to its hop, which is begun if none is under way."""
        waiting = self._connecting.get(outgoing.hop)
        room = len(self._connections) + len(self._connecting) < self._limits.connections and not self._closed
        if waiting is not None and len(waiting) < self._limits.waiting_messages:
            waiting.append(outgoing)
        elif waiting is None and room:
            self._connecting[outgoing.hop] = [outgoing]
            task = asyncio.get_running_loop().create_task(self._connect(outgoing.hop))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._fail(outgoing)

    async def _connect(self, hop: Hop) -> None:
        connection = None
        try:
            async with asyncio.timeout(self._limits.connect_s):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: _Connection(self), hop.host, hop.port, local_addr=(self.address.host, 0)
                )
        except (OSError, TimeoutError) as error:
            log.info("no connection", extra={"fields": {"hop": str(hop), "error": type(error).__name__}})
        finally:
            waiting = self._connecting.pop(hop, [])
        for outgoing in waiting:
            if connection is None or not connection.write(outgoing.data):
                self._fail(outgoing)

    def _fail(self, outgoing: Outgoing) -> None:
        asyncio.get_running_loop().call_soon(self._on_failure, outgoing)

    def _sweep(self) -> None:
        """Close connections that are idle, or that let a message trickle in."""
        loop = asyncio.get_running_loop()
        for connection in list(self._connections.values()):
            limit_s = self._limits.message_s if connection.waiting else self._limits.idle_s
            if loop.time() - connection.active_s > limit_s:
                connection.close()
        self._sweeper = loop.call_later(min(self._limits.message_s, self._limits.idle_s) / 2, self._sweep)

    # What connections tell.

    @property
    def limits(self) -> Limits:
        """The bounds that connections keep."""
        return self._limits

    def opened(self, connection: "_Connection") -> bool:
        """Register a connection; False where there are too many already."""
        hosts = Counter(hop.host for hop in self._connections)
        if (
            self._closed
            or len(self._connections) >= self._limits.connections
            or hosts[connection.peer.host] >= self._limits.connections_per_host
        ):
            return False
        self._connections[connection.peer] = connection
        return True

    def lost(self, connection: "_Connection") -> None:
        """Forget a connection."""
        if self._connections.get(connection.peer) is connection:
            del self._connections[connection.peer]
            if self._on_lost is not None and not self._closed:
                self._on_lost(connection.peer)

    def received(self, data: bytes, source: Hop) -> None:
        """Hand on a message that came over a connection."""
        self._on_message(data, source)

    def trace(self, transport: str, source: str, target: str, data: bytes) -> None:
        """Record a message that is being sent."""
        if self._tracer.on:
            self._tracer.sip(transport, source, target, data)


class _Datagrams(asyncio.DatagramProtocol):
    """Datagrams in; a lone keep-alive (RFC 5626 §4.4.1) is nothing to answer."""

    def __init__(self, on_message: Callable[[bytes, Hop], None]) -> None:
        self._on_message = on_message

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if data.strip(b"\r\n\0"):
            self._on_message(data, Hop("udp", addr[0], addr[1]))


class _Connection(asyncio.Protocol):
    """One TCP connection, whichever side opened it."""

    def __init__(self, owner: Transport) -> None:
        self._owner = owner
        self._framer = StreamFramer()
        self._transport: asyncio.Transport | None = None
        self._local = ""
        self.peer = Hop("tcp", "", 0)
        self.active_s = 0.0
        """When something was last sent, or last received whole, on the loop's clock."""

    @property
    def waiting(self) -> bool:
        """Whether a message has arrived in part."""
        return self._framer.waiting

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        host, port = transport.get_extra_info("peername")[:2]
        self.peer = Hop("tcp", host, port, flow=next(self._owner.numbers))
        self._local = "{}:{}".format(*transport.get_extra_info("sockname")[:2])
        self._touch()
        if not self._owner.opened(self):
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        fresh = not self._framer.waiting
        try:
            messages = self._framer.receive(data)
        except MalformedError as error:
            log.info("connection closed", extra={"fields": {"peer": str(self.peer), "error": str(error)}})
            self.close()
            return
        if messages or fresh:
            self._touch()
        for message in messages:
            self._owner.received(message, self.peer)
        if self._framer.pings and self._transport is not None:
            self._transport.write(PONG)
            self._framer.pings = 0

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.lost(self)

    def write(self, data: bytes) -> bool:
        """Send one message; False where the connection is closing, or its peer does not read."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        if transport.get_write_buffer_size() > self._owner.limits.write_buffer_bytes:
            transport.abort()
            return False
        self._owner.trace("tcp", self._local, self.peer.address, data)
        transport.write(data)
        self._touch()
        return True

    def close(self) -> None:
        """Close the connection, what it still has to send included, and forget it at once."""
        self._owner.lost(self)
        if self._transport is not None:
            self._transport.close()

    def _touch(self) -> None:
        self.active_s = asyncio.get_running_loop().time()


def _reason(error: OSError) -> str:
    """Say why a socket cannot be bound: uvloop keeps the system's words in the cause of its own error."""
    cause = error.__cause__ or error.__context__
    return error.strerror or (isinstance(cause, OSError) and cause.strerror) or str(error)
