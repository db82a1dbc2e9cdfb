"""The two UDP ports of a call's media, and their tracer."""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Protocol

from voice_dpki.errors import LocalError

log = logging.getLogger(__name__)

MAX_PORT_TRIES = 50


class RtpTracer(Protocol):
    """Observer of every packet that is sent; `voice_dpki.shell.trace.Tracer` is one."""

    def rtp(self, src: str, dst: str, wire: bytes, clear: bytes) -> None:
        """Take a packet as sent, and as it was before encryption; the addresses are "host:port"."""
        ...


class Datagrams(asyncio.DatagramProtocol):
    """Protocol that passes one socket's datagrams on: octets, source, and whether they are of the port for RTCP."""

    def __init__(self, take: Callable[[bytes, tuple[str, int], bool], None], is_control: bool) -> None:
        self._take = take
        self._is_control = is_control

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Take a datagram."""
        self._take(data, addr[:2], self._is_control)  # an IPv6 address has four parts

    def error_received(self, exc: Exception) -> None:
        """Note that the peer's port is closed, as it is after a call."""
        log.debug("media socket", extra={"fields": {"error": str(exc)}})


async def listen_pair(
    host: str, take: Callable[[bytes, tuple[str, int], bool], None]
) -> tuple[int, list[asyncio.DatagramTransport]]:
    """Receive at an even port and at the one above it, for RTCP; return the even port and both transports.

    Raises LocalError if there are none, and then leaves nothing open.
    """
    loop, pair = asyncio.get_running_loop(), bind_pair(host)
    transports: list[asyncio.DatagramTransport] = []
    try:
        for is_control, bound in enumerate(pair):
            made = partial(Datagrams, take, bool(is_control))
            transport, _ = await loop.create_datagram_endpoint(made, sock=bound)
            transports.append(transport)
        return int(pair[0].getsockname()[1]), transports
    except BaseException as error:
        for transport in transports:
            transport.close()
        for bound in pair[len(transports) :]:
            bound.close()
        await asyncio.sleep(0)  # lets the loop close the sockets
        if isinstance(error, OSError):
            raise LocalError(f"no media ports at {host}: {error.strerror}") from None
        raise


def bind_pair(host: str) -> tuple[socket.socket, socket.socket]:
    """Bind two UDP sockets to an even port and the one above it (RFC 3550 §11).

    Raises LocalError if there are none: no ports, no file descriptors, or not our address.
    """
    why = ""
    for _ in range(MAX_PORT_TRIES):
        try:
            pair = _try_pair(host)
        except OSError as error:
            log.debug("no pair of ports here", extra={"fields": {"error": str(error)}})
            why = f": {error.strerror}"
            if error.errno != errno.EADDRINUSE:
                break
        else:
            if pair is not None:
                return pair
    raise LocalError(f"no two free UDP ports at {host}{why}")


def _try_pair(host: str) -> tuple[socket.socket, socket.socket] | None:
    """Return two sockets at the port that the system chooses and the next, or None if it is odd; raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as stack:
        first, second = (stack.enter_context(socket.socket(family, socket.SOCK_DGRAM)) for _ in range(2))
        first.bind((host, 0))
        port = first.getsockname()[1]
        if port % 2:
            return None
        second.bind((host, port + 1))
        stack.pop_all()
        return first, second
