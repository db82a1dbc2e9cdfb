"""Pictures that are decoded beside the event loop: in order, bounded, and with no thread left behind."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.media.conftest import keys_for
from voice_dpki.effects import SystemRandom
from voice_dpki.media.srtp import Clear
from voice_dpki.media.video import Encoded, VideoReceiver, VideoSender
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.wire import video as video_module
from voice_dpki.wire.screen import MAX_UNDECODED, Screen
from voice_dpki.wire.video import VideoSession

DEADLINE_S = 60.0
TYPE, TICKS = 100, 9000


class Waiting(VideoReceiver):
    """A receiver whose decoder works once `may_go` is set."""

    def __init__(self) -> None:
        super().__init__(TYPE, None, Clear())
        self.may_go = threading.Event()
        self.decoded_in: list[str] = []

    def decode(self, picture: Encoded) -> int | None:
        self.may_go.wait(DEADLINE_S)
        self.decoded_in.append(threading.current_thread().name)
        return super().decode(picture)


class Sender:
    """Pictures as a receiver puts them together."""

    def __init__(self) -> None:
        self._sender = VideoSender(TYPE, 7, Clear(), SystemRandom())
        self._receiver = VideoReceiver(TYPE, None, Clear())
        self._number = 0

    def picture(self, *, key: bool = False) -> Encoded:
        payloads = self._sender.encode(self._number, key=key)
        self._number += 1
        for _, wire in self._sender.pack(payloads, TICKS):
            self._receiver.receive(wire, 0.0)
        (picture,) = self._receiver.due(float("inf"))
        return picture


@pytest.fixture
def coders() -> Any:
    with ThreadPoolExecutor(1, "pictures") as pool:
        yield pool


async def emptied(screen: Screen) -> None:
    async with asyncio.timeout(DEADLINE_S):
        await screen.emptied()


async def test_the_loop_goes_on_while_a_picture_is_decoded(coders: ThreadPoolExecutor) -> None:
    screen, receiver, sender = Screen(coders), Waiting(), Sender()
    for _ in range(3):
        screen.put(receiver, sender.picture())
    await asyncio.sleep(0.05)
    assert screen.shown.numbers == []
    receiver.may_go.set()
    await emptied(screen)
    assert screen.shown.numbers == [0, 1, 2]
    assert {name.partition("_")[0] for name in receiver.decoded_in} == {"pictures"}


@pytest.mark.parametrize(
    ("whole", "shown", "asks"),
    [
        # One is with the decoder; of the next nine, the oldest of which is dropped, eight may wait.
        (None, [0], True),
        (3, [0, 3, 4, 5, 6, 7, 8, 9], False),
        (9, [0, 9], False),
    ],
)
async def test_what_waits_is_bounded_and_what_needs_a_dropped_picture_is_dropped(
    coders: ThreadPoolExecutor, whole: int | None, shown: list[int], asks: bool
) -> None:
    screen, receiver, sender = Screen(coders), Waiting(), Sender()
    receiver._sequence = object()  # type: ignore[assignment]  # as if packets had come
    receiver._pictures.is_broken = False
    screen.put(receiver, sender.picture())
    await asyncio.sleep(0)
    for number in range(1, MAX_UNDECODED + 2):
        screen.put(receiver, sender.picture(key=number == whole))
        assert len(screen._due) <= MAX_UNDECODED
    receiver.may_go.set()
    await emptied(screen)
    assert screen.shown.numbers == shown
    assert screen.dropped == MAX_UNDECODED + 2 - len(shown)
    assert receiver.needs_key is asks


async def test_a_picture_that_cannot_be_decoded_asks_for_a_whole_one(coders: ThreadPoolExecutor) -> None:
    screen, receiver = Screen(coders), Waiting()
    receiver._sequence = object()  # type: ignore[assignment]  # as if packets had come
    receiver._pictures.is_broken = False
    receiver.may_go.set()
    screen.put(receiver, Encoded(b"\x90\x02\x00\x9d\x01\x2a\xff\x3f\xff\x3f", 0))
    await emptied(screen)
    assert (screen.shown.undecodable, receiver.needs_key) == (1, True)


async def test_pictures_are_drawn_in_a_thread_and_anew_for_new_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """New keys come while a picture is encoded: it goes out under them, and the old SSRC sends no more."""
    began, may_go, drawn_in = threading.Event(), threading.Event(), set()

    class Slow(VideoSender):
        def encode(self, number: int, *, key: bool = False) -> list[bytes]:
            drawn_in.add(threading.current_thread().name.partition("_")[0])
            began.set()
            may_go.wait(DEADLINE_S)
            return super().encode(number, key=key)

    monkeypatch.setattr(video_module, "VideoSender", Slow)
    sent: list[int] = []

    class Trace:
        def rtp(self, src: str, dst: str, wire: bytes, clear: bytes) -> None:
            if clear[1] & 0x7F == TYPE:
                sent.append(int.from_bytes(clear[8:12], "big"))

    session = await VideoSession.open("127.0.0.1", tracer=Trace())
    session.start(payload_type=TYPE, remote=("127.0.0.1", 9), keys=keys_for(SrtpProfile.AEAD_AES_128_GCM)[0])
    filming = asyncio.create_task(session.film(0.1))
    await until(began.is_set)
    session.change(
        payload_type=TYPE, remote=("127.0.0.1", 9), keys=keys_for(SrtpProfile.AEAD_AES_128_GCM, "again")[1]
    )
    session.switch()
    may_go.set()
    async with asyncio.timeout(DEADLINE_S):
        await filming
    assert sent == [2222]
    assert drawn_in == {"pictures"}
    await session.close()


async def test_a_session_that_is_closed_while_it_films_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    session = await VideoSession.open("127.0.0.1")
    session.start(payload_type=TYPE, remote=("127.0.0.1", 9))
    filming = asyncio.create_task(session.film(DEADLINE_S))
    await until(lambda: session.statistics().sent > 0)
    filming.cancel()
    await session.close()
    assert threading.active_count() == before


async def test_a_session_whose_end_is_cut_short_closes_its_sockets() -> None:
    """Who closes it is cancelled while the last pictures are decoded."""
    session = await VideoSession.open("127.0.0.1")
    session.start(payload_type=TYPE, remote=("127.0.0.1", 9))
    receiver, sender = Waiting(), Sender()
    session._screen.put(receiver, sender.picture())
    session._started().receiving._waiting.append((sender.picture(), 0.0))
    closing = asyncio.create_task(session.close())
    await until(lambda: session._ticking is None)
    await asyncio.sleep(0.05)
    closing.cancel()
    receiver.may_go.set()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert all(transport.is_closing() for transport in session._transports)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds():
            await asyncio.sleep(0.01)
