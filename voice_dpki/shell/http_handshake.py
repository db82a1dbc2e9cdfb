"""TLS handshakes of an HTTP server: only a client whose handshake is done is known, and has a connection.

The event loop alone would let any number of clients connect and stay silent. So the number of handshakes and their
time are bounded.
"""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable
from typing import Final

from voice_dpki.shell.limits import DISPLACED, network_of
from voice_dpki.shell.reload import Live
from voice_dpki.shell.tls import ServerSide
from voice_dpki.wire.seldom import Seldom
from voice_dpki.wire.tasks import Background

log = logging.getLogger(__name__)
_SAID = Seldom(log)

HANDSHAKE_TIMEOUT_S = 5.0
"""How long a TLS handshake may take."""
MAX_HANDSHAKES = 400
"""Handshakes at the same time; if there are more, the address with the most loses its oldest."""
RETRY_S: Final = 0.1
"""Pause after a failure to accept a connection: most likely, the process has no file descriptors left."""


class Handshakes:
    """The handshakes of the connections that a listening socket accepts."""

    def __init__(
        self,
        factory: Callable[[], asyncio.Protocol],
        loop: asyncio.AbstractEventLoop,
        tls: Live[ServerSide],
        knock: Callable[[str], bool],
    ) -> None:
        """Take the `factory` of protocols, which is called when a handshake is done.

        `knock` charges a client's address for a connection, and tells whether it may have one. It is asked before
        the handshake, which costs the server more than most requests do.
        """
        self._knock = knock
        self._factory = factory
        self._loop = loop
        self._tls = tls
        self._background = Background(log)
        self._begun: dict[asyncio.Task[object], str] = {}
        """Handshakes under way, oldest first, with the client's address or network."""

    async def accept(self, sock: socket.socket) -> None:
        """Accept connections until cancelled, and then cancel all handshakes."""
        try:
            while True:
                try:
                    accepted, address = await self._loop.sock_accept(sock)
                except OSError as error:
                    _SAID.warning("no connection can be accepted", reason=error.strerror)
                    await asyncio.sleep(RETRY_S)
                    continue
                if self._knock(address[0]):
                    self._begin(accepted, address[0])
                else:
                    accepted.close()
                    await asyncio.sleep(0)  # lets other tasks run, however many connections are refused
        finally:
            await self._background.close()

    def _begin(self, accepted: socket.socket, host: str) -> None:
        """Begin a handshake, and cancel another if there are too many."""
        if len(self._begun) >= MAX_HANDSHAKES:
            ((largest, _),) = Counter(self._begun.values()).most_common(1)
            oldest = next(each for each, address in self._begun.items() if address == largest)
            DISPLACED.inc()
            del self._begun[oldest]
            oldest.cancel()
        task = self._background.run(self._shake(accepted))
        self._begun[task] = network_of(host)
        task.add_done_callback(self._leave)

    def _leave(self, task: asyncio.Task[object]) -> None:
        self._begun.pop(task, None)

    async def _shake(self, accepted: socket.socket) -> None:
        """Do a handshake. If TLS refuses the client, the socket is closed, and `tls` logs the reason."""
        try:
            await self._loop.connect_accepted_socket(
                self._factory, accepted, ssl=self._tls.value.context, ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S
            )
        except OSError:  # includes ssl.SSLError, timeouts and closed connections
            accepted.close()
        except asyncio.CancelledError:
            accepted.close()
            raise
