"""Media that a call changes while it is up, over the loopback: hold, other keys, another codec, another address."""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.media.conftest import keys_for
from tests.wire.test_media import DEADLINE_S, Trace, pair, until
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.media.codecs import CODECS, Codec
from voice_dpki.media.correlate import correlate
from voice_dpki.media.keypad import Keypad
from voice_dpki.media.pcm import SAMPLE_BYTES, Pcm
from voice_dpki.media.rtcp import Goodbye, parse_compound
from voice_dpki.media.rtp import RtpPacket
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.wire import rtp_session
from voice_dpki.wire.media import MediaSession

PCMU, PCMA, OPUS = CODECS["PCMU"], CODECS["PCMA"], CODECS["opus"]
SPOKEN_S = 0.5
Speech = Callable[[str, float], Pcm]


def new_pair(number: int) -> tuple[SrtpKeys, SrtpKeys]:
    """Keys of another agreement of the same two: other keys, and other SSRCs."""
    ours, _ = keys_for(SrtpProfile.AES_CM_128_HMAC_SHA1_80, f"agreement {number}")
    ours = replace(
        ours,
        send=replace(ours.send, ssrc=ours.send.ssrc + number),
        receive=replace(ours.receive, ssrc=ours.receive.ssrc + number),
    )
    return ours, SrtpKeys(ours.profile, send=ours.receive, receive=ours.send)


def sent_rtp(trace: Trace, session: MediaSession) -> list[RtpPacket]:
    source = f"{session.host}:{session.port}"
    return [RtpPacket.parse(clear) for src, _, _, clear in trace.packets if src == source]


async def phrase(one: MediaSession, other: MediaSession, speech: Speech, at_s: float) -> None:
    """Both say a piece of their sentences at once, and each is heard by the other: no one-way audio."""
    spoken = [_piece(speech(who, at_s + SPOKEN_S).resampled(8000), at_s) for who in ("caller", "callee")]
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(*(session.say(said) for session, said in zip((one, other), spoken, strict=True)))
        await asyncio.sleep(0.2)  # what was said last is played
    for said, heard in zip(spoken, (other.heard, one.heard), strict=True):
        assert correlate(said, heard).coefficient >= 0.99


def _piece(pcm: Pcm, from_s: float) -> Pcm:
    return Pcm(pcm.rate, pcm.data[2 * int(from_s * pcm.rate) :])


def change(session: MediaSession, other: MediaSession, codec: Codec = PCMU, keys: SrtpKeys | None = None) -> None:
    session.change(codec, payload_type=codec.payload_type, remote=(other.host, other.port), keys=keys)


def check_nothing_lost(*sessions: MediaSession) -> None:
    for session in sessions:
        counted = session.statistics()
        assert (counted.lost, counted.unauthentic, counted.foreign, counted.other, counted.malformed) == (0,) * 5


@pytest.mark.parametrize("keys", [(None, None), new_pair(0)], ids=["clear", "keyed"])
async def test_hold_and_resume(keys: tuple[Any, Any], speech: Speech) -> None:
    """The streams stay: a new SSRC, or numbers that begin anew, would not authenticate at the other side."""
    began_s = asyncio.get_running_loop().time()
    async with pair(PCMU, keys) as (one, other, trace):
        await phrase(one, other, speech, 0.3)
        before = sent_rtp(trace, one)
        for session, peer in ((one, other), (other, one)):
            change(session, peer)
            session.allow_sending(False)
        await one.say(speech("caller", 0.1))
        assert len(sent_rtp(trace, one)) == len(before)
        reports = len(trace.packets)
        await one.heard_within(0)
        assert len(trace.packets) == reports + 1  # RTCP goes on (RFC 3264 §5.1)
        for session in (one, other):
            session.allow_sending(True)
            session.switch()
        await phrase(one, other, speech, 1.0)
        check_nothing_lost(one, other)
        packets = sent_rtp(trace, one)
        numbers = [packet.sequence for packet in packets]
        assert all(after == (first + 1) & 0xFFFF for first, after in itertools.pairwise(numbers))
        assert len({packet.ssrc for packet in packets}) == 1
        assert [at for at, packet in enumerate(packets) if packet.marker] == [0, len(before)]
        held = (packets[len(before)].timestamp - before[-1].timestamp) % 2**32
        assert held % 160 == 0
        assert held >= 160 * 20  # ten frames of 20 ms passed in silence on hold, and 0.2 s before that
        assert held / 8000 <= asyncio.get_running_loop().time() - began_s
        passed = (packets[-1].timestamp - packets[0].timestamp) % 2**32 + 160
        assert len(one.said.data) == SAMPLE_BYTES * passed
        assert other.said.duration_s > 2 * (SPOKEN_S + 0.1) + 0.35


