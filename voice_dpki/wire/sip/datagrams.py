"""A UDP socket that reports the datagrams that did not arrive according to ICMP (RFC 3261 §18.4).

asyncio's own datagram transport cannot do that: it reports such errors without the address. With IP_RECVERR the
kernel queues each error with the datagram that caused it. A later send to another peer fails with the pending error
and sends nothing, so the send is repeated.
"""

import asyncio
import errno
import select
import socket
import struct
from collections.abc import Callable
from typing import Final

MAX_DATAGRAM_BYTES: Final = 65_507
"""Largest payload of an IPv4 UDP datagram."""

_RECEIVED_AT_ONCE: Final = 8_192
"""Most datagrams read from the kernel's queue, at 2 µs each, before the event loop serves others."""
_RECEIVE_BUFFER_BYTES: Final = 4 * 1024 * 1024
"""Size that is requested; the system may grant less."""
_ERRORS_AT_ONCE: Final = 256
_SEND_TRIES: Final = 3
_IP_RECVERR: Final = 11
_IPV6_RECVERR: Final = 25
_EXTENDED_ERROR: Final = struct.Struct("=IBB")
"""The head of struct sock_extended_err: errno, origin, type (linux/errqueue.h)."""
_RESPONSE: Final = b"SIP/2.0 "
_UNREACHABLE: Final = {(2, 3), (3, 1)}
"""Origin and type of "destination unreachable" in ICMP and ICMPv6."""

OnDatagram = Callable[[bytes, str, int], None]
"""Gets a received datagram and its source, or the beginning of a datagram that did not arrive and its destination.

It must be cheap: meanwhile the kernel's queue fills up, for all senders.
"""


class DatagramSocket:
    """Sends and receives on the running event loop. No callback is called from within `send`."""

    def __init__(self, sock: socket.socket, on_datagram: OnDatagram, on_unreachable: OnDatagram) -> None:
        """Read a bound socket, which belongs to this object from now on; raises OSError."""
        self._on_datagram = on_datagram
        self._on_unreachable = on_unreachable
        self._loop = asyncio.get_running_loop()
        self._room = memoryview(bytearray(65_535))
        """Buffer for all datagrams: one of this size for each queued datagram would fragment the heap."""
        self._socket = sock
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        self._watch: select.epoll | socket.socket | None = self._prepare()
        self._loop.add_reader(self._watch.fileno(), self._ready)

    def _prepare(self) -> "select.epoll | socket.socket":
        """Enable the error queue where the system has one, and return the object for the event loop to watch.

        An epoll stands between socket and loop, as libuv stops watching a socket that has an error.
        """
        if not hasattr(select, "epoll") or not hasattr(socket, "MSG_ERRQUEUE"):
            return self._socket
        ipv6 = self._socket.family is socket.AF_INET6
        level, option = (socket.IPPROTO_IPV6, _IPV6_RECVERR) if ipv6 else (socket.IPPROTO_IP, _IP_RECVERR)
        self._socket.setsockopt(level, option, 1)
        watch = select.epoll()
        watch.register(self._socket.fileno(), select.EPOLLIN)
        return watch

    @property
    def port(self) -> int:
        """The port that the socket is bound to."""
        return int(self._socket.getsockname()[1])

    def deafen(self) -> None:
        """Read nothing more: what arrives stays in the socket, for another process that has it. Sending goes on."""
        if self._watch is not None:
            self._loop.remove_reader(self._watch.fileno())
            if self._watch is not self._socket:
                self._watch.close()
            self._watch = None

    def close(self) -> None:
        """Close the socket."""
        self.deafen()
        self._socket.close()

    def takes(self, data: bytes) -> bool:
        """Return whether `data` can be sent: the socket is open, and a datagram can hold it."""
        return self._socket.fileno() >= 0 and len(data) <= MAX_DATAGRAM_BYTES

    def send(self, data: bytes, host: str, port: int) -> bool:
        """Send one datagram; return False if that is impossible. One for which the send buffer is full is lost."""
        if not self.takes(data):
            return False
        for _ in range(_SEND_TRIES):
            try:
                self._socket.sendto(data, (host, port))
            except BlockingIOError:
                return True
            except OverflowError:
                return False  # the port is out of range
            except OSError:
                self._read_errors()  # the error may be an earlier datagram's; this one was not sent
            else:
                return True
        return False

    def _ready(self) -> None:
        for _ in range(_RECEIVED_AT_ONCE):
            if self._socket.fileno() < 0:
                return  # a callback has closed it
            try:
                size, address = self._socket.recvfrom_into(self._room)
            except BlockingIOError:
                break
            except OSError:
                continue  # the error is in the error queue as well
            self._on_datagram(self._room[:size].tobytes(), address[0], address[1])
        self._read_errors()

    def _read_errors(self) -> None:
        """Read the kernel's error queue and report unreachable destinations."""
        flag = getattr(socket, "MSG_ERRQUEUE", 0)
        for _ in range(_ERRORS_AT_ONCE if flag and self._socket.fileno() >= 0 else 0):
            try:
                quoted, ancillary, _, address = self._socket.recvmsg(2_048, 512, flag)
            except OSError:
                return
            if quoted.startswith(_RESPONSE):
                continue  # no transaction needs it, and a flood of requests causes one error for each response
            if address and any(_is_unreachable(level, kind, data) for level, kind, data in ancillary):
                self._loop.call_soon(self._on_unreachable, quoted, address[0], address[1])


def _is_unreachable(level: int, kind: int, data: bytes) -> bool:
    """Return whether this error says that the destination is unreachable, not that the datagram was too large."""
    wanted = (level, kind) in ((socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR))
    if not wanted or len(data) < _EXTENDED_ERROR.size:
        return False
    number, origin, icmp_type = _EXTENDED_ERROR.unpack_from(data)
    return (origin, icmp_type) in _UNREACHABLE and number != errno.EMSGSIZE
