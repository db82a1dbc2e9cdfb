"""SIP transport over UDP, TCP and TLS at one address (RFC 3261 §18), with bounded, reused connections."""

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Final, Protocol

from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.sip.events import Outgoing
from voice_dpki.sip.hop import Hop, source_of
from voice_dpki.sip.senders import Senders
from voice_dpki.sip.stun import answer_binding, is_stun
from voice_dpki.wire.seldom import Seldom
from voice_dpki.wire.sip.connections import Connection, Limits, Pool
from voice_dpki.wire.sip.datagrams import DatagramSocket
from voice_dpki.wire.sip.handshakes import BACKLOG, TlsListener
from voice_dpki.wire.sip.ingress import Ingress, Work
from voice_dpki.wire.sip.sockets import Sockets
from voice_dpki.wire.tasks import Background

__all__ = ["Limits", "SipTracer", "Tls", "Transport"]

log = logging.getLogger(__name__)

_FALLBACK_SHARE: Final = 8
"""Divisor: share of outgoing connections that can be fallbacks to one known source, or to all strangers."""
_STRANGERS_FALLBACKS: Final = 4
"""Fallback connections to one stranger: its Via names the port, and one that never answers would hold a place."""


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS contexts of an element: as a client, and as a server at `port` if it listens (0 chooses a free port)."""

    client: ssl.SSLContext
    server: ssl.SSLContext | None = None
    port: int = 0
    listed: frozenset[bytes] | None = None
    """SHA-256 of the peers' certificates; None where the contexts alone decide."""

    def admits(self, certificate: bytes) -> bool:
        """Tell whether connections to a peer with the certificate of that SHA-256 may stay."""
        return self.listed is None or certificate in self.listed


class SipTracer(Protocol):
    """A recorder of sent messages (see `voice_dpki.shell.trace`)."""

    @property
    def on(self) -> bool:
        """Whether messages are recorded."""
        ...

    def sip(self, transport: str, src: str, dst: str, data: bytes) -> None:
        """Record one message; `transport` is "udp", "tcp" or "tls", `src` and `dst` are "host:port"."""
        ...


