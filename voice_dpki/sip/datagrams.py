"""One UDP socket that learns from ICMP which datagrams did not arrive (RFC 3261 §18.4).

asyncio's own datagram transport cannot tell: it hears of such errors without the address. With IP_RECVERR the
kernel keeps each of them with the datagram that it is about. A later send to somebody else reports it as well, and
then sends nothing, so it is repeated.
"""
# ruff: noqa: TID251 - this is a shell: it holds the socket

import asyncio
import errno
import select
import socket
import struct
from collections.abc import Callable
from typing import Final

MAX_DATAGRAM_BYTES: Final = 65_507
"""What fits into an IPv4 datagram behind its headers."""

_RECEIVED_AT_ONCE: Final = 8_192
"""Datagrams taken from the kernel's queue, at 2 µs each, before others have their turn on the event loop."""
_RECEIVE_BUFFER_BYTES: Final = 4 * 1024 * 1024
"""What is asked for; the system may grant less."""
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
"""Gets a datagram and where it came from, and must be cheap: the kernel's queue fills meanwhile, for all senders.

Or gets the begin of a datagram that did not arrive, and where it was to go.
"""


class DatagramSocket:
    """Sends and receives on the running event loop. No callback is called from within `send`."""

    def __init__(self, host: str, port: int, on_datagram: OnDatagram, on_unreachable: OnDatagram) -> None:
        """Bind the socket; raises OSError."""
        self._on_datagram = on_datagram
        self._on_unreachable = on_unreachable
        self._loop = asyncio.get_running_loop()
        self._room = memoryview(bytearray(65_535))
        """Where each datagram is received: room of that size for each one that waits tears the heap apart."""
        ipv6 = ":" in host
        self._socket = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
            self._socket.bind((host, port))
            self._watch = self._prepare(ipv6)
        except OSError:
            self._socket.close()
            raise
        self._loop.add_reader(self._watch.fileno(), self._ready)

    def _prepare(self, ipv6: bool) -> "select.epoll | socket.socket":
        """Ask for errors where the system has them, and return what the event loop watches.

        An epoll between socket and loop: to libuv an error on a watched socket is the end of watching it.
        """
        if not hasattr(select, "epoll") or not hasattr(socket, "MSG_ERRQUEUE"):
            return self._socket
        level, option = (socket.IPPROTO_IPV6, _IPV6_RECVERR) if ipv6 else (socket.IPPROTO_IP, _IP_RECVERR)
        self._socket.setsockopt(level, option, 1)
        watch = select.epoll()
        watch.register(self._socket.fileno(), select.EPOLLIN)
        return watch

    @property
    def port(self) -> int:
        """The port that it is bound to."""
        return int(self._socket.getsockname()[1])

    def close(self) -> None:
        """Free the socket."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._watch.fileno())
            self._watch.close()
            self._socket.close()

    def takes(self, data: bytes) -> bool:
        """Tell whether `data` can be sent: the socket is open, and a datagram can hold it."""
        return self._socket.fileno() >= 0 and len(data) <= MAX_DATAGRAM_BYTES

    def send(self, data: bytes, host: str, port: int) -> bool:
        """Send one datagram; False where that cannot be done. One for which there is no room now counts as lost."""
        if not self.takes(data):
            return False
        for _ in range(_SEND_TRIES):
            try:
                self._socket.sendto(data, (host, port))
            except BlockingIOError:
                return True
            except OverflowError:
                return False  # no port
            except OSError:
                self._read_errors()  # it may be about an earlier datagram, and then this one was not sent
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
                continue  # an error that stands in the queue as well
            self._on_datagram(self._room[:size].tobytes(), address[0], address[1])
        self._read_errors()

    def _read_errors(self) -> None:
        """Take in what the kernel knows of datagrams that did not arrive."""
        flag = getattr(socket, "MSG_ERRQUEUE", 0)
        for _ in range(_ERRORS_AT_ONCE if flag and self._socket.fileno() >= 0 else 0):
            try:
                quoted, ancillary, _, address = self._socket.recvmsg(2_048, 512, flag)
            except OSError:
                return
            if quoted.startswith(_RESPONSE):
                continue  # nobody waits for the answer to an answer, and a flood draws one error for each
            if address and any(_is_unreachable(level, kind, data) for level, kind, data in ancillary):
                self._loop.call_soon(self._on_unreachable, quoted, address[0], address[1])


def _is_unreachable(level: int, kind: int, data: bytes) -> bool:
    """Whether this tells of a destination that cannot be reached; a datagram too large for the path can be."""
    wanted = (level, kind) in ((socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR))
    if not wanted or len(data) < _EXTENDED_ERROR.size:
        return False
    number, origin, icmp_type = _EXTENDED_ERROR.unpack_from(data)
    return (origin, icmp_type) in _UNREACHABLE and number != errno.EMSGSIZE
