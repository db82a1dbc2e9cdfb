"""Re-INVITEs within a call through the gateway: refreshes are answered, and holds are passed on.

A change of one side is offered to the other one first, and then answered as that answers it. One at a time: what
crosses it gets 491, and its sender tries again (RFC 3261 §14.1). Changes of another kind are refused, and a refusal
changes nothing. An answer with other keys than the call began with ends the call, as its media would be lost.
"""

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import Final

from sip_testbed.gateway_refresh import Described
from sip_testbed.gateway_rules import reasons
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.sip.dtls_sdp import DTLS_PROTOCOLS
from voice_dpki.wire.relay import Leg as MediaLeg
from voice_dpki.wire.relay import Relay
from voice_dpki.wire.sip.call import Leg
from voice_dpki.wire.sip.changes import Reinvite, UnchangedError

log = logging.getLogger(__name__)

NOT_ACCEPTABLE: Final = 488
PENDING: Final = 491

MAX_HOLD_S: Final = 3600.0
"""A side of a call on hold may send nothing for so long; some telephones then send no reports either."""


@dataclass
class CallEnd:
    """One side of a call: its dialog, its media, and what both have said last."""

    leg: Leg
    media: MediaLeg
    described: Described

    def take(self, described: Described) -> None:
        """Take new descriptions, and send media where the other side's has them; raises MalformedError.

        With DTLS the handshake, or ICE, has found where that is.
        """
        before, now = self.described.agreed, described.agreed
        places = now.audio_address, now.audio_control_address
        if now.audio.protocol not in DTLS_PROTOCOLS and places != (
            before.audio_address,
            before.audio_control_address,
        ):
            self.media.move(*places)
        self.described = described


class Changes:
    """The changes of one call, whose two ends are given; `name` is the gateway's."""

    def __init__(self, name: str, *ends: CallEnd) -> None:
        self._name = name
        self._ends = ends
        self._is_changing = False
        for end, other in zip(ends, reversed(ends), strict=True):
            self._keep_up(end, other)

    @property
    def is_held(self) -> bool:
        """Whether either side is on hold."""
        return any(end.described.is_held for end in self._ends)

    def _keep_up(self, end: CallEnd, other: CallEnd) -> None:
        async def refresh() -> None:
            final = await end.leg.reinvite(end.described.ours.serialize)
            log.debug("refresh of a call", extra={"fields": {"status": final.status}})
            if 200 <= final.status < 300:
                await self._check(end, final.sdp)

        async def answer(change: Reinvite) -> None:
            try:
                await self._answer(end, other, change)
            except MalformedError as error:
                log.info("a change is refused", extra={"fields": {"reason": str(error)}})
                change.refuse(NOT_ACCEPTABLE, None, reasons(str(error), self._name))

        end.leg.on_reinvite(answer)
        end.leg.on_refresh(refresh)

    async def _check(self, end: CallEnd, answer: bytes) -> None:
        """CallEnd the call if an answer to what was agreed says something else."""
        try:
            end.described.check_answer(answer)
        except MalformedError as error:
            await self._end(end, error)

    async def _end(self, end: CallEnd, error: MalformedError) -> None:
        log.info("an answer ends a call", extra={"fields": {"reason": str(error)}})
        await end.leg.bye(reasons(str(error), self._name))

    async def _answer(self, end: CallEnd, other: CallEnd, change: Reinvite) -> None:
        if end.described.is_repeated_by(change.sdp):
            acknowledged = await change.accept(end.described.ours.serialize())
            if not change.sdp:
                await self._check(end, acknowledged)
        elif self._is_changing:
            change.refuse(PENDING)
        else:
            self._is_changing = True
            try:
                await self._pass_on(end, other, change)
            finally:
                self._is_changing = False

    async def _pass_on(self, end: CallEnd, other: CallEnd, change: Reinvite) -> None:
        """Offer the other side what this one offers, and answer it as that does; raises MalformedError."""
        offered = end.described.offered(change.sdp)
        before = other.described
        ours = before.next(before.ours, offered.agreed.audio_direction)
        try:
            final = await other.leg.reinvite(ours.serialize)
        except LocalError:
            return  # the other side has hung up, and so does this one
        if not 200 <= final.status < 300:
            change.refuse(final.status if final.status >= 400 else NOT_ACCEPTABLE)
            return
        try:
            other.take(before.answered(ours, final.sdp))
        except MalformedError as error:
            await self._end(other, error)
            raise
        direction = offered.agreed.audio_direction.answered_by(other.described.agreed.audio_direction)
        settled = replace(offered, ours=end.described.next(offered.ours, direction))
        try:
            await change.accept(settled.ours.serialize(), lambda: end.take(settled))
        except (UnchangedError, MalformedError):  # the latter for an address that media cannot be sent to
            await self._undo(other, before)
            raise

    async def _undo(self, other: CallEnd, before: Described) -> None:
        """Take the other side back to where it was, after this one has given its change up."""
        ours = other.described.next(before.ours, before.ours.audio_direction)
        try:
            final = await other.leg.reinvite(ours.serialize)
            if 200 <= final.status < 300:
                other.take(other.described.answered(ours, final.sdp))
        except (LocalError, MalformedError) as error:
            log.info("a change was not undone", extra={"fields": {"reason": str(error)}})


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
