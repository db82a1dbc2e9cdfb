"""The common base of a call's speech and video sessions: two sockets, the peer, and the streams of its agreements.

Each agreement on keys has streams of its own. They are received as soon as it is reached, beside those of the
previous agreement, and sent after `switch`, called when the other side has both keys and answer (RFC 4567 §4.1.2).
"""

import asyncio
import contextlib
from collections.abc import Coroutine
from functools import reduce
from typing import Any, Final, Generic, Protocol, Self, TypeVar

from voice_dpki.effects import Clock, Random, SystemClock, SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.media.figures import Counted, Counting, Dropping
from voice_dpki.media.rtcp import is_rtcp
from voice_dpki.media.rtp import MAX_PACKET_BYTES
from voice_dpki.media.stream import Dropped
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.sip.hosts import host_text
from voice_dpki.wire.early import EarlyPackets
from voice_dpki.wire.media_peer import MediaPeer, check_address
from voice_dpki.wire.media_ports import RtpTracer, listen_pair

MAX_HELD: Final = 100
"""Most packets of one source that wait for the keys: two seconds of speech."""

MAX_HELD_SOURCES: Final = 8
"""Most sources whose packets wait for the keys; see `EarlyPackets` for which."""

OLD_STREAMS_S = 2.0
"""How long packets of old streams are accepted after a change; then their keys are dropped."""


class Sent(Protocol):
    """A stream that we send."""

    ssrc: int


class Received(Dropping, Protocol):
    """A stream that the peer sends."""

    ssrc: int | None

    @property
    def highest_sequence(self) -> int | None:
        """Extended sequence number of the newest authentic packet; None before the first."""
        ...

    def receive(self, wire: bytes, now_s: float) -> bool:
        """Take a packet from the wire; returns whether it is an authentic one of this stream."""
        ...

    def is_for(self, wire: bytes) -> bool:
        """Return whether a packet, of which nothing is verified, has this stream's payload type and SSRC."""
        ...


class AgreedStreams(Counting, Protocol):
    """The two streams of one agreement, and their reports."""

    @property
    def keys(self) -> SrtpKeys | None:
        """The keys; None in clear."""
        ...

    @property
    def sending(self) -> Sent:
        """The stream that we send."""
        ...

    @property
    def receiving(self) -> Received:
        """The stream that the peer sends."""
        ...


S = TypeVar("S", bound=AgreedStreams)


