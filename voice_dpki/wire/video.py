"""A call's video: the sockets and the clock around its two streams of pictures.

It is opened before the call is offered, as the session of its speech is (`voice_dpki.wire.media`), and shows each
picture when the speech of the same moment is played. The peer's reports relate both streams to its NTP clock
(RFC 3550 §6.4.1).
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Final

from voice_dpki.effects import Clock, Random
from voice_dpki.errors import LocalError
from voice_dpki.media.control import Control
from voice_dpki.media.pictures import CLOCK_RATE, PICTURE_S, webm
from voice_dpki.media.srtp import Clear, Protection, Srtp
from voice_dpki.media.stream import Dropped
from voice_dpki.media.streams import CNAME
from voice_dpki.media.video import VideoReceiver, VideoSender, VideoStatistics
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.wire.media_ports import RtpTracer
from voice_dpki.wire.rtp_session import RtpSession
from voice_dpki.wire.screen import Screen

REPORT_INTERVAL_S: Final = 1.0
"""Time between reports; RFC 3550 §6.2 lets a session of 360 kbit/s have one each second."""

SHOW_AFTER_S: Final = 0.06
"""Delay from a picture's arrival to its display while no report has related it to speech."""

MAX_WAIT_S: Final = 2.0
"""Longest time that a picture waits for its speech, whatever the reports say."""

WHOLE_AGAIN_S: Final = 0.3
"""Shortest time between two requests for a key frame, and between two key frames sent on request."""

TICK_S: Final = 0.005

Synchroniser = Callable[[float], float | None]
"""Maps a time of the peer's NTP clock to when its speech is played, by the loop's clock; None if unknown."""


@dataclass(slots=True)
class _Streams:
    """The two streams of one agreement."""

    keys: SrtpKeys | None
    sending: VideoSender
    receiving: VideoReceiver
    control: Control

    is_continued: ClassVar[bool] = False

    @classmethod
    def begin(cls, types: tuple[int, int], keys: SrtpKeys | None, random: Random) -> "_Streams":
        protection: Protection = Clear() if keys is None else Srtp(keys)
        ours = int.from_bytes(random.token(4), "big") if keys is None else keys.send.ssrc
        sending = VideoSender(types[0], ours, protection, random)
        theirs = None if keys is None else keys.receive.ssrc
        receiving = VideoReceiver(types[1], theirs, protection)
        return cls(keys, sending, receiving, Control(sending, receiving, protection, CNAME))

    @property
    def sent(self) -> int:
        return self.sending.packets

    def retype(self, types: tuple[int, int]) -> None:
        self.sending.payload_type, self.receiving.payload_type = types


