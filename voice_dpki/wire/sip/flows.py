"""A telephone's flow to its proxy: keep-alives and their answers.

Nothing waits for a pong on a connection (RFC 5626 §4.4.1): a lost connection shows by its end.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from voice_dpki.effects import Random
from voice_dpki.sip.events import Outgoing
from voice_dpki.sip.framing import PING
from voice_dpki.sip.hop import Hop
from voice_dpki.sip.keepalive import KeepAlive, KeepAliveTimes
from voice_dpki.sip.stun import is_binding_answer
from voice_dpki.wire.sip.transport import Transport

_LEAST_WAIT_S: Final = 0.001


class FlowTransport(Transport):
    """A transport that also sends keep-alives, which are not traced, and passes on STUN answers to them."""

    on_stun_answer: Callable[[bytes, Hop], None] | None = None

    def keep_alive(self, hop: Hop, data: bytes) -> None:
        """Send one keep-alive to `hop`; for TCP and TLS only over an open connection. Failures are not reported."""
        if hop.reliable:
            if self._connection(hop) is not None:
                self.send(Outgoing(hop, data, None))
        elif self._udp is not None:
            self._udp.send(data, hop.host, hop.port)

    def trace(self, transport: str, source: str, target: str, data: bytes) -> None:
        """Record a message that is being sent, unless it is a keep-alive."""
        if data != PING:
            super().trace(transport, source, target, data)

    def _work_on(self, data: bytes, host: str, port: int) -> None:
        if self.on_stun_answer is not None and is_binding_answer(data):
            self.on_stun_answer(data, Hop("udp", host, port))
        else:
            super()._work_on(data, host, port)


class FlowKeeper:
    """Keeps the flow to `hop` open; if the flow fails, calls `on_failure` with the reason and sends no more."""

    def __init__(
        self,
        hop: Hop,
        times: KeepAliveTimes,
        random: Random,
        send: Callable[[Hop, bytes], None],
        on_failure: Callable[[str], None],
    ) -> None:
        self._hop = hop
        self._core = KeepAlive(hop, times, random)
        self._send = send
        self._on_failure = on_failure
        self._timer: asyncio.TimerHandle | None = None

    def start(self, flow_timer_s: int) -> None:
        """Start after a registration over the flow; see `KeepAlive.start`."""
        self._core.start(asyncio.get_running_loop().time(), flow_timer_s)
        self._set_timer()

    def stop(self) -> None:
        """Stop sending keep-alives."""
        self._core.stop()
        self._set_timer()

    def receive(self, data: bytes, source: Hop) -> None:
        """Process a STUN answer; one from another hop is ignored."""
        if source == self._hop:
            self._core.receive(data, asyncio.get_running_loop().time())
            self._go_on()

    def _wake(self) -> None:
        self._timer = None
        data = self._core.handle_timer(asyncio.get_running_loop().time())
        if data is not None:
            self._send(self._hop, data)
        self._go_on()

    def _go_on(self) -> None:
        self._set_timer()
        if (why := self._core.failure) is not None:
            self._core.failure = None
            self._on_failure(why)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._core.next_s is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(self._core.next_s, loop.time() + _LEAST_WAIT_S), self._wake)
