"""One call through the gateway: MIKEY on the side of the domain, SDES or DTLS-SRTP on the side of the telephone.

The keys of each side are agreed before that side's media flow. If one side cannot agree on keys, both sides end:
media in clear are neither sent nor accepted. Both sides are told that encryption ends here: by the header field of
`notice`, the domain also by the certificate, which names the gateway, and the telephone by a line of its SDP.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any, Final

from sipmessage import URI

from sip_testbed.gateway_changes import CallEnd, Changes, await_changes, silence
from sip_testbed.gateway_config import GatewaySetup, GatewayTelephone
from sip_testbed.gateway_counts import CALLS, Counts, End, Way
from sip_testbed.gateway_keys import MikeyKeys
from sip_testbed.gateway_phones import NotRegisteredError, Phones
from sip_testbed.gateway_refresh import Described
from sip_testbed.gateway_rules import (
    GatewayRefusal,
    NotAnswered,
    Offer,
    account_of,
    agreed,
    asserted,
    caller_of,
    check_flow,
    check_protocol_of_answer,
    clock_rate,
    is_protected,
    notice,
    payload_types,
    payloads_of,
    reason_of,
    reasons,
)
from sip_testbed.gateway_sides import Side, side_for
from sip_testbed.keying import KeyAgreement, offer_to
from sip_testbed.media_policy import Refusal, keys_of
from sip_testbed.rivals import Party
from sip_testbed.user_agent import AnyKeying
from voice_dpki.effects import Random
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.media.relay import Translation
from voice_dpki.media.srtp import Srtp
from voice_dpki.mikey.failures import MikeyError
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.sdp import key_mgmt_value
from voice_dpki.shell.trace import Tracer
from voice_dpki.sip.keyed import keyed_with
from voice_dpki.sip.location import Binding
from voice_dpki.sip.message import Hop, parse_uri
from voice_dpki.sip.offer_answer import answer_to, check_answer
from voice_dpki.sip.sdp import SECURE_PROTOCOLS, Direction, RtpMap, SessionDescription, audio_description
from voice_dpki.wire.dtls import DtlsError, DtlsIdentity
from voice_dpki.wire.dtls_leg import DtlsLeg
from voice_dpki.wire.relay import MediaLeg, Relay
from voice_dpki.wire.sip.provisional import UnacknowledgedError
from voice_dpki.wire.sip.user_agent import Call, FinalAnswer, IncomingCall, UserAgent
from voice_dpki.wire.tasks import first_of

log = logging.getLogger(__name__)

ANSWER_TIMEOUT_S: Final = 120.0
"""A call that is not answered within this time is cancelled."""


@dataclass(frozen=True, slots=True)
class Inside:
    """A telephone's representative at the domain."""

    telephone: GatewayTelephone
    agent: UserAgent
    keying: AnyKeying


