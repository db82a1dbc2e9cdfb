"""A conversation over the loopback: silence where speech was due ends it, and hold does not."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from sip_testbed.conversation import SILENCE, Ending, Flow, converse
from tests.without import removals
from voice_dpki.media.codecs import CODECS
from voice_dpki.media.pcm import Pcm
from voice_dpki.media.rtp import RtpPacket
from voice_dpki.mikey.keys import SrtpKeys, StreamKey
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.sip.sdp import SessionDescription, audio_description
from voice_dpki.wire.media import MediaSession
from voice_dpki.wire.sip.user_agent import Call

VECTORS = Path(__file__).parent.parent / "vectors/sdp"
BOTH = Flow(sends=True, expects=True)
SPEECH = Pcm(8000, b"\x10\x20" * 1600)
LIMIT_S = 0.2
DEADLINE_S = 60.0


class Leg:
    """What a conversation needs of a call: whether it is over."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()


@asynccontextmanager
async def sessions(remote: tuple[str, int] | None = None) -> AsyncIterator[tuple[MediaSession, MediaSession]]:
    """Two sessions; the first one's peer is said to be at `remote`."""
    one, other = await MediaSession.open("127.0.0.1"), await MediaSession.open("127.0.0.2")
    one.start(CODECS["PCMU"], payload_type=0, remote=remote or (other.host, other.port))
    other.start(CODECS["PCMU"], payload_type=0, remote=(one.host, one.port))
    try:
        yield one, other
    finally:
        await one.close()
        await other.close()


async def spoken(
    media: MediaSession, speech: Pcm = SPEECH, flow: Flow = BOTH, silence_s: float = LIMIT_S, leg: Leg | None = None
) -> Ending:
    async with asyncio.timeout(DEADLINE_S):
        return await converse(cast(Call, leg or Leg()), media, speech, flow, silence_s)


async def test_both_ends_are_heard() -> None:
    async with sessions() as (one, other):
        endings = await asyncio.gather(spoken(one, silence_s=DEADLINE_S), spoken(other, silence_s=DEADLINE_S))
    assert all(ending == Ending(spoken=True) for ending in endings)


async def test_silence_ends_the_call_in_the_middle_of_our_own_speech() -> None:
    long = Pcm(8000, SPEECH.data * 100)
    async with sessions() as (one, _):
        ending = await spoken(one, long)
        assert one.statistics().sent < 100
    assert ending == Ending(spoken=False, silence="no RTP or RTCP came within 0.2 s of the ACK")


async def test_without_the_check_a_call_goes_on_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    for removed in removals(SILENCE):
        monkeypatch.setattr(*removed)
    leg = Leg()
    async with sessions() as (one, _):
        task = asyncio.ensure_future(spoken(one, Pcm(8000, SPEECH.data * 4), silence_s=0.01, leg=leg))
        while one.statistics().sent < 40:
            await asyncio.sleep(0.01)
        leg.ended.set()
        assert (await task).silence is None


async def test_silence_after_our_own_speech_ends_the_call() -> None:
    async with sessions() as (one, _):
        ending = await spoken(one, Pcm(8000, SPEECH.data[:640]))
    assert (ending.spoken, ending.silence) == (True, "no RTP or RTCP came within 0.2 s of the ACK")


async def test_what_is_no_rtp_is_told() -> None:
    async with sessions() as (one, other):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind((other.host, 0))
            peer.sendto(b"nonsense", (one.host, one.port))
            ending = await spoken(one)
    assert ending.silence is not None
    assert ending.silence.endswith("s of the ACK; what came is no RTP")


