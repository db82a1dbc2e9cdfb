"""Where a session's media come from and go to: NATs that change ports, strangers, packets before the keys."""

import asyncio
import socket
from functools import partial
from typing import Any

from tests.wire.test_media import Trace, pair, talk, until
from voice_dpki.effects import SystemRandom
from voice_dpki.media.codecs import CODECS
from voice_dpki.media.correlate import correlate
from voice_dpki.media.pcm import Pcm
from voice_dpki.media.rtp import RtpPacket
from voice_dpki.media.srtp import Srtp
from voice_dpki.media.stream import SendStream
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.wire.media import MediaSession
from voice_dpki.wire.rtp_session import MAX_HELD, MAX_HELD_SOURCES

OUTSIDE = "127.0.0.3"
"""Where the NAT's ports are."""


class Port(asyncio.DatagramProtocol):
    """One side of the NAT: hands on what comes to it."""

    def __init__(self, nat: "Nat", *, inside: bool) -> None:
        self._nat = nat
        self._inside = inside

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._inside:
            self._nat.go_out(data, addr)
        else:
            self._nat.come_in(data)


class Nat:
    """A NAT before a telephone: `address` is its inner side, and `rebind` gives it another port outside."""

    def __init__(self, peer: tuple[str, int]) -> None:
        self._peer = peer
        self._telephone: tuple[str, int] | None = None
        self._inner: asyncio.DatagramTransport | None = None
        self._outer: asyncio.DatagramTransport | None = None
        self.came_in = 0

    async def open(self) -> None:
        self._inner = await self._port("127.0.0.1", inside=True)
        await self.rebind()

    async def rebind(self) -> None:
        old, self._outer = self._outer, await self._port(OUTSIDE, inside=False)
        if old is not None:
            old.close()

    @property
    def address(self) -> tuple[str, int]:
        assert self._inner is not None
        host, port = self._inner.get_extra_info("sockname")
        return host, port

    async def _port(self, host: str, *, inside: bool) -> asyncio.DatagramTransport:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: Port(self, inside=inside), local_addr=(host, 0))
        return transport

    def go_out(self, data: bytes, telephone: tuple[str, int]) -> None:
        self._telephone = telephone
        assert self._outer is not None
        self._outer.sendto(data, self._peer)

    def come_in(self, data: bytes) -> None:
        self.came_in += 1
        if self._inner is not None and self._telephone is not None:
            self._inner.sendto(data, self._telephone)

    def close(self) -> None:
        for transport in filter(None, (self._inner, self._outer)):
            transport.close()


def has_received(session: MediaSession, packets: int) -> bool:
    return session.statistics().received >= packets


def has_heard(session: MediaSession, duration_s: float) -> bool:
    return session.heard.duration_s >= duration_s


async def test_media_follow_a_nat_and_its_new_port(new_keys: Any, speech: Any) -> None:
    """The SDP names an address behind a NAT, where nothing can be sent to, and the NAT changes its port twice."""
    codec, (ours, theirs) = CODECS["PCMU"], new_keys(SrtpProfile.AES_CM_128_HMAC_SHA1_80)
    one, other = await MediaSession.open("127.0.0.1"), await MediaSession.open("127.0.0.2")
    nat = Nat((other.host, other.port))
    await nat.open()
    try:
        one.start(codec, payload_type=0, remote=nat.address, keys=ours)
        other.start(codec, payload_type=0, remote=("127.0.0.77", 4000), keys=theirs)
        for _ in range(3):
            before, came_in = one.statistics().received, nat.came_in
            said_s, heard_s = other.said.duration_s, one.heard.duration_s
            await asyncio.gather(one.say(speech("caller", 0.3)), other.say(speech("callee", 0.3)))
            await until(partial(has_received, one, before + 5))
            assert nat.came_in > came_in
            await until(partial(has_heard, one, heard_s + 0.2))
            # The first packets went to the port before, until one of ours had come from the new one.
            spoken, heard = other.said.part(said_s + 0.1, said_s + 0.2), one.heard.part(heard_s, 60)
            assert correlate(spoken, heard).coefficient >= 0.99
            await nat.rebind()
        await asyncio.gather(one.finish(), other.finish())
        assert other.statistics().received == one.statistics().sent
        assert correlate(one.said, other.heard).coefficient >= 0.99
        assert other.statistics().foreign == 0
    finally:
        nat.close()
        await one.close()
        await other.close()


