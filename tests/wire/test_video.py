"""Whole sessions of speech and video over the loopback, in real time."""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import av
import pytest

from tests.media.conftest import keys_for
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.media.codecs import CODECS
from voice_dpki.media.pictures import number_in
from voice_dpki.media.rtcp import Goodbye, parse_compound
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.wire.media import MediaSession
from voice_dpki.wire.video import VideoSession

DEADLINE_S = 60.0
PROFILE = SrtpProfile.AEAD_AES_128_GCM
PCMU = CODECS["PCMU"]


@dataclass
class End:
    """One telephone's speech and video."""

    media: MediaSession
    video: VideoSession
    keys: SrtpKeys | None

    def start(self, other: "End") -> None:
        remote = (other.media.host, other.media.port)
        self.media.start(PCMU, payload_type=0, remote=remote, keys=self.keys)
        self.video.start(
            payload_type=100,
            remote=(other.video.host, other.video.port),
            keys=self.keys,
            plays_at_s=self.media.plays_at_s,
        )


@contextlib.asynccontextmanager
async def pair(
    keys: tuple[Any, Any], media: type[MediaSession] = MediaSession, video: type[VideoSession] = VideoSession
) -> AsyncIterator[tuple[End, End]]:
    """Two ends; `media` and `video` are of the first, which may be hard of hearing or seeing."""
    ends = [
        End(await media.open("127.0.0.1"), await video.open("127.0.0.1"), keys[0]),
        End(await MediaSession.open("127.0.0.2"), await VideoSession.open("127.0.0.2"), keys[1]),
    ]
    try:
        ends[0].start(ends[1])
        ends[1].start(ends[0])
        yield ends[0], ends[1]
    finally:
        for end in ends:
            await end.video.close()
            await end.media.close()


async def talk(one: End, other: End, speech: Any, seconds: float) -> None:
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(
            one.media.say(speech("caller", seconds)),
            other.media.say(speech("callee", seconds)),
            one.video.film(seconds),
            other.video.film(seconds),
            one.media.heard_within(DEADLINE_S),
            other.media.heard_within(DEADLINE_S),
        )
        await asyncio.sleep(0.3)
        await asyncio.gather(one.video.finish(), other.video.finish())


@pytest.mark.parametrize("keyed", [True, False])
async def test_both_see_all_pictures_with_their_speech(speech: Any, keyed: bool) -> None:
    async with pair(keys_for(PROFILE) if keyed else (None, None)) as (one, other):
        await talk(one, other, speech, 1.5)
        for end in (one, other):
            told = end.video.statistics()
            assert (told.sent, told.shown, told.missed, told.lost) == (15, 15, 0, 0)
            assert (told.unauthentic, told.malformed, told.other) == (0, 0, 0)
            assert told.srtp == (PROFILE if keyed else None)
            assert told.sync_ms is not None
            with av.open(io.BytesIO(end.video.recording()), "r") as container:
                assert [number_in(frame) for frame in container.decode(video=0)] == list(range(15))


class Slow(MediaSession):
    """Speech comes 0.3 s later, reports do not."""

    def take(self, data: bytes, source: tuple[str, int], is_control: bool) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(0.0 if is_control else 0.3, super().take, data, source, is_control)


async def test_pictures_wait_for_their_speech(speech: Any) -> None:
    async with pair(keys_for(PROFILE), media=Slow) as (one, other):
        began_s = asyncio.get_running_loop().time()
        await talk(one, other, speech, 1.5)
        shown = [now_s for _, now_s in one.video._screen.shown.encoded]
        late_s = [now_s - began_s - 0.1 * number for number, now_s in enumerate(shown)]
        assert len(late_s) == 15
        # Once some speech has come: 0.3 s on the way, and the buffer's own delay of 0.06 s.
        assert all(each >= 0.35 for each in late_s[6:]), late_s
        told = one.video.statistics()
        assert told.sync_ms is not None


class Leaky(VideoSession):
    """The fourth packet of pictures is lost."""

    count = 0

    def take(self, data: bytes, source: tuple[str, int], is_control: bool) -> None:
        self.count += not is_control
        if is_control or self.count != 4:
            super().take(data, source, is_control)


async def test_a_lost_picture_is_asked_for_and_sent_whole(speech: Any) -> None:
    async with pair(keys_for(PROFILE), video=Leaky) as (one, other):
        await talk(one, other, speech, 2.0)
        told, theirs = one.video.statistics(), other.video.statistics()
        assert told.asked >= 1
        assert theirs.whole_sent >= 1
        assert told.lost == 1
        assert 1 <= told.missed <= 12
        assert one.video._screen.shown.numbers[-1] == 19


async def test_new_keys_in_the_middle(speech: Any) -> None:
    async with pair(keys_for(PROFILE)) as (one, other):
        again = keys_for(PROFILE, "again")
        news = [SrtpKeys(PROFILE, *(_renumbered(key) for key in (each.send, each.receive))) for each in again]

        async def rekey() -> None:
            await asyncio.sleep(0.75)
            rekey_one(other, one, news[1])  # the answerer takes both before its answer is there
            await asyncio.sleep(0.15)
            rekey_one(one, other, news[0])
            one.video.switch()
            await asyncio.sleep(0.15)
            other.video.switch()

        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(talk(one, other, speech, 1.5), rekey())
        for end in (one, other):
            told = end.video.statistics()
            assert (told.shown, told.missed, told.unauthentic, told.lost) == (15, 0, 0, 0)
            assert told.received >= 15, "those under the old keys count, too"


