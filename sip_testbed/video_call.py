"""The video of one call beside its speech: its section in the descriptions, its keys, pictures and results.

A telephone that is set to video offers it, and takes it up where it is offered under the message that keys the
speech; in every other case the section is refused with port 0, and the call goes on without pictures.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from sip_testbed.media_policy import Refusal, keys_of, protocols
from sip_testbed.result import Result
from sip_testbed.user_agent_config import TelephoneSetup
from voice_dpki.effects import Clock, Random
from voice_dpki.errors import LocalError
from voice_dpki.media.keypad import Keypad
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.shell.files import write_whole
from voice_dpki.shell.trace import Tracer
from voice_dpki.sip.keyed import keyed_with
from voice_dpki.sip.sdp import Direction, Media, SessionDescription
from voice_dpki.sip.video import PAYLOAD_TYPE, video_section, video_to_take, vp8_type
from voice_dpki.wire.media import MediaSession
from voice_dpki.wire.video import VideoSession

log = logging.getLogger(__name__)


class Video:
    """The video of one call; `open` it before the call, and `close` it in any case."""

    def __init__(self, setup: TelephoneSetup, session: VideoSession | None, media: MediaSession) -> None:
        self._setup = setup
        self._session = session
        self.media = media
        """The speech."""
        self._keyed = setup.credentials is not None
        self._at: int | None = None
        """Index of the section that is taken up."""
        self._goes_on = True
        """Whether the newest offer and its answer still have the video."""
        self._is_stale = False
        """Whether newer keys of the call do not cover the video, which then cannot go on under its old ones."""
        self._flow = Direction.SENDRECV
        """The direction in the other side's newest description of the video."""
        self._may_send = True
        self._type = PAYLOAD_TYPE
        """The payload type that we receive."""

    @classmethod
    async def open(cls, setup: TelephoneSetup, tracer: Tracer, clock: Clock, random: Random) -> "Video":
        """Bind the ports of the speech, and of the video if the telephone is set to it.

        Raises LocalError if there are none.
        """
        host = setup.listen.host
        media = await MediaSession.open(host, tracer=tracer, clock=clock, random=random)
        digits = setup.call.dtmf if setup.call else ""
        media.keypad = Keypad(offers=setup.telephone_events, digits=digits, pauses=setup.comfort_noise)
        if not setup.video:
            return cls(setup, None, media)
        try:
            session = await VideoSession.open(host, tracer=tracer, clock=clock, random=random)
        except LocalError:
            await media.close()
            raise
        return cls(setup, session, media)

    async def close(self) -> None:
        """Leave, and close the sockets of video and speech."""
        try:
            if self._session is not None:
                await self._session.close()
        finally:
            await self.media.close()

    @property
    def lines(self) -> int:
        """Number of m-lines in our offer of a call."""
        return 1 if self._session is None else 2

    def offered(self, speech: SessionDescription) -> SessionDescription:
        """Return our offer: the description of the speech, with our video behind it."""
        if self._session is None:
            return speech
        return replace(speech, media=(*speech.media, video_section(self._session.port, keyed=self._keyed)))

    def answered(self, answer: SessionDescription, keys: SrtpKeys | None) -> Sequence[str]:
        """Take the answer to our offer, with the keys of the whole agreement; raises Refusal or MalformedError.

        Returns a clause for the report if the answer leaves the video out, which no Identity covers.
        """
        if self._session is None:
            return ()
        if not answer.media[1].port:
            return ("the answer takes no video, which the callee's telephone or somebody on the path has refused",)
        self._check_fits(answer.media[1])
        self._start(answer, 1, keys.lines[1] if keys else None)
        return ()

    def accepted(self, offer: SessionDescription, audio: int, keys: SrtpKeys | None) -> None:
        """Take up the video of an offer, if it has any for us; raises MalformedError for an unusable address."""
        if self._session is None:
            return
        at = video_to_take(offer, audio, protocols(keyed=self._keyed), keyed=self._keyed)
        if at is None or (keys is not None and keyed_with(offer, at).index(at) >= len(keys.lines)):
            return
        self._type = vp8_type(offer.media[at]) or PAYLOAD_TYPE
        self._start(offer, at, keys_of(keys, offer, at) if keys else None)

    def sections(
        self, offer: SessionDescription, direction: Direction = Direction.SENDRECV, keys: SrtpKeys | None = None
    ) -> Mapping[int, Media]:
        """Return our answer to the video of an offer, by its index; empty if it has none, or none any more.

        `direction` is the widest that we want, and `keys` are new ones that the offer asked for, if any.
        """
        if self._session is None or self._at is None or not self._is_in(offer, keys):
            return {}
        offered = offer.media[self._at]
        agreed = offer.direction_of(offered).answered_by(direction)
        return {self._at: self._section(vp8_type(offered) or self._type, agreed)}

    def offered_again(self, direction: Direction = Direction.SENDRECV) -> Mapping[int, Media]:
        """Return our section for a further offer of ours, by its index; empty if the video is over."""
        if self._at is None or not self._goes_on:
            return {}
        return {self._at: self._section(self._type, direction)}

    def _section(self, payload_type: int, direction: Direction) -> Media:
        assert self._session is not None
        return video_section(self._session.port, keyed=self._keyed, payload_type=payload_type, direction=direction)

    @property
    def is_on(self) -> bool:
        """Whether both sides have taken up the video."""
        return self._at is not None

    def check(self, offer: SessionDescription, theirs: SessionDescription, keys: SrtpKeys | None) -> None:
        """Check that a changed call can have its video; `theirs` is the offer or its answer, `keys` are new ones.

        Raises Refusal, or MalformedError for an unusable address.
        """
        if self._session is None or self._at is None or not self._is_in(offer, keys):
            return
        section = theirs.media[self._at]
        if not section.port:
            return
        self._check_fits(section)
        self._session.check(theirs.address_of(section), theirs.control_address_of(section))
        if keys is not None:
            keys_of(keys, offer, self._at)

    def follow(self, offer: SessionDescription, theirs: SessionDescription, keys: SrtpKeys | None) -> None:
        """Apply what an offer and its answer say of the video, after `check`: its addresses, or its end."""
        if self._session is None or self._at is None:
            return
        section = theirs.media[self._at]
        if not section.port or not self._is_in(offer, keys):
            self._stop(rekeyed=keys is not None)
            return
        self._goes_on, self._is_stale = True, False
        self._type = vp8_type(offer.media[self._at]) or self._type
        self._session.change(
            payload_type=vp8_type(section) or PAYLOAD_TYPE,
            receive_type=self._type,
            remote=theirs.address_of(section),
            remote_control=theirs.control_address_of(section),
            keys=keys_of(keys, offer, self._at) if keys else None,
        )
        self._take_direction(theirs)

    def _stop(self, *, rekeyed: bool) -> None:
        assert self._session is not None
        if self._goes_on:
            self._session.stop()
        self._goes_on, self._is_stale = False, self._is_stale or rekeyed

    def _is_in(self, offer: SessionDescription, keys: SrtpKeys | None) -> bool:
        """Return whether an offer has our video, under new `keys`, or under those that it has already."""
        if self._at is None or self._at >= len(offer.media) or (self._is_stale and keys is None):
            return False
        return self._fits(offer.media[self._at])

    def _fits(self, section: Media) -> bool:
        return section.protocol in protocols(keyed=self._keyed) and vp8_type(section) is not None

    def _check_fits(self, section: Media) -> None:
        if not self._fits(section):
            raise Refusal("SDP video", "the answer takes up the video in another way than it was offered")

    def _take_direction(self, theirs: SessionDescription) -> None:
        assert self._at is not None
        self._flow = theirs.direction_of(theirs.media[self._at])
        self._direct()

    def allow_sending(self, allowed: bool, *, digits: bool) -> None:
        """Speak and send pictures, or neither, as on hold; no pictures where the other side wants none."""
        self.media.allow_sending(allowed, digits=digits)
        self._may_send = allowed
        self._direct()

    def _direct(self) -> None:
        if self._session is not None:
            self._session.allow_sending(self._may_send and self._flow.receives)
            self._session.expects_pictures = self._flow.sends

    def switch(self) -> None:
        """Send speech and pictures under the newest keys from now on."""
        self.media.switch()
        if self._session is not None and self.is_on:
            self._session.switch()

    def beside(self, making: Callable[[], Awaitable[None]], duration_s: float) -> Callable[[], Awaitable[None]]:
        """Return a function that runs `making` and, if both sides have video, sends pictures for `duration_s`."""
        session = self._session
        if session is None or not self.is_on:
            return making

        async def both() -> None:
            await asyncio.gather(making(), session.film(duration_s))

        return both

    async def finish(self, result: Result) -> None:
        """End the video, put its statistics into `result`, and write its recording."""
        if self._session is None or not self.is_on:
            return
        await self._session.finish()
        result.video = self._session.statistics()
        if self._setup.seen is not None:
            self._keep(self._session.recording())

    def _keep(self, recording: bytes) -> None:
        assert self._setup.seen is not None
        try:
            write_whole(self._setup.seen, recording)
        except LocalError as error:
            log.warning("recording not written", extra={"fields": {"reason": str(error)}})

    def _start(self, described: SessionDescription, at: int, keys: SrtpKeys | None) -> None:
        assert self._session is not None
        section = described.media[at]
        self._session.start(
            payload_type=vp8_type(section) or PAYLOAD_TYPE,
            receive_type=self._type,
            remote=described.address_of(section),
            remote_control=described.control_address_of(section),
            keys=keys,
            plays_at_s=self.media.plays_at_s,
        )
        self._at = at
        self._take_direction(described)
