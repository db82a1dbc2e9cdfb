"""Two legs and what goes between them: authentic packets alone, and only where they are due."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from voice_dpki.effects import SystemRandom
from voice_dpki.errors import MalformedError
from voice_dpki.media.any_source import AnySourceSrtp
from voice_dpki.media.relay import Translation
from voice_dpki.media.rtcp import ReceiverReport, SourceDescription, parse_compound
from voice_dpki.media.rtp import RtpPacket
from voice_dpki.wire import relay as relay_module
from voice_dpki.wire.relay import MAX_HELD, MAX_HELD_SOURCES, NOT_KEYED, UNAUTHENTIC, MediaLeg, Relay

HOST, SUITE = "127.0.0.1", "AES_CM_128_HMAC_SHA1_80"
TIMEOUT_S = 30


class Peer:
    """One side's telephone: a socket, and the keys that mirror its leg's."""

    def __init__(self, key: int) -> None:
        ours, theirs = bytes([key]) * 30, bytes([key + 1]) * 30
        self.srtp = AnySourceSrtp(SUITE, send=ours, receive=theirs)
        self.leg_srtp = AnySourceSrtp(SUITE, send=theirs, receive=ours)
        self.leg = MediaLeg(HOST)
        self.socket = bound()

    @property
    def address(self) -> tuple[str, int]:
        name: tuple[str, int] = self.socket.getsockname()
        return name

    def start(self) -> None:
        self.leg.start(self.leg_srtp, self.address, self.address)

    def send(self, data: bytes, by: "socket.socket | None" = None) -> None:
        (by or self.socket).sendto(data, (HOST, self.leg.port))

    def packet(self, number: int, payload: bytes = b"speech") -> bytes:
        return self.srtp.protect(RtpPacket(0, number, 160 * number, 0x1111, payload).serialize())

    async def received(self, at: "socket.socket | None" = None) -> bytes:
        async with asyncio.timeout(TIMEOUT_S):
            return await asyncio.get_running_loop().sock_recv(at or self.socket, 2048)


def bound() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((HOST, 0))
    made.setblocking(False)
    return made


class Counts:
    def __init__(self) -> None:
        self.to: list[str] = []
        self.why: list[str] = []

    def relayed(self, to: str) -> None:
        self.to.append(to)

    def dropped(self, why: str) -> None:
        self.why.append(why)


@pytest.fixture
def counts() -> Counts:
    return Counts()


@pytest.fixture
async def peers() -> AsyncIterator[tuple[Peer, Peer]]:
    async with AsyncExitStack() as stack:
        pair = Peer(1), Peer(11)
        for peer in pair:
            await peer.leg.open()
            stack.push_async_callback(peer.leg.close)
            stack.callback(peer.socket.close)
        yield pair


@pytest.fixture
def stranger() -> Iterator[socket.socket]:
    made = bound()
    yield made
    made.close()


def begin(peers: tuple[Peer, Peer], counts: Counts) -> Relay:
    relay = Relay(peers[0].leg, peers[1].leg, counts)
    random = SystemRandom()
    relay.start(Translation(0xAAAA, {0: 8}, 8000, random), Translation(0xBBBB, {8: 0}, 8000, random))
    return relay


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not true():
            await asyncio.sleep(0.01)


async def test_speech_and_reports_go_through_under_other_keys(peers: tuple[Peer, Peer], counts: Counts) -> None:
    inside, outside = peers
    inside.start()
    outside.start()
    begin(peers, counts)
    inside.send(inside.packet(7))
    wire = await outside.received()
    assert b"speech" not in wire
    made = RtpPacket.parse(outside.srtp.unprotect(wire))
    assert (made.ssrc, made.payload_type, made.payload) == (0xAAAA, 8, b"speech")
    report = ReceiverReport(0x1111).serialize() + SourceDescription(0x1111, "me").serialize()
    inside.send(inside.srtp.protect_rtcp(report))
    assert parse_compound(outside.srtp.unprotect_rtcp(await outside.received())) == (ReceiverReport(0xAAAA),)
    assert counts.to == ["outside", "outside"]


async def test_what_comes_before_the_keys_waits_for_them(peers: tuple[Peer, Peer], counts: Counts) -> None:
    inside, outside = peers
    for number in range(MAX_HELD + 10):
        inside.send(inside.packet(number))
    await until(lambda: inside.leg.dropped[NOT_KEYED] == 10)
    inside.start()
    outside.start()
    begin(peers, counts)
    for _ in range(MAX_HELD):
        outside.srtp.unprotect(await outside.received())
    assert counts.to == ["outside"] * MAX_HELD


async def test_many_strangers_before_the_keys_take_no_place_of_the_peers(
    peers: tuple[Peer, Peer], counts: Counts
) -> None:
    inside, outside = peers
    for number in range(2 * MAX_HELD_SOURCES):
        for _ in range(MAX_HELD if number % 2 else 1):
            inside.leg.take(bytes(172), ("127.0.0.9", 1 + number), False)
    for number in range(MAX_HELD):
        inside.leg.take(inside.packet(number), inside.address, False)
        inside.leg.take(bytes(172), ("127.0.0.9", 100 + number), False)
    inside.start()
    outside.start()
    begin(peers, counts)
    assert counts.to == ["outside"] * MAX_HELD
    assert inside.leg.dropped[NOT_KEYED]


async def test_nothing_leaves_on_a_leg_without_keys(peers: tuple[Peer, Peer], counts: Counts) -> None:
    inside, outside = peers
    inside.start()
    begin(peers, counts)
    inside.send(inside.packet(1))
    await until(lambda: outside.leg.dropped[NOT_KEYED])
    with pytest.raises(BlockingIOError):
        outside.socket.recv(2048)


async def test_media_in_clear_and_altered_media_do_not_pass(
    peers: tuple[Peer, Peer], counts: Counts, stranger: socket.socket
) -> None:
    inside, outside = peers
    inside.start()
    outside.start()
    begin(peers, counts)
    clear = RtpPacket(0, 1, 160, 0x1111, b"clear speech").serialize()
    good = inside.packet(2)
    for bad in (clear, good[:-1] + bytes([good[-1] ^ 1]), b"", b"\x80"):
        inside.send(bad, by=stranger)
    await until(lambda: inside.leg.dropped[UNAUTHENTIC] == 4)
    outside.send(outside.srtp.protect(RtpPacket(8, 1, 1, 5, b"to inside").serialize()))
    inside.srtp.unprotect(await inside.received())  # still where the SDP said
    assert counts.to == ["inside"]


async def test_media_follow_the_newest_authentic_packet(
    peers: tuple[Peer, Peer], counts: Counts, stranger: socket.socket
) -> None:
    inside, outside = peers
    inside.start()
    outside.start()
    begin(peers, counts)
    old = inside.packet(4)
    inside.send(inside.packet(5), by=stranger)  # behind a NAT, for instance
    await outside.received()
    inside.send(old)  # late, on the old way
    await outside.received()
    outside.send(outside.srtp.protect(RtpPacket(8, 1, 1, 5, b"to inside").serialize()))
    assert inside.srtp.unprotect(await inside.received(stranger))


async def test_silence_is_of_the_side_that_is_silent_longer(peers: tuple[Peer, Peer], counts: Counts) -> None:
    inside, outside = peers
    inside.start()
    outside.start()
    relay = begin(peers, counts)
    now_s = asyncio.get_running_loop().time()
    inside.send(inside.packet(1))
    await outside.received()
    assert relay.silent_s(now_s - 100) >= 100
    outside.send(outside.srtp.protect(RtpPacket(8, 1, 1, 5, b"x").serialize()))
    await inside.received()
    assert relay.silent_s(now_s - 100) < 90


@pytest.mark.parametrize("remote", [("localhost", 5000), ("224.0.0.1", 5000), ("::1", 5000), ("127.0.0.1", 0)])
async def test_an_address_that_nothing_can_be_sent_to_is_refused(
    peers: tuple[Peer, Peer], remote: tuple[str, int]
) -> None:
    with pytest.raises(MalformedError):
        peers[0].leg.start(peers[0].leg_srtp, remote, remote)
    assert not peers[0].leg.is_keyed


# New keys.


def rekeyed(peer: Peer, key: int) -> Peer:
    """The same telephone with the keys of a change, and what its leg gets of them."""
    ours, theirs = bytes([key]) * 30, bytes([key + 1]) * 30
    peer.srtp = AnySourceSrtp(SUITE, send=ours, receive=theirs)
    peer.leg_srtp = AnySourceSrtp(SUITE, send=theirs, receive=ours)
    return peer


async def test_both_keys_are_received_under_and_the_old_ones_are_forgotten(
    peers: tuple[Peer, Peer], counts: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "OLD_KEYS_S", 0.0)
    inside, outside = peers
    inside.start()
    outside.start()
    begin(peers, counts)
    old = [inside.packet(number) for number in (1, 3)]
    inside.leg.take_keys(rekeyed(inside, 21).leg_srtp)
    for packet in (old[0], inside.packet(2)):
        inside.send(packet)
        outside.srtp.unprotect(await outside.received())
    inside.leg.switch(inside.leg_srtp)
    await until(lambda: len(inside.leg._receiving) == 1)
    inside.send(old[1])
    await until(lambda: inside.leg.dropped[UNAUTHENTIC] == 1)


async def test_what_comes_under_keys_that_are_expected_waits_for_them_and_no_more_than_before(
    peers: tuple[Peer, Peer], counts: Counts
) -> None:
    inside, outside = peers
    inside.start()
    outside.start()
    begin(peers, counts)
    inside.leg.expect_keys()
    new = rekeyed(inside, 21).leg_srtp
    for number in range(MAX_HELD + 10):
        inside.send(inside.packet(number))
    await until(lambda: inside.leg.dropped[UNAUTHENTIC] == 10)
    assert counts.to == []
    inside.leg.take_keys(new)
    for _ in range(MAX_HELD):
        outside.srtp.unprotect(await outside.received())
    inside.send(b"\x80" + bytes(60))
    await until(lambda: inside.leg.dropped[UNAUTHENTIC] == 11)


async def test_what_waited_for_keys_that_do_not_come_is_dropped(peers: tuple[Peer, Peer], counts: Counts) -> None:
    inside, outside = peers
    inside.start()
    outside.start()
    begin(peers, counts)
    inside.leg.expect_keys()
    inside.send(b"\x80" + bytes(60))
    await until(lambda: inside.leg._held._waiting)
    inside.leg.take_keys(None)
    assert inside.leg.dropped[UNAUTHENTIC] == 1
    inside.send(inside.packet(1))
    outside.srtp.unprotect(await outside.received())


@pytest.mark.parametrize("speaks", [True, False])
async def test_new_keys_are_sent_under_once_they_are_heard_or_after_a_while(
    peers: tuple[Peer, Peer], counts: Counts, monkeypatch: pytest.MonkeyPatch, speaks: bool
) -> None:
    monkeypatch.setattr(relay_module, "HEARD_S", 1_000.0 if speaks else 0.0)
    inside, outside = peers
    inside.start()
    outside.start()
    relay = begin(peers, counts)
    old, random = inside.srtp, SystemRandom()
    inside.leg.take_keys(rekeyed(inside, 21).leg_srtp)

    def turn() -> None:
        inside.leg.switch(inside.leg_srtp)
        relay.send_other(inside.leg, Translation(0xCCCC, {8: 0}, 8000, random))

    outside.send(outside.srtp.protect(RtpPacket(8, 1, 1, 5, b"before").serialize()))
    assert RtpPacket.parse(old.unprotect(await inside.received())).ssrc == 0xBBBB
    inside.leg.turn_once_heard(turn)
    if speaks:
        inside.send(inside.packet(1))
        await outside.received()
    await until(lambda: relay.sent_to(inside.leg).ssrc == 0xCCCC)
    outside.send(outside.srtp.protect(RtpPacket(8, 2, 2, 5, b"after").serialize()))
    made = RtpPacket.parse(inside.srtp.unprotect(await inside.received()))
    assert (made.ssrc, made.payload) == (0xCCCC, b"after")


async def test_ten_thousand_packets_of_strangers_leave_nothing(peers: tuple[Peer, Peer], counts: Counts) -> None:
    """Each of another address and SSRC, while there are two keys and new ones are expected, which is the most."""
    inside, outside = peers
    inside.start()
    outside.start()
    begin(peers, counts)
    inside.leg.take_keys(rekeyed(inside, 21).leg_srtp)
    inside.leg.expect_keys()
    for number in range(10_000):
        packet = RtpPacket(0, number & 0xFFFF, 0, number, bytes(160)).serialize()
        inside.leg.take(packet, (f"192.0.2.{number % 256}", 1_024 + number), False)
    held = inside.leg._held._waiting
    assert len(held) <= MAX_HELD_SOURCES
    assert sum(map(len, held.values())) <= MAX_HELD * MAX_HELD_SOURCES
    inside.leg.take_keys(None)
    assert inside.leg.dropped == {UNAUTHENTIC: 10_000}
    inside.send(inside.packet(1))
    outside.srtp.unprotect(await outside.received())
