"""Sending requests and receiving answers for a user agent: the transaction user of one endpoint."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Final, TypeAlias

from sipmessage import Request, Response

from voice_dpki.effects import Random
from voice_dpki.errors import LocalError
from voice_dpki.sip.machines import Timers
from voice_dpki.sip.message import Envelope, Hop
from voice_dpki.sip.transaction import (
    AckReceived,
    Event,
    RequestReceived,
    ResponseReceived,
    Terminated,
    TimedOut,
    TransactionKey,
    TransportBroken,
)
from voice_dpki.wire.sip.endpoint import Endpoint
from voice_dpki.wire.sip.transport import SipTracer, Tls
from voice_dpki.wire.tasks import Background

log = logging.getLogger(__name__)

NO_ANSWER: Final = Response(408, "Request Timeout")
UNREACHABLE: Final = Response(503, "Service Unavailable: the next hop cannot be reached")

TOKEN_BYTES: Final = 8
"""Randomness of tags and Call-IDs: RFC 3261 section 19.3 asks for 4, and an INVITE is to fit a datagram."""

OnResponse: TypeAlias = Callable[[Response, Envelope | None], None]
"""Gets each response to a request; if none came, it gets NO_ANSWER or UNREACHABLE, without an envelope."""


class Exchange:
    """Sends requests from one address, and passes responses to their requests' handlers.

    `on_request` and `on_ack` get what other elements send; `on_lost` gets the peer of each lost connection.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        on_request: Callable[[RequestReceived], None],
        on_ack: Callable[[AckReceived], None],
        random: Random,
        tracer: SipTracer,
        timers: Timers,
        udp_max_bytes: int,
        on_lost: Callable[[Hop], None] | None = None,
        advertise: str | None = None,
        tls: Tls | None = None,
        known: Iterable[str] = (),
    ) -> None:
        self.timers = timers
        self.random = random
        self._on_request = on_request
        self._on_ack = on_ack
        self._handlers: dict[TransactionKey, OnResponse] = {}
        self._background = Background(log)
        self._endpoint = Endpoint(
            host,
            port,
            self._handle,
            random=random,
            tracer=tracer,
            timers=timers,
            udp_max_bytes=udp_max_bytes,
            on_lost=on_lost,
            advertise=advertise,
            tls=tls,
            known=known,
        )

    @property
    def address(self) -> Hop:
        """The address at which others reach the endpoint."""
        return self._endpoint.address

    @property
    def tls_address(self) -> str:
        """Host and port at which others reach the endpoint over TLS, if it listens there."""
        return self._endpoint.layer.tls_sent_by

    async def start(self) -> None:
        """Bind the sockets; raises LocalError."""
        await self._endpoint.start()

    async def close(self) -> None:
        """Cancel the background tasks and close the sockets."""
        await self._background.close()
        await self._endpoint.close()

    def token(self) -> str:
        """Return a new random value for a tag or a Call-ID."""
        return self.random.token(TOKEN_BYTES).hex()

    def run(self, work: Coroutine[object, object, object]) -> None:
        """Run `work` in the background until it ends or the exchange closes."""
        self._background.run(work)

    def send(self, request: Request, hop: Hop, on_response: OnResponse) -> TransactionKey | None:
        """Send a request other than ACK; if there is no room for it, pass UNREACHABLE at once and return None."""
        try:
            key = self._endpoint.layer.send_request(request, hop, self._endpoint.now_s())
        except LocalError:
            on_response(UNREACHABLE, None)
            return None
        self._handlers[key] = on_response
        self._endpoint.flush()
        return key

    async def ask(self, request: Request, hop: Hop) -> Response:
        """Send a request and wait for its final response, which may be NO_ANSWER or UNREACHABLE."""
        final: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

        def on_response(response: Response, _envelope: Envelope | None) -> None:
            if response.code >= 200 and not final.done():
                final.set_result(response)

        self.send(request, hop, on_response)
        return await final

    def send_ack(self, ack: Request, hop: Hop) -> None:
        """Send the ACK of a 2xx response."""
        self._endpoint.layer.send_ack(ack, hop)
        self._endpoint.flush()

    def keep_alive(self, hop: Hop, data: bytes) -> None:
        """Send one keep-alive to `hop`."""
        self._endpoint.keep_alive(hop, data)

    def on_stun_answer(self, callback: Callable[[bytes, Hop], None]) -> None:
        """Have `callback` called with each STUN answer to a keep-alive and its source."""
        self._endpoint.on_stun_answer(callback)

    def cancel(self, key: TransactionKey) -> None:
        """Cancel a sent INVITE."""
        self._endpoint.layer.cancel(key, self._endpoint.now_s())
        self._endpoint.flush()

    def cancelled_invite(self, envelope: Envelope) -> TransactionKey | None:
        """Return the key of the INVITE that a received CANCEL is about, or None."""
        return self._endpoint.layer.cancelled_invite(envelope)

    def respond(self, key: TransactionKey, response: Response) -> None:
        """Answer a received request."""
        self._endpoint.layer.respond(key, response, self._endpoint.now_s())
        self._endpoint.flush()

    def _handle(self, event: Event, _now_s: float) -> None:
        match event:
            case RequestReceived():
                self._on_request(event)
            case AckReceived():
                self._on_ack(event)
            case ResponseReceived():
                self._tell(event.key, event.response, event.envelope)
            case TimedOut():
                self._tell(event.key, NO_ANSWER, None)
            case TransportBroken():
                self._tell(event.key, UNREACHABLE, None)
            case Terminated():
                self._handlers.pop(event.key, None)

    def _tell(self, key: TransactionKey, response: Response, envelope: Envelope | None) -> None:
        handler = self._handlers.get(key)
        if handler is not None:
            handler(response, envelope)
