"""The session of one call: its descriptions, its keys, and the changes that either side makes to it by re-INVITE.

Each description names the key management that is in force. Where it repeats the values that its side sent last,
keys and streams stay; other values are a new agreement, whose keys replace the old ones (RFC 4567 §4.1.2).
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn

from sip_testbed.allowance import Allowance
from sip_testbed.conversation import Flow
from sip_testbed.digits import further_maps, take_answered, take_offered
from sip_testbed.key_errors import refusal_body, told_error
from sip_testbed.keying import KeyAgreement, KeyOffer, accept_again, confirm_again
from sip_testbed.media_policy import (
    FAILED,
    NOT_ACCEPTABLE,
    Refusal,
    check_protected,
    codec_of,
    keys_of,
    payload_type_of,
    protocols,
    reasons,
    reasons_for,
    severity_of,
    status_of,
)
from sip_testbed.updating import NoUpdateError
from sip_testbed.user_agent_config import TelephoneSetup
from sip_testbed.video_call import Video
from voice_dpki.effects import Random
from voice_dpki.errors import LocalError, PeerError
from voice_dpki.media.codecs import Codec
from voice_dpki.mikey.failures import MikeyError
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.sdp import key_mgmt_value
from voice_dpki.mikey.update import UpdateOffer
from voice_dpki.names import ascii_lower
from voice_dpki.shell.current import work_on
from voice_dpki.shell.trace import Tracer
from voice_dpki.sip.keyed import keyed_with
from voice_dpki.sip.offer_answer import answer_to, audio_to_take, check_answer, check_next_offer
from voice_dpki.sip.sdp import Direction, RtpMap, SessionDescription, audio_description
from voice_dpki.wire.media import MediaSession
from voice_dpki.wire.sip.changes import Reinvite, UnchangedError
from voice_dpki.wire.sip.user_agent import Leg
from voice_dpki.wire.tasks import first_of

log = logging.getLogger(__name__)

REFRESH = "refresh"
"""Name of a re-INVITE that changes nothing, and shows that the other side is still there."""


class ChangeRefusedError(PeerError):
    """The other side refused a change of the call, which goes on as before, or is over."""


@dataclass(frozen=True, slots=True)
class Agreed:
    """What both sides have agreed on: the newest offer, the section of it that is the audio, codec and keys."""

    offer: SessionDescription
    taken: int
    codec: Codec
    own_keys: tuple[str, ...] = ()
    """The values of key management that we sent last; empty in a call in clear."""
    their_keys: tuple[str, ...] = ()
    """Those that the other side sent last."""


class Session:
    """One call's session, seen from one end; `peer_uri` is the other side's, with which keys are agreed."""

    def __init__(
        self,
        setup: TelephoneSetup,
        media: MediaSession,
        keying: KeyAgreement[Any] | None,
        tracer: Tracer,
        random: Random,
        peer_uri: str,
    ) -> None:
        self.done: list[str] = []
        """The changes that were made, by either side, in their order."""
        self.transferred = False
        """Whether another call has taken the place of this one, which ends before the speech is over."""
        self._setup = setup
        self._media = media
        self._keying = keying
        self._tracer = tracer
        self.peer_uri = peer_uri
        self._random = random
        self._id = int.from_bytes(random.token(4), "big")
        self._version = 0
        self._last: SessionDescription | None = None
        """Our last description."""
        self._holding = False
        """Whether we have put the other side on hold."""
        self._is_held = False
        """Whether the other side has put us on hold."""
        self._agreed: Agreed | None = None
        self._leg: Leg | None = None
        self._begun = asyncio.Event()
        self._allowance = Allowance()
        """The quota of new keys that the other side may request."""
        self.video = Video(setup, None, media)
        """The video of the call: none unless the telephone sets another."""

    def describe(
        self,
        codec: Codec,
        payload_type: int,
        key_mgmt: Sequence[str] = (),
        direction: Direction = Direction.SENDRECV,
    ) -> SessionDescription:
        """Return the next description of our media, with the next version number if it is new (RFC 3264 §8)."""
        described = self._described(codec, payload_type, key_mgmt, direction)
        if described != self._last:
            self._version += 1
            self._last = self._described(codec, payload_type, key_mgmt, direction)
        return self._last

    def _described(
        self, codec: Codec, payload_type: int, key_mgmt: Sequence[str], direction: Direction
    ) -> SessionDescription:
        return audio_description(
            self._setup.listen.advertised,
            self._media.port,
            [RtpMap(payload_type, codec.rtpmap), *further_maps(self._media.keypad, codec)],
            session_id=self._id,
            version=self._version,
            key_mgmt=key_mgmt,
            direction=direction,
        )

    def await_changes(self, leg: Leg) -> None:
        """Process the other side's re-INVITEs, which wait until `begin`."""
        self._leg = leg
        leg.on_reinvite(self._reinvited)
        leg.on_refresh(self._refresh)

    def end(self) -> None:
        """Forget the bundle from which new keys would be made: the call is over."""
        if self._keying is not None:
            self._keying.updating.forget()

    def begin(self, agreed: Agreed) -> None:
        """Take what offer and answer of the call have agreed; the media have started."""
        self._agreed = agreed
        self._begun.set()

    # Changes of ours.

    async def hold(self) -> None:
        """Put the other side on hold (RFC 3264 §8.4); raises ChangeRefusedError, as the other changes do."""
        await self._offer("hold", None, holding=True)

    async def resume(self) -> None:
        """End a hold of ours."""
        await self._offer("resume", None, holding=False)

    async def rekey(self) -> None:
        """Agree on new keys, for streams with new SSRCs; if that fails, the call ends (RFC 4567 §4.1.2)."""
        await self._renew_keys("rekey", None)

    async def _refresh(self) -> None:
        """Refresh the session by an offer that changes nothing (RFC 4028 §7.4)."""
        assert self._leg is not None
        assert self._leg.dialog is not None
        work_on(self._leg.dialog.call_id)
        await self._begun.wait()
        try:
            await self._offer(REFRESH, None, holding=self._holding)
        except (ChangeRefusedError, LocalError) as error:
            log.warning("session not refreshed", extra={"fields": {"reason": str(error)}})

    async def recode(self, codec: Codec) -> None:
        """Change to another codec, under new keys: another clock belongs to another SSRC (RFC 7160 §4.1)."""
        await self._renew_keys(ascii_lower(codec.name), codec)

    async def _renew_keys(self, name: str, codec: Codec | None) -> None:
        """Change the keys, by an update where the call has a bundle of ours and the other side still has it, too.

        After a 488 the session is as it was (RFC 3261 §14.1), so a whole agreement may follow a refused update.
        """
        keying = self._keying
        if keying is None:
            await self._offer(name, codec, holding=self._holding)
            return
        with suppress(NoUpdateError):
            await self._offer(name, codec, holding=self._holding, keys=keying.updating.offer)
            return
        try:
            await keying.meet(self.peer_uri)
        except (MikeyError, LocalError) as error:
            await self._not_changed(name, str(error))
        lines = 1 + len(self.video.offered_again())
        await self._offer(name, codec, holding=self._holding, keys=partial(keying.offer, self.peer_uri, lines))

    async def _offer(
        self, name: str, codec: Codec | None, *, holding: bool, keys: Callable[[], KeyOffer] | None = None
    ) -> None:
        """Offer a change, with new keys by `keys` for each try: a message that was seen before is a replay."""
        leg, offered = self._leg, self._now
        offer: KeyOffer | None = None
        assert leg is not None

        def describe() -> bytes:
            nonlocal offered, offer
            self._forget(offer)
            offer, now = keys() if keys else None, self._now
            own_keys = (key_mgmt_value(offer.message),) if offer else now.own_keys
            direction = Direction.SENDONLY if holding else Direction.SENDRECV
            own = self.describe(codec or now.codec, (codec or now.codec).payload_type, own_keys, direction)
            sdp = answer_to(now.offer, now.taken, own, self.video.offered_again(direction))
            offered = replace(now, offer=sdp, codec=codec or now.codec, own_keys=own_keys)
            return sdp.serialize()

        try:
            answer = await leg.reinvite(describe)
            if not 200 <= answer.status < 300:
                if isinstance(offer, UpdateOffer) and answer.status == NOT_ACCEPTABLE:
                    self._tracer.note("update refused: new keys take a new agreement", step="change", ok=False)
                    raise NoUpdateError("the other side refused an update of the keys")
                ends = offer is not None and answer.status == NOT_ACCEPTABLE
                why = f"{answer.status} {answer.reason}{told_error(answer.sdp, offer.message if offer else None)}"
                await self._not_changed(name, why, bye=reasons(why) if ends else None)
            try:
                await self._take_answer(offered, answer.sdp, offer)
            except FAILED as error:
                await self._not_changed(name, str(error), bye=reasons_for(error))
        except (MikeyError, LocalError) as error:
            await self._not_changed(name, str(error))
        finally:
            self._forget(offer)
        self._holding = holding
        self._allow()
        self._tell(name)

    def _forget(self, offer: KeyOffer | None) -> None:
        """Forget the bundle of an agreement that was confirmed or refused."""
        if self._keying and offer and not isinstance(offer, UpdateOffer):
            self._keying.end(offer)

    async def _not_changed(self, name: str, why: str, *, bye: Sequence[tuple[str, str]] | None = None) -> NoReturn:
        """Record that a change of ours did not come about; end the call if `bye`, its header fields, are given."""
        self._tracer.note(f"not changed ({name}): {why}", step="change", ok=False)
        if bye is not None:
            assert self._leg is not None
            await self._leg.bye(bye)
        raise ChangeRefusedError(f"the change of the call ({name}) was refused: {why}")

    async def _take_answer(self, offered: Agreed, body: bytes, offer: KeyOffer | None) -> None:
        """Take the answer to what we `offered`, with new keys if `offer` asked for them; raises one of FAILED."""
        answered = SessionDescription.parse(body)
        check_answer(offered.offer, answered)
        described = answered.narrowed(offered.taken)
        check_protected(described, keyed=self._keying is not None)
        values = described.audio_key_mgmt
        keys = await confirm_again(self._keying, offer, values)
        self.video.check(offered.offer, answered, keys)
        if keys is None and values != offered.their_keys:
            raise Refusal("SDP key-mgmt", "the answer has other key management, and no new keys were offered")
        payload_type = payload_type_of(described, offered.codec)
        take_answered(self._media.keypad, described, offered.codec)
        own_keys = keys_of(keys, offered.offer, offered.taken) if keys else None
        self._apply(described, offered.codec, payload_type, offered.codec.payload_type, own_keys)
        self.video.follow(offered.offer, answered, keys)
        self._agreed = replace(offered, their_keys=values)
        self.video.switch()
        self._is_held = Flow.agreed(described).sends is False

    # Changes of the other side.

    async def _reinvited(self, change: Reinvite) -> None:
        work_on(change.call_id)
        assert self._leg is not None
        await first_of(self._begun.wait(), self._leg.ended.wait())
        if self._agreed is None:
            return  # the call ended before it was agreed
        try:
            with self._media.keypad.unless_refused():
                await (self._answer(change) if change.sdp else self._offer_late(change))
        except FAILED as error:
            self._tracer.note(f"change refused: {error}", step="change", ok=False)
            log.log(severity_of(error), "change refused", extra={"fields": {"reason": str(error)}})
            body = refusal_body(change.sdp, error, self._keying, self._setup, self._random)
            change.refuse(status_of(error), None, reasons_for(error), body)

    async def _answer(self, change: Reinvite) -> None:
        """Answer an offer; raises one of FAILED, and then leaves the session as it is."""
        now, offer = self._now, SessionDescription.parse(change.sdp)
        check_next_offer(now.offer, offer)
        taken = audio_to_take(offer, protocols(keyed=self._keying is not None), now.codec.rtpmap)
        described = offer.narrowed(taken)
        check_protected(described, keyed=self._keying is not None)
        codec = codec_of(described, now.codec)
        payload_type = payload_type_of(described, codec)
        agreed = Agreed(offer, taken, codec, now.own_keys, described.audio_key_mgmt)
        accepted = whole = keys = None
        if self._keying and agreed.their_keys != now.their_keys:
            self._allowance.take(asyncio.get_running_loop().time())
            lines = len(keyed_with(offer, taken))
            accepted = await accept_again(self._keying, agreed.their_keys, self.peer_uri, lines)
            whole, keys = accepted.keys, keys_of(accepted.keys, offer, taken)
            agreed = replace(agreed, own_keys=(key_mgmt_value(accepted.message),))
        self.video.check(offer, offer, whole)
        direction = described.audio_direction.answered_by(self._wanted)
        take_offered(self._media.keypad, described, codec)
        own = self.describe(codec, payload_type, agreed.own_keys, direction)

        def apply() -> None:
            self._apply(described, codec, payload_type, payload_type, keys)
            if self._keying and accepted:
                self._keying.updating.answered(accepted.bundle)
            self.video.follow(offer, offer, whole)
            self._agreed = agreed
            was_held, self._is_held = self._is_held, not Flow.agreed(described).sends
            self._allow()
            name = _name(now, agreed, keys is not None, was_held, self._is_held)
            self._tell(REFRESH if offer == now.offer else name)

        sections = self.video.sections(offer, self._wanted, whole)
        await change.accept(answer_to(offer, taken, own, sections).serialize(), apply)
        self.video.switch()

    async def _offer_late(self, change: Reinvite) -> None:
        """Offer the session as it is where a re-INVITE has no offer, and take the answer in the ACK."""
        now, was_held = self._now, self._is_held
        own = self.describe(now.codec, now.codec.payload_type, now.own_keys, self._wanted)
        sdp = answer_to(now.offer, now.taken, own, self.video.offered_again(self._wanted))
        body = await change.accept(sdp.serialize())
        try:
            await self._take_answer(replace(now, offer=sdp), body, None)
        except FAILED as error:
            assert self._leg is not None
            await self._leg.bye(reasons_for(error))
            raise UnchangedError(f"the answer in the ACK is refused: {error}") from None
        self._allow()
        self._tell(REFRESH if was_held == self._is_held else "hold" if self._is_held else "resume")

    # Both.

    @property
    def is_holding(self) -> bool:
        """Whether we have put the other side on hold."""
        return self._holding

    def passed_on(self, name: str) -> None:
        """Record that another call has taken the place of this one, by a transfer of this name."""
        self.transferred = True
        self._tell(name)

    @property
    def _now(self) -> Agreed:
        assert self._agreed is not None
        return self._agreed

    @property
    def _wanted(self) -> Direction:
        """The direction that we want ourselves."""
        return Direction.SENDONLY if self._holding else Direction.SENDRECV

    def _apply(
        self, described: SessionDescription, codec: Codec, sends: int, receives: int, keys: SrtpKeys | None
    ) -> None:
        self._media.change(
            codec,
            payload_type=sends,
            receive_type=receives,
            remote=described.audio_address,
            remote_control=described.audio_control_address,
            keys=keys,
        )

    def _allow(self) -> None:
        """Speak unless one side has the other on hold; digits go to a side that we hold, too."""
        self.video.allow_sending(not (self._holding or self._is_held), digits=not self._is_held)

    def _tell(self, name: str) -> None:
        if name != REFRESH:
            self.done.append(name)
        self._tracer.note(f"changed: {name}", step="change", ok=True)


def _name(before: Agreed, after: Agreed, rekeyed: bool, was_held: bool, is_held: bool) -> str:
    """Return the name of a change by the other side, as for changes of ours."""
    if before.codec != after.codec:
        return ascii_lower(after.codec.name)
    if was_held != is_held:
        return "hold" if is_held else "resume"
    return "rekey" if rekeyed else "other media"
