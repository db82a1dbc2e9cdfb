"""The UDP sockets of IKE: port 500, and port 4500 with the non-ESP marker (RFC 7296 §2.23, RFC 3948 §2.2)."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from segw_agent.tracer import NON_ESP_MARKER, IkeTracer
from voice_dpki.errors import LocalError
from voice_dpki.ikev2.events import Address, Datagram, Path

Take = Callable[[bytes, Path], None]
"""Takes the IKE message of a datagram, and the datagram's path."""


class UdpPorts:
    """Both sockets on one address; bind them with `open`."""

    def __init__(self, tracer: IkeTracer) -> None:
        self._tracer = tracer
        self._transports: dict[bool, asyncio.DatagramTransport] = {}
        self.plain = self.marked = Address("", 0)

    async def open(self, host: str, port: int, nat_port: int, take: Take) -> None:
        """Bind both sockets; raises LocalError. Port 0 lets the operating system choose."""
        self.plain = await self._open(Address(host, port), take, marked=False)
        self.marked = await self._open(Address(host, nat_port), take, marked=True)

    def close(self) -> None:
        """Close both sockets."""
        for transport in self._transports.values():
            transport.close()

    def send(self, datagram: Datagram) -> None:
        """Send a datagram from the socket that its path names."""
        path = datagram.path
        self._tracer.ike(datagram)
        self._transports[path.marked].sendto(NON_ESP_MARKER * path.marked + datagram.data, tuple(path.remote))

    async def _open(self, address: Address, take: Take, *, marked: bool) -> Address:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.bind(address)
        except OSError as error:
            sock.close()
            hint = "; ports below 1024 are the administrator's" if address.port < 1024 else ""
            raise LocalError(f"cannot listen on {address}: {error.strerror}{hint}") from None
        local = Address(*sock.getsockname()[:2])
        loop = asyncio.get_running_loop()
        protocol = _Protocol(local, take, marked)
        self._transports[marked], _ = await loop.create_datagram_endpoint(lambda: protocol, sock=sock)
        return local


class _Protocol(asyncio.DatagramProtocol):
    def __init__(self, local: Address, take: Take, marked: bool) -> None:
        self._local, self._take, self._marked = local, take, marked

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        """Pass an IKE message on; drop ESP and keepalives on the marked port."""
        if self._marked:
            if not data.startswith(NON_ESP_MARKER):
                return
            data = data[len(NON_ESP_MARKER) :]
        self._take(data, Path(self._local, Address(str(addr[0]), int(addr[1])), self._marked))