def rekey_one(end: End, other: End, keys: SrtpKeys) -> None:
    end.video.change(payload_type=100, remote=(other.video.host, other.video.port), keys=keys)


def _renumbered(key: Any) -> Any:
    return type(key)(key.ssrc + 7, key.tek, key.salt)


async def test_nothing_is_sent_on_hold_and_numbers_go_on(speech: Any) -> None:
    async with pair(keys_for(PROFILE)) as (one, other):
        one.video.allow_sending(False)
        await talk(one, other, speech, 0.5)
        one.video.allow_sending(True)
        async with asyncio.timeout(DEADLINE_S):
            await one.video.film(0.3)
        assert one.video.statistics().sent == 3
        assert one.video._filmed == 8


class Trace:
    """What a session sent: its own port, where to, and the packet in clear."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, str, bytes]] = []

    def rtp(self, src: str, dst: str, wire: bytes, clear: bytes) -> None:
        self.sent.append((int(src.rpartition(":")[2]), dst, clear))


@contextlib.asynccontextmanager
async def watched(keys: tuple[Any, Any]) -> AsyncIterator[tuple[VideoSession, VideoSession, Trace]]:
    """Two sessions of pictures, and what the first sends."""
    trace = Trace()
    one, other = await VideoSession.open("127.0.0.1", tracer=trace), await VideoSession.open("127.0.0.2")
    try:
        one.start(payload_type=100, remote=(other.host, other.port), keys=keys[0])
        other.start(payload_type=100, remote=(one.host, one.port), keys=keys[1])
        yield one, other, trace
    finally:
        await one.close()
        await other.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("keyed", [True, False])
async def test_a_stream_that_is_stopped_says_goodbye_and_is_silent_until_it_goes_on(keyed: bool) -> None:
    async with watched(keys_for(PROFILE) if keyed else (None, None)) as (one, other, trace):
        await one.film(0.3)
        one.stop()
        control, before = trace.sent[-1], len(trace.sent)
        assert control[0] == one.port + 1
        assert any(isinstance(part, Goodbye) for part in parse_compound(control[2]))
        await asyncio.gather(one.film(0.2), other.film(0.2), asyncio.sleep(1.2))  # over a report's time
        assert (len(trace.sent), one.statistics().received) == (before, 0)
        one.change(payload_type=100, remote=(other.host, other.port))
        await asyncio.gather(one.film(0.3), other.film(0.3))
        await until(lambda: other.statistics().shown == 6)
        assert one.statistics().received > 0


async def test_pictures_go_where_the_new_description_says() -> None:
    async with watched((None, None)) as (one, other, trace):
        await asyncio.gather(one.film(0.2), other.film(0.2))
        moved = await VideoSession.open("127.0.0.3")
        moved.start(payload_type=100, remote=(one.host, one.port))
        with pytest.raises(MalformedError):
            one.change(payload_type=100, remote=("224.0.0.1", 4000))
        one.change(payload_type=100, remote=(moved.host, moved.port))
        before, shown = len(trace.sent), one.statistics().shown
        await asyncio.gather(one.film(0.5), moved.film(0.5))
        await until(lambda: moved.statistics().shown > 0)
        assert {dst.rpartition(":")[0] for _, dst, _ in trace.sent[before:]} == {moved.host}
        await until(lambda: one.statistics().shown > shown)  # another SSRC, and a whole picture that was asked for
        await moved.close()


async def test_an_old_packet_from_elsewhere_moves_no_pictures() -> None:
    async with watched(keys_for(PROFILE)) as (one, other, _):
        sender = other._started().sending
        first, held_back, newest = (sender.pack(sender.encode(number), 9000)[0][1] for number in range(3))
        for packet, source in (
            (first, (other.host, other.port)),
            (newest, (other.host, other.port)),
            (held_back, ("127.0.0.9", 4000)),
        ):
            one.take(packet, source, False)
        assert one.statistics().received == 3
        assert one._peer.source == (other.host, other.port)


async def test_no_picture_is_asked_for_where_none_is_to_come() -> None:
    """The peer's first picture is lost, and it says that it sends no more."""
    async with watched(keys_for(PROFILE)) as (one, other, _):
        one.expects_pictures = False
        sender = other._started().sending
        for _, wire in sender.pack(sender.encode(0), 9000):
            one.take(wire, (other.host, other.port), False)
        one._started().receiving.give_up()
        await asyncio.sleep(0.5)
        assert one.statistics().asked == 0
        one.expects_pictures = True
        await until(lambda: one.statistics().asked > 0)


async def test_what_comes_before_the_keys_waits_for_them() -> None:
    keys = keys_for(PROFILE)
    one, other = await VideoSession.open("127.0.0.1"), await VideoSession.open("127.0.0.2")
    try:
        one.start(payload_type=100, remote=(other.host, other.port), keys=keys[0])
        async with asyncio.timeout(DEADLINE_S):
            await one.film(0.3)
            await asyncio.sleep(0.1)
            other.start(payload_type=100, remote=(one.host, one.port), keys=keys[1])
            while other.statistics().shown < 3:
                await asyncio.sleep(0.02)
    finally:
        await one.close()
        await other.close()


async def test_what_cannot_be_sent_to_is_refused() -> None:
    session = await VideoSession.open("127.0.0.1")
    try:
        with pytest.raises(MalformedError):
            session.start(payload_type=100, remote=("224.0.0.1", 4000))
        with pytest.raises(LocalError):
            session.statistics()
    finally:
        await session.close()
