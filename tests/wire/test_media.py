"""Whole sessions over the loopback, in real time: both directions, each codec, each protection."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.media.codecs import CODECS, FRAME_S, Codec
from voice_dpki.media.correlate import correlate
from voice_dpki.media.mos import MIN_PACKETS
from voice_dpki.media.pcm import Pcm
from voice_dpki.media.rtcp import SenderReport, SourceDescription
from voice_dpki.media.rtp import RtpPacket
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.wire.media import QUIET_S, MediaSession

DEADLINE_S = 60.0


class Trace:
    """What a session sent."""

    def __init__(self) -> None:
        self.packets: list[tuple[str, str, bytes, bytes]] = []

    def rtp(self, src: str, dst: str, wire: bytes, clear: bytes) -> None:
        self.packets.append((src, dst, wire, clear))


@contextlib.asynccontextmanager
async def pair(
    codec: Codec, keys: tuple[Any, Any], hosts: tuple[str, str] = ("127.0.0.1", "127.0.0.2")
) -> AsyncIterator[tuple[MediaSession, MediaSession, Trace]]:
    trace = Trace()
    one, other = await MediaSession.open(hosts[0], tracer=trace), await MediaSession.open(hosts[1])
    try:
        one.start(codec, payload_type=codec.payload_type, remote=(other.host, other.port), keys=keys[0])
        other.start(codec, payload_type=codec.payload_type, remote=(one.host, one.port), keys=keys[1])
        yield one, other, trace
    finally:
        await one.close()
        await other.close()


async def talk(one: MediaSession, other: MediaSession, speech: Any, seconds: float) -> None:
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(one.say(speech("caller", seconds)), other.say(speech("callee", seconds)))
        await asyncio.gather(one.wait_until_quiet(2), other.wait_until_quiet(2))
        await asyncio.gather(one.finish(), other.finish())


async def converse(codec: Codec, protection: SrtpProfile | None, keys: tuple[Any, Any], speech: Any) -> None:
    async with pair(codec, keys) as (one, other, trace):
        await talk(one, other, speech, 1.0)
        assert correlate(one.said, other.heard).coefficient >= 0.99
        assert correlate(other.said, one.heard).coefficient >= 0.99
        counted = other.statistics()
        assert counted.received == one.statistics().sent == 55
        assert (counted.lost, counted.late, counted.unauthentic, counted.foreign) == (0, 0, 0, 0)
        assert counted.srtp == protection
        assert counted.mos is not None  # how good it is depends on the machine's load
        encrypted = [wire != clear for _, _, wire, clear in trace.packets]
        assert all(encrypted) if protection else not any(encrypted)


@pytest.mark.parametrize("name", CODECS)
async def test_conversations(name: str, new_keys: Any, speech: Any) -> None:
    """One with each SRTP profile and one in clear, at the same time."""
    codec = CODECS[name]
    keyed = [(profile, new_keys(profile)) for profile in SrtpProfile]
    await asyncio.gather(*(converse(codec, *item, speech) for item in [*keyed, (None, (None, None))]))


async def test_packets_before_the_keys_wait_for_them(new_keys: Any, speech: Any) -> None:
    codec, (ours, theirs) = CODECS["PCMU"], new_keys(SrtpProfile.AES_CM_128_HMAC_SHA1_80)
    one, other = await MediaSession.open("127.0.0.1"), await MediaSession.open("127.0.0.1")
    try:
        one.start(codec, payload_type=0, remote=(other.host, other.port), keys=ours)
        await one.say(speech("caller", 0.2))
        other.start(codec, payload_type=0, remote=(one.host, one.port), keys=theirs)
        await other.finish()
        assert other.statistics().received == one.statistics().sent
        assert correlate(one.said, other.heard).coefficient >= 0.99
    finally:
        await one.close()
        await other.close()


async def test_rtcp_is_protected_and_ends_the_session(new_keys: Any, speech: Any) -> None:
    async with pair(CODECS["PCMA"], new_keys(SrtpProfile.AEAD_AES_128_GCM)) as (one, other, trace):
        await one.say(speech("caller", 0.1))
        await one.finish()
        async with asyncio.timeout(DEADLINE_S):
            await other.wait_until_quiet(DEADLINE_S)
        src, dst, wire, clear = trace.packets[-1]
        assert (src, dst) == (f"{one.host}:{one.port + 1}", f"{other.host}:{other.port + 1}")
        assert clear[1] == 200
        assert wire[:8] == clear[:8]
        assert clear[8:] not in wire


async def test_only_the_host_of_the_sdp_is_heard(speech: Any) -> None:
    """In clear, where nothing else protects: a packet from another host is dropped."""
    async with pair(CODECS["PCMU"], (None, None)) as (one, other, _):
        packet = RtpPacket(0, 1, 1, 99, bytes(160)).serialize()
        stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with stranger:
            stranger.bind(("127.0.0.9", 0))
            stranger.sendto(packet, (other.host, other.port))
        await one.say(Pcm(8000, speech("caller", 0.1).resampled(8000).data))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as same_host:
            same_host.bind((one.host, 0))
            same_host.sendto(packet, (other.host, other.port))
        async with asyncio.timeout(DEADLINE_S):
            while other.statistics().foreign < 2:
                await asyncio.sleep(0.01)
        assert other.statistics().received == one.statistics().sent


async def test_nothing_heard_has_no_figures(new_keys: Any, speech: Any) -> None:
    async with pair(CODECS["PCMU"], new_keys(SrtpProfile.AES_CM_128_HMAC_SHA1_80)) as (one, other, _):
        counted = one.statistics()
        assert (counted.received, counted.lost) == (0, 0)
        assert (counted.loss, counted.jitter_ms, counted.playout_delay_ms, counted.mos) == (None,) * 4
        await talk(one, other, speech, 0.3)
        few = other.statistics()
        assert few.received < MIN_PACKETS
        assert few.loss is not None
        assert few.mos is None


async def test_what_the_peer_says_it_sent_counts_as_lost() -> None:
    """Sequence numbers cannot tell of packets after the last that came; the sender's report does."""
    session = await MediaSession.open("127.0.0.1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        session.start(CODECS["PCMU"], payload_type=0, remote=peer.getsockname())
        for number in range(30):
            packet = RtpPacket(0, number, 160 * number, 99, bytes(160))
            peer.sendto(packet.serialize(), (session.host, session.port))
        await until(lambda: session.statistics().received == 30)
        before = session.statistics()
        assert (before.lost, before.loss) == (0, 0)
        for ssrc, packets in ((98, 5000), (99, 60)):
            report = SenderReport(ssrc, 0, 0, packets, 160 * packets).serialize()
            report += SourceDescription(ssrc, "peer").serialize()
            peer.sendto(report, (session.host, session.port + 1))
        await until(lambda: session.statistics().lost > 0)
    counted = session.statistics()
    assert (counted.lost, counted.loss) == (30, 0.5)
    assert before.mos is not None
    assert counted.mos is not None
    assert counted.mos < 2 < before.mos
    await session.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds():
            await asyncio.sleep(0.01)


async def test_silence_is_noticed_and_a_report_is_no_silence(new_keys: Any) -> None:
    """A peer that says nothing is there all the same: its first report comes at once (RFC 3550 §6.2)."""
    async with pair(CODECS["PCMU"], new_keys(SrtpProfile.AES_CM_128_HMAC_SHA1_80)) as (one, other, trace):
        assert not await one.heard_within(0.05)
        assert len(trace.packets) == 1
        async with asyncio.timeout(DEADLINE_S):
            assert await other.heard_within(DEADLINE_S)
            assert await one.heard_within(DEADLINE_S)
        assert other.statistics().received == 0


class SteppingClock:
    """A wall clock that somebody sets."""

    step_s = 0.0

    def now_s(self) -> float:
        return time.time() + self.step_s

    def steady_s(self) -> float:
        return time.monotonic()


@pytest.mark.parametrize("step_s", [-3600, -600, 600, 3600])
async def test_a_wall_clock_that_steps_in_a_call_changes_no_figure(step_s: float, speech: Any) -> None:
    clock = SteppingClock()
    one, other = await MediaSession.open("127.0.0.1", clock=clock), await MediaSession.open("127.0.0.2")
    one.start(CODECS["PCMU"], payload_type=0, remote=(other.host, other.port))
    other.start(CODECS["PCMU"], payload_type=0, remote=(one.host, one.port))
    await one.say(speech("caller", 0.02))  # so that the other side knows whose reports to answer
    asyncio.get_running_loop().call_soon(time.sleep, 0.01)  # a way of 10 ms for the report that goes now
    await one.heard_within(0)
    clock.step_s = step_s
    async with asyncio.timeout(DEADLINE_S):
        while (trip_ms := one.statistics().round_trip_ms) is None:
            await other.heard_within(0)  # answers, once the report has come
            await asyncio.sleep(0.02)
    assert 5 < trip_ms < 5000
    await one.close()
    await other.close()


async def test_a_pause_of_the_peer_is_not_its_end() -> None:
    """After comfort noise a peer need send nothing while its background is the same (RFC 3389 §5)."""
    loop = asyncio.get_running_loop()
    session = await MediaSession.open("127.0.0.1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.2", 0))
        try:
            session.keypad.take_answered_noise(13)
            session.start(CODECS["PCMU"], payload_type=0, remote=peer.getsockname())
            for number, (payload_type, payload) in enumerate([(0, bytes(160)), (13, b"\x40")]):
                packet = RtpPacket(payload_type, number, 160 * number, 7, payload)
                peer.sendto(packet.serialize(), ("127.0.0.1", session.port))
            await until(lambda: session.statistics().received == 2)
            began_s = loop.time()
            await session.wait_until_quiet(3 * QUIET_S)
            assert loop.time() - began_s > 2 * QUIET_S
        finally:
            await session.close()


