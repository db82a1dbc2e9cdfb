"""A call's video: the sockets and the clock around its two streams of pictures.

It is opened before the call is offered, as the session of its speech is (`voice_dpki.wire.media`), and shows each
picture when the speech of the same moment is played: the peer's reports tell for both which moment that is, by its
NTP clock (RFC 3550 §6.4.1).
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from voice_dpki.effects import Clock, Random, SystemClock, SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.media.control import Control
from voice_dpki.media.pictures import CLOCK_RATE, PICTURE_S, webm
from voice_dpki.media.rtcp import is_rtcp
from voice_dpki.media.rtp import MAX_PACKET_BYTES
from voice_dpki.media.srtp import Clear, Protection, Srtp
from voice_dpki.media.stream import Dropped
from voice_dpki.media.streams import CNAME
from voice_dpki.media.video import Shown, VideoReceiver, VideoSender, VideoStatistics
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.sip.hosts import host_text
from voice_dpki.wire.early import EarlyPackets
from voice_dpki.wire.media import OLD_STREAMS_S
from voice_dpki.wire.media_peer import MediaPeer, check_address
from voice_dpki.wire.media_ports import RtpTracer, listen_pair

MAX_HELD: Final = 64
"""Most packets of one source that wait for the keys."""

MAX_HELD_SOURCES: Final = 8

REPORT_INTERVAL_S: Final = 1.0
"""Time between reports; RFC 3550 §6.2 lets a session of 360 kbit/s have one each second."""

SHOW_AFTER_S: Final = 0.06
"""How long after its arrival a picture is shown as long as no report has told what was said with it."""

MAX_WAIT_S: Final = 2.0
"""Longest that a picture waits for its speech, whatever the reports say."""

WHOLE_AGAIN_S: Final = 0.3
"""Least time between two requests for a whole picture, and between two that are sent on request."""

TICK_S: Final = 0.005

Synchroniser = Callable[[float], float | None]
"""When the speech of a time of the peer's NTP clock is played, by the loop's clock; None if that is not known."""


@dataclass(slots=True)
class _Streams:
    """The two streams of one agreement."""

    sending: VideoSender
    receiving: VideoReceiver
    control: Control
    profile: str | None

    @classmethod
    def begin(cls, types: tuple[int, int], keys: SrtpKeys | None, random: Random, shown: Shown) -> "_Streams":
        protection: Protection = Clear() if keys is None else Srtp(keys)
        ours = int.from_bytes(random.token(4), "big") if keys is None else keys.send.ssrc
        sending = VideoSender(types[0], ours, protection, random)
        theirs = None if keys is None else keys.receive.ssrc
        receiving = VideoReceiver(types[1], theirs, protection, shown)
        profile = None if keys is None else str(keys.profile)
        return cls(sending, receiving, Control(sending, receiving, protection, CNAME), profile)


class VideoSession:
    """One call's video at one pair of ports. Make it with `open`, and `close` it in any case."""

    def __init__(self, host: str, tracer: RtpTracer | None, clock: Clock, random: Random) -> None:
        self.host = host
        self.port = 0
        """Even port of RTP, for the SDP; RTCP has the next."""
        self._tracer = tracer
        self._clock = clock
        self._random = random
        self._transports: list[asyncio.DatagramTransport] = []
        self._held: EarlyPackets[tuple[bytes, bool]] = EarlyPackets(each=MAX_HELD, sources=MAX_HELD_SOURCES)
        self._now: _Streams | None = None
        """Those of the newest agreement."""
        self._sending: _Streams | None = None
        """Those that we send."""
        self._before: tuple[_Streams, float] | None = None
        """The streams of the agreement before, and when their packets are taken no more."""
        self._types = (0, 0)
        self._peer = MediaPeer(("", 0), ("", 0))
        self._plays_at_s: Synchroniser = lambda _: None
        self._began_s = 0.0
        self._shown = Shown()
        self._may_send = True
        self._filmed = self._sent = self._whole_sent = self._asked = 0
        self._whole_s = self._asked_s = float("-inf")
        self._compared = 0
        """How many pictures were shown whose speech was known."""
        self._apart_s = self._worst_s = 0.0
        """Sum, and the largest, of the times between them and their speech."""
        self._ticking: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        host: str,
        *,
        tracer: RtpTracer | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> "VideoSession":
        """Bind an even port of `host` for RTP and the next for RTCP; raises LocalError if there are none."""
        session = cls(host, tracer, clock or SystemClock(), random or SystemRandom())
        session.port, session._transports = await listen_pair(host, session.take)
        return session

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
        if self._now is not None:
            raise LocalError("the video has started already")
        remote_control = remote_control or (remote[0], remote[1] + 1)
        for address in (remote, remote_control):
            check_address(self.host, *address)
        self._peer.move(remote, remote_control)
        self._plays_at_s = plays_at_s
        loop = asyncio.get_running_loop()
        self._began_s = self._clock.now_s() - loop.time()
        self._types = payload_type, payload_type if receive_type is None else receive_type
        self._now = self._sending = _Streams.begin(self._types, keys, self._random, self._shown)
        for source, (data, is_control) in self._held.release():
            self.take(data, source, is_control)
        self._report(self._now)
        self._ticking = loop.create_task(self._tick())

    def rekey(self, keys: SrtpKeys) -> None:
        """Take packets under new keys beside those of before; once `switch` is called, send under them, too."""
        self._before = self._started(), float("inf")
        self._now = _Streams.begin(self._types, keys, self._random, self._shown)

    def switch(self) -> None:
        """Send under the newest keys from now on, and take packets under those of before for a while."""
        now, before = self._started(), self._sending
        if before is None or before is now:
            return
        self._report(before, goodbye=True)
        self._sending = now
        self._before = before, asyncio.get_running_loop().time() + OLD_STREAMS_S
        self._report(now)

    def allow_sending(self, allowed: bool) -> None:
        """Send pictures, or pass them over, as on hold; reports are sent all the same."""
        self._may_send = allowed

    async def film(self, duration_s: float) -> None:
        """Send numbered pictures in real time for so long."""
        loop = asyncio.get_running_loop()
        next_s = loop.time()
        for _ in range(round(duration_s / PICTURE_S)):
            await asyncio.sleep(next_s - loop.time())
            self._picture(loop.time())
            next_s += PICTURE_S
            control = self._sends().control
            control.next_frame_s = self._began_s + next_s
            if control.owes_sender_report:
                self._report(self._sends())

    def _picture(self, now_s: float) -> None:
        streams, number = self._sends(), self._filmed
        self._filmed += 1
        ticks = round(PICTURE_S * CLOCK_RATE)
        if not self._may_send or self._peer.is_on_hold:
            streams.sending.skip(ticks)
            return
        whole = streams.control.picture_lost and now_s - self._whole_s >= WHOLE_AGAIN_S
        if whole:
            self._whole_s, streams.control.picture_lost = now_s, False
            self._whole_sent += 1
        for packet in streams.sending.send(number, ticks, key=whole):
            self._send(packet, is_control=False)
        self._sent += 1

    async def finish(self) -> None:
        """Leave: send an RTCP BYE, and show what still waits."""
        self._started()
        if self._ticking is not None:
            self._ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticking
            self._ticking = None
            self._report(self._sends(), goodbye=True)
            self._show(float("inf"))

    async def close(self) -> None:
        """Finish, unless that was done, and close the sockets."""
        if self._now is not None:
            await self.finish()
        for transport in self._transports:
            transport.close()
        await asyncio.sleep(0)  # lets the loop close the sockets

    def recording(self) -> bytes:
        """Return the pictures that were shown as a WebM file, empty if there were none."""
        return webm(self._shown.encoded)

    def statistics(self) -> VideoStatistics:
        """Return what was counted so far; packets are those of the newest agreement."""
        streams, shown = self._started(), self._shown
        counted, dropped = streams.receiving.statistics(), streams.receiving.dropped
        expected = max(counted.expected, streams.control.peer_packets or 0)
        compared = self._compared
        return VideoStatistics(
            codec="VP8",
            srtp=streams.profile,
            sent=self._sent,
            whole_sent=self._whole_sent,
            received=counted.received,
            lost=max(0, expected - counted.received),
            unauthentic=dropped[Dropped.UNAUTHENTIC],
            malformed=dropped[Dropped.MALFORMED] + shown.undecodable,
            other=dropped[Dropped.OTHER] + dropped[Dropped.FOREIGN],
            shown=len(shown.numbers),
            missed=shown.missed,
            asked=self._asked,
            jitter_ms=round(1000 * counted.jitter / CLOCK_RATE, 3) if counted.received else None,
            sync_ms=round(1000 * self._apart_s / compared, 1) if compared else None,
            sync_worst_ms=round(1000 * self._worst_s, 1) if compared else None,
        )

    def take(self, data: bytes, source: tuple[str, int], is_control: bool) -> None:
        """Take a datagram from a socket; before `start`, up to MAX_HELD of each source wait."""
        if self._now is None:
            if len(data) <= MAX_PACKET_BYTES:
                self._held.hold(source, (data, is_control))
            return
        peer, now_s = self._peer, asyncio.get_running_loop().time()
        is_control = is_control or (peer.is_multiplexed and is_rtcp(data))
        streams = self._of(data, is_control, now_s)
        if streams.profile is None and peer.is_foreign(source, is_control):
            streams.receiving.dropped[Dropped.FOREIGN] += 1
        elif is_control:
            if streams.control.receive(data, self._began_s + now_s):
                peer.control_source = source
        elif streams.receiving.receive(data, now_s):
            peer.source = source

    def _of(self, data: bytes, is_control: bool, now_s: float) -> _Streams:
        """Return the streams whose SSRC a packet claims: those before only as long as they are taken."""
        now = self._started()
        if self._before is None or now_s > self._before[1]:
            self._before = None
            return now
        ssrc = int.from_bytes(data[4:8] if is_control else data[8:12], "big")
        return self._before[0] if ssrc == self._before[0].receiving.ssrc else now

    async def _tick(self) -> None:
        """Show what is due, ask for whole pictures, and report."""
        loop = asyncio.get_running_loop()
        report_s = loop.time() + REPORT_INTERVAL_S
        while True:
            now_s = loop.time()
            self._show(now_s)
            if self._started().receiving.needs_key and now_s - self._asked_s >= WHOLE_AGAIN_S:
                self._asked_s = now_s
                self._asked += 1
                self._report(self._started(), picture_lost=True)
            if now_s >= report_s:
                self._report(self._sends())
                report_s += REPORT_INTERVAL_S
            await asyncio.sleep(TICK_S)

    def _show(self, now_s: float) -> None:
        for streams in (*([self._before[0]] if self._before else []), self._started()):
            for timestamp, arrived_s in streams.receiving.waiting():
                speech_s = self._speech_s(streams, timestamp)
                due_s = arrived_s + SHOW_AFTER_S if speech_s is None else min(speech_s, arrived_s + MAX_WAIT_S)
                if due_s > now_s:
                    break
                streams.receiving.show(timestamp, min(now_s, asyncio.get_running_loop().time()))
                if speech_s is not None and now_s < float("inf"):
                    self._compared += 1
                    self._apart_s += abs(now_s - speech_s)
                    self._worst_s = max(self._worst_s, abs(now_s - speech_s))

    def _speech_s(self, streams: _Streams, timestamp: int) -> float | None:
        """Return when the speech of a picture's moment is played."""
        clock = streams.control.peer_clock
        return None if clock is None else self._plays_at_s(clock.time_s(timestamp))

    def _report(self, streams: _Streams, *, goodbye: bool = False, picture_lost: bool = False) -> None:
        now_s = self._began_s + asyncio.get_running_loop().time()
        report = streams.control.report(now_s, goodbye=goodbye, picture_lost=picture_lost)
        self._send(report, is_control=True)

    def _send(self, packet: tuple[bytes, bytes], *, is_control: bool) -> None:
        """Send a packet, given in clear and as on the wire, to the peer; nothing is sent to a peer on hold."""
        clear, wire = packet
        peer = self._peer
        host, port = peer.destination(is_control)
        own_port = is_control and not peer.is_multiplexed
        transport = self._transports[own_port]
        if transport.is_closing() or peer.is_on_hold:
            return
        transport.sendto(wire, (host, port))
        if self._tracer is not None:
            own, other = host_text(self.host), host_text(host)
            self._tracer.rtp(f"{own}:{self.port + own_port}", f"{other}:{port}", wire, clear)

    def _sends(self) -> _Streams:
        return self._sending or self._started()

    def _started(self) -> _Streams:
        if self._now is None:
            raise LocalError("the video has not started")
        return self._now