async def test_a_first_packet_of_a_stranger_takes_no_media_away(new_keys: Any, speech: Any) -> None:
    async with pair(CODECS["PCMU"], new_keys(SrtpProfile.AES_CM_128_HMAC_SHA1_80)) as (one, other, trace):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind(("127.0.0.9", 0))
            stranger.sendto(RtpPacket(0, 1, 1, 99, bytes(170)).serialize(), (one.host, one.port))
            await until(lambda: one.statistics().unauthentic == 1)
            await talk(one, other, speech, 0.3)
        assert {dst for _, dst, *_ in trace.packets} == {
            f"{other.host}:{other.port}",
            f"{other.host}:{other.port + 1}",
        }
        assert correlate(other.said, one.heard).coefficient >= 0.99


async def test_what_is_on_its_way_from_the_old_port_does_not_move_media_back() -> None:
    """In clear, after the peer has moved to another port of its host; speech from both ports is heard."""
    trace = Trace()
    one = await MediaSession.open("127.0.0.1", tracer=trace)
    ports = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    with ports[0] as old, ports[1] as new:
        for port in ports:
            port.bind(("127.0.0.2", 0))

        async def hear(port: socket.socket, number: int) -> None:
            packet = RtpPacket(0, number, 160 * number, 99, bytes(160)).serialize()
            port.sendto(packet, (one.host, one.port))
            await until(lambda: one.statistics().received == number)

        one.start(CODECS["PCMU"], payload_type=0, remote=old.getsockname())
        await hear(old, 1)
        one.change(CODECS["PCMU"], payload_type=0, remote=new.getsockname())
        await hear(old, 2)
        before = len(trace.packets)
        await one.say(Pcm(8000, bytes(320)))
        assert trace.packets[before][1] == "{}:{}".format(*new.getsockname())
        await hear(new, 3)
        await hear(old, 4)
        assert one.statistics().foreign == 0
    await one.close()


async def test_an_old_packet_from_elsewhere_moves_no_media(new_keys: Any, speech: Any) -> None:
    """Somebody on the way holds a packet back and sends it later from where he is."""
    codec, (ours, theirs) = CODECS["PCMU"], new_keys(SrtpProfile.AES_CM_128_HMAC_SHA1_80)
    trace = Trace()
    one, other = await MediaSession.open("127.0.0.1", tracer=trace), await MediaSession.open("127.0.0.2")
    sending = SendStream(codec, 0, theirs.send.ssrc, Srtp(theirs), SystemRandom())
    first, second = sending.send(bytes(320))[1], sending.send(bytes(320))[1]
    try:
        one.start(codec, payload_type=0, remote=(other.host, other.port), keys=ours)
        for wire, host in ((second, "127.0.0.2"), (first, "127.0.0.9")):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
                peer.bind((host, 0))
                peer.sendto(wire, (one.host, one.port))
                expected = one.statistics().received + 1
                await until(partial(has_received, one, expected))
        await one.say(speech("caller", 0.04))
        rtp = {dst.split(":")[0] for src, dst, *_ in trace.packets if src == f"{one.host}:{one.port}"}
        assert rtp == {"127.0.0.2"}
    finally:
        await one.close()
        await other.close()


async def test_what_strangers_send_before_the_keys_takes_no_place(new_keys: Any, speech: Any) -> None:
    codec, (ours, theirs) = CODECS["PCMU"], new_keys(SrtpProfile.AES_CM_128_HMAC_SHA1_80)
    one, other = await MediaSession.open("127.0.0.1"), await MediaSession.open("127.0.0.1")
    try:
        for number in range(3 * MAX_HELD):
            other.take(bytes(172), ("127.0.0.9", 4000), False)
            other.take(bytes(172), ("127.0.0.9", 5000 + number % (2 * MAX_HELD_SOURCES)), False)
        one.start(codec, payload_type=0, remote=(other.host, other.port), keys=ours)
        await one.say(speech("caller", 0.2))
        other.start(codec, payload_type=0, remote=(one.host, one.port), keys=theirs)
        await until(partial(has_received, other, one.statistics().sent))
        counted = other.statistics()
        assert counted.received == one.statistics().sent
        assert 0 < counted.unauthentic + counted.malformed <= MAX_HELD * MAX_HELD_SOURCES
    finally:
        await one.close()
        await other.close()


async def test_sources_that_wait_for_the_keys_are_bounded() -> None:
    session = await MediaSession.open("127.0.0.1")
    for number in range(MAX_HELD_SOURCES + 5):
        for _ in range(MAX_HELD + 5):
            session.take(RtpPacket(0, 1, 1, 99, bytes(160)).serialize(), ("127.0.0.9", 1000 + number), False)
    session.start(CODECS["PCMU"], payload_type=0, remote=("127.0.0.1", 9))
    assert session.statistics().foreign == MAX_HELD_SOURCES * MAX_HELD
    await session.close()
