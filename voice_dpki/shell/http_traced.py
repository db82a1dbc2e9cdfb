"""A connection of an HTTP server whose octets are traced, for the captures of demonstrations and tests."""

import asyncio
from collections.abc import Callable

from voice_dpki.shell.http_connection import Connection, Owner
from voice_dpki.shell.trace import Tracer


class TracedConnection(Connection):
    """One client's connection; what is received and sent goes to the trace, without TLS and without secrets."""

    _received: Callable[[bytes], None]
    _sent: Callable[[bytes], None]

    def __init__(self, tracer: Tracer, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(owner, loop)
        self._tracer = tracer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note both addresses, before anything is refused."""
        own, client = (_address(transport.get_extra_info(name)) for name in ("sockname", "peername"))
        self._received, self._sent = self._tracer.http(client, own), self._tracer.http(own, client)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Trace what the client sends."""
        self._received(data)
        super().data_received(data)

    def _send(self, data: bytes) -> None:
        super()._send(data)
        self._sent(data)


def _address(found: tuple[str, int] | None) -> str:
    """Return an address as "host:port", "" for that of a client that is gone."""
    return f"{found[0]}:{found[1]}" if found else ""
