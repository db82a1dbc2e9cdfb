"""A media session: the sockets and the clock around one call's streams.

The session is opened before the call is offered, because SDP must name its port; packets that arrive before the
keys are agreed wait for them. After `start`, `say` sends speech in real time, and the peer's speech is played into
a recording.
"""

import asyncio
import contextlib
import logging
import socket
from collections import Counter
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Protocol

from voice_dpki.effects import Clock, Random, SystemClock, SystemRandom
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.media.codecs import FRAME_S, Codec
from voice_dpki.media.control import Control
from voice_dpki.media.mos import MIN_PACKETS, mos, r_factor
from voice_dpki.media.pcm import Pcm
from voice_dpki.media.rtcp import is_rtcp
from voice_dpki.media.rtp import MAX_PACKET_BYTES
from voice_dpki.media.srtp import Clear, Protection, Srtp
from voice_dpki.media.stream import Dropped, ReceiveStream, SendStream
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.sip.hosts import host_text

log = logging.getLogger(__name__)

MAX_HELD = 100
"""Most packets of one source that wait for the keys: two seconds of speech."""

MAX_HELD_SOURCES = 8
"""Most sources whose packets wait for the keys, so that what a stranger sends takes no place of the peer's."""

MAX_PORT_TRIES = 50

REPORT_INTERVAL_S = 5.0
"""Time between RTCP reports (RFC 3550 §6.2); the first comes after half of it (§6.3.1)."""

QUIET_S = 0.3
"""Time without RTP after which a peer that has spoken counts as silent."""

HOLD_ADDRESSES = frozenset({"0.0.0.0", "::"})  # noqa: S104 - addresses in SDP, not to listen at
"""Addresses in the SDP of a peer on hold, to which neither RTP nor RTCP may be sent (RFC 3264 §8.4)."""

CNAME = "voice"
"""The same for everybody: a personal name would identify the caller to anyone who sees RTCP in clear (RFC 7022)."""


class RtpTracer(Protocol):
    """Observer of every packet that is sent; `voice_dpki.shell.trace.Tracer` is one."""

    def rtp(self, src: str, dst: str, wire: bytes, clear: bytes) -> None:
        """Take a packet as sent, and as it was before encryption; the addresses are "host:port"."""
        ...


@dataclass(frozen=True, slots=True)
class MediaStatistics:
    """What one side of a call counted: `sent` is its own stream, everything else the peer's.

    A figure that could not be measured is None: without packets there is no loss, no jitter and no MOS.
    """

    codec: str
    srtp: str | None
    sent: int
    received: int
    lost: int
    late: int
    duplicate: int
    concealed: int
    unauthentic: int
    foreign: int
    foreign_from: str | None
    """Source of the first foreign packet, as "host:port"."""
    other: int
    """Packets of another payload type or SSRC than was agreed, as comfort noise and telephone events are."""
    malformed: int
    loss: float | None
    """Fraction of the peer's packets that could not be played: lost or late."""
    jitter_ms: float | None
    playout_delay_ms: float | None
    """Mean time from a packet's arrival until it was played."""
    paused_ms: float | None
    """Time in which there was nothing to play, after the peer had begun to speak."""
    round_trip_ms: float | None
    mos: float | None
    """Estimate from 1 to 4.5, to which frames lost and frames of pause count alike; None if fewer than MIN_PACKETS
    were received."""


