"""TCP connections for SIP: their costs, their number for each source, and their timeouts."""

import asyncio
import resource
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final, Protocol, cast

from voice_dpki.errors import MalformedError
from voice_dpki.sip.framing import PONG, StreamFramer
from voice_dpki.sip.hop import Hop, source_of
from voice_dpki.sip.message import parse_message, read_envelope

_INCOMING_SHARE: Final = 2
_OUTGOING_SHARE: Final = 8
"""Connections may take one half (incoming) and one eighth (outgoing) of the files that the process may open."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of connections: numbers, bytes and seconds. Incoming connections take no room from outgoing ones."""

    incoming: int = 1_000
    outgoing: int = 256
    per_source: int = 200
    """Incoming connections from one IPv4 address or one IPv6 /64."""
    write_buffer_bytes: int = 256 * 1024
    waiting_messages: int = 256
    """Messages that may wait for a connection that is being opened."""
    connect_s: float = 5.0
    first_message_s: float = 10.0
    """How long an incoming connection may take to bring its first whole message."""
    message_s: float = 10.0
    """How long a message may take to arrive completely."""
    idle_s: float = 300.0
    """How long a connection may be idle afterwards; a keep-alive (RFC 5626 §4.4.1) counts as activity."""
    linger_s: float = 0.2
    """How long a connection with a broken stream stays open for the answers to its earlier messages."""
    close_s: float = 5.0
    """How long a peer may take to read the last data when the connection is closed."""

    def within_the_process(self) -> "Limits":
        """Return limits that leave enough open files for everything else in the process."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY:
            return self
        return replace(
            self,
            incoming=min(self.incoming, soft // _INCOMING_SHARE),
            outgoing=min(self.outgoing, soft // _OUTGOING_SHARE),
        )


class Owner(Protocol):
    """The owner of a connection, with the calls that the connection makes."""

    limits: Limits
    numbers: Iterator[int]
    """Numbers of connections: a peer can reuse a port for another flow."""

    def opened(self, connection: "Connection") -> bool:
        """Register a connection; return False if there is no room for it."""
        ...

    def heard(self, connection: "Connection") -> None:
        """Note that a connection has brought its first message."""
        ...

    def waits(self, source: str, work: Callable[[], None]) -> None:
        """Call `work` when it is the turn of `source`."""
        ...

    def closing(self, connection: "Connection") -> None:
        """Note that this connection can no longer be used for sending."""
        ...

    def lost(self, connection: "Connection") -> None:
        """Forget a connection that has ended."""
        ...

    def received(self, data: bytes, source: Hop) -> None:
        """Process a received message."""
        ...

    def broken(self, data: bytes, source: Hop, error: MalformedError) -> None:
        """Process the header at which a stream could not be split any further."""
        ...

    def trace(self, transport: str, source: str, target: str, data: bytes) -> None:
        """Record a message that is being sent."""
        ...


class Connection(asyncio.Protocol):
    """One TCP connection, plain or under TLS, whichever side opened it."""

    def __init__(self, owner: Owner, *, incoming: bool, transport: str = "tcp") -> None:
        self.incoming = incoming
        self.peer = Hop(transport, "", 0)
        self.source = ""
        """The source in whose share the connection counts."""
        self.has_spoken = False
        """Whether a SIP message has come."""
        self.certificate = b""
        """SHA-256 of the certificate that the peer has proven, and that is trusted here; empty without one."""
        self._owner = owner
        self._framer = StreamFramer()
        self._has_turn = False
        """Whether received data waits for its turn; reading is paused then, so the data is bounded by one read."""
        self._transport: asyncio.Transport | None = None
        self._local = ""
        self._active_s = 0.0
        self._is_deaf = False
        """Whether received data is ignored: the stream is broken, or the connection is closing."""
        self._ending: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Record the peer, and abort the connection if there is no room for it."""
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        if peer is None:  # uvloop asks the socket, and a peer that has reset it is gone
            self._is_deaf = True
            self._transport.abort()
            return
        host, port = peer[:2]
        numbered = Hop(self.peer.transport, host, port, flow=next(self._owner.numbers))
        self.peer, self.source = numbered, source_of(host)
        self._local = Hop("tcp", *transport.get_extra_info("sockname")[:2]).address
        self.certificate = _certificate_of(transport)
        self._touch()
        if not self._owner.opened(self):
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Buffer the data until the source's turn."""
        if self._is_deaf:
            return
        if not self._framer.waiting:
            self._touch()
        self._framer.feed(data)
        if not self._has_turn:  # under TLS some data may arrive after reading was paused
            self._has_turn = True
            if self._transport is not None and not self._transport.is_closing():
                self._transport.pause_reading()
            self._owner.waits(self.source, self._take_turn)

    def _take_turn(self) -> None:
        """Pass on one message, even if the connection has ended meanwhile."""
        message = self._framer.next()
        if self._framer.pings:
            self._framer.pings = 0
            self._pong()
        if message is not None:
            self._touch_with_message(message)
            self._owner.received(message, self.peer)
            self._owner.waits(self.source, self._take_turn)
            return
        self._has_turn = False
        self._end_if_broken()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _pong(self) -> None:
        """Answer keep-alives, one for all that came together, unless the peer does not read the answers."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if transport.get_write_buffer_size() > self._owner.limits.write_buffer_bytes:
            transport.abort()
        else:
            transport.write(PONG)

    def _touch_with_message(self, message: bytes) -> None:
        if not self.has_spoken and _can_be_understood(message):
            self.has_spoken = True
            self._owner.heard(self)
        self._touch()

    def _end_if_broken(self) -> None:
        """Close the connection if its stream cannot be split any further; all earlier messages were passed on."""
        if (error := self._framer.error) is not None and not self._is_deaf:
            self._is_deaf = True
            self._owner.broken(error.head, self.peer, error)
            loop = asyncio.get_running_loop()
            self._ending = loop.call_later(self._owner.limits.linger_s, self._close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the loss to the owner."""
        if self._ending is not None:
            self._ending.cancel()
        self._owner.lost(self)

    def write(self, data: bytes) -> bool:
        """Send one message; return False if the connection is closing, or its peer does not read."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        if transport.get_write_buffer_size() > self._owner.limits.write_buffer_bytes:
            transport.abort()
            return False
        self._owner.trace(self.peer.transport, self._local, self.peer.address, data)
        transport.write(data)
        self._touch()
        return True

    def close(self) -> None:
        """Close the connection once its peer has read the data still to be sent, or after close_s."""
        self._is_deaf = True
        if self._transport is not None and self._transport.is_closing():
            return  # the timer that ends it stays set
        if self._ending is not None:
            self._ending.cancel()
        self._close()

    def _close(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._owner.closing(self)
        loop = asyncio.get_running_loop()
        self._ending = loop.call_later(self._owner.limits.close_s, self._transport.abort)
        self._transport.close()

    def abort(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def active_s(self) -> float:
        """When something was last sent, or received, by the loop's clock."""
        return self._active_s

    def is_overdue(self, now_s: float) -> bool:
        """Return whether the peer has been idle, or slow, for too long."""
        limits = self._owner.limits
        if self.incoming and not self.has_spoken:
            limit_s = limits.first_message_s
        else:
            limit_s = limits.message_s if self._framer.waiting else limits.idle_s
        return now_s - self._active_s > limit_s

    def _touch(self) -> None:
        """Record activity: data sent, or a message begun. It does not extend the wait for the first message."""
        if not self.incoming or self.has_spoken or not self._active_s:
            self._active_s = asyncio.get_running_loop().time()


