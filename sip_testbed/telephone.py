"""A telephone: it places or answers calls, keys them, speaks and listens, and reports how they went."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sip_testbed import remarks
from sip_testbed.answers import UNANSWERED, Answers, Taken, agree, final_answer, why
from sip_testbed.call_report import CallReport
from sip_testbed.conversation import HELD, SILENCE_REASON, Flow, converse
from sip_testbed.digits import take_answered, take_offered
from sip_testbed.early_media import early_media
from sip_testbed.key_errors import refusal_body, told_error
from sip_testbed.keying import AnyOffer, KeyAgreement, offer_to
from sip_testbed.making_changes import make_changes
from sip_testbed.media_policy import (
    FAILED,
    check_protected,
    keys_of,
    payload_type_of,
    protocols,
    reasons_for,
    status_of,
)
from sip_testbed.parties import caller_uri, host_of
from sip_testbed.result import Purpose, Result
from sip_testbed.rivals import Party
from sip_testbed.session import Agreed, Session
from sip_testbed.transfer import OnUp, Transfers, setup_for
from sip_testbed.user_agent_config import TelephoneSetup
from sip_testbed.video_call import Video
from voice_dpki.effects import Clock, Random
from voice_dpki.errors import LocalError, VoiceDpkiError
from voice_dpki.mikey.failures import MikeyError
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.sdp import key_mgmt_value
from voice_dpki.shell.current import work_on
from voice_dpki.shell.trace import Tracer
from voice_dpki.sip.keyed import keyed_with
from voice_dpki.sip.offer_answer import answer_to, audio_to_take
from voice_dpki.sip.sdp import SessionDescription
from voice_dpki.wire.media import MediaSession
from voice_dpki.wire.sip.provisional import UnacknowledgedError
from voice_dpki.wire.sip.user_agent import Call, IncomingCall, UserAgent
from voice_dpki.wire.tasks import first_of

BUSY = 486


class Telephone:
    """A user agent with media: it places calls, or answers incoming ones, one at a time."""

    def __init__(
        self,
        setup: TelephoneSetup,
        agent: UserAgent,
        keying: KeyAgreement[Any] | None,
        tracer: Tracer,
        clock: Clock,
        random: Random,
        on_up: OnUp | None = None,
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        """`on_up` is called for each call that is up; `headers` are added to the INVITEs of those that we place."""
        self._setup = setup
        self._agent = agent
        self._keying = self._keyings = keying
        """The keying of the current call, so that late events of an ended call do not affect the next one."""
        self._tracer = tracer
        self._clock = clock
        self._random = random
        self._busy = False
        self._on_up = on_up
        self._headers = headers
        self._report = CallReport(setup, tracer)
        self._transfers = Transfers(setup, tracer, self._line_beside)
        self._video: Video
        """The video of the current call."""

    async def call(self, target: str) -> Result:
        """Place a call, speak, and hang up once the other side has spoken, too.

        Raises LocalError if it cannot be placed because of a failure of our own, and if its result was not kept.
        """
        result = Result("caller", self._setup.purpose)
        self._take_keying("callee")
        media = await self._open_media()
        try:
            await self._place(target, media, result)
        finally:
            await self._video.close()
            self._report.write(result)
        await self._transfers.finished()
        self._report.check_kept()
        return result

    async def answer(self, call: IncomingCall) -> None:
        """Answer a call, speak, and wait until the caller hangs up."""
        if self._busy:
            await call.reject(BUSY)
            return
        self._busy = True
        self._take_keying("caller")
        try:
            await self._answer(call)
        finally:
            self._busy = False

    def _take_keying(self, party: Party) -> None:
        self._keying = self._keyings.of_call(party) if self._keyings else None

    # The caller.

    async def _place(self, target: str, media: MediaSession, result: Result) -> None:
        offer: AnyOffer | None = None
        try:
            if self._keying:
                self._keying.begin_call("callee")  # before the offer, which may depend on the key of the call
            offer = await offer_to(self._keying, target, self._video.lines)
            await self._dial(target, offer, media, result)
        except MikeyError as error:
            self._report.refused(result, error)
        except LocalError as error:
            self._report.refused(result, error)
            raise
        finally:
            if self._keying and offer:
                self._keying.end(offer)

    async def _dial(self, target: str, offer: AnyOffer | None, media: MediaSession, result: Result) -> None:
        codec, session = self._setup.codec, self._session(media, target, "callee")
        own_keys = (key_mgmt_value(offer.message),) if offer else ()
        sdp = self._video.offered(session.describe(codec, codec.payload_type, own_keys))
        answers = self._answers(sdp, offer, media, result)
        call = await self._agent.invite(target, sdp.serialize(), self._headers)
        try:
            await self._dialled(call, answers, offer, result, session)
        except BaseException:
            call.give_up()  # the other side is not to wait for us
            raise

    async def _dialled(
        self, call: Call, answers: Answers, offer: AnyOffer | None, result: Result, session: Session
    ) -> None:
        """Wait for the answer to a call of ours, take it, and converse."""
        media = self._video.media
        call.on_early(answers.early)
        work_on(call.call_id)
        session.await_changes(call)
        try:
            answer = await final_answer(call)
        finally:
            await answers.close()
        result.early_s = round(media.heard.duration_s, 2) if answers.is_heard else 0.0
        result.status, result.setup_ms = answer.status, answer.setup_ms
        result.verstat, result.early_verstat = answer.verstat, call.connected
        if not 200 <= answer.status < 300 or call.is_cancelled:
            told = told_error(answer.sdp, offer.message if offer else None)
            result.reason = UNANSWERED if call.is_cancelled else f"{why(answer)}{told}"
            if answers.is_heard:
                await media.finish()
                self._report.keep(media, result)
            return
        try:
            taken = await answers.final(answer.tag, host_of(call), answer.sdp)
            result.remarks += self._video.answered(taken.answered, taken.keys)
        except FAILED as error:
            self._report.refused(result, error)
            await call.bye(reasons_for(error))
        else:
            flow = Flow.agreed(taken.described)
            session.begin(taken.agreed)
            await self._pin(result)
            changes = self._setup.call.changes if self._setup.call else ()
            await self._converse(call, media, flow, result, session, changes)
            if flow.is_held:  # the offer asked for both ways, and anybody on the path can change the answer
                result.established, result.reason = False, HELD

    def _answers(
        self, sdp: SessionDescription, offer: AnyOffer | None, media: MediaSession, result: Result
    ) -> Answers:
        async def verify(host: str, body: bytes) -> Taken:
            if self._keying:
                self._keying.begin_call("callee")  # each telephone of a forked call has a key of its own
            return await agree(self._keying, self._setup.codec, (host, body), (sdp, offer), "callee")

        def replace(taken: Taken) -> None:
            result.remarks.clear()  # they are about a telephone that has not answered
            self._begin(media.change, taken, result)
            media.leave()

        return Answers(verify, partial(self._begin, media.start, result=result), replace, self._tracer)

    # The callee.

    async def _answer(self, call: IncomingCall) -> None:
        work_on(call.call_id)
        result = Result("callee", self._setup.purpose, verstat=call.verstat)
        try:
            media = await self._open_media()
        except LocalError as error:
            await self._refuse(call, result, error)
            self._report.write(result)
            return
        try:
            await (self._take if call.sdp else self._take_late)(call, media, result)
        finally:
            await self._video.close()
            self._report.write(result)

    async def _refuse(self, call: IncomingCall, result: Result, error: VoiceDpkiError) -> None:
        """Refuse a call because of an error, which is one of FAILED; the body has MIKEY's error message, if any."""
        self._report.refused(result, error)
        result.status = status_of(error)
        body = refusal_body(call.sdp, error, self._keying, self._setup, self._random)
        await call.reject(result.status, None, reasons_for(error), body)

    async def _take_late(self, call: IncomingCall, media: MediaSession, result: Result) -> None:
        """Take a call whose INVITE has no offer: the 200 has ours, and the ACK its answer (RFC 3261 §13.3.1.4).

        Keys are offered to the caller whose number was verified; the answer must come from its holder.
        """
        try:
            session = self._session(media, caller_uri(call), "caller")
            offer = await offer_to(self._keying, session.peer_uri)
        except FAILED as error:
            await self._refuse(call, result, error)
            return
        session.await_changes(call)
        try:
            await call.ring()
            own_keys = (key_mgmt_value(offer.message),) if offer else ()
            sdp = session.describe(self._setup.codec, self._setup.codec.payload_type, own_keys)
            await call.answer(sdp.serialize())
            await first_of(call.established.wait(), call.ended.wait())
            result.status = call.status
            if call.established.is_set():
                await self._answered_late(call, session, sdp, offer, media, result)
            else:
                self._report.given_up(result, call)
        finally:
            if self._keying and offer:
                self._keying.end(offer)

    async def _answered_late(
        self,
        call: IncomingCall,
        session: Session,
        sdp: SessionDescription,
        offer: AnyOffer | None,
        media: MediaSession,
        result: Result,
    ) -> None:
        """Start the media by the answer in the ACK, or refuse it, which ends the call."""
        try:
            answer = host_of(call), call.ack_sdp
            taken = await agree(self._keying, self._setup.codec, answer, (sdp, offer), "caller")
            self._begin(media.start, taken, result)
        except FAILED as error:
            self._report.refused(result, error)
            await call.bye(reasons_for(error))
            return
        session.begin(taken.agreed)
        await self._pin(result)
        await self._converse(call, media, Flow.agreed(taken.described), result, session)

    async def _take(self, call: IncomingCall, media: MediaSession, result: Result) -> None:
        codec = self._setup.codec
        try:
            session = self._session(media, caller_uri(call), "caller")
            session.await_changes(call)
            offer = SessionDescription.parse(call.sdp)
            taken = audio_to_take(offer, protocols(keyed=self._keying is not None), codec.rtpmap)
            described = offer.narrowed(taken)
            check_protected(described, keyed=self._keying is not None)
            payload_type = payload_type_of(described, codec)
            result.remarks += remarks.media_elsewhere("caller", described.audio_address, host_of(call))
            values = described.audio_key_mgmt
            lines = len(keyed_with(offer, taken))
            answer = await self._keying.accept(values, session.peer_uri, lines) if self._keying else None
            keys = keys_of(answer.keys, offer, taken) if answer else None
            take_offered(media.keypad, described, codec)
            self._start(media.start, described, keys, result, receives=payload_type)
            self._video.accepted(offer, taken, answer.keys if answer else None)
        except FAILED as error:
            await self._refuse(call, result, error)
            return
        own_keys = (key_mgmt_value(answer.message),) if answer else ()
        if self._keying and answer:
            self._keying.updating.answered(answer.bundle)
        own = session.describe(codec, payload_type, own_keys, described.audio_direction.answered)
        session.begin(Agreed(offer, taken, codec, own_keys, values))
        try:
            sdp = answer_to(offer, taken, own, self._video.sections(offer, described.audio_direction.answered))
            await self._pick_up(call, media, sdp.serialize(), result)
        except UnacknowledgedError as error:
            result.status, result.reason = call.status, str(error)
            return
        result.status = call.status
        if not call.established.is_set():
            self._report.given_up(result, call)
            await media.finish()
            self._report.keep(media, result)
            return
        await self._pin(result)
        await self._converse(call, media, Flow.agreed(described), result, session)

    async def _pick_up(self, call: IncomingCall, media: MediaSession, body: bytes, result: Result) -> None:
        """Ring, play early media, answer, and wait for the ACK; raises UnacknowledgedError."""
        await call.ring()
        async with early_media(call, media, self._setup.speech, self._setup.early_s, body) as early_s:
            result.early_s = round(early_s, 2)
            await call.answer(body)
            await first_of(call.established.wait(), call.ended.wait())

    # Both sides.

    async def _pin(self, result: Result) -> None:
        """Pin the other side's key, if that is due, now that the call is answered."""
        result.remarks += await self._keying.keep_key() if self._keying else ()

    async def _converse(
        self,
        call: Call | IncomingCall,
        media: MediaSession,
        flow: Flow,
        result: Result,
        session: Session,
        changes: Sequence[str] = (),
    ) -> None:
        """Converse (see `converse`) and make `changes` meanwhile, end the call, and record how it went."""
        speech = self._setup.speech
        making = partial(make_changes, session, changes, speech.duration_s, self._transfers.acts(call, session))
        meanwhile = self._video.beside(making, speech.duration_s if flow.sends else 0.0)
        self._transfers.attend(call, session)
        if self._on_up is not None and call.is_up:
            self._on_up(call, session)
        ending = await converse(call, media, speech, flow, self._setup.silence_s, meanwhile)
        session.end()
        result.established, result.changes = ending.good or session.transferred, session.done
        await media.finish()
        await self._video.finish(result)
        if ending.silence is not None:
            self._report.silent(result, ending.silence)
            await call.bye([SILENCE_REASON])
        else:
            await call.bye()
        self._report.keep(media, result)
        if not result.established and ending.silence is None:
            who = "the other side" if call.ended_by_peer else "this telephone"
            result.reason = f"{who} hung up{ending.early}{remarks.reasons_of(call.end_headers)}"
        result.remarks += await self._keying.rivals() if self._keying else ()

    def _line_beside(self, purpose: Purpose, on_up: OnUp, headers: Sequence[tuple[str, str]]) -> "Telephone":
        """Return a telephone of the same user for a concurrent call, with keys of its own."""
        keying = self._keyings.of_call("callee") if self._keyings else None  # each call says with whom it begins
        setup = setup_for(self._setup, purpose)
        return Telephone(setup, self._agent, keying, self._tracer, self._clock, self._random, on_up, headers)

    async def _open_media(self) -> MediaSession:
        self._video = await Video.open(self._setup, self._tracer, self._clock, self._random)
        return self._video.media

    def _session(self, media: MediaSession, peer_uri: str, party: Party) -> Session:
        if self._keying:
            self._keying.begin_call(party)
        session = Session(self._setup, media, self._keying, self._tracer, self._random, peer_uri)
        session.video = self._video
        return session

    def _begin(self, start: Callable[..., None], taken: Taken, result: Result) -> None:
        take_answered(self._video.media.keypad, taken.described, self._setup.codec)
        self._start(start, taken.described, taken.keys, result, receives=self._setup.codec.payload_type)
        result.remarks += taken.remarks

    def _start(
        self,
        start: Callable[..., None],
        described: SessionDescription,
        keys: SrtpKeys | None,
        result: Result,
        *,
        receives: int,
    ) -> None:
        """Start the media by `start`; `receives` is the payload type that our own description asks for."""
        start(
            self._setup.codec,
            payload_type=payload_type_of(described, self._setup.codec),
            receive_type=receives,
            remote=described.audio_address,
            remote_control=described.audio_control_address,
            keys=keys,
        )
        self._report.agreed(result, self._keying, keys)