async def test_what_does_not_verify_is_told() -> None:
    key = StreamKey(1111, bytes(16), bytes(14))
    keys = SrtpKeys(SrtpProfile.AES_CM_128_HMAC_SHA1_80, send=replace(key, ssrc=2222), receive=key)
    one = await MediaSession.open("127.0.0.1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        one.start(CODECS["PCMU"], payload_type=0, remote=peer.getsockname(), keys=keys)
        peer.sendto(RtpPacket(0, 1, 1, 1111, bytes(170)).serialize(), (one.host, one.port))
        ending = await spoken(one)
    await one.close()
    first, _, second = (ending.silence or "").partition("; ")
    assert first == "no authenticated SRTP or SRTCP came within 0.2 s of the ACK"
    assert second == "what came does not verify under the agreed keys"


async def test_media_of_another_codec_are_told() -> None:
    one = await MediaSession.open("127.0.0.1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        one.start(CODECS["PCMU"], payload_type=0, remote=peer.getsockname())
        peer.sendto(RtpPacket(13, 1, 1, 1111, b"\x40").serialize(), (one.host, one.port))
        ending = await spoken(one)
    assert (one.statistics().other, one.statistics().foreign) == (1, 0)
    await one.close()
    assert (ending.silence or "").endswith("; what came is of another payload type or SSRC than was agreed")


@pytest.mark.parametrize(("flow", "good"), [(BOTH, False), (Flow(sends=True, expects=False), True)])
async def test_a_peer_that_hangs_up_before_anything_came(flow: Flow, good: bool) -> None:
    leg = Leg()
    async with sessions() as (one, _):
        task = asyncio.ensure_future(spoken(one, Pcm(8000, SPEECH.data[:640]), flow, DEADLINE_S, leg))
        while one.statistics().sent < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        leg.ended.set()
        ending = await task
    assert (ending.spoken, ending.silence, ending.good) == (True, None, good)


async def test_what_comes_from_elsewhere_is_told() -> None:
    """As where somebody has changed c=: the other side speaks, but from another host than the SDP names."""
    async with sessions(remote=("127.0.0.66", 4000)) as (one, other):
        await other.say(Pcm(8000, SPEECH.data[:640]))
        ending = await spoken(one)
    assert ending.silence is not None
    assert ending.silence.endswith("what came is from another address than the SDP names")


async def test_a_peer_that_says_nothing_but_is_there_is_no_silence() -> None:
    """As with silence suppression, or a microphone that is off: its SRTCP tells of it."""
    leg = Leg()
    async with sessions() as (one, other):
        mute = asyncio.ensure_future(spoken(other, Pcm(8000, b""), silence_s=DEADLINE_S, leg=leg))
        speaking = asyncio.ensure_future(spoken(one, silence_s=DEADLINE_S / 2, leg=leg))
        assert await one.heard_within(DEADLINE_S / 2)
        await asyncio.sleep(0.3)
        assert one.statistics().received == 0
        leg.ended.set()
        assert (await speaking, await mute) == (Ending(spoken=True), Ending(spoken=True))


@pytest.mark.parametrize(
    ("line", "flow"),
    [
        ("a=sendrecv", Flow(sends=True, expects=True)),
        ("a=sendonly", Flow(sends=False, expects=True)),
        ("a=recvonly", Flow(sends=True, expects=False)),
        ("a=inactive", Flow(sends=False, expects=False)),
        ("c=IN IP4 0.0.0.0", Flow(sends=False, expects=False)),
    ],
)
def test_directions_that_are_agreed(line: str, flow: Flow) -> None:
    text = audio_description("127.0.0.1", 4000, [], session_id=1).serialize() + f"{line}\r\n".encode()
    text = text.replace(b"RTP/AVP \r\n", b"RTP/AVP 0\r\n")
    assert Flow.agreed(SessionDescription.parse(text)) == flow


def test_an_offer_that_is_inactive() -> None:
    offer = SessionDescription.parse((VECTORS / "sdp-inactive.sdp").read_bytes())
    assert (offer.audio_direction.answered, Flow.agreed(offer)) == ("inactive", Flow(sends=False, expects=False))


@pytest.mark.parametrize("flow", [Flow(sends=True, expects=False), Flow(sends=False, expects=False)])
async def test_hold_is_no_silence(flow: Flow) -> None:
    held = Leg()
    async with sessions() as (one, _):
        task = asyncio.ensure_future(spoken(one, SPEECH, flow, leg=held))
        await asyncio.sleep(3 * LIMIT_S)
        while flow.sends and one.statistics().sent < 10:
            await asyncio.sleep(0.01)
        assert not task.done()
        assert one.statistics().sent == (10 if flow.sends else 0)
        task.cancel()