class VideoSession(RtpSession[_Streams]):
    """One call's video at one pair of ports. Make it with `open`, and `close` it in any case."""

    def __init__(self, host: str, tracer: RtpTracer | None, clock: Clock, random: Random) -> None:
        super().__init__(host, tracer, clock, random)
        self.expects_pictures = True
        """Whether the peer is to send pictures; missing ones are then requested."""
        self._plays_at_s: Synchroniser = lambda _: None
        self._coders = ThreadPoolExecutor(2, "pictures")
        """Runs the encoder and the decoder, so that the speech's frames need not wait for them."""
        self._screen = Screen(self._coders)
        self._filmed = self._sent = self._whole_sent = self._asked = 0
        self._whole_s = self._asked_s = float("-inf")

    def start(
        self,
        *,
        payload_type: int,
        remote: tuple[str, int],
        receive_type: int | None = None,
        remote_control: tuple[str, int] | None = None,
        keys: SrtpKeys | None = None,
        plays_at_s: Synchroniser = lambda _: None,
    ) -> None:
        """Begin, as the session of the speech does (`MediaSession.start`); `plays_at_s` is that session's.

        Raises MalformedError for an address that nothing can be sent to.
        """
        if self._streams is not None:
            raise LocalError("the video has started already")
        self._move(remote, remote_control)
        self._plays_at_s = plays_at_s
        types = payload_type, payload_type if receive_type is None else receive_type
        streams = _Streams.begin(types, keys, self._random)
        self._begin(streams, self._tick())
        self._send_report(streams)

    def change(
        self,
        *,
        payload_type: int,
        remote: tuple[str, int],
        receive_type: int | None = None,
        remote_control: tuple[str, int] | None = None,
        keys: SrtpKeys | None = None,
    ) -> None:
        """Apply a new offer and its answer, as in `start`; a stopped stream resumes.

        Without new `keys`, the streams stay. New ones begin new streams, as those of the speech do
        (`MediaSession.change`).

        Raises MalformedError for an address that nothing can be sent to, and then changes nothing.
        """
        now = self._started()
        self._move(remote, remote_control)
        types = payload_type, payload_type if receive_type is None else receive_type
        if keys is None:
            now.retype(types)
        else:
            self._replace(_Streams.begin(types, keys, self._random))

    async def film(self, duration_s: float) -> None:
        """Send numbered pictures in real time for `duration_s` seconds."""
        loop = asyncio.get_running_loop()
        next_s = loop.time()
        for _ in range(round(duration_s / PICTURE_S)):
            await asyncio.sleep(next_s - loop.time())
            next_s += PICTURE_S
            await self._picture(next_s)

    async def _picture(self, next_s: float) -> None:
        """Send the next picture, or skip it; the one after it is due at `next_s`."""
        streams, payloads = await self._encoded(self._filmed)
        self._filmed += 1
        ticks = round(PICTURE_S * CLOCK_RATE)
        streams.control.next_frame_s = self._began_s + next_s
        if not (payloads and self._sends_media):
            streams.sending.skip(ticks)
            return
        for packet in streams.sending.pack(payloads, ticks):
            self._send(packet, is_control=False)
        self._sent += 1
        if streams.control.owes_sender_report:
            self._send_report(streams)

    async def _encoded(self, number: int) -> tuple[_Streams, list[bytes]]:
        """Encode a picture, again if the streams change meanwhile; the list is empty if none may be sent."""
        loop = asyncio.get_running_loop()
        while True:
            streams = self._sends()
            if not self._sends_media:
                return streams, []
            draw = partial(streams.sending.encode, number, key=self._must_be_whole(streams))
            payloads = await loop.run_in_executor(self._coders, draw)
            if streams is self._sends():
                return streams, payloads

    def _must_be_whole(self, streams: _Streams) -> bool:
        """Whether the peer has requested a key frame, and was sent none within WHOLE_AGAIN_S."""
        now_s = asyncio.get_running_loop().time()
        if not streams.control.picture_lost or now_s - self._whole_s < WHOLE_AGAIN_S:
            return False
        self._whole_s, streams.control.picture_lost = now_s, False
        self._whole_sent += 1
        return True

    async def finish(self) -> None:
        """Leave the session: send an RTCP BYE, and show the buffered pictures."""
        if await self._leave_call():
            for streams in self._agreements():
                for picture in streams.receiving.due(float("inf")):
                    await self._screen.emptied()
                    self._screen.put(streams.receiving, picture)
            await self._screen.emptied()

    async def close(self) -> None:
        """Finish, unless that was done, and close the sockets and the threads."""
        try:
            await super().close()
        finally:
            self._screen.close()
            self._coders.shutdown(cancel_futures=True)

    def _empty(self, streams: _Streams) -> None:
        """Show the buffered rest of ended streams."""
        for picture in streams.receiving.due(float("inf")):
            self._screen.put(streams.receiving, picture)

    def recording(self) -> bytes:
        """Return the pictures that were shown as a WebM file, empty if there were none."""
        return webm(self._screen.shown.encoded)

    def statistics(self) -> VideoStatistics:
        """Return what was counted so far, changes of the call included."""
        keys, screen, whole = self._started().keys, self._screen, self._counted()
        counted, dropped, shown = whole.playout, whole.dropped, screen.shown
        return VideoStatistics(
            codec="VP8",
            srtp=None if keys is None else str(keys.profile),
            sent=self._sent,
            whole_sent=self._whole_sent,
            received=counted.received,
            lost=max(0, whole.expected - counted.received),
            unauthentic=dropped[Dropped.UNAUTHENTIC],
            malformed=dropped[Dropped.MALFORMED] + shown.undecodable,
            other=dropped[Dropped.OTHER] + dropped[Dropped.FOREIGN],
            shown=len(shown.numbers),
            missed=shown.missed,
            dropped=dropped[Dropped.PICTURE],
            asked=self._asked,
            jitter_ms=round(1000 * counted.jitter / CLOCK_RATE, 3) if counted.received else None,
            sync_ms=screen.sync_ms,
            sync_worst_ms=screen.sync_worst_ms,
        )

    async def _tick(self) -> None:
        """Show due pictures, request key frames, and send reports."""
        loop = asyncio.get_running_loop()
        report_s = loop.time() + REPORT_INTERVAL_S
        while True:
            now_s = loop.time()
            self._show(now_s)
            if self._is_in_want and now_s - self._asked_s >= WHOLE_AGAIN_S:
                self._asked_s = now_s
                self._asked += 1
                self._send_report(self._started(), picture_lost=True)
            if now_s >= report_s:
                self._send_report(self._sends())
                report_s += REPORT_INTERVAL_S
            await asyncio.sleep(TICK_S)

    @property
    def _is_in_want(self) -> bool:
        """Whether nothing can be shown until a key frame comes, and the peer is to send pictures."""
        may_ask = self.expects_pictures and not self._peer.is_on_hold
        return may_ask and self._started().receiving.needs_key

    def _show(self, now_s: float) -> None:
        for streams in self._agreements():
            self._show_of(streams, now_s)

    def _show_of(self, streams: _Streams, now_s: float) -> None:
        for timestamp, arrived_s in streams.receiving.waiting():
            speech_s = self._speech_s(streams, timestamp)
            due_s = arrived_s + SHOW_AFTER_S if speech_s is None else min(speech_s, arrived_s + MAX_WAIT_S)
            if due_s > now_s:
                break
            for picture in streams.receiving.due(timestamp):
                self._screen.put(streams.receiving, picture, speech_s)

    def _speech_s(self, streams: _Streams, timestamp: int) -> float | None:
        """Return when the speech of a picture's moment is played."""
        clock = streams.control.peer_clock
        return None if clock is None else self._plays_at_s(clock.time_s(timestamp))
