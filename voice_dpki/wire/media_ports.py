"""The two UDP ports of a call's media, and who watches them."""

import asyncio
import logging
import socket
from collections.abc import Callable
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
    """Take what comes at an even port and the one above it, which is for RTCP; return the port and both transports.

    Raises LocalError if there are none.
    """
    loop, pair = asyncio.get_running_loop(), bind_pair(host)
    transports: list[asyncio.DatagramTransport] = []
    for is_control, bound in enumerate(pair):
        transport, _ = await loop.create_datagram_endpoint(partial(Datagrams, take, bool(is_control)), sock=bound)
        transports.append(transport)
    return int(pair[0].getsockname()[1]), transports


def bind_pair(host: str) -> tuple[socket.socket, socket.socket]:
    """Bind two UDP sockets to an even port and the one above it (RFC 3550 §11)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(MAX_PORT_TRIES):
        first, second = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
        try:
            first.bind((host, 0))
            port = first.getsockname()[1]
            if port % 2 == 0:
                second.bind((host, port + 1))
                return first, second
        except OSError as error:
            log.debug("no pair of ports here", extra={"fields": {"error": str(error)}})
        first.close()
        second.close()
    raise LocalError(f"no two free UDP ports at {host}")
