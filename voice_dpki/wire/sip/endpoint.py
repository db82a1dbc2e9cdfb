"""A SIP element at one address: transport, transactions and their timers on the running event loop."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeAlias

from voice_dpki.effects import Random
from voice_dpki.errors import MalformedError
from voice_dpki.sip.events import AckReceived, Event, Outgoing
from voice_dpki.sip.machines import Timers
from voice_dpki.sip.message import Hop
from voice_dpki.sip.senders import Senders
from voice_dpki.sip.transaction import UDP_MAX_BYTES, TransactionLayer
from voice_dpki.wire.seldom import Seldom
from voice_dpki.wire.sip.flows import FlowTransport
from voice_dpki.wire.sip.sockets import Sockets
from voice_dpki.wire.sip.transport import Limits, SipTracer, Tls

log = logging.getLogger(__name__)

OnEvent: TypeAlias = Callable[[Event, float], None]
"""The transaction user: gets each event and the time in seconds of the loop's clock; must not raise."""


class Endpoint:
    """Listens for SIP on one address and drives the transaction layer.

    `advertise` is the host to announce to others if the socket listens on all addresses. `known` are the hosts of
    configured peers, which strangers cannot crowd out.

    The transaction user may call `layer` within its callback; after a call at any other time, it must call `flush`.
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
        tls: Tls | None = None,
        known: Iterable[str] = (),
    ) -> None:
        self._on_event = on_event
        self._advertise = advertise
        self._failures, self._overload, self._crowd = Seldom(log), Seldom(log), Seldom(log)
        self._flood = Seldom(log)
        self._senders = Senders(known)
        self._transport = FlowTransport(
            host,
            port,
            on_message=self._receive,
            on_failure=self._failed,
            on_broken=self._refuse,
            on_unreachable=self._unreachable,
            on_refused=self._refused,
            tracer=tracer,
            limits=limits,
            on_lost=on_lost,
            tls=tls,
            senders=self._senders,
            on_dropped=self._dropped,
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
        """The address at which others reach the endpoint; the port is known once it has started."""
        bound = self._transport.address
        return replace(bound, host=self._advertise or bound.host)

    async def start(self, sockets: Sockets | None = None) -> None:
        """Listen at the address, with `sockets` that are bound to it already; raises LocalError."""
        self._loop = asyncio.get_running_loop()
        await self._transport.start(sockets)
        self.layer.sent_by = self.layer.tls_sent_by = self.address.address
        if self._transport.tls_port:
            self.layer.tls_sent_by = replace(self.address, port=self._transport.tls_port).address

    async def retire(self) -> None:
        """Leave what arrives from now on to another process with the same sockets (see `Transport.retire`)."""
        await self._transport.retire()

    async def close(self) -> None:
        """Stop at once; open transactions are dropped."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        await self._transport.close()

    def renew_tls(self, tls: Tls) -> None:
        """Use other certificates from the next handshake on (see `Transport.renew_tls`)."""
        self._transport.renew_tls(tls)

    def now_s(self) -> float:
        """Return the transaction layer's time, in seconds of the event loop's monotonic clock."""
        assert self._loop is not None
        return self._loop.time()

    def keep_alive(self, hop: Hop, data: bytes) -> None:
        """Send one keep-alive to `hop`."""
        self._transport.keep_alive(hop, data)

    def on_stun_answer(self, callback: Callable[[bytes, Hop], None]) -> None:
        """Have `callback` called with each STUN answer to a keep-alive and its source."""
        self._transport.on_stun_answer = callback

    def vouch(self, host: str) -> None:
        """Record that a user at `host` has authenticated; strangers cannot crowd it out for `senders.KNOWN_S`."""
        self._senders.vouch(host, self.now_s())

    def flush(self) -> None:
        """Handle the layer's events, send its messages, and set the next timer."""
        while events := self.layer.take_events():
            for event in events:
                try:
                    self._on_event(event, self.now_s())
                except Exception as error:
                    self._broke(event, error)
        for outgoing in self.layer.take_output():
            self._guard(self._transport.send, outgoing)
        self._set_timer()

    def _broke(self, event: Event, error: Exception) -> None:
        """End the transaction of an `event` that its user could not handle."""
        self.layer.counters.failures += 1
        self._failures.error("a SIP event was not handled", error)
        if not isinstance(event, AckReceived):
            self.layer.give_up(event.key, self.now_s())

    def _receive(self, data: bytes, source: Hop) -> None:
        before = self.layer.counters.overload
        self._guard(self.layer.receive, data, source, self.now_s())
        if self.layer.counters.overload > before:
            self._overload.warning("too many SIP transactions", source=source.host)
        self.flush()

    def _failed(self, outgoing: Outgoing) -> None:
        if outgoing.key is not None:
            self._guard(self.layer.transport_failed, outgoing.key, self.now_s())
            self.flush()

    def _refuse(self, data: bytes, source: Hop, error: MalformedError) -> None:
        """Answer the last request of a stream that cannot be split any further."""
        self._guard(self.layer.refuse_unread, data, source, error)
        self.flush()

    def _unreachable(self, data: bytes, hop: Hop) -> None:
        self._guard(self.layer.unreachable, data, hop, self.now_s())
        self.flush()

    def _refused(self, source: str) -> None:
        self.layer.counters.connections += 1
        self._crowd.warning("too many SIP connections", source=source)

    def _dropped(self, source: str, count: int) -> None:
        self.layer.counters.dropped += count
        self._flood.warning("too many SIP datagrams", source=source)

    def _set_timer(self) -> None:
        """Wake at the next timer. Waking early does no harm, so the wake-up stays if that timer is postponed."""
        due_s = self.layer.next_timer()
        if due_s is None or self._loop is None or self._closed:
            return
        if self._timer is None or self._timer_s > due_s:
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._timer_s = self._loop.call_at(due_s, self._wake), due_s

    def _wake(self) -> None:
        self._timer = None
        self._guard(self.layer.handle_timer, self.now_s())
        self.flush()

    def _guard(self, work: Callable[..., None], *args: object) -> None:
        """Call `work`; log and count an error of our own, so that it does not disturb other transactions."""
        try:
            work(*args)
        except Exception as error:
            self.layer.counters.failures += 1
            self._failures.error("a SIP message was not handled", error)
