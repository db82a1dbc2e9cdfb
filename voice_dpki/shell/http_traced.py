"""A connection of an HTTP server whose octets are traced, for the captures of demonstrations and tests."""

import asyncio

from voice_dpki.shell.http_connection import Connection, Owner
from voice_dpki.shell.trace import Tracer


class TracedConnection(Connection):
    """One client's connection; what is received and sent goes to the trace, without TLS."""

    def __init__(self, tracer: Tracer, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(owner, loop)
        self._tracer = tracer
        self._own = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note our own address, before anything is refused."""
        host, port = transport.get_extra_info("sockname")[:2]
        self._own = f"{host}:{port}"
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Trace what the client sends."""
        self._tracer.http(self._client, self._own, data)
        super().data_received(data)

    def _send(self, data: bytes) -> None:
        super()._send(data)
        self._tracer.http(self._own, self._client, data)