async def test_what_is_not_authentic_breaks_no_silence(new_keys: Any) -> None:
    ours, _ = new_keys(SrtpProfile.AES_CM_128_HMAC_SHA1_80)
    _, theirs = new_keys(SrtpProfile.AES_CM_128_HMAC_SHA1_80, "another call")
    async with pair(CODECS["PCMU"], (ours, theirs)) as (one, other, _):
        await other.say(Pcm(8000, bytes(1600)))
        await other.heard_within(0)
        await until(lambda: one.statistics().unauthentic == 5)
        assert not await one.heard_within(0.1)


async def test_a_peer_on_hold_is_sent_nothing(speech: Any) -> None:
    trace = Trace()
    session = await MediaSession.open("127.0.0.1", tracer=trace)
    session.start(CODECS["PCMU"], payload_type=0, remote=("0.0.0.0", 4000))
    await session.say(speech("caller", 0.04))
    assert not await session.heard_within(0)
    await session.close()
    assert trace.packets == []


async def test_forged_packets_are_counted_and_dropped(new_keys: Any, speech: Any) -> None:
    async with pair(CODECS["PCMU"], new_keys(SrtpProfile.AES_CM_128_HMAC_SHA1_80)) as (one, other, _):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forger:
            forger.bind((one.host, 0))
            for _ in range(10):
                forger.sendto(RtpPacket(0, 1, 1, 1111, bytes(170)).serialize(), (other.host, other.port))
        await talk(one, other, speech, 0.3)
        assert other.statistics().unauthentic == 10
        assert correlate(one.said, other.heard).coefficient >= 0.99