async def test_digits_that_a_hold_of_the_peer_keeps_back_are_dialled_after_it(speech: Speech) -> None:
    one, other = await MediaSession.open("127.0.0.1"), await MediaSession.open("127.0.0.2")
    try:
        for session, peer, keypad in ((one, other, Keypad(digits="12")), (other, one, Keypad())):
            keypad.take_offer(101, "0-15")
            session.keypad = keypad
            session.start(CODECS["PCMU"], payload_type=0, remote=(peer.host, peer.port))
        one.allow_sending(False)
        saying = asyncio.create_task(one.say(speech("caller", 0.1)))
        await until(lambda: one.said.duration_s > 0.4)
        assert (other.keypad.received, saying.done()) == ("", False)
        one.allow_sending(True)
        async with asyncio.timeout(DEADLINE_S):
            await saying
        await until(lambda: other.keypad.received == "12")
    finally:
        await one.close()
        await other.close()


async def test_digits_that_a_hold_keeps_back_too_long_are_left(
    speech: Speech, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voice_dpki.wire.media.MAX_KEPT_BACK_S", 0.1)
    session = await MediaSession.open("127.0.0.1")
    try:
        session.keypad = Keypad(digits="12")
        session.keypad.take_answer(101, "")
        session.start(CODECS["PCMU"], payload_type=0, remote=("127.0.0.2", 9))
        session.allow_sending(False)
        async with asyncio.timeout(DEADLINE_S):
            await session.say(speech("caller", 0.1))
        assert session.statistics().sent == 0
        assert sum(session.statistics().said_s) == pytest.approx(session.said.duration_s)
    finally:
        await session.close()


async def test_new_keys_in_the_middle_of_speech(speech: Speech) -> None:
    """The answerer receives under both keys until the offerer has changed; nothing is lost on the way."""
    async with pair(PCMU, new_pair(0)) as (one, other, trace):
        talking = asyncio.gather(one.say(speech("caller", 1.5)), other.say(speech("callee", 1.5)))
        for number in range(1, 4):
            await asyncio.sleep(0.3)
            ours, theirs = new_pair(number)
            change(other, one, keys=theirs)  # it answers
            await asyncio.sleep(0.1)
            change(one, other, keys=ours)  # the answer has come
            one.switch()
            await asyncio.sleep(0.1)
            other.switch()  # the ACK has come
        await asyncio.wait_for(talking, DEADLINE_S)
        await asyncio.sleep(0.3)
        for said, heard in ((one.said, other.heard), (other.said, one.heard)):
            assert correlate(said, heard).coefficient >= 0.99
        check_nothing_lost(one, other)
        assert other.statistics().received == one.statistics().sent == 80
        assert list(dict.fromkeys(packet.ssrc for packet in sent_rtp(trace, one))) == [1111, 1112, 1113, 1114]
        assert all(wire != clear for *_, wire, clear in trace.packets)
        control = [clear for src, _, _, clear in trace.packets if src.endswith(f":{one.port + 1}")]
        ended = [part.ssrcs for data in control for part in parse_compound(data) if isinstance(part, Goodbye)]
        assert ended == [(1111,), (1112,), (1113,)]


async def test_the_peer_still_hears_what_we_send_until_we_switch(speech: Speech) -> None:
    async with pair(PCMU, new_pair(0)) as (one, other, trace):
        change(one, other, keys=new_pair(1)[0])
        await phrase(one, other, speech, 0.3)
        assert {packet.ssrc for packet in sent_rtp(trace, one)} == {1111}
        check_nothing_lost(one, other)


@pytest.mark.parametrize(
    ("codecs", "first", "then"),
    [
        ((PCMU, PCMA), (None, None), (None, None)),
        ((PCMU, OPUS), (None, None), (None, None)),
        ((PCMU, PCMA), new_pair(0), (None, None)),
        ((OPUS, PCMU), new_pair(0), new_pair(1)),
    ],
    ids=["clear", "clear, another clock", "same keys", "new keys"],
)
async def test_another_codec(
    codecs: tuple[Codec, Codec], first: tuple[Any, Any], then: tuple[Any, Any], speech: Speech
) -> None:
    async with pair(codecs[0], first) as (one, other, trace):
        await phrase(one, other, speech, 0.3)
        for session, peer, keys in ((other, one, then[1]), (one, other, then[0])):
            change(session, peer, codecs[1], keys)
        for session in (one, other):
            session.switch()
        await phrase(one, other, speech, 1.0)
        check_nothing_lost(one, other)
        assert one.statistics().codec == codecs[1].name
        assert one.statistics().sent == other.statistics().received
        packets = sent_rtp(trace, one)
        assert len({packet.ssrc for packet in packets}) == 1 + ((first[0] is None) or (then[0] is not None))
        assert all((wire != clear) == (first[0] is not None) for *_, wire, clear in trace.packets)


async def test_media_go_where_the_new_description_says(speech: Speech) -> None:
    async with pair(PCMU, (None, None)) as (one, other, _):
        await phrase(one, other, speech, 0.3)
        moved = await MediaSession.open("127.0.0.3")
        moved.start(PCMU, payload_type=0, remote=(one.host, one.port))
        with pytest.raises(MalformedError):
            one.change(PCMU, payload_type=0, remote=("224.0.0.1", 4000))
        await other.say(speech("callee", 0.1))
        check_nothing_lost(one)
        change(one, moved)
        one.switch()
        await phrase(one, moved, speech, 1.0)
        await moved.close()


async def test_a_session_that_has_not_started_cannot_change() -> None:
    session = await MediaSession.open("127.0.0.1")
    with pytest.raises(LocalError):
        session.change(PCMU, payload_type=0, remote=("127.0.0.1", 9))
    await session.close()


async def test_a_peer_with_our_ssrc_has_us_take_another(speech: Speech) -> None:
    async with pair(PCMU, (None, None)) as (one, other, trace):
        await one.say(speech("caller", 0.1))
        ours = sent_rtp(trace, one)[0].ssrc
        for number in range(4):
            packet = RtpPacket(0, number, 160 * number, ours, bytes(160)).serialize()
            one.take(packet, (other.host, other.port), False)
        await one.say(speech("caller", 0.1))
        ssrcs = [packet.ssrc for packet in sent_rtp(trace, one)]
        assert ssrcs[0] == ours != ssrcs[-1]
        assert len(set(ssrcs)) == 2
        parts = [part for *_, clear in trace.packets if 200 <= clear[1] <= 207 for part in parse_compound(clear)]
        assert [part.ssrcs for part in parts if isinstance(part, Goodbye)] == [(ours,)]
        assert other.statistics().other == 1  # the first of the new source; with the second it is followed
        assert other.statistics().received == 19


async def test_old_keys_are_good_for_nothing_after_a_while(speech: Speech, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was on its way is heard; whoever learns the old keys later can put no word into the call."""
    monkeypatch.setattr(rtp_session, "OLD_STREAMS_S", 0.3)
    async with pair(PCMU, new_pair(0)) as (one, other, _):
        late = [one._started().say(bytes(320))[1] for _ in range(2)]
        change(one, other, keys=new_pair(1)[0])
        change(other, one, keys=new_pair(1)[1])
        for session in (one, other):
            session.switch()
        other.take(late[0], (one.host, one.port), False)
        assert (other.statistics().received, other.statistics().unauthentic) == (1, 0)
        await asyncio.sleep(0.5)
        other.take(late[1], ("127.0.0.9", 4000), False)
        assert (other.statistics().received, other.statistics().unauthentic) == (1, 1)
        await phrase(one, other, speech, 0.3)