@dataclass(slots=True)
class _Streams:
    """State that exists once the call is agreed."""

    codec: Codec
    keys: SrtpKeys | None
    remote: tuple[str, int]
    """The RTP address in the peer's SDP. Without keys, only packets from its host are accepted, and RTP only from
    the port of the first."""
    remote_control: tuple[str, int]
    """The RTCP address in the peer's SDP."""
    sending: SendStream
    receiving: ReceiveStream
    control: Control
    foreign_source: tuple[str, int] | None = None
    """Source of the first packet that is not the peer's."""
    source: tuple[str, int] | None = None
    """Where the peer's RTP comes from, and ours goes to: the source of its newest authentic packet."""
    control_source: tuple[str, int] | None = None
    """The same for RTCP."""

    def is_foreign(self, source: tuple[str, int], is_control: bool) -> bool:
        """Return whether a packet from `source` is not the peer's, for all that can be told without keys.

        With keys, packets prove themselves. Their source may be a NAT's that no SDP knows, and may change.
        """
        if self.keys is not None:
            return False
        return source[0] != self.remote[0] or (not is_control and self.source not in (None, source))

    def destination(self, is_control: bool) -> tuple[str, int]:
        """Return where our packets go."""
        return (self.control_source or self.remote_control) if is_control else self.source or self.remote

    @property
    def is_multiplexed(self) -> bool:
        """Whether RTCP shares the port of RTP."""
        return self.remote == self.remote_control

    def drop_foreign(self, source: tuple[str, int]) -> None:
        """Count a packet that is not the peer's."""
        self.receiving.dropped[Dropped.FOREIGN] += 1
        self.foreign_source = self.foreign_source or source


class _Datagrams(asyncio.DatagramProtocol):
    """Protocol that passes one socket's datagrams to the session."""

    def __init__(self, session: "MediaSession", is_control: bool) -> None:
        self._session = session
        self._is_control = is_control

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Take a datagram."""
        self._session.take(data, addr[:2], self._is_control)  # an IPv6 address has four parts

    def error_received(self, exc: Exception) -> None:
        """Note that the peer's port is closed, as it is after a call."""
        log.debug("media socket", extra={"fields": {"error": str(exc)}})