async def test_pauses_cost_as_much_as_loss() -> None:
    """Half a second without anything to play sounds the same whether it was lost or came too late to be useful."""
    session = await MediaSession.open("127.0.0.1")
    session.start(CODECS["PCMU"], payload_type=0, remote=("127.0.0.1", 9))
    for number in range(30):
        session.take(RtpPacket(0, number, 160 * number, 99, bytes(160)).serialize(), ("127.0.0.1", 9), False)
    before = session.statistics()
    await until(lambda: session.statistics().playout_delay_ms != before.playout_delay_ms)
    await asyncio.sleep(1.2)
    session.take(RtpPacket(0, 30, 4800, 99, bytes(160)).serialize(), ("127.0.0.1", 9), False)
    counted = session.statistics()
    assert counted.paused_ms is not None
    assert counted.paused_ms > 400
    assert counted.loss == 0
    assert before.mos is not None
    assert counted.mos is not None
    assert counted.mos < before.mos - 1
    await session.close()


@pytest.mark.parametrize(
    "remote",
    [
        ("media.example", 4000),
        ("::1", 4000),
        ("127.0.0.1", 0),
        ("127.0.0.1", 65_535),
        ("224.0.0.1", 4000),
        ("255.255.255.255", 4000),
    ],
)
async def test_addresses_that_an_sdp_may_give(remote: tuple[str, int]) -> None:
    session = await MediaSession.open("127.0.0.1")
    with pytest.raises(MalformedError):
        session.start(CODECS["PCMU"], payload_type=0, remote=remote)
    await session.close()


