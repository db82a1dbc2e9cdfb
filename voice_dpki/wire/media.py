"""A media session: the sockets and the clock around one call's streams.

The session is opened before the call is offered, because SDP must name its port; packets that arrive before the
keys are agreed wait for them. After `start`, `say` sends speech in real time, and the peer's speech is played into
a recording.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from functools import reduce

from voice_dpki.effects import Clock, Random, SystemClock, SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.media.codecs import FRAME_S, Codec
from voice_dpki.media.figures import Counted, MediaStatistics, figures
from voice_dpki.media.keypad import Keypad
from voice_dpki.media.pcm import SAMPLE_BYTES, Pcm
from voice_dpki.media.rtcp import is_rtcp
from voice_dpki.media.rtp import MAX_PACKET_BYTES
from voice_dpki.media.stream import Dropped
from voice_dpki.media.streams import Streams
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.sip.hosts import host_text
from voice_dpki.wire.early import EarlyPackets
from voice_dpki.wire.media_peer import MediaPeer, check_address
from voice_dpki.wire.media_ports import RtpTracer, listen_pair

log = logging.getLogger(__name__)

MAX_HELD = 100
"""Most packets of one source that wait for the keys: two seconds of speech."""

MAX_HELD_SOURCES = 8
"""Most sources whose packets wait for the keys; see `EarlyPackets` for which."""

REPORT_INTERVAL_S = 5.0
"""Time between RTCP reports (RFC 3550 §6.2); the first comes after half of it (§6.3.1)."""

OLD_STREAMS_S = 2.0
"""How long packets of old streams are taken after a change; their keys are good for nothing after that."""

QUIET_S = 0.3
"""Time without RTP after which a peer that has spoken counts as silent."""

MAX_RECORDED_S = 120.0
"""How much of the streams that changes of the call have ended is kept of what was said and heard."""


class MediaSession:
    """One call's media at one pair of ports. Make it with `open`, and `close` it in any case."""

    def __init__(self, host: str, tracer: RtpTracer | None, clock: Clock, random: Random) -> None:
        self.host = host
        self.port = 0
        """Even port of RTP, for the SDP; RTCP has the next."""
        self.keypad = Keypad()
        """Set another one before the call is described."""
        self._tracer = tracer
        self._clock = clock
        self._random = random
        self._transports: list[asyncio.DatagramTransport] = []
        self._held: EarlyPackets[tuple[bytes, bool, float]] = EarlyPackets(each=MAX_HELD, sources=MAX_HELD_SOURCES)
        self._streams: Streams | None = None
        """Those of the newest agreement."""
        self._before: Streams | None = None
        """Those of the agreement before, whose packets may still be on the way."""
        self._sending: Streams | None = None
        """Those that we send."""
        self._peer = MediaPeer(("", 0), ("", 0))
        self._past = Counted()
        self._past_said: list[Pcm] = []
        self._past_heard: list[Pcm] = []
        self._forgetting: asyncio.TimerHandle | None = None
        self._may_send = True
        self._has_collided = False
        self._ticking: asyncio.Task[None] | None = None
        self._last_received_s: float | None = None
        self._heard = asyncio.Event()
        self._began_s = 0.0
        """Unix time at the zero of the loop's clock; RTCP's times are counted from it, so that a step of the wall
        clock during a call changes no interval."""

    @classmethod
    async def open(
        cls,
        host: str,
        *,
        tracer: RtpTracer | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> "MediaSession":
        """Bind an even port of `host` for RTP and the next for RTCP; raises LocalError if there are none."""
        session = cls(host, tracer, clock or SystemClock(), random or SystemRandom())
        session.port, session._transports = await listen_pair(host, session.take)
        return session

    def start(
        self,
        codec: Codec,
        *,
        payload_type: int,
        remote: tuple[str, int],
        receive_type: int | None = None,
        remote_control: tuple[str, int] | None = None,
        keys: SrtpKeys | None = None,
    ) -> None:
        """Begin; `keys` come from MIKEY, and None means RTP in clear.

        `remote` and `remote_control` are where the peer's SDP wants RTP and RTCP, by default one port above. If
        they are the same, both share a port at each side (RFC 5761). `payload_type` is the one that we send, and
        `receive_type` that which the peer sends, by default the same.

        Raises MalformedError for an address that nothing can be sent to.
        """
        if self._streams is not None:
            raise LocalError("the media session has started already")
        self._move(remote, remote_control)
        receive_type = payload_type if receive_type is None else receive_type
        self._streams = Streams.begin(codec, payload_type, receive_type, keys, self._random, self.keypad.agreed)
        self._sending = self._streams
        self._began_s = self._clock.now_s() - asyncio.get_running_loop().time()
        for source, (data, is_control, at_s) in self._held.release():
            self._take(self._streams, data, source, is_control, at_s)
        self._ticking = asyncio.get_running_loop().create_task(self._tick())

    def change(
        self,
        codec: Codec,
        *,
        payload_type: int,
        remote: tuple[str, int],
        receive_type: int | None = None,
        remote_control: tuple[str, int] | None = None,
        keys: SrtpKeys | None = None,
    ) -> None:
        """Take what a new offer and its answer say, as in `start`.

        Without new `keys` and with the same codec, the streams go on: SSRC, sequence numbers and roll-over counter
        stay, which SRTP needs. New keys begin new streams with SSRCs of their own, and so does another codec in
        clear. Those are received from now on, beside those of before; we send them once `switch` is called, which
        is when the other side has both keys and answer (RFC 4567 §4.1.2).

        Raises MalformedError for an address that nothing can be sent to, and then changes nothing.
        """
        now = self._started()
        self._move(remote, remote_control)
        receive_type = payload_type if receive_type is None else receive_type
        if keys is None and codec == now.codec:
            now.retype(payload_type, receive_type, self.keypad.agreed)
            return
        self._retire()
        if keys is None and now.keys is not None:
            self._streams = now.continued(codec, payload_type, receive_type, self._random, self.keypad.agreed)
        else:
            self._streams = Streams.begin(codec, payload_type, receive_type, keys, self._random, self.keypad.agreed)
        self._before = now

    def leave(self) -> None:
        """Leave the telephone of before, after `change` by the answer of another one of a forked call.

        Its packets are a stranger's from now on, and it gets no more.
        """
        self._sending = self._streams
        self._retire()

    def switch(self) -> None:
        """Send the streams of the newest agreement from now on; say goodbye to those of before (RFC 3550 §6.6)."""
        before, now = self._sending, self._started()
        if before is not None and before.sending.ssrc != now.sending.ssrc:
            self._say_goodbye(before)
        self._sending = now
        self._stop_forgetting()
        self._forgetting = asyncio.get_running_loop().call_later(OLD_STREAMS_S, self._retire)

    def _stop_forgetting(self) -> None:
        if self._forgetting is not None:
            self._forgetting.cancel()

    def allow_sending(self, allowed: bool) -> None:
        """Send speech, or pass it over in silence, as on hold; reports are sent all the same (RFC 3264 §5.1)."""
        self._may_send = allowed

    def _move(self, remote: tuple[str, int], remote_control: tuple[str, int] | None) -> None:
        remote_control = remote_control or (remote[0], remote[1] + 1)
        for address in (remote, remote_control):
            check_address(self.host, *address)
        self._peer.move(remote, remote_control)

    def _retire(self) -> None:
        """Play what is left of the agreement before the last, and keep its counts and its recordings."""
        self._stop_forgetting()
        before, self._before = self._before, None
        if before is None:
            return
        before.receiving.play(float("inf"))
        self._past = self._past.plus(Counted.of(before))
        if sum(pcm.duration_s for pcm in self._past_said) < MAX_RECORDED_S:
            self._past_said.append(before.said)
            self._past_heard.append(before.receiving.heard())

    async def say(self, speech: Pcm) -> None:
        """Send `speech` in real time, one packet every 20 ms, and silence after it while digits are dialled."""
        loop = asyncio.get_running_loop()
        next_s, done = loop.time(), 0
        codec: Codec | None = None
        frames: list[bytes] = []
        while True:
            await asyncio.sleep(next_s - loop.time())
            streams = self._sends()
            if streams.codec is not codec:  # a change may bring another in the middle of the speech
                codec = streams.codec
                frames = list(speech.resampled(codec.clock_rate).frames(codec.frame_samples))
            if done >= len(frames) and not (self._speaks and self.keypad.is_dialling(streams)):
                return
            self._say(streams, frames[done] if done < len(frames) else bytes(codec.frame_samples * SAMPLE_BYTES))
            next_s, done = next_s + FRAME_S, done + 1
            streams.control.next_frame_s = self._began_s + next_s
            if streams.control.owes_sender_report:
                self._send_report(streams)

    def _say(self, streams: Streams, frame: bytes) -> None:
        for packet in self.keypad.say(streams, frame, may_send=self._speaks):
            self._send(packet, is_control=False)

    @property
    def _speaks(self) -> bool:
        return self._may_send and not self._peer.is_on_hold

    @property
    def began_s(self) -> float:
        """Unix time at the zero of the loop's clock, by which all streams of the call tell theirs."""
        return self._began_s

    def plays_at_s(self, sampled_s: float) -> float | None:
        """Return when what the peer said at a time of its NTP clock is played, by the loop's clock.

        Returns None until its speech and a report on it have come.
        """
        for streams in reversed(self._agreements() if self._streams is not None else []):
            clock = streams.control.peer_clock
            due_s = streams.receiving.due_s(clock.timestamp_at(sampled_s)) if clock else None
            if due_s is not None:
                return due_s
        return None

    async def wait_until_quiet(self, timeout_s: float) -> None:
        """Wait until the peer has spoken and fallen silent, or has left; at most `timeout_s`."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + timeout_s
        while loop.time() < end_s and not self._started().control.goodbye:
            last_s = self._last_received_s
            if last_s is not None and loop.time() - last_s > QUIET_S:
                return
            await asyncio.sleep(FRAME_S)

    async def heard_within(self, limit_s: float) -> bool:
        """Tell whether authentic RTP or RTCP of the peer has arrived; wait at most `limit_s` for the first packet.

        Sends a report at once, so that a peer that waits in the same way hears from us even if we say nothing. The
        first report of a unicast session may go without delay (RFC 3550 §6.2).
        """
        self._send_report(self._sends())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._heard.wait(), limit_s)
        return self.heard_peer

    @property
    def heard_peer(self) -> bool:
        """Whether any authentic RTP or RTCP of the peer has arrived."""
        return self._heard.is_set()

    async def finish(self) -> None:
        """Leave the session: send an RTCP BYE, and play what is still buffered."""
        self._started()
        if self._ticking is not None:
            self._ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticking
            self._ticking = None
            self._say_goodbye(self._sends())
            self._play(float("inf"))

    async def close(self) -> None:
        """Finish, unless that was done, and close the sockets."""
        if self._streams is not None:
            await self.finish()
        self._stop_forgetting()
        for transport in self._transports:
            transport.close()
        await asyncio.sleep(0)  # lets the loop close the sockets

    @property
    def said(self) -> Pcm:
        """What was said, at the last codec's rate."""
        return self._joined([*self._past_said, *(streams.said for streams in self._agreements())])

    @property
    def heard(self) -> Pcm:
        """What was heard, at the last codec's rate; lost packets leave their time filled or silent."""
        return self._joined([*self._past_heard, *(streams.receiving.heard() for streams in self._agreements())])

    def _joined(self, pieces: Iterable[Pcm]) -> Pcm:
        rate = self._started().codec.clock_rate
        return Pcm(rate, b"".join(piece.resampled(rate).data for piece in pieces))

    def statistics(self) -> MediaStatistics:
        """Return what was counted so far, changes of the call included."""
        counted = reduce(Counted.plus, map(Counted.of, self._agreements()), self._past)
        return figures(self._started(), counted, self._peer.foreign_from)

    def _agreements(self) -> list[Streams]:
        """Return the streams of the agreements that are not over, the older first."""
        return [streams for streams in (self._before, self._started()) if streams is not None]

    def take(self, data: bytes, source: tuple[str, int], is_control: bool) -> None:
        """Take a datagram from a socket; before `start`, up to MAX_HELD of each source wait."""
        now_s = asyncio.get_running_loop().time()
        if self._streams is not None:
            self._take(self._streams, data, source, is_control, now_s)
        elif len(data) <= MAX_PACKET_BYTES:
            self._held.hold(source, (data, is_control, now_s))

    def _take(self, streams: Streams, data: bytes, source: tuple[str, int], is_control: bool, now_s: float) -> None:
        """Take a packet, and follow its source if it is the peer's newest (RFC 7362 §4)."""
        peer = self._peer
        is_control = is_control or (peer.is_multiplexed and is_rtcp(data))
        if streams.keys is None and peer.is_foreign(source, is_control):
            streams.receiving.dropped[Dropped.FOREIGN] += 1
            peer.foreign_source = peer.foreign_source or source
        elif is_control:
            if self._of(streams, data, is_control).control.receive(data, self._began_s + now_s):
                peer.control_source = source
                self._heard.set()
        else:
            receiving = self._of(streams, data, is_control).receiving
            before = receiving.highest_sequence
            if receiving.receive(data, now_s):
                if receiving.highest_sequence != before:
                    peer.source = source
                self._last_received_s = now_s
                self._heard.set()
                self._avoid_collision(streams)

    def _avoid_collision(self, streams: Streams) -> None:
        """Take another SSRC if the peer has ours, once: a loop would bring the next one, too (RFC 3550 §8.2).

        With keys, MIKEY has told both SSRCs apart.
        """
        sending = streams.sending
        if streams.keys is None and streams.receiving.ssrc == sending.ssrc and not self._has_collided:
            self._has_collided = True
            self._say_goodbye(streams)
            sending.ssrc = int.from_bytes(self._random.token(4), "big")

    def _of(self, streams: Streams, data: bytes, is_control: bool) -> Streams:
        """Return the streams that a packet claims to belong to: those of before only if it claims so clearly."""
        before = self._before
        if before is None:
            return streams
        if is_control:
            return before if before.control.is_for(data) and not streams.control.is_for(data) else streams
        return before if before.receiving.is_for(data) and not streams.receiving.is_for(data) else streams

    async def _tick(self) -> None:
        """Every 20 ms, play what is due; every REPORT_INTERVAL_S, send a report."""
        loop = asyncio.get_running_loop()
        next_s = loop.time()
        report_s = next_s + REPORT_INTERVAL_S / 2
        while True:
            self._play(loop.time())
            if loop.time() >= report_s:
                self._send_report(self._sends())
                report_s += REPORT_INTERVAL_S
            next_s += FRAME_S
            await asyncio.sleep(max(0.0, next_s - loop.time()))

    def _play(self, now_s: float) -> None:
        for streams in self._agreements():
            streams.receiving.play(now_s)

    def _send_report(self, streams: Streams, *, goodbye: bool = False) -> None:
        now_s = self._began_s + asyncio.get_running_loop().time()
        self._send(streams.control.report(now_s, goodbye=goodbye), is_control=True)

    def _say_goodbye(self, streams: Streams) -> None:
        if streams.control.is_known:
            self._send_report(streams, goodbye=True)

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

    def _started(self) -> Streams:
        if self._streams is None:
            raise LocalError("the media session has not started")
        return self._streams

    def _sends(self) -> Streams:
        """Return the streams that we send."""
        return self._sending or self._started()