class RtpSession(Generic[S]):
    """One medium of a call at one pair of ports. Make it with `open`, and `close` it in any case."""

    def __init__(self, host: str, tracer: RtpTracer | None, clock: Clock, random: Random) -> None:
        self.host = host
        self.port = 0
        """Even port of RTP, for the SDP; RTCP has the next."""
        self._tracer = tracer
        self._clock = clock
        self._random = random
        self._transports: list[asyncio.DatagramTransport] = []
        self._held: EarlyPackets[tuple[bytes, bool, float]] = EarlyPackets(each=MAX_HELD, sources=MAX_HELD_SOURCES)
        self._streams: S | None = None
        """Streams of the newest agreement."""
        self._before: S | None = None
        """Streams of the previous agreement, whose packets may still be on the way."""
        self._sending: S | None = None
        """The streams on which we send."""
        self._peer = MediaPeer(("", 0), ("", 0))
        self._past = Counted()
        self._forgetting: asyncio.TimerHandle | None = None
        self._may_send = True
        self._has_collided = False
        self._ticking: asyncio.Task[None] | None = None
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
    ) -> Self:
        """Bind an even port of `host` for RTP and the next for RTCP; raises LocalError if there are none."""
        session = cls(host, tracer, clock or SystemClock(), random or SystemRandom())
        session.port, session._transports = await listen_pair(host, session.take)
        return session

    def _begin(self, streams: S, ticking: Coroutine[Any, Any, None]) -> None:
        """Begin with the first agreement's streams, and take the packets held for them."""
        loop = asyncio.get_running_loop()
        self._streams = self._sending = streams
        self._began_s = self._clock.now_s() - loop.time()
        for source, (data, is_control, at_s) in self._held.release():
            self._take(streams, data, source, is_control, at_s)
        self._ticking = loop.create_task(ticking)

    def _replace(self, streams: S) -> None:
        """Receive the streams of a new agreement beside those of the present one, and no older ones."""
        self._retire()
        self._before, self._streams = self._started(), streams

    def leave(self) -> None:
        """Leave the previous telephone, after `change` by the answer of another one of a forked call.

        Its packets then count as a stranger's, and it is sent no more.
        """
        self._sending = self._streams
        self._retire()

    def switch(self) -> None:
        """Send the streams of the newest agreement from now on; end the previous ones by BYE (RFC 3550 §6.6)."""
        before, now = self._sending, self._started()
        if before is not None and before.sending.ssrc != now.sending.ssrc:
            self._say_goodbye(before)
        self._sending = now
        self._stop_forgetting()
        self._forgetting = asyncio.get_running_loop().call_later(OLD_STREAMS_S, self._retire)

    def _stop_forgetting(self) -> None:
        if self._forgetting is not None:
            self._forgetting.cancel()

    def _retire(self) -> None:
        """Forget the streams of the agreement before the last, and keep their counts."""
        self._stop_forgetting()
        before, self._before = self._before, None
        if before is not None:
            self._empty(before)
            self._past = self._past.plus(Counted.of(before))

    def _empty(self, streams: S) -> None:
        """Play or show the buffered rest of ended streams."""

    def allow_sending(self, allowed: bool) -> None:
        """Send, or skip packets while their time passes, as on hold; reports are always sent (RFC 3264 §5.1)."""
        self._may_send = allowed

    @property
    def _sends_media(self) -> bool:
        return self._may_send and not self._peer.is_on_hold

    def check(self, remote: tuple[str, int], remote_control: tuple[str, int]) -> None:
        """Raise MalformedError for addresses to which nothing can be sent."""
        for address in (remote, remote_control):
            check_address(self.host, *address)

    def _move(self, remote: tuple[str, int], remote_control: tuple[str, int] | None) -> None:
        """Send to other addresses, RTCP by default one port above; raises MalformedError, which changes nothing."""
        remote_control = remote_control or (remote[0], remote[1] + 1)
        self.check(remote, remote_control)
        self._peer.move(remote, remote_control)

    def stop(self) -> None:
        """Send BYE, and neither send nor accept packets until `change`, as port 0 demands (RFC 3264 §8.2)."""
        self._say_goodbye(self._sends())
        self._peer.stop()

    async def _leave_call(self) -> bool:
        """Stop the clock, and send an RTCP BYE; return False if that was done before."""
        self._started()
        ticking, self._ticking = self._ticking, None
        if ticking is None:
            return False
        ticking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ticking
        self._say_goodbye(self._sends())
        return True

    async def finish(self) -> None:
        """Leave the session: send an RTCP BYE, and play or show what still waits."""
        raise NotImplementedError

    async def close(self) -> None:
        """Finish, unless that was done, and close the sockets, also when cancelled."""
        try:
            if self._streams is not None:
                await self.finish()
        finally:
            self._stop_forgetting()
            for transport in self._transports:
                transport.close()
        await asyncio.sleep(0)  # lets the loop close the sockets

    def _counted(self) -> Counted:
        """Return what the streams of all agreements have counted so far."""
        return reduce(Counted.plus, map(Counted.of, self._agreements()), self._past)

    def _agreements(self) -> list[S]:
        """Return the streams of the live agreements, the older first."""
        return [streams for streams in (self._before, self._started()) if streams is not None]

    def take(self, data: bytes, source: tuple[str, int], is_control: bool) -> None:
        """Take a datagram from a socket; before `start`, up to MAX_HELD of each source wait."""
        now_s = asyncio.get_running_loop().time()
        if self._streams is not None:
            self._take(self._streams, data, source, is_control, now_s)
        elif len(data) <= MAX_PACKET_BYTES:
            self._held.hold(source, (data, is_control, now_s))

    def _take(self, streams: S, data: bytes, source: tuple[str, int], is_control: bool, now_s: float) -> None:
        """Take a packet, and follow its source if it is the peer's newest (RFC 7362 §4)."""
        peer = self._peer
        if peer.is_stopped:
            return
        is_control = is_control or (peer.is_multiplexed and is_rtcp(data))
        if streams.keys is None and peer.is_foreign(source, is_control):
            streams.receiving.dropped[Dropped.FOREIGN] += 1
            peer.foreign_source = peer.foreign_source or source
        elif is_control:
            if self._of(streams, data, is_control).control.receive(data, self._began_s + now_s):
                peer.control_source = source
                self._heard_of(None)
        else:
            receiving = self._of(streams, data, is_control).receiving
            before = receiving.highest_sequence
            if receiving.receive(data, now_s):
                if receiving.highest_sequence != before and (streams.keys or not peer.has_left(source)):
                    peer.source = source
                self._heard_of(now_s)
                self._avoid_collision(streams)

    def _heard_of(self, spoken_s: float | None) -> None:
        """Note that authentic RTCP of the peer has come, or RTP at `spoken_s`."""

    def _avoid_collision(self, streams: S) -> None:
        """Change our SSRC if the peer uses it, once: in a loop the new one would come back too (RFC 3550 §8.2).

        With keys there is no collision: MIKEY agrees on different SSRCs.
        """
        sending = streams.sending
        if streams.keys is None and streams.receiving.ssrc == sending.ssrc and not self._has_collided:
            self._has_collided = True
            self._say_goodbye(streams)
            sending.ssrc = int.from_bytes(self._random.token(4), "big")

    def _of(self, streams: S, data: bytes, is_control: bool) -> S:
        """Return the streams that a packet claims to belong to: the previous ones only on a clear match."""
        before = self._before
        if before is None:
            return streams
        if is_control:
            return before if before.control.is_for(data) and not streams.control.is_for(data) else streams
        return before if before.receiving.is_for(data) and not streams.receiving.is_for(data) else streams

    def _send_report(self, streams: S, *, goodbye: bool = False, picture_lost: bool = False) -> None:
        now_s = self._began_s + asyncio.get_running_loop().time()
        report = streams.control.report(now_s, goodbye=goodbye, picture_lost=picture_lost)
        self._send(report, is_control=True)

    def _say_goodbye(self, streams: S) -> None:
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

    def _started(self) -> S:
        if self._streams is None:
            raise LocalError("the media session has not started")
        return self._streams

    def _sends(self) -> S:
        """Return the streams that we send."""
        return self._sending or self._started()
