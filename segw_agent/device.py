"""The device in Python: it attaches to a gateway, once or several times, and may stay until it is stopped."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable
from dataclasses import dataclass

from segw_agent.assembly import assemble
from segw_agent.config import DeviceConfig, SegwSetup, statement_maker
from segw_agent.policy import Question, Side
from segw_agent.rules import PeerRefusedError
from segw_agent.tracer import IkeTracer
from segw_agent.udp import UdpPorts
from voice_dpki.effects import Clock, Random
from voice_dpki.errors import MalformedError
from voice_dpki.ikev2.events import (
    Address,
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
from voice_dpki.ikev2.initiator import Initiator
from voice_dpki.ikev2.message import Message
from voice_dpki.ikev2.standing import StandingSa
from voice_dpki.ikev2.states import State
from voice_dpki.shell.reload import Live
from voice_dpki.wire.tasks import Background, first_of

log = logging.getLogger(__name__)

DELETE_S = 3.0
"""How long the device waits for the answer to a deletion before it ends anyway."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of an attachment: the inner address, or why there is none."""

    attached: bool
    identity: str = ""
    address: str | None = None
    suite: str = ""
    child: str = ""
    code: str = ""
    step: str = ""
    sentence: str = ""


@dataclass(slots=True)
class _Attachment:
    """One attachment: its SA, the SAs that rekeying made of it, the outcome of its set-up, and its end."""

    initiator: Initiator
    sas: list[StandingSa]
    ended: "asyncio.Future[Outcome]"
    closed: asyncio.Event

    def sa_of(self, message: Message) -> StandingSa | None:
        """Return the SA that a message is for. Until the gateway's SPI is known, match by ours alone."""
        name = (message.header.spi_i, message.header.spi_r)
        found = next((sa for sa in self.sas if sa.name == name), None)
        return found or (self.initiator if self.initiator.name.spi_i == message.header.spi_i else None)


