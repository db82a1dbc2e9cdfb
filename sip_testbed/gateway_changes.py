"""Re-INVITEs within a call through the gateway: refreshes and new keys are answered, holds and codecs passed on.

A change that concerns both sides, a hold or another codec, is first offered to the other side, and then answered as
that side answers. New keys concern only the side that offers them. Changes are made one at a time: one that crosses
another gets 491, and its sender retries (RFC 3261 §14.1). A refusal changes nothing. An unacceptable answer of the
other side ends the call, as its media would be lost.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from sip_testbed.allowance import Allowance, TooOftenError
from sip_testbed.gateway_codecs import PayloadTypes, in_use, passed, speech_rate, wanted, with_payloads
from sip_testbed.gateway_counts import UNCHANGED, Unchanged
from sip_testbed.gateway_keys import Negotiated, NewKeys, SideKeys
from sip_testbed.gateway_refresh import Described, reoffered
from sip_testbed.gateway_rules import agreed, payloads_of, reasons
from sip_testbed.media_policy import Refusal
from voice_dpki.effects import Random
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.media.relay import Translation
from voice_dpki.mikey.failures import MikeyError
from voice_dpki.sip.dtls_sdp import DTLS_PROTOCOLS
from voice_dpki.sip.sdp import Direction, RtpMap
from voice_dpki.wire.relay import MediaLeg, Relay
from voice_dpki.wire.seldom import Seldom
from voice_dpki.wire.sip.call import Leg
from voice_dpki.wire.sip.changes import Reinvite, UnchangedError

log = logging.getLogger(__name__)
_SAID = Seldom(log)

NOT_ACCEPTABLE: Final = 488
PENDING: Final = 491

MAX_HOLD_S: Final = 3600.0
"""Longest silence of a side while the call is on hold; some telephones then send no reports either."""

REFUSED: Final = (MalformedError, MikeyError, Refusal)
"""Errors of an unacceptable offer or answer."""


class _RefusedError(Exception):
    """A change that is refused though its offer is acceptable, with the status."""

    def __init__(self, why: Unchanged, status: int) -> None:
        super().__init__(f"{why}: {status}")
        self.why = why
        self.status = status if status >= 400 else NOT_ACCEPTABLE


@dataclass
class CallEnd:
    """One side of a call: its dialog, its media, how it gets keys, and the last descriptions on it."""

    leg: Leg
    media: MediaLeg
    keys: SideKeys
    described: Described
    allowance: Allowance = field(default_factory=Allowance)
    """The changes that the side may still ask for."""
    payload_types: PayloadTypes = field(init=False)

    def __post_init__(self) -> None:
        self.payload_types = PayloadTypes(self.described)

    def offer(self) -> bytes:
        """Return our description as a further offer, and keep the form that holds once it is answered."""
        offer, ours = reoffered(self.described.ours)
        self.described = replace(self.described, ours=ours)
        return offer.serialize()

    def take(self, taken: Negotiated) -> None:
        """Take new descriptions and keys, and send media to the addresses described; raises MalformedError.

        With DTLS, the handshake or ICE has found the address already.
        """
        before, now = self.described.agreed, taken.described.agreed
        places = now.audio_address, now.audio_control_address
        if now.audio.protocol not in DTLS_PROTOCOLS and places != (
            before.audio_address,
            before.audio_control_address,
        ):
            self.media.move(*places)
        self.described = taken.described
        self.media.take_keys(taken.keys.protection if taken.keys else None)
        if taken.keys is not None:
            taken.keys.keep()


class Changes:
    """The changes of one call between two ends, from `begin` on; `name` is the gateway's."""

    def __init__(self, name: str, random: Random, *ends: CallEnd) -> None:
        self._name = name
        self._random = random
        self._ends = ends
        self._relay: Relay | None = None
        self._is_changing = False
        for end, other in zip(ends, reversed(ends), strict=True):
            self._keep_up(end, other)

    def begin(self, relay: Relay) -> None:
        """Accept changes from now on: `relay` passes the media on."""
        self._relay = relay

    @property
    def is_held(self) -> bool:
        """Whether either side is on hold."""
        return any(end.described.is_held for end in self._ends)

    def _keep_up(self, end: CallEnd, other: CallEnd) -> None:
        async def refresh() -> None:
            final = await end.leg.reinvite(end.offer)
            log.debug("refresh of a call", extra={"fields": {"status": final.status}})
            if 200 <= final.status < 300:
                await self._take_repeated(end, final.sdp)

        async def answer(change: Reinvite) -> None:
            try:
                await self._answer(end, other, change)
            except TooOftenError as error:
                _refuse(change, Unchanged.TOO_OFTEN, error, error.status, error.headers)
            except _RefusedError as error:
                _refuse(change, error.why, error, error.status)
            except REFUSED as error:
                _refuse(change, Unchanged.UNACCEPTABLE, error, NOT_ACCEPTABLE, reasons(str(error), self._name))
            except UnchangedError:
                UNCHANGED.labels(Unchanged.GIVEN_UP).inc()
                raise
            except asyncio.CancelledError:
                if change.is_overdue:
                    UNCHANGED.labels(Unchanged.TIMED_OUT).inc()
                raise

        end.leg.on_reinvite(answer)
        end.leg.on_refresh(refresh)

    async def _take_repeated(self, end: CallEnd, answer: bytes) -> None:
        """Take the answer to a repeated description; end the call if it changes anything but keys of SDES."""
        now = end.described
        try:
            taken = await end.keys.confirm(now, now.ours, now.repeated(answer))
            end.payload_types.take(taken.described.agreed)
            if taken.keys is not None:
                end.take(taken)
                self._turn(end, taken.keys, None)
        except REFUSED as error:
            await self._end(end, error)

    async def _end(self, end: CallEnd, error: Exception) -> None:
        log.info("an answer ends a call", extra={"fields": {"reason": str(error)}})
        await end.leg.bye(reasons(str(error), self._name))

    async def _answer(self, end: CallEnd, other: CallEnd, change: Reinvite) -> None:
        """Answer an offer of one side; raises TooOftenError, _RefusedError, or one of REFUSED."""
        if end.described.is_repeated_by(change.sdp):
            ours = end.described.ours.serialize() if change.sdp else end.offer()
            acknowledged = await change.accept(ours)
            if not change.sdp:
                await self._take_repeated(end, acknowledged)
            return
        if self._is_changing or self._relay is None:
            raise _RefusedError(Unchanged.PENDING, PENDING)
        end.allowance.take(asyncio.get_running_loop().time())
        self._is_changing = True
        try:
            await self._change(end, other, change)
        except LocalError as error:  # the other side has hung up, and so does this one
            log.debug("a change of a call that ends", extra={"fields": {"error": str(error)}})
        finally:
            self._is_changing = False

    async def _change(self, end: CallEnd, other: CallEnd, change: Reinvite) -> None:
        """Answer an offer of one side; first offer the other side what concerns it.

        Raises one of REFUSED, and _RefusedError if the other side refuses.
        """
        now, before = end.described, other.described
        whole, at = now.offered(change.sdp)
        used = in_use(now, before)
        payloads, recodes = wanted(used, payloads_of(whole.narrowed(at)))
        end.payload_types.take(whole.narrowed(at), payloads)
        taken = await end.keys.accept(now, whole, at)
        self._check_clock(end, taken.keys, payloads)
        direction = taken.described.agreed.audio_direction
        passes_on = recodes or direction != now.agreed.audio_direction
        if passes_on:
            payloads = await self._offer(other, direction, payloads, recodes=recodes)
        taken = self._settled(end, other, taken, payloads)
        try:
            await change.accept(taken.described.ours.serialize(), lambda: self._take(end, other, taken))
        except (UnchangedError, MalformedError):  # the latter for an address that media cannot be sent to
            if passes_on:
                await self._undo(end, other, before.ours.audio_direction, used, recodes=recodes)
            raise
        if taken.keys is None:
            self._turn(end, None, payloads)
        else:
            end.media.turn_once_heard(lambda: self._turn(end, taken.keys, payloads))
        self._tell(taken.keys, payloads, recodes=recodes)

    def _check_clock(self, end: CallEnd, keys: NewKeys | None, payloads: Sequence[RtpMap]) -> None:
        """Raise MalformedError for another clock rate without new keys, where keys are bound to an SSRC."""
        clock = self._running.sent_to(end.media).clock_rate
        if keys is None and end.keys.bound_to_ssrc and speech_rate(payloads) != clock:
            raise MalformedError("a codec of another clock rate takes new keys, for another SSRC (RFC 7160 §4.1)")

    def _settled(self, end: CallEnd, other: CallEnd, taken: Negotiated, payloads: Sequence[RtpMap]) -> Negotiated:
        """Return what our answer to an end's offer settles: `payloads`, and a direction that fits the other."""
        described = taken.described
        direction = described.agreed.audio_direction.answered_by(other.described.agreed.audio_direction)
        ours = end.described.next(with_payloads(described.ours, payloads), direction)
        return replace(taken, described=replace(described, ours=ours))

    def _take(self, end: CallEnd, other: CallEnd, taken: Negotiated) -> None:
        """Take what our answer settles, just before it is sent.

        The end gets its new stream, and packets of another codec, only once it has the answer: telephones bind a
        codec to the stream with which it was agreed.
        """
        end.take(taken)
        if taken.keys is not None:
            self._running.expect_source(end.media)
        self._retype(*((other,) if taken.keys else (end, other)))

    async def _offer(
        self, other: CallEnd, direction: Direction, payloads: Sequence[RtpMap], *, recodes: bool
    ) -> list[RtpMap]:
        """Offer a side a change, and return those of `payloads` that it takes up.

        Raises _RefusedError if it refuses, one of REFUSED if its answer is unacceptable, which ends the call, and
        LocalError if the call was over already.
        """
        before = other.described
        told = with_payloads(before.ours, other.payload_types.number(payloads)) if recodes else before.ours
        ours = before.next(told, direction)
        renews = recodes and speech_rate(payloads) != self._running.sent_to(other.media).clock_rate
        propose = await other.keys.proposer() if renews else None

        def describe() -> bytes:
            nonlocal ours
            offer, ours = reoffered(propose(ours) if propose else ours)
            return offer.serialize()

        other.media.expect_keys()
        try:
            final = await other.leg.reinvite(describe)
            if not 200 <= final.status < 300:
                raise _RefusedError(Unchanged.DECLINED, final.status)
            try:
                answer = before.answered(ours, final.sdp)
                taken = await other.keys.confirm(before, ours, answer)
                other.payload_types.take(taken.described.agreed)
                common = agreed(payloads, payloads_of(taken.described.agreed))
                other.take(taken)
            except REFUSED as error:
                await self._end(other, error)
                raise
            except asyncio.CancelledError:  # the change timed out after this side had accepted it
                other.leg.hang_up()
                raise
        finally:
            other.keys.forget()
            other.media.take_keys(None)
        self._turn(other, taken.keys, common)
        return common

    def _turn(self, end: CallEnd, keys: NewKeys | None, payloads: Sequence[RtpMap] | None) -> None:
        """Switch what an end is sent to what it agreed: new keys, and another SSRC for these or another clock."""
        if self._relay is None:
            return
        now = self._relay.sent_to(end.media)
        clock = speech_rate(payloads) if payloads else now.clock_rate
        if keys is not None:
            self._relay.expect_source(end.media)
            end.media.switch(keys.protection if keys.sends else None)
        if clock != now.clock_rate or (keys is not None and keys.sends):
            ssrc = (keys.ssrc if keys else None) or (now.ssrc + 1) % 2**32 or 1  # not one used under these keys
            made = Translation(ssrc, passed(self._facing(end).described, end.described), clock, self._random)
            self._relay.send_other(end.media, made)
        else:
            self._retype(end, self._facing(end))

    def _retype(self, *ends: CallEnd) -> None:
        """Relay with the payload types that the ends have described, and for a while with the earlier ones."""
        now_s = asyncio.get_running_loop().time()
        for end in ends:
            types = passed(self._facing(end).described, end.described)
            self._running.sent_to(end.media).retype(types, now_s)

    def _facing(self, end: CallEnd) -> CallEnd:
        return next(each for each in self._ends if each is not end)

    @property
    def _running(self) -> Relay:
        assert self._relay is not None
        return self._relay

    async def _undo(
        self, end: CallEnd, other: CallEnd, direction: Direction, payloads: Sequence[RtpMap], *, recodes: bool
    ) -> None:
        """Restore the other side's earlier state after this side has given up its change."""
        try:
            await self._offer(other, direction, payloads, recodes=recodes)
            self._retype(end, other)
        except asyncio.CancelledError:
            other.leg.hang_up()
            raise
        except (LocalError, _RefusedError, *REFUSED) as error:
            log.info("a change was not undone", extra={"fields": {"reason": str(error)}})
            if recodes:  # each side would send a codec that the other does not have
                await self._end(other, error)

    def _tell(self, keys: NewKeys | None, payloads: Sequence[RtpMap], *, recodes: bool) -> None:
        codecs = [each.encoding for each in payloads] if recodes else []
        fields = {"keys": keys.suite if keys else "", "codecs": codecs, "held": self.is_held}
        log.info("call changed", extra={"fields": fields})