class MediaSession:
    """One call's media at one pair of ports. Make it with `open`, and `close` it in any case."""

    def __init__(self, host: str, tracer: RtpTracer | None, clock: Clock, random: Random) -> None:
        self.host = host
        self.port = 0
        """Even port of RTP, for the SDP; RTCP has the next."""
        self._tracer = tracer
        self._clock = clock
        self._random = random
        self._transports: list[asyncio.DatagramTransport] = []
        self._held: list[tuple[bytes, tuple[str, int], bool, float]] = []
        self._held_by: Counter[tuple[str, int]] = Counter()
        self._streams: _Streams | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._said = b""
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
        for is_control, bound in enumerate(_bind_pair(host)):
            session.port = session.port or bound.getsockname()[1]
            await session._listen(bound, bool(is_control))
        return session

    async def _listen(self, bound: socket.socket, is_control: bool) -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self, is_control), sock=bound)
        self._transports.append(transport)

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
        remote_control = remote_control or (remote[0], remote[1] + 1)
        for address in (remote, remote_control):
            _check_address(self.host, *address)
        protection: Protection = Clear() if keys is None else Srtp(keys)
        ours = int.from_bytes(self._random.token(4), "big") if keys is None else keys.send.ssrc
        theirs = None if keys is None else keys.receive.ssrc
        sending = SendStream(codec, payload_type, ours, protection, self._random)
        receiving = ReceiveStream(codec, payload_type if receive_type is None else receive_type, theirs, protection)
        control = Control(sending, receiving, protection, CNAME)
        self._streams = _Streams(codec, keys, remote, remote_control, sending, receiving, control)
        self._began_s = self._clock.now_s() - asyncio.get_running_loop().time()
        held, self._held = self._held, []
        for data, source, is_control, at_s in held:
            self._take(self._streams, data, source, is_control, at_s)
        self._ticking = asyncio.get_running_loop().create_task(self._tick(self._streams))

    async def say(self, speech: Pcm) -> None:
        """Send `speech` in real time, one packet every 20 ms; returns after the last."""
        streams = self._started()
        pcm = speech.resampled(streams.codec.clock_rate)
        self._said += pcm.data
        loop = asyncio.get_running_loop()
        next_s = loop.time()
        for frame in pcm.frames(streams.codec.frame_samples):
            await asyncio.sleep(next_s - loop.time())
            self._send(streams.sending.send(frame), is_control=False)
            next_s += FRAME_S

    async def wait_until_quiet(self, timeout_s: float) -> None:
        """Wait until the peer has spoken and fallen silent, or has left; at most `timeout_s`."""
        loop, control = asyncio.get_running_loop(), self._started().control
        end_s = loop.time() + timeout_s
        while loop.time() < end_s and not control.goodbye:
            last_s = self._last_received_s
            if last_s is not None and loop.time() - last_s > QUIET_S:
                return
            await asyncio.sleep(FRAME_S)

    async def heard_within(self, limit_s: float) -> bool:
        """Tell whether authentic RTP or RTCP of the peer has arrived; wait at most `limit_s` for the first packet.

        Sends a report at once, so that a peer that waits in the same way hears from us even if we say nothing. The
        first report of a unicast session may go without delay (RFC 3550 §6.2).
        """
        self._send_report(self._started())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._heard.wait(), limit_s)
        return self.heard_peer

    @property
    def heard_peer(self) -> bool:
        """Whether any authentic RTP or RTCP of the peer has arrived."""
        return self._heard.is_set()

    async def finish(self) -> None:
        """Leave the session: send an RTCP BYE, and play what is still buffered."""
        streams = self._started()
        if self._ticking is not None:
            self._ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticking
            self._ticking = None
            self._send_report(streams, goodbye=True)
            streams.receiving.play(float("inf"))

    async def close(self) -> None:
        """Finish, unless that was done, and close the sockets."""
        if self._streams is not None:
            await self.finish()
        for transport in self._transports:
            transport.close()
        await asyncio.sleep(0)  # lets the loop close the sockets

    @property
    def said(self) -> Pcm:
        """What was said, at the codec's rate."""
        return Pcm(self._started().codec.clock_rate, self._said)

    @property
    def heard(self) -> Pcm:
        """What was heard, at the codec's rate; lost packets leave their time filled or silent."""
        return self._started().receiving.heard()

    def statistics(self) -> MediaStatistics:
        """Return what was counted so far."""
        streams = self._started()
        counted, dropped = streams.receiving.statistics(), streams.receiving.dropped
        expected = max(counted.expected, streams.control.peer_packets or 0)
        lost = max(0, expected - counted.received)
        round_trip_s = streams.control.round_trip_s
        delay_s = counted.delay_s + FRAME_S + (round_trip_s or 0.0) / 2
        unplayed = lost + counted.late + counted.overflow
        loss = min(1.0, unplayed / expected) if expected else 0.0
        pauses = counted.paused_s / FRAME_S
        missed = min(1.0, (unplayed + pauses) / (expected + pauses)) if expected else 0.0
        enough = counted.received >= MIN_PACKETS
        return MediaStatistics(
            codec=streams.codec.name,
            srtp=None if streams.keys is None else str(streams.keys.profile),
            sent=streams.sending.packets,
            received=counted.received,
            lost=lost,
            late=counted.late,
            duplicate=counted.duplicate + dropped[Dropped.REPLAYED],
            concealed=counted.concealed,
            unauthentic=dropped[Dropped.UNAUTHENTIC],
            foreign=dropped[Dropped.FOREIGN],
            foreign_from=_written(streams.foreign_source) if streams.foreign_source else None,
            other=dropped[Dropped.OTHER],
            malformed=dropped[Dropped.MALFORMED],
            loss=round(loss, 4) if expected else None,
            jitter_ms=round(1000 * counted.jitter / streams.codec.clock_rate, 3) if counted.received else None,
            playout_delay_ms=round(1000 * counted.delay_s, 3) if counted.received else None,
            paused_ms=round(1000 * counted.paused_s, 3) if counted.received else None,
            round_trip_ms=None if round_trip_s is None else round(1000 * round_trip_s, 3),
            mos=round(mos(r_factor(streams.codec, missed, 1000 * delay_s)), 2) if enough else None,
        )

    def take(self, data: bytes, source: tuple[str, int], is_control: bool) -> None:
        """Take a datagram from a socket; before `start`, up to MAX_HELD of each source wait."""
        now_s = asyncio.get_running_loop().time()
        if self._streams is not None:
            self._take(self._streams, data, source, is_control, now_s)
        elif len(data) <= MAX_PACKET_BYTES and self._may_hold(source):
            self._held_by[source] += 1
            self._held.append((data, source, is_control, now_s))

    def _may_hold(self, source: tuple[str, int]) -> bool:
        """Return whether one more packet of `source` may wait for the keys."""
        known = source in self._held_by
        return self._held_by[source] < MAX_HELD if known else len(self._held_by) < MAX_HELD_SOURCES

    def _take(
        self, streams: _Streams, data: bytes, source: tuple[str, int], is_control: bool, now_s: float
    ) -> None:
        """Take a packet, and follow its source if it is the peer's newest (RFC 7362 §4)."""
        is_control = is_control or (streams.is_multiplexed and is_rtcp(data))
        if streams.is_foreign(source, is_control):
            streams.drop_foreign(source)
        elif is_control:
            if streams.control.receive(data, self._began_s + now_s):
                streams.control_source = source
                self._heard.set()
        else:
            before = streams.receiving.highest_sequence
            if streams.receiving.receive(data, now_s):
                if streams.receiving.highest_sequence != before:
                    streams.source = source
                self._last_received_s = now_s
                self._heard.set()

    async def _tick(self, streams: _Streams) -> None:
        """Every 20 ms, play what is due; every REPORT_INTERVAL_S, send a report."""
        loop = asyncio.get_running_loop()
        next_s = loop.time()
        report_s = next_s + REPORT_INTERVAL_S / 2
        while True:
            streams.receiving.play(loop.time())
            if loop.time() >= report_s:
                self._send_report(streams)
                report_s += REPORT_INTERVAL_S
            next_s += FRAME_S
            await asyncio.sleep(max(0.0, next_s - loop.time()))

    def _send_report(self, streams: _Streams, *, goodbye: bool = False) -> None:
        now_s = self._began_s + asyncio.get_running_loop().time()
        self._send(streams.control.report(now_s, goodbye=goodbye), is_control=True)

    def _send(self, packet: tuple[bytes, bytes], *, is_control: bool) -> None:
        """Send a packet, given in clear and as on the wire, to the peer; nothing is sent to a peer on hold."""
        clear, wire = packet
        streams = self._started()
        host, port = streams.destination(is_control)
        own_port = is_control and not streams.is_multiplexed
        transport = self._transports[own_port]
        if transport.is_closing() or streams.remote[0] in HOLD_ADDRESSES:
            return
        transport.sendto(wire, (host, port))
        if self._tracer is not None:
            own, other = host_text(self.host), host_text(host)
            self._tracer.rtp(f"{own}:{self.port + own_port}", f"{other}:{port}", wire, clear)

    def _started(self) -> _Streams:
        if self._streams is None:
            raise LocalError("the media session has not started")
        return self._streams


