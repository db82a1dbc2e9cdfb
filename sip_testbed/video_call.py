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
from voice_dpki.shell.files import write_file
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
        """Whether the newest offer still has it."""
        self._type = PAYLOAD_TYPE
        """The payload type that we receive."""

    @classmethod
    async def open(cls, setup: TelephoneSetup, tracer: Tracer, clock: Clock, random: Random) -> "Video":
        """Bind the ports of the speech, and of the video if the telephone is set to it.

        Raises LocalError if there are none.
        """
        host = setup.listen.host
        media = await MediaSession.open(host, tracer=tracer, clock=clock, random=random)
        media.keypad = Keypad(offers=setup.telephone_events, digits=setup.call.dtmf if setup.call else "")
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
        if self._session is not None:
            await self._session.close()
        await self.media.close()

    @property
    def lines(self) -> int:
        """How many m-lines our offer of a call has."""
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
        if answer.media[1].protocol not in protocols(keyed=self._keyed) or vp8_type(answer.media[1]) is None:
            raise Refusal("SDP video", "the answer takes up the video in another way than it was offered")
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

    def sections(self, offer: SessionDescription, direction: Direction = Direction.SENDRECV) -> Mapping[int, Media]:
        """Return our section for the video of an offer, by its index; nothing if it has none, or none any more."""
        if self._session is None or self._at is None or self._at >= len(offer.media):
            return {}
        if vp8_type(offer.media[self._at]) is None:
            return {}
        port, keyed = self._session.port, self._keyed
        return {self._at: video_section(port, keyed=keyed, payload_type=self._type, direction=direction)}

    @property
    def is_on(self) -> bool:
        """Whether both sides have taken up the video."""
        return self._at is not None

    def check_keyed(self, offer: SessionDescription, keys: SrtpKeys | None) -> None:
        """Check that new keys of a call, if there are any, are for its video, too; raises Refusal."""
        if keys is not None and self._at is not None and self._at in self.sections(offer):
            keys_of(keys, offer, self._at)

    def follow(self, offer: SessionDescription, keys: SrtpKeys | None) -> None:
        """Take the new keys of a changed call, if there are any, and whether there still is video."""
        if self._session is None or self._at is None:
            return
        self._goes_on = self._at in self.sections(offer)
        if keys is not None and self._goes_on:
            self._session.rekey(keys_of(keys, offer, self._at))

    def allow_sending(self, allowed: bool) -> None:
        """Speak and send pictures, or neither, as on hold; no pictures where the newest offer has no video."""
        self.media.allow_sending(allowed)
        if self._session is not None:
            self._session.allow_sending(allowed and self._goes_on)

    def switch(self) -> None:
        """Send speech and pictures under the newest keys from now on."""
        self.media.switch()
        if self._session is not None and self.is_on:
            self._session.switch()

    def beside(self, making: Callable[[], Awaitable[None]], duration_s: float) -> Callable[[], Awaitable[None]]:
        """Return what does `making`, and sends pictures for `duration_s` meanwhile, if both sides have video."""
        session = self._session
        if session is None or not self.is_on:
            return making

        async def both() -> None:
            await asyncio.gather(making(), session.film(duration_s))

        return both

    async def finish(self, result: Result) -> None:
        """Leave, and put statistics and recording where they belong."""
        if self._session is None or not self.is_on:
            return
        await self._session.finish()
        result.video = self._session.statistics()
        if self._setup.seen is not None:
            self._keep(self._session.recording())

    def _keep(self, recording: bytes) -> None:
        assert self._setup.seen is not None
        try:
            write_file(self._setup.seen, recording)
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