async def test_rtp_and_rtcp_may_share_a_port(new_keys: Any, speech: Any) -> None:
    """RFC 5761: with a=rtcp-mux at both sides nothing goes to the port above."""
    codec, (ours, theirs) = CODECS["PCMU"], new_keys(SrtpProfile.AES_CM_128_HMAC_SHA1_80)
    trace = Trace()
    one, other = (
        await MediaSession.open("127.0.0.1", tracer=trace),
        await MediaSession.open("127.0.0.2", tracer=trace),
    )
    try:
        for session, peer, keys in ((one, other, ours), (other, one, theirs)):
            remote = (peer.host, peer.port)
            session.start(codec, payload_type=0, remote=remote, remote_control=remote, keys=keys)
        assert await one.heard_within(0.01) is False
        async with asyncio.timeout(DEADLINE_S):
            assert await other.heard_within(DEADLINE_S)
            assert await one.heard_within(DEADLINE_S)
        assert (one.statistics().received, one.statistics().unauthentic) == (0, 0)
        await talk(one, other, speech, 0.3)
        assert correlate(one.said, other.heard).coefficient >= 0.99
        assert {port for src, dst, *_ in trace.packets for port in (src, dst)} == {
            f"{session.host}:{session.port}" for session in (one, other)
        }
        assert other.statistics().unauthentic == one.statistics().unauthentic == 0
    finally:
        await one.close()
        await other.close()


async def test_order_of_use(speech: Any) -> None:
    session = await MediaSession.open("127.0.0.1")
    assert session.port % 2 == 0
    with pytest.raises(LocalError):
        session.statistics()
    session.start(CODECS["PCMU"], payload_type=0, remote=("127.0.0.1", 9))
    with pytest.raises(LocalError):
        session.start(CODECS["PCMU"], payload_type=0, remote=("127.0.0.1", 9))
    await session.say(speech("caller", 0.04))
    await session.close()
    await session.close()


async def test_a_host_that_is_not_ours() -> None:
    with pytest.raises(LocalError):
        await MediaSession.open("192.0.2.1")


async def test_media_over_ipv6(speech: Any) -> None:
    try:
        session = await MediaSession.open("::1")
    except OSError:
        pytest.skip("this machine has no ::1")
    await session.close()
    async with pair(CODECS["PCMU"], (None, None), ("::1", "::1")) as (one, other, trace):
        await talk(one, other, speech, 0.3)
        assert correlate(one.said, other.heard).coefficient >= 0.99
        assert other.statistics().foreign == 0
        assert trace.packets[0][:2] == (f"[::1]:{one.port}", f"[::1]:{other.port}")


async def test_media_of_the_other_family_are_refused() -> None:
    session = await MediaSession.open("127.0.0.1")
    with pytest.raises(MalformedError, match="IPv6"):
        session.start(CODECS["PCMU"], payload_type=0, remote=("::1", 4000))
    await session.close()


@pytest.mark.parametrize("name", ["PCMU", "opus"])
async def test_a_pause_between_two_talks_passes_in_the_timestamps_and_the_next_packet_is_marked(
    name: str, speech: Any
) -> None:
    """Timestamps tell time (RFC 3550 §5.1), and the first packet after silence has the marker (RFC 3551 §4.1)."""
    codec, loop = CODECS[name], asyncio.get_running_loop()
    async with pair(codec, (None, None)) as (one, _, trace):
        began_s = loop.time()
        await one.say(speech("caller", 0.1))
        paused_s = loop.time()
        await asyncio.sleep(0.3)
        least_s = loop.time() - paused_s
        before = len(rtp_octets(trace, one))
        await one.say(speech("caller", 0.1))
        most_s = loop.time() - began_s
        octets = rtp_octets(trace, one)
        sequences, timestamps = [[int.from_bytes(each[a:b], "big") for each in octets] for a, b in ((2, 4), (4, 8))]
        passed_s = ((timestamps[before] - timestamps[before - 1]) % 2**32) / codec.clock_rate - FRAME_S
        assert least_s - FRAME_S <= passed_s <= most_s
        assert (sequences[before] - sequences[before - 1]) % 65_536 == 1
        assert [at for at, each in enumerate(octets) if each[1] & 0x80] == [0, before]
        assert one.said.duration_s == pytest.approx(
            2 * speech("caller", 0.1).duration_s + passed_s, abs=2 * FRAME_S
        )


async def test_a_long_pause_is_recorded_no_longer_than_a_recording_is(
    speech: Any,
) -> None:
    async with pair(CODECS["PCMU"], (None, None)) as (one, _, trace):
        await one.say(speech("caller", 0.1))
        assert one._due_s is not None
        one._due_s -= 24 * 3600
        await one.say(speech("caller", 0.1))
        assert 120 <= one.said.duration_s <= 121
        first, last = (int.from_bytes(rtp_octets(trace, one)[at][4:8], "big") for at in (0, -1))
        assert 24 * 3600 <= (last - first) % 2**32 / 8000 <= 25 * 3600


def rtp_octets(trace: Trace, session: MediaSession) -> list[bytes]:
    """The packets of speech that a session has sent, without reports."""
    source = f"{session.host}:{session.port}"
    return [clear for src, _, _, clear in trace.packets if src == source and not 200 <= clear[1] <= 207]