class Device:
    """One device on its two ports."""

    def __init__(
        self, config: DeviceConfig, setup: SegwSetup, clock: Clock, random: Random, tracer: IkeTracer
    ) -> None:
        assert setup.party is not None
        self._config, self._party = config, setup.party
        self._clock, self._random, self._tracer = clock, random, tracer
        self._ports = UdpPorts(tracer)
        self._assembly = assemble(setup, Live(config.policy), clock, tracer, follow=False)
        self._judge = self._assembly.judge
        integrity = config.integrity
        self._make_statement = statement_maker(integrity, setup.party) if integrity else None
        self._attachments: list[_Attachment] = []
        self._background = Background(log)
        self._timer: asyncio.TimerHandle | None = None

    def state_integrity(self, sa: SaName) -> bytes:
        """Return the statement for N(INTEGRITY_INFO)."""
        assert self._make_statement is not None
        return self._make_statement(sa, self._clock.now_s())

    async def run(self, stop: asyncio.Event) -> Outcome:
        """Attach as often as configured; return the outcome.

        If configured to stay, keep the SA until `stop` is set or the SA is gone. Then delete it.
        """
        await self._ports.open(self._config.host, self._config.port, self._config.nat_port, self._take)
        self._tracer.ready(ike=str(self._ports.plain), natt=str(self._ports.marked))
        try:
            return await self._attach_and_stay(stop)
        finally:
            await self._background.close()
            if self._timer is not None:
                self._timer.cancel()
            self._ports.close()
            await self._assembly.aclose()

    async def _attach_and_stay(self, stop: asyncio.Event) -> Outcome:
        outcome, attachment = Outcome(False), None
        for _ in range(self._config.attach):
            old, attachment = attachment, self._attach()
            await first_of(stop.wait(), asyncio.wait({attachment.ended}))
            outcome = attachment.ended.result() if attachment.ended.done() else Outcome(False, code="stopped")
            self._tracer.result(**_described(outcome))
            if not outcome.attached:
                await _within(self._settled(attachment.initiator), DELETE_S)
                if old is not None:  # the attempt failed, so the old SA stays
                    await self._stay(old, stop)
                return outcome
            if old is not None:
                self._tracer.note("9 the old IKE SA is deleted by the device")
                await self._delete(old, "replaced by a new IKE SA")
        assert attachment is not None
        await self._stay(attachment, stop)
        return outcome

    async def _stay(self, attachment: _Attachment, stop: asyncio.Event) -> None:
        """Keep an SA as long as is configured, and then delete it."""
        if self._config.stay:
            await first_of(stop.wait(), attachment.closed.wait())
        await self._delete(attachment, "the device goes")

    async def _delete(self, attachment: _Attachment, reason: str) -> None:
        attachment.initiator.current.delete(reason, self._clock.steady_s())
        self._pump()
        await _within(attachment.closed.wait(), DELETE_S)

    def _attach(self) -> _Attachment:
        peer = self._config.gateway
        initiator = Initiator(
            self._party,
            self._config.settings(),
            self._random,
            Path(self._ports.plain, Address(peer.host, peer.port)),
            marked_path=Path(self._ports.marked, Address(peer.host, peer.nat_port), marked=True),
            state_integrity=self.state_integrity if self._make_statement else None,
            initial_contact=not any(sa.state is State.ESTABLISHED for sa in self._sas()),
        )
        attachment = _Attachment(
            initiator, [initiator], asyncio.get_running_loop().create_future(), asyncio.Event()
        )
        self._attachments.append(attachment)
        initiator.start(self._clock.steady_s())
        self._pump()
        return attachment

    async def _settled(self, initiator: Initiator) -> None:
        """Wait until the refusal has been sent to the gateway."""
        while initiator.state in (State.JUDGING, State.DELETING):  # noqa: ASYNC110 - the machine has no event for it
            await asyncio.sleep(0.01)

    def _take(self, data: bytes, path: Path) -> None:
        try:
            message = Message.parse(data)
        except MalformedError:
            return
        sa = next((found for each in self._attachments if (found := each.sa_of(message)) is not None), None)
        if sa is not None:
            sa.receive(message, path, self._clock.steady_s())
            self._pump()

    def _pump(self) -> None:
        """Send pending datagrams, handle events, and set the timer for the next deadline."""
        for attachment in list(self._attachments):
            for sa in attachment.sas:  # rekeyed SAs are appended while the loop runs
                self._send(sa)
                for event in sa.take_events():
                    self._handle(attachment, event)
                self._send(sa)
                attachment.sas += [each for each in sa.offspring if each not in attachment.sas]
            gone = [sa for sa in attachment.sas if sa.state is State.CLOSED]
            attachment.sas = [sa for sa in attachment.sas if sa not in gone] or gone[-1:]
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = [at for sa in self._sas() if (at := sa.timer_s()) is not None]
        if due:
            delay_s = max(min(due) - self._clock.steady_s(), 0.0)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._tick)

    def _send(self, sa: StandingSa) -> None:
        for datagram in sa.take_datagrams():
            self._ports.send(datagram)

    def _tick(self) -> None:
        self._timer = None
        for sa in self._sas():
            sa.handle_timer(self._clock.steady_s())
        self._pump()

    def _sas(self) -> list[StandingSa]:
        return [sa for attachment in self._attachments for sa in attachment.sas]

    def _handle(self, attachment: _Attachment, event: Event) -> None:
        match event:
            case CertificateToJudge():
                self._background.run(self._decide(attachment.initiator, event))
            case Established():
                self._established(attachment, event)
            case Failed(error=error):
                fields = {"code": error.code, "step": error.step, "reason": error.sentence}
                log.warning("not attached", extra={"fields": fields})
                self._end(attachment, Outcome(False, code=error.code, step=error.step, sentence=error.sentence))
            case Rekeyed(sa=name):
                log.info("IKE SA rekeyed", extra={"fields": {"sa": str(name), "suite": event.suite.name}})
                self._tracer.note("IKE SA rekeyed", ok=True)
                self._trace_keys(attachment.initiator.current)
            case ChildRekeyed(child=child):
                log.info("child SA rekeyed", extra={"fields": {"suite": child.suite.name}})
                self._tracer.note("child SA rekeyed", ok=True)
            case ChildClosed(reason=reason):
                log.warning("child SA closed", extra={"fields": {"reason": reason}})
                attachment.initiator.current.delete("its child SA is gone", self._clock.steady_s())
            case Closed(reason=reason):
                log.info("SA closed", extra={"fields": {"reason": reason}})
                self._tracer.note(f"IKE SA closed: {reason}")
                attachment.closed.set()

    async def _decide(self, initiator: Initiator, event: CertificateToJudge) -> None:
        question = Question(
            Side.DEVICE, event.sa, event.identity, event.certificate, ledger_answer=event.ledger_answer
        )
        judged: Judged = Trusted()
        try:
            await self._judge.judge(question)
        except PeerRefusedError as refusal:
            judged = refusal.untrusted()
        initiator.judge(judged, self._clock.steady_s())
        self._pump()

    def _established(self, attachment: _Attachment, event: Established) -> None:
        child = event.child
        if child is None:
            attachment.initiator.delete("no child SA came about", self._clock.steady_s())
            sentence = event.child_error or ""
            self._end(attachment, Outcome(False, event.identity, code="no-child", sentence=sentence))
            return
        address = str(child.address) if child.address else None
        self._tracer.note(f"attached, inner address {address}", ok=True)
        log.info("attached", extra={"fields": {"gateway": event.identity, "address": address}})
        outcome = Outcome(True, event.identity, address, suite=event.suite.name, child=child.suite.name)
        self._end(attachment, outcome)

    def _end(self, attachment: _Attachment, outcome: Outcome) -> None:
        if not attachment.ended.done():
            attachment.ended.set_result(outcome)
        self._trace_keys(attachment.initiator)

    def _trace_keys(self, sa: StandingSa) -> None:
        if sa.keys is not None:
            self._tracer.keys(sa.name, sa.keys)


def _described(outcome: Outcome) -> dict[str, object]:
    return {name: getattr(outcome, name) for name in Outcome.__slots__}


async def _within(waiting: Awaitable[object], seconds: float) -> None:
    """Wait, but for at most `seconds`."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(waiting, seconds)