def _written(address: tuple[str, int]) -> str:
    return f"{host_text(address[0])}:{address[1]}"


def _check_address(own: str, host: str, port: int) -> None:
    """Raise MalformedError for an address in the peer's SDP that our socket cannot send to.

    That is a host name, an address of the other family or of many hosts, or a port that does not exist.
    """
    try:
        address = ip_address(host)
    except ValueError:
        raise MalformedError("the peer's media address is no numeric address") from None
    if (":" in own) != (":" in host):
        raise MalformedError("the peer's media address is not of the family that ours is of, IPv4 or IPv6")
    if address.is_multicast or host == "255.255.255.255":
        raise MalformedError("the peer's media address is not that of one host")
    if not 0 < port < 65_536:
        raise MalformedError("the peer's media port leaves none above it for RTCP, or there is no such port")


def _bind_pair(host: str) -> tuple[socket.socket, socket.socket]:
    """Bind two UDP sockets to an even port and the one above it (RFC 3550 §11)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(MAX_PORT_TRIES):
        first, second = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
        try:
            first.bind((host, 0))
            port = first.getsockname()[1]
            if port % 2 == 0:
                second.bind((host, port + 1))
                return first, second
        except OSError as error:
            log.debug("no pair of ports here", extra={"fields": {"error": str(error)}})
        first.close()
        second.close()
    raise LocalError(f"no two free UDP ports at {host}")
