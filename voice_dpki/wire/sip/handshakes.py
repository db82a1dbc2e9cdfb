"""TLS at a SIP port, with bounds on the number and duration of handshakes.

An event loop's own TLS server starts a handshake with every client and reports it only once it is over, so its
handshakes cannot be counted.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Final

from voice_dpki.sip.hop import source_of
from voice_dpki.wire.sip.connections import Connection, Limits
from voice_dpki.wire.tasks import Background

log = logging.getLogger(__name__)

BACKLOG: Final = 1_024
"""Most connections that wait to be accepted; a peer beyond them retries after a second."""
_NO_FILES_S: Final = 0.1
"""Pause after the system had no file descriptor for another connection."""


class TlsListener:
    """Listens for TLS; each handshake that succeeds becomes a connection of `make`.

    If too many handshakes are under way, the oldest one is cancelled, or the source's own oldest one if the source
    has used up its share. Silent clients thus cannot keep others out. `on_refused(source)` is called for each.
    `context` is asked at each handshake, for certificates may be replaced.
    """

    def __init__(
        self,
        limits: Limits,
        context: Callable[[], ssl.SSLContext | None],
        make: Callable[[], Connection],
        on_refused: Callable[[str], None],
    ) -> None:
        self.limits = limits
        self._context = context
        self._make = make
        self._on_refused = on_refused
        self._listener: socket.socket | None = None
        self._background = Background(log)
        self._open: dict[asyncio.Task[object], str] = {}

    def __len__(self) -> int:
        """Return the number of handshakes under way."""
        return len(self._open)

    def start(self, sock: socket.socket) -> None:
        """Listen at a bound socket, which belongs to this object from now on; raises OSError."""
        self._listener = sock
        sock.setblocking(False)
        sock.listen(BACKLOG)
        self._background.run(self._accept(sock))

    async def close(self) -> None:
        """Stop listening and cancel the handshakes under way."""
        await self._background.close()
        if self._listener is not None:
            self._listener.close()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, address = await loop.sock_accept(listener)
            except OSError as error:
                log.debug("no connection accepted", extra={"fields": {"error": error.strerror}})
                await asyncio.sleep(_NO_FILES_S)
                continue
            source = source_of(address[0])
            self._make_room(source)
            task = self._background.run(self._shake(accepted))
            self._open[task] = source
            task.add_done_callback(lambda done: self._open.pop(done, None))

    def _make_room(self, source: str) -> None:
        own = [task for task, other in self._open.items() if other == source]
        if len(own) >= self.limits.per_source or len(self._open) >= self.limits.incoming:
            oldest = own[0] if len(own) >= self.limits.per_source else next(iter(self._open))
            self._on_refused(self._open.pop(oldest))
            oldest.cancel()

    async def _shake(self, accepted: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._make, accepted, ssl=self._context(), ssl_handshake_timeout=self.limits.connect_s
            )
        except (OSError, TimeoutError) as error:  # the context has counted and logged why
            log.debug("no TLS", extra={"fields": {"error": type(error).__name__}})
