"""An element at one address: transport, transactions and their timers on the running event loop."""
# ruff: noqa: TID251 - this is a shell: it runs on the event loop

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from voice_dpki.effects import Random
from voice_dpki.sip.machines import Timers
from voice_dpki.sip.message import Hop
from voice_dpki.sip.transaction import UDP_MAX_BYTES, Event, Outgoing, TransactionLayer
from voice_dpki.sip.transport import Limits, SipTracer, Transport

log = logging.getLogger(__name__)

OnEvent: TypeAlias = Callable[[Event, float], None]
"""The transaction user: gets each event and the time in seconds of the loop's clock; must not raise."""


class Endpoint:
    """Listens for SIP on one address and drives the transaction layer there.

    `advertise` is the address to tell others where the socket is on all of them.

    The transaction user may call `layer` within its callback; whenever it does so at another time, `flush` must
    follow.
    """

    def __init__(
        self,
        host: str,
        port: int,
        on_event: OnEvent,
        *,
        random: Random,
        tracer: SipTracer,
        timers: Timers | None = None,
        udp_max_bytes: int = UDP_MAX_BYTES,
        limits: Limits | None = None,
        on_lost: Callable[[Hop], None] | None = None,
        advertise: str | None = None,
    ) -> None:
        self._on_event = on_event
        self._advertise = advertise
        self._transport = Transport(
            host,
            port,
            on_message=self._receive,
            on_failure=self._failed,
            tracer=tracer,
            limits=limits,
            on_lost=on_lost,
        )
        self.layer = TransactionLayer(
            self.address.address, random=random, timers=timers, udp_max_bytes=udp_max_bytes
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0
        self._closed = False

    @property
    def address(self) -> Hop:
        """Where others reach the endpoint; the port is known once it has started."""
        bound = self._transport.address
        return replace(bound, host=self._advertise or bound.host)

    async def start(self) -> None:
        """Bind the sockets; raises LocalError."""
        self._loop = asyncio.get_running_loop()
        await self._transport.start()
        self.layer.sent_by = self.address.address

    async def close(self) -> None:
        """Stop at once: open transactions are dropped."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        await self._transport.close()

    def now_s(self) -> float:
        """Return the time that the layer goes by, in seconds."""
        assert self._loop is not None
        return self._loop.time()

    def flush(self) -> None:
        """Handle what the layer has to tell, send what it has to send, and set the next timer."""
        while events := self.layer.take_events():
            for event in events:
                try:
                    self._on_event(event, self.now_s())
                except Exception:
                    log.exception("a SIP event was not handled")
        for outgoing in self.layer.take_output():
            self._transport.send(outgoing)
        self._set_timer()

    def _receive(self, data: bytes, source: Hop) -> None:
        self.layer.receive(data, source, self.now_s())
        self.flush()

    def _failed(self, outgoing: Outgoing) -> None:
        if outgoing.key is not None:
            self.layer.transport_failed(outgoing.key, self.now_s())
            self.flush()

    def _set_timer(self) -> None:
        """Wake at the next timer; waking too early does no harm, so a timer that was put off stays set."""
        due_s = self.layer.next_timer()
        if due_s is None or self._loop is None or self._closed:
            return
        if self._timer is None or self._timer_s > due_s:
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._timer_s = self._loop.call_at(due_s, self._wake), due_s

    def _wake(self) -> None:
        self._timer = None
        self.layer.handle_timer(self.now_s())
        self.flush()