class Transport:
    """Sends and receives SIP messages at one address; with `tls` also under TLS, at another port.

    Callbacks:

    - `on_message(data, source)` gets each received message.
    - `on_failure(outgoing)` gets each message that could not be sent; it is never called from within `send`.
    - `on_broken(data, source, error)` gets the header at which a stream could not be split any further, before the
      connection is closed.
    - `on_unreachable(data, hop)` gets the beginning of a datagram that did not arrive according to ICMP.
    - `on_refused(source)` gets the source of a connection that is refused or closed for lack of room.
    - `on_lost(peer)` gets the peer of each lost connection.
    - `on_dropped(source, count)` gets the number of datagrams dropped because `source` sent one, usually that one.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        on_message: Callable[[bytes, Hop], None],
        on_failure: Callable[[Outgoing], None],
        tracer: SipTracer,
        on_broken: Callable[[bytes, Hop, MalformedError], None] = lambda data, source, error: None,
        on_unreachable: Callable[[bytes, Hop], None] = lambda data, hop: None,
        on_refused: Callable[[str], None] = lambda source: None,
        limits: Limits | None = None,
        on_lost: Callable[[Hop], None] | None = None,
        tls: Tls | None = None,
        senders: Senders | None = None,
        on_dropped: Callable[[str, int], None] = lambda source, count: None,
    ) -> None:
        self.address = Hop("udp", host, port)
        self._on_message = on_message
        self._on_failure = on_failure
        self._on_lost = on_lost
        self._tracer = tracer
        self._on_broken = on_broken
        self._on_unreachable = on_unreachable
        self._on_refused = on_refused
        self._senders = senders or Senders()
        self._on_dropped = on_dropped
        self._ingress: Ingress | None = None
        self.limits = (limits or Limits()).within_the_process()
        self._tls = tls
        self.tls_port = 0
        """Port of the TLS listener, once started; 0 if there is none."""
        self._tls_listener: TlsListener | None = None
        self._udp: DatagramSocket | None = None
        self._server: asyncio.Server | None = None
        self._pool = Pool(self.limits, on_refused, self._is_known)
        self._connecting: dict[Hop, list[Outgoing]] = {}
        self._background = Background(log)
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False
        self._fallbacks: dict[Hop, tuple[str, bool]] = {}
        """Fallback connections, open or being opened: the source of each, and whether it was known."""
        self._said, self._unreached = Seldom(log), Seldom(log)
        self.numbers: Iterator[int] = count(1)
        """Numbers of connections: a peer's port may be used again, and is then another flow."""

    async def start(self, sockets: Sockets | None = None) -> None:
        """Listen at the address, with `sockets` that are bound to it already; raises LocalError."""
        if sockets is None:
            tls_port = self._tls.port if self._tls is not None and self._tls.server is not None else None
            sockets = Sockets.bind(self.address.host, self.address.port, tls_port)
        try:
            await self._listen(sockets)
        except OSError as error:  # another socket may be bound to the address, and listen
            sockets.close()
            await self.close()
            raise LocalError(f"cannot listen for SIP on {self.address.address}: {_reason(error)}") from None
        self._sweep()

    async def _listen(self, sockets: Sockets) -> None:
        self._ingress = Ingress(self._senders, self._work_on, self._on_dropped)
        self._udp = DatagramSocket(sockets.udp, self._ingress.datagram, self._unreachable)
        self.address = Hop("udp", self.address.host, self._udp.port)
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self, incoming=True), sock=sockets.tcp, backlog=BACKLOG
        )
        if sockets.tls is not None:
            self._tls_listener = TlsListener(
                self.limits,
                lambda: self._tls.server if self._tls else None,
                lambda: Connection(self, incoming=True, transport="tls"),
                self._on_refused,
            )
            self._tls_listener.start(sockets.tls)
            self.tls_port = int(sockets.tls.getsockname()[1])

    async def retire(self) -> None:
        """Leave new messages and connections to another process that has the same sockets.

        What was received is passed on before this returns. Messages can be sent, and open connections stay.
        """
        await self._stop_listening()
        if self._ingress is not None:
            await self._ingress.emptied()

    async def _stop_listening(self) -> None:
        if self._udp is not None:
            self._udp.deafen()
        if self._server is not None:
            self._server.close()
        if self._tls_listener is not None:
            await self._tls_listener.close()

    async def close(self) -> None:
        """Stop listening and close every connection."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self._background.close()
        if self._ingress is not None:
            self._ingress.close()
        await self._stop_listening()
        if self._udp is not None:
            self._udp.close()
        for connection in self._pool.all:
            connection.close()
        if self._server is not None:
            await self._server.wait_closed()
        await asyncio.sleep(0)  # lets the loop finish closing the sockets

    def renew_tls(self, tls: Tls) -> None:
        """Use `tls` for new handshakes, at the same port, and close connections to peers that it does not list.

        Has no effect on a transport without TLS.
        """
        if self._tls is None:
            return
        self._tls = tls
        for connection in self._pool.all:
            if not self._admits(connection):
                log.warning("a SIP peer is no longer listed", extra={"fields": {"peer": str(connection.peer)}})
                connection.close()

    def _admits(self, connection: Connection) -> bool:
        is_tls = connection.peer.transport == "tls"
        return not is_tls or (self._tls is not None and self._tls.admits(connection.certificate))

    def send(self, outgoing: Outgoing) -> None:
        """Send one message; over TCP and TLS, on an open connection or a new one."""
        if outgoing.hop.transport == "udp":
            self._send_datagram(outgoing)
            return
        connection = self._connection(outgoing.hop)
        if connection is None and outgoing.fallback is not None:
            outgoing = Outgoing(outgoing.fallback, outgoing.data, outgoing.key)
            connection = self._connection(outgoing.hop)
            if connection is None and not self._admits_fallback(outgoing.hop):
                self._fail(outgoing)
                return
        if connection is None and outgoing.hop.flow is not None:
            self._fail(outgoing)  # a telephone does not listen at the port that it connected from
        elif connection is None:
            self._queue(outgoing)
        elif not connection.write(outgoing.data):
            self._fail(outgoing)

    def _admits_fallback(self, hop: Hop) -> bool:
        """Tell whether a connection to `hop` may replace a lost one, and count it.

        The peer that closed the first connection chose the port, and must not use up the outgoing connections.
        """
        if hop.transport == "udp" or hop.flow is not None or hop in self._connecting:
            return True
        source, share = source_of(hop.host), max(self.limits.outgoing // _FALLBACK_SHARE, 1)
        is_known = self._is_known(source)
        there = sum(each == source for each, _ in self._fallbacks.values())
        strangers = sum(not known for _, known in self._fallbacks.values())
        admitted = there < share and (is_known or (there < _STRANGERS_FALLBACKS and strangers < share))
        if admitted and self._has_room:
            self._fallbacks[hop] = source, is_known
        return admitted

    def _is_known(self, source: str) -> bool:
        return self._senders.is_known(source, asyncio.get_running_loop().time())

    @property
    def _has_room(self) -> bool:
        return self._pool.outgoing + len(self._connecting) < self.limits.outgoing and not self._closed

    def _connection(self, hop: Hop) -> Connection | None:
        """Return the open connection to `hop`, or None; if `hop` has a flow, only that very connection."""
        connection = self._pool.find(hop)
        return connection if connection is None or hop.flow in (None, connection.peer.flow) else None

    def _send_datagram(self, outgoing: Outgoing) -> None:
        hop = outgoing.hop
        if self._udp is None or not self._udp.takes(outgoing.data):
            self._fail(outgoing)
            return
        self.trace("udp", self.address.address, hop.address, outgoing.data)  # before its answer can be traced
        if not self._udp.send(outgoing.data, hop.host, hop.port):
            self._fail(outgoing)

    def _queue(self, outgoing: Outgoing) -> None:
        """Queue a message for a connection to its hop; open the connection unless that is under way."""
        waiting = self._connecting.get(outgoing.hop)
        if outgoing.hop.transport == "tls" and self._tls is None:
            self._fail(outgoing)  # never in clear instead
        elif waiting is not None and self._may_wait(outgoing, waiting):
            waiting.append(outgoing)
        elif waiting is None and self._has_room:
            self._connecting[outgoing.hop] = [outgoing]
            self._background.run(self._connect(outgoing.hop))
        else:
            self._fail(outgoing)

    def _may_wait(self, outgoing: Outgoing, waiting: list[Outgoing]) -> bool:
        size = len(outgoing.data) + sum(len(other.data) for other in waiting)
        return len(waiting) < self.limits.waiting_messages and size <= self.limits.write_buffer_bytes

    async def _connect(self, hop: Hop) -> None:
        connection, secure = None, hop.transport == "tls"
        try:
            async with asyncio.timeout(self.limits.connect_s):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(self, incoming=False, transport=hop.transport),
                    hop.host,
                    hop.port,
                    local_addr=(self.address.host, 0),
                    ssl=self._tls.client if secure and self._tls else None,
                )
        except (OSError, TimeoutError) as error:
            self._unreached.warning("no connection", hop=str(hop), error=type(error).__name__)
        finally:
            waiting = self._connecting.pop(hop, [])
            if connection is None:
                self._fallbacks.pop(hop, None)
        for outgoing in waiting:
            if connection is None or not connection.write(outgoing.data):
                self._fail(outgoing)

    def _fail(self, outgoing: Outgoing) -> None:
        asyncio.get_running_loop().call_soon(self._on_failure, outgoing)

    def _sweep(self) -> None:
        """Close connections that are idle, or that deliver a message too slowly."""
        loop = asyncio.get_running_loop()
        for connection in self._pool.all:
            if connection.is_overdue(loop.time()):
                connection.close()
        limits = self.limits
        every_s = min(limits.message_s, limits.idle_s, limits.first_message_s) / 2
        self._sweeper = loop.call_later(every_s, self._sweep)

    # Calls from the datagram socket and from connections.

    def _work_on(self, data: bytes, host: str, port: int) -> None:
        if is_stun(data):
            answer = answer_binding(data, host, port)
            if answer is not None and self._udp is not None:
                self._udp.send(answer, host, port)
        elif data.strip(b"\r\n\0"):  # line ends alone are a keep-alive, which needs no answer
            self._on_message(data, Hop("udp", host, port))

    def _unreachable(self, data: bytes, host: str, port: int) -> None:
        self._on_unreachable(data, Hop("udp", host, port))

    def opened(self, connection: Connection) -> bool:
        """Register a connection; return False if there is no room for it, or if its peer was taken off the list."""
        return not self._closed and self._admits(connection) and self._pool.add(connection)

    def heard(self, connection: Connection) -> None:
        """Note that a connection has brought its first message."""
        self._pool.speaks(connection)

    def closing(self, connection: Connection) -> None:
        """Stop sending over a connection."""
        self._tell_lost(connection, self._pool.leave(connection))

    def _tell_lost(self, connection: Connection, had_it: bool) -> None:
        if had_it and self._on_lost is not None and not self._closed:
            self._on_lost(connection.peer)

    def lost(self, connection: Connection) -> None:
        """Forget a connection."""
        if not connection.incoming:
            self._fallbacks.pop(connection.peer, None)
        self._tell_lost(connection, self._pool.forget(connection))

    def waits(self, source: str, work: Work) -> None:
        """Queue the turn of a connection that has received data."""
        if self._ingress is not None:
            self._ingress.stream(source, work)

    def received(self, data: bytes, source: Hop) -> None:
        """Pass on a message that came over a connection."""
        self._on_message(data, source)

    def broken(self, data: bytes, source: Hop, error: MalformedError) -> None:
        """Pass on the header at which a stream could not be split any further."""
        self._said.warning("a SIP stream is broken", peer=str(source), error=str(error))
        self._on_broken(data, source, error)

    def trace(self, transport: str, source: str, target: str, data: bytes) -> None:
        """Record a message that is being sent."""
        if self._tracer.on:
            self._tracer.sip(transport, source, target, data)


def _reason(error: OSError) -> str:
    """Return why a socket cannot be bound; uvloop keeps the system's text in the cause of its own error."""
    cause = error.__cause__ or error.__context__
    return error.strerror or (isinstance(cause, OSError) and cause.strerror) or str(error)