def _certificate_of(transport: asyncio.BaseTransport) -> bytes:
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    shown = tls.getpeercert(binary_form=True) if tls is not None else None
    return sha256(shown).digest() if shown else b""


def _can_be_understood(message: bytes) -> bool:
    """Whether a message is SIP: a connection with anything else counts as silent."""
    try:
        read_envelope(parse_message(message))
    except MalformedError:
        return False
    return True


class Pool:
    """The connections of one transport, counted by direction and source.

    Where there are too many, the oldest connection without any message is closed, so that silent clients keep
    nobody out. For a source that `is_known`, or that has proven a certificate, the stranger's connection that was
    idle longest can be closed too, so that strangers cannot keep such sources out.
    """

    def __init__(
        self,
        limits: Limits,
        on_refused: Callable[[str], None],
        is_known: Callable[[str], bool] = lambda source: False,
    ) -> None:
        self._limits = limits
        self._on_refused = on_refused
        self._is_known = is_known
        self._by_peer: dict[Hop, Connection] = {}
        self._open: set[Connection] = set()
        self._silent: dict[Connection, None] = {}
        self._sources: Counter[str] = Counter()
        self._incoming = 0

    def find(self, hop: Hop) -> Connection | None:
        """Return the connection to `hop`, or None."""
        return self._by_peer.get(hop)

    @property
    def all(self) -> list[Connection]:
        """All connections whose sockets are open."""
        return list(self._open)

    @property
    def outgoing(self) -> int:
        """How many connections this element opened."""
        return len(self._open) - self._incoming

    def add(self, connection: Connection) -> bool:
        """Take in a connection; False where there is no room for it."""
        if connection.incoming and not self._make_room(connection):
            self._on_refused(connection.source)
            return False
        self._by_peer[connection.peer] = connection
        self._open.add(connection)
        if connection.incoming:
            self._incoming += 1
            self._sources[connection.source] += 1
            self._silent[connection] = None
        return True

    def _make_room(self, newcomer: Connection) -> bool:
        source = newcomer.source
        crowded = self._sources[source] >= self._limits.per_source
        if not crowded and self._incoming < self._limits.incoming:
            return True
        oldest = next((c for c in self._silent if not crowded or c.source == source), None)
        if oldest is None and not self._is_stranger(newcomer):
            strangers = (c for c in self._open if c.incoming and (not crowded or c.source == source))
            oldest = min(filter(self._is_stranger, strangers), key=lambda c: c.active_s, default=None)
        if oldest is None:
            return False
        self._on_refused(oldest.source)
        oldest.abort()
        self._discount(oldest)  # its end is reported once its socket is closed
        return True

    def _is_stranger(self, connection: Connection) -> bool:
        return not connection.certificate and not self._is_known(connection.source)

    def speaks(self, connection: Connection) -> None:
        """Note that a connection has brought a message."""
        self._silent.pop(connection, None)

    def leave(self, connection: Connection) -> bool:
        """Stop sending over a connection; return False if that was so before."""
        found = self._by_peer.get(connection.peer) is connection
        if found:
            del self._by_peer[connection.peer]
        return found

    def forget(self, connection: Connection) -> bool:
        """Take out a connection whose socket is closed; False where nothing was sent over it before."""
        self._discount(connection)
        return self.leave(connection)

    def _discount(self, connection: Connection) -> None:
        self._silent.pop(connection, None)
        if connection not in self._open:
            return
        self._open.remove(connection)
        if connection.incoming:
            self._incoming -= 1
            self._sources[connection.source] -= 1
            if self._sources[connection.source] <= 0:
                del self._sources[connection.source]
