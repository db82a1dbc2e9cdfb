"""The security gateway in Python, for demonstrations and tests. It negotiates child SAs, but has no ESP."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from segw_agent.assembly import assemble, working
from segw_agent.config import GatewayConfig, SegwSetup, network
from segw_agent.live import LiveSas
from segw_agent.live_log import LiveSa
from segw_agent.policy import Policy, Question, Side
from segw_agent.refusals import Refusals
from segw_agent.rules import PeerRefusedError
from segw_agent.tracer import IkeTracer
from segw_agent.udp import UdpPorts
from voice_dpki.effects import Clock, Random
from voice_dpki.ikev2.events import (
    CertificateToJudge,
    ChildClosed,
    ChildRekeyed,
    Closed,
    Established,
    Event,
    Failed,
    Judged,
    Path,
    Rekeyed,
    SaName,
    Trusted,
)
from voice_dpki.ikev2.responder import Responder
from voice_dpki.shell.notify import tell_ready
from voice_dpki.shell.reload import Live
from voice_dpki.wire.tasks import Background

log = logging.getLogger(__name__)


class Gateway:
    """One gateway on its two ports. It implements SaControl for itself."""

    def __init__(
        self,
        config: GatewayConfig,
        setup: SegwSetup,
        clock: Clock,
        random: Random,
        tracer: IkeTracer,
        policy: Live[Policy] | None = None,
    ) -> None:
        """Take the configuration, and its `policy` if that may change."""
        assert setup.party is not None
        self._clock, self._tracer = clock, tracer
        self._ports = UdpPorts(tracer)
        self._config = config
        self.responder = Responder(
            setup.party,
            config.settings(),
            random,
            pool=network(config.pool),
            inner=network(config.inner),
            limits=config.limits(),
        )
        self._assembly = assemble(setup, policy or Live(config.policy), clock, tracer, staple=config.staple)
        self._judge = self._assembly.judge
        self.watch = self._assembly.watch
        self.live = LiveSas(self._judge, self.watch, self, clock)
        self._questions: dict[SaName, Question] = {}
        self._refusals = Refusals(log, "device refused")
        self._background = Background(log)
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Gateway"]:
        """Serve while the context lasts."""
        await self._ports.open(self._config.host, self._config.port, self._config.nat_port, self._take)
        parts = (self._assembly.watch, self.live, self._assembly.staple)
        try:
            async with working(part.run() for part in parts if part is not None):
                addresses = {"ike": str(self._ports.plain), "natt": str(self._ports.marked)}
                log.info("ready", extra={"fields": addresses})
                self._tracer.ready(**addresses)
                tell_ready(**addresses)
                yield self
        finally:
            await self._close()

    async def _close(self) -> None:
        await self._background.close()
        if self._timer is not None:
            self._timer.cancel()
        self._ports.close()
        await self._assembly.aclose()

    async def end(self, sa: LiveSa, reason: str) -> bool:
        """End a live SA (SaControl)."""
        self._tracer.note(f"live SA ended: {reason}", ok=False)
        self.responder.delete(sa.name, reason, self._clock.steady_s())
        self._pump()
        return True

    async def standing(self) -> None:
        """Return None: the gateway takes closed SAs off the list itself (SaControl)."""

    def _take(self, data: bytes, path: Path) -> None:
        self.responder.receive(data, path, self._clock.steady_s())
        self._pump()

    def _pump(self) -> None:
        """Send pending datagrams, handle events, and set the timer for the next deadline."""
        datagrams, events = self.responder.take_datagrams(), self.responder.take_events()
        # In a trace, a refusal should stand before the response that it causes, and a success after its response.
        for event in events:
            if isinstance(event, Failed):
                self._failed(event)
        for datagram in datagrams:
            self._ports.send(datagram)
        for event in events:
            self._handle(event)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_s = self.responder.timer_s()
        if due_s is not None:
            delay_s = max(due_s - self._clock.steady_s(), 0.0)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._tick)

    def _handle(self, event: Event) -> None:
        match event:
            case CertificateToJudge():
                self._to_judge(event)
            case Established():
                self._established(event)
            case Rekeyed():
                self._rekeyed(event)
            case ChildRekeyed() | ChildClosed():
                self._child_changed(event)
            case Closed():
                self._closed(event)

    def _tick(self) -> None:
        self._timer = None
        self.responder.handle_timer(self._clock.steady_s())
        self._pump()

    def _to_judge(self, event: CertificateToJudge) -> None:
        question = Question(Side.GATEWAY, event.sa, event.identity, event.certificate, event.integrity_info)
        self._background.run(self._decide(question))

    async def _decide(self, question: Question) -> None:
        try:
            await self._judge.judge(question)
        except PeerRefusedError as refusal:
            judged: Judged = refusal.untrusted()
        else:
            self._questions[question.sa] = question
            staple = self._assembly.staple
            judged = Trusted(staple.answer() if staple else None)
        try:
            self.responder.judge(question.sa, judged, self._clock.steady_s())
            self._pump()
        finally:  # the SA was established in the pump, or it is gone
            self._questions.pop(question.sa, None)

    def _established(self, event: Established) -> None:
        self.live.add(self._questions.pop(event.sa))
        child = event.child
        fields = {
            "identity": event.identity,
            "sa": str(event.sa),
            "suite": event.suite.name,
            "child": child.suite.name if child else event.child_error,
            "address": str(child.address) if child and child.address else None,
        }
        log.info("device attached", extra={"fields": fields})
        self._trace_keys(event.sa)
        address = f"; {child.address} assigned" if child and child.address else ""
        self._tracer.note(f"7 IKE SA up, child SA {fields['child']}{address}", ok=child is not None)
        # The device deletes its old SA itself, once it has judged us (step 9), unless it says that it has none.
        reason = "the device has lost it, and said so with INITIAL_CONTACT"
        if event.initial_contact and self.responder.forget_others(event.sa, reason, self._clock.steady_s()):
            self._tracer.note("the device has none of its old IKE SAs any more")
            self._pump()

    def _rekeyed(self, event: Rekeyed) -> None:
        self.live.moved(event.old, event.sa)
        fields = {"identity": event.identity, "old": str(event.old), "sa": str(event.sa), "suite": event.suite.name}
        log.info("IKE SA rekeyed", extra={"fields": fields})
        self._trace_keys(event.sa)
        self._tracer.note("IKE SA rekeyed", ok=True)

    def _child_changed(self, event: ChildRekeyed | ChildClosed) -> None:
        what = "child SA rekeyed" if isinstance(event, ChildRekeyed) else f"child SA closed: {event.reason}"
        log.info(what, extra={"fields": {"identity": event.identity, "sa": str(event.sa)}})
        self._tracer.note(what)

    def _failed(self, event: Failed) -> None:
        error = event.error
        self._refusals.add(error.code, step=error.step, reason=error.sentence, sa=str(event.sa))
        self._questions.pop(event.sa, None)
        if not error.step:  # the judge has already traced its own refusals, which name a step
            self._tracer.note(f"4 IKE_AUTH: {error.sentence}", ok=False, code=error.code, step="4 IKE_AUTH")
        self._trace_keys(event.sa)

    def _closed(self, event: Closed) -> None:
        log.info("SA closed", extra={"fields": {"identity": event.identity, "reason": event.reason}})
        self.live.remove(event.sa)

    def _trace_keys(self, name: SaName) -> None:
        keys = self.responder.keys_of(name)
        if keys is not None:
            self._tracer.keys(name, keys)
