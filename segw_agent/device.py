"""The device in Python: it attaches to a gateway, once or several times, and stays until it is told to stop."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass

from segw_agent.assembly import assemble
from segw_agent.config import DeviceConfig, Setup, statement_maker
from segw_agent.policy import Question, Side
from segw_agent.tracer import IkeTracer
from segw_agent.udp import UdpPorts
from voice_dpki.effects import Clock, Random
from voice_dpki.errors import MalformedError
from voice_dpki.ikev2.events import Address, CertificateToJudge, Closed, Established, Event, Failed, Path, SaName
from voice_dpki.ikev2.initiator import Initiator
from voice_dpki.ikev2.message import Message
from voice_dpki.ikev2.states import State

log = logging.getLogger(__name__)

DELETE_S = 3.0
"""How long the device waits until a deletion is answered before it goes all the same."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attachment ended: an address, or who refused and why."""

    attached: bool
    identity: str = ""
    address: str | None = None
    suite: str = ""
    child: str = ""
    code: str = ""
    step: str = ""
    sentence: str = ""


class Device:
    """One device on its two ports."""

    def __init__(self, config: DeviceConfig, setup: Setup, clock: Clock, random: Random, tracer: IkeTracer) -> None:
        assert setup.party is not None
        self._config, self._party, self._clock, self._random, self._tracer = (
            config,
            setup.party,
            clock,
            random,
            tracer,
        )
        self._ports = UdpPorts(tracer)
        self._assembly = assemble(setup, clock, tracer, follow=False)
        self._judge = self._assembly.judge
        integrity = config.integrity
        self._make_statement = statement_maker(integrity, setup.party) if integrity else None
        self._sas: dict[bytes, Initiator] = {}
        self._ended: dict[bytes, asyncio.Future[Outcome]] = {}
        self._closed: dict[bytes, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def state_integrity(self, sa: SaName, now_s: float) -> bytes:
        """Return the statement that goes into N(INTEGRITY_INFO)."""
        assert self._make_statement is not None
        return self._make_statement(sa, now_s)

    async def run(self, stop: asyncio.Event) -> Outcome:
        """Attach as often as configured, stay until `stop` or until the SA is gone, and go; returns the outcome."""
        await self._ports.open(self._config.host, self._config.port, self._config.nat_port, self._take)
        self._tracer.ready(ike=str(self._ports.plain), natt=str(self._ports.marked))
        try:
            return await self._attach_and_stay(stop)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self._timer is not None:
                self._timer.cancel()
            self._ports.close()
            await self._assembly.aclose()

    async def _attach_and_stay(self, stop: asyncio.Event) -> Outcome:
        outcome, spi = Outcome(False), b""
        for _ in range(self._config.attach):
            old = spi
            spi, outcome = await self._attach()
            self._tracer.result(**_described(outcome))
            if not outcome.attached:
                return outcome
            if old:  # the gateway deletes it (step 9)
                await _within(self._closed[old].wait(), DELETE_S)
        if self._config.stay:
            await _first(stop.wait(), self._closed[spi].wait())
        self._sas[spi].delete("the device goes", self._clock.now_s())
        self._pump()
        await _within(self._closed[spi].wait(), DELETE_S)
        return outcome

    async def _attach(self) -> tuple[bytes, Outcome]:
        peer = self._config.gateway
        initiator = Initiator(
            self._party,
            self._config.settings(),
            self._random,
            Path(self._ports.plain, Address(peer.host, peer.port)),
            marked_path=Path(self._ports.marked, Address(peer.host, peer.nat_port), marked=True),
            state_integrity=self.state_integrity if self._make_statement else None,
        )
        spi = initiator.name.spi_i
        self._sas[spi] = initiator
        self._closed[spi] = asyncio.Event()
        ended = self._ended[spi] = asyncio.get_running_loop().create_future()
        initiator.start(self._clock.now_s())
        self._pump()
        outcome = await ended
        if not outcome.attached:
            await _within(self._settled(initiator), DELETE_S)
        return spi, outcome

    async def _settled(self, initiator: Initiator) -> None:
        """Wait until a gateway that we refuse has been told."""
        while initiator.state is not State.CLOSED:  # noqa: ASYNC110 - a state machine has no event to wait for
            await asyncio.sleep(0.01)

    def _take(self, data: bytes, path: Path) -> None:
        try:
            message = Message.parse(data)
        except MalformedError:
            return
        initiator = self._sas.get(message.header.spi_i)
        if initiator is not None:
            initiator.receive(message, path, self._clock.now_s())
            self._pump()

    def _pump(self) -> None:
        """Send what is to be sent, look at what happened, and set the clock for what is due next."""
        for initiator in list(self._sas.values()):
            for datagram in initiator.take_datagrams():
                self._ports.send(datagram)
            for event in initiator.take_events():
                self._handle(initiator, event)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = [at for initiator in self._sas.values() if (at := initiator.timer_s()) is not None]
        if due:
            delay_s = max(min(due) - self._clock.now_s(), 0.0)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        for initiator in list(self._sas.values()):
            initiator.handle_timer(self._clock.now_s())
        self._pump()

    def _handle(self, initiator: Initiator, event: Event) -> None:
        match event:
            case CertificateToJudge():
                task = asyncio.create_task(self._decide(initiator, event))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case Established():
                self._established(initiator, event)
            case Failed(error=error):
                fields = {"code": error.code, "step": error.step, "reason": error.sentence}
                log.warning("not attached", extra={"fields": fields})
                outcome = Outcome(False, code=error.code, step=error.step, sentence=error.sentence)
                self._end(initiator, outcome)
            case Closed(reason=reason):
                log.info("SA closed", extra={"fields": {"reason": reason}})
                self._tracer.note(f"IKE SA closed: {reason}")
                self._closed[initiator.name.spi_i].set()

    async def _decide(self, initiator: Initiator, event: CertificateToJudge) -> None:
        question = Question(
            Side.DEVICE, event.sa, event.identity, event.certificate, ledger_answer=event.ledger_answer
        )
        verdict = await self._judge.judge(question)
        initiator.judge(verdict, self._clock.now_s())
        self._pump()

    def _established(self, initiator: Initiator, event: Established) -> None:
        child = event.child
        if child is None:
            initiator.delete("no child SA came about", self._clock.now_s())
            self._end(initiator, Outcome(False, event.identity, code="no-child", sentence=event.child_error or ""))
            return
        address = str(child.address) if child.address else None
        self._tracer.note(f"attached, inner address {address}", ok=True)
        log.info("attached", extra={"fields": {"gateway": event.identity, "address": address}})
        self._end(initiator, Outcome(True, event.identity, address, suite=event.suite.name, child=child.suite.name))

    def _end(self, initiator: Initiator, outcome: Outcome) -> None:
        ended = self._ended[initiator.name.spi_i]
        if not ended.done():
            ended.set_result(outcome)
        if initiator.keys is not None:
            self._tracer.keys(initiator.name, initiator.keys)


def _described(outcome: Outcome) -> dict[str, object]:
    return {name: getattr(outcome, name) for name in Outcome.__slots__}


async def _within(waiting: Awaitable[object], seconds: float) -> None:
    """Wait, but not for longer."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(waiting, seconds)


async def _first(*waiting: Coroutine[object, object, object]) -> None:
    """Wait for the first of several."""
    tasks = [asyncio.create_task(each) for each in waiting]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