class Bridge:
    """The calls of all telephones, at most `max_calls` at a time."""

    def __init__(self, setup: GatewaySetup, tracer: Tracer, random: Random) -> None:
        self._setup = setup
        self._tracer = tracer
        self._random = random
        self._identity = DtlsIdentity()
        self._calls = 0
        self._counts = Counts()

    async def to_telephone(self, inside: Inside, phones: Phones, call: IncomingCall) -> None:
        """Pass a call from the domain on to the telephone."""
        incoming = _Inwards(self._setup, inside, phones, call, self._random)
        await self._carry(Way.IN, inside.telephone, call, incoming.place)

    async def to_domain(self, inside: Inside, call: IncomingCall, source: Hop) -> None:
        """Pass a call from the telephone, received over `source`, on to the domain."""
        outgoing = _Outwards(self._setup, inside, call, source, self._random)
        await self._carry(Way.OUT, inside.telephone, call, outgoing.place)

    async def _carry(
        self,
        way: Way,
        telephone: GatewayTelephone,
        call: IncomingCall,
        place: "Callable[[Side, MediaLeg], Awaitable[_Placed]]",
    ) -> None:
        if self._calls >= self._setup.config.max_calls:
            CALLS.labels(way, await _full(call)).inc()
            return
        self._calls += 1
        try:
            end = await self._bridge(telephone, call, place)
        finally:
            self._calls -= 1
        CALLS.labels(way, end).inc()

    async def _bridge(
        self,
        telephone: GatewayTelephone,
        call: IncomingCall,
        place: "Callable[[Side, MediaLeg], Awaitable[_Placed]]",
    ) -> End:
        config = self._setup.config
        outside = config.outside
        async with AsyncExitStack() as stack:
            side = side_for(telephone.media, outside.host, outside.advertised, self._identity, self._random)
            inner = MediaLeg(config.listen.host)
            try:
                for leg in (inner, side.leg):
                    stack.push_async_callback(leg.close)
                    await leg.open()
            except (LocalError, OSError) as error:
                log.warning("no ports for another call", extra={"fields": {"error": str(error)}})
                return await _full(call)
            try:
                placed = await place(side, inner)
            except GatewayRefusal as refusal:
                return await self._refused(call, refusal)
            except NotAnswered as answered:
                await call.reject(answered.answer.status, None, reason_of(answered.answer))
                return End.NOT_ANSWERED
            return await self._relay(call, placed, inner, side)

    async def _refused(self, call: IncomingCall, refusal: GatewayRefusal) -> End:
        self._tracer.note(f"refused: {refusal}", step="gateway", ok=False)
        log.info("call refused", extra={"fields": {"reason": str(refusal), "status": refusal.status}})
        await call.reject(refusal.status, None, reasons(str(refusal), self._setup.name))
        await call.bye(reasons(str(refusal), self._setup.name))
        return End.REFUSED

    async def _relay(self, call: IncomingCall, placed: "_Placed", inner: MediaLeg, side: Side) -> End:
        """Let the media flow until either side hangs up or is silent for too long."""
        relay = Relay(inner, side.leg, self._counts)
        relay.start(*placed.translations)
        placed.changes.begin(relay)
        fields = {"inside": f"MIKEY, {placed.keys.profile}", "outside": placed.outside, "dropped": 0}
        self._tracer.note(
            f"encryption ends here: {fields['inside']} | {fields['outside']}", step="gateway", ok=True
        )
        log.info("call keyed", extra={"fields": fields})
        silent = asyncio.ensure_future(silence(relay, placed.changes, self._setup.config.idle_s))
        ends: list[Coroutine[object, object, object]] = [asyncio.wait((silent,))]
        ends += [call.ended.wait(), placed.call.ended.wait()]
        if isinstance(side.leg, DtlsLeg):
            ends.append(side.leg.ended.wait())
        try:
            await first_of(*ends)
            end = End.SILENT if silent.done() and not silent.cancelled() else End.GOOD
        finally:
            silent.cancel()
        why = reasons("one side sends no media", self._setup.name) if end is End.SILENT else []
        await asyncio.gather(call.bye(why), placed.call.bye(why))
        dropped = inner.dropped + side.leg.dropped
        log.info("call ended", extra={"fields": {**fields, "end": str(end), "dropped": dict(dropped)}})
        return end


@dataclass(frozen=True, slots=True)
class _Placed:
    """A call that was answered and keyed on both sides."""

    call: Call
    """The call that we placed."""
    keys: SrtpKeys
    outside: str
    """How the telephone's side is keyed."""
    translations: tuple[Translation, Translation]
    """Outwards and inwards."""
    changes: Changes