def _refuse(
    change: Reinvite, why: Unchanged, error: Exception, status: int, headers: Sequence[tuple[str, str]] = ()
) -> None:
    UNCHANGED.labels(why).inc()
    _SAID.info("a change is refused", reason=str(error), status=status)
    change.refuse(status, None, headers)


def await_changes(*legs: Leg) -> None:
    """Refuse changes of either side with 491 until `Changes` takes over: the media are not keyed yet.

    Otherwise they would get 488, which says that such a change is never accepted.
    """

    async def refuse(change: Reinvite) -> None:
        error = _RefusedError(Unchanged.PENDING, PENDING)
        _refuse(change, error.why, error, error.status)

    for leg in legs:
        leg.on_reinvite(refuse)


async def silence(relay: Relay, changes: Changes, idle_s: float) -> None:
    """Return once a side has been silent for `idle_s`, or for MAX_HOLD_S while the call was on hold."""
    loop = asyncio.get_running_loop()
    since_s = loop.time()
    while True:
        left_s = (MAX_HOLD_S if changes.is_held else idle_s) - relay.silent_s(since_s)
        if left_s <= 0:
            return
        was_held = changes.is_held
        await asyncio.sleep(min(left_s, idle_s))
        if was_held and not changes.is_held:
            since_s = loop.time()