class _Passing:
    """Base of both directions: an incoming call is placed on the other side."""

    def __init__(
        self, setup: GatewaySetup, inside: Inside, call: IncomingCall, random: Random, party: Party
    ) -> None:
        """`party` is the role of the domain's side in the call."""
        self._setup = setup
        self._inside = inside
        self._call = call
        self._random = random
        self._keying: KeyAgreement[Any] = inside.keying.of_call(party)

    def _inside_sdp(
        self, leg: MediaLeg, payloads: Sequence[RtpMap], direction: Direction, message: bytes
    ) -> SessionDescription:
        return audio_description(
            self._setup.config.listen.advertised,
            leg.port,
            payloads,
            session_id=int.from_bytes(self._random.token(4), "big"),
            key_mgmt=[key_mgmt_value(message)],
            direction=direction,
        )

    def _keyed(self, suite: str, hop: Hop) -> str:
        """Return how the telephone's side is keyed, for our log."""
        unprotected = "" if is_protected(hop) else f", SIP unprotected over {hop.transport}"
        return f"{self._inside.telephone.media}, {suite}{unprotected}"

    async def _answer_of(self, placed: Call) -> SessionDescription:
        """Wait for the answer to the call that we placed, and pass ringing on.

        Cancels that call if the caller gives up, or does not acknowledge our ringing. Raises NotAnswered, and
        MalformedError for an answer that is no SDP.
        """
        answered = asyncio.ensure_future(placed.answered())
        try:
            with suppress(TimeoutError, UnacknowledgedError):  # the latter has refused the call, or it is over
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    await self._pass_ringing_on(placed, answered)
        finally:
            if not answered.done():
                placed.cancel()
        final = await answered
        if not 200 <= final.status < 300:
            raise NotAnswered(final)
        if self._call.ended.is_set():
            await placed.bye()
            raise NotAnswered(FinalAnswer(487, "Request Terminated"))
        return SessionDescription.parse(final.sdp)

    async def _pass_ringing_on(self, placed: Call, answered: "asyncio.Future[FinalAnswer]") -> None:
        """Return once the call that we placed is answered, or the caller's is over; raises UnacknowledgedError."""
        await first_of(placed.ringing.wait(), asyncio.wait((answered,)), self._call.ended.wait())
        if placed.ringing.is_set() and not answered.done() and not self._call.ended.is_set():
            await self._call.ring()
        await first_of(asyncio.wait((answered,)), self._call.ended.wait())

    def _translations(
        self,
        keys: SrtpKeys,
        to_inside: Sequence[RtpMap],
        of_inside: Sequence[RtpMap],
        to_outside: Sequence[RtpMap],
        of_outside: Sequence[RtpMap],
    ) -> tuple[Translation, Translation]:
        """Return both directions, from the payload types in our descriptions to each side and in theirs to us."""
        rate = clock_rate(to_inside[0])
        ssrc = int.from_bytes(self._random.token(4), "big") or 1
        outwards = Translation(ssrc, payload_types(to_inside, of_outside), rate, self._random)
        inwards = Translation(keys.send.ssrc, payload_types(to_outside, of_inside), rate, self._random)
        return outwards, inwards


class _Inwards(_Passing):
    """A call of the domain to the telephone."""

    def __init__(
        self, setup: GatewaySetup, inside: Inside, phones: Phones, call: IncomingCall, random: Random
    ) -> None:
        super().__init__(setup, inside, call, random, "caller")
        self._phones = phones

    async def place(self, side: Side, inner: MediaLeg) -> _Placed:
        """Key the caller's side, call the telephone, and answer the caller once that side is keyed, too."""
        call = self._call
        if call.request.uri.scheme == "sips":
            raise GatewayRefusal("a sips: call promises what a gateway cannot keep", 416)
        try:
            self._binding()  # fails before keys are agreed
            offer = Offer.read(call.sdp, SECURE_PROTOCOLS)
            lines = len(keyed_with(offer.whole, offer.taken))
            answer = await self._keying.accept(offer.audio.audio_key_mgmt, caller_of(call), lines)
            keys = keys_of(answer.keys, offer.whole, offer.taken)
            binding = self._binding()  # the telephone may have registered elsewhere meanwhile
            ours = side.offer(offer.payloads, offer.audio.audio_direction)
            told = notice(self._setup.name, self._inside.telephone.media, binding.target.hop)
            headers = [told, *asserted(call)]
            placed = self._phones.ring(self._inside.telephone, binding, account_of(call), ours.serialize(), headers)
        except NotRegisteredError as error:
            raise GatewayRefusal(str(error), 480) from None
        except (MalformedError, MikeyError, Refusal) as error:
            raise GatewayRefusal(str(error)) from None
        await_changes(call, placed)
        try:
            answered = await self._answer_of(placed)
            side.confirm(answered)
            common = agreed(offer.payloads, payloads_of(answered))
            suite = await side.begin()
            inner.start(Srtp(keys), *offer.remotes)
            own = self._inside_sdp(inner, common, answered.audio_direction, answer.message)
            both = self._translations(keys, common, offer.payloads, offer.payloads, payloads_of(answered))
        except (MalformedError, LocalError, DtlsError) as error:
            await placed.bye(reasons(str(error), self._setup.name))
            raise GatewayRefusal(str(error)) from None
        answer_sdp = answer_to(offer.whole, offer.taken, own)
        await call.answer(answer_sdp.serialize(), [told])
        self._keying.updating.answered(answer.bundle)
        mikey, described = MikeyKeys(self._keying, caller_of(call)), Described(answer_sdp, offer.whole, offer.audio)
        inside = CallEnd(call, inner, mikey, described)
        outside = CallEnd(placed, side.leg, side.keys, side.settled(ours, answered, answered))
        changes = Changes(self._setup.name, self._random, inside, outside)
        return _Placed(placed, keys, self._keyed(suite, binding.target.hop), both, changes)

    def _binding(self) -> Binding:
        """Return where to call the telephone; raises NotRegisteredError, and GatewayRefusal as check_flow does."""
        binding = self._phones.binding_of(self._inside.telephone)
        check_flow(self._inside.telephone, binding.target.hop)
        return binding


class _Outwards(_Passing):
    """A call of the telephone to the domain."""

    def __init__(
        self, setup: GatewaySetup, inside: Inside, call: IncomingCall, source: Hop, random: Random
    ) -> None:
        super().__init__(setup, inside, call, random, "callee")
        self._source = source

    async def place(self, side: Side, inner: MediaLeg) -> _Placed:
        """Call the domain's side with a MIKEY offer, and answer the telephone once that side is keyed."""
        call = self._call
        keying = self._keying
        try:
            check_flow(self._inside.telephone, self._source)
            offer = Offer.read(call.sdp, side.protocols)
            side.take(offer.audio)
            target = self._target()
            mikey = await offer_to(keying, target)
        except (MalformedError, MikeyError) as error:
            raise GatewayRefusal(str(error)) from None
        assert mikey is not None
        try:
            told = notice(self._setup.name, self._inside.telephone.media, self._source)
            ours = self._inside_sdp(inner, offer.payloads, offer.audio.audio_direction, mikey.message)
            placed = await self._placed(target, ours, told)
            await_changes(call, placed)
            try:
                answered = await self._answer_of(placed)
                check_answer(ours, answered)
                check_protocol_of_answer(answered)
                keys = await keying.confirm(mikey, answered.audio_key_mgmt)
                common = agreed(offer.payloads, payloads_of(answered))
                inner.start(Srtp(keys), answered.audio_address, answered.audio_control_address)
                own = side.answer(offer.whole, offer.taken, common, answered.audio_direction)
                both = self._translations(keys, offer.payloads, payloads_of(answered), common, offer.payloads)
                await call.answer(own.serialize(), [told])
                changes = Changes(
                    self._setup.name,
                    self._random,
                    CallEnd(call, side.leg, side.keys, side.settled(own, offer.whole, offer.audio)),
                    CallEnd(placed, inner, MikeyKeys(self._keying, target), Described(ours, answered, answered)),
                )
                suite = await side.begin()
            except (MalformedError, MikeyError, LocalError, DtlsError) as error:
                await placed.bye(reasons(str(error), self._setup.name))
                raise GatewayRefusal(str(error)) from None
        finally:
            keying.end(mikey)
        return _Placed(placed, keys, self._keyed(suite, self._source), both, changes)

    async def _placed(self, target: str, ours: SessionDescription, told: tuple[str, str]) -> Call:
        try:
            return await self._inside.agent.invite(target, ours.serialize(), [told])
        except MalformedError as error:
            raise GatewayRefusal(str(error)) from None

    def _target(self) -> str:
        """Return the URI to call; a user dialled at the gateway is called at the telephone's domain.

        Raises GatewayRefusal for a URI of another kind, and MalformedError for one that cannot be called.
        """
        uri = self._call.request.uri
        if uri.scheme != "sip" or not uri.user:
            raise GatewayRefusal("only sip: URIs of users can be called through the gateway", 416)
        domain = self._inside.telephone.account.domain
        own = {self._setup.name, self._setup.config.outside.host, self._setup.config.outside.advertised}
        host = domain if uri.host in own else uri.host
        target = str(URI("sip", host, uri.user))  # escaped again where that is needed
        parse_uri(target)
        return target


async def _full(call: IncomingCall) -> End:
    await call.reject(503, "Service Unavailable: the gateway has no room for another call")
    return End.BUSY
