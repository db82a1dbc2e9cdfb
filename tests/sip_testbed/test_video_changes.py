"""Video that an offer or an answer in mid-call stops, moves or holds, while the speech goes on."""

import asyncio
import base64
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from sip_testbed.session import ChangeRefusedError, Session
from tests.sip_testbed.test_phones import TIMEOUT_S
from tests.sip_testbed.test_phones import domain as domain  # a fixture
from tests.sip_testbed.test_session import Begin, Talk, leg_of
from tests.sip_testbed.test_session import begin as begin  # a fixture
from voice_dpki.media.rtcp import Goodbye, is_rtcp, parse_compound
from voice_dpki.sip.offer_answer import answer_to
from voice_dpki.sip.sdp import SessionDescription
from voice_dpki.wire.sip.changes import Reinvite

GCM = "AEAD_AES_128_GCM"
SILENT_S = 0.3
"""Three pictures' time."""


@dataclass(frozen=True)
class Sent:
    """A packet of pictures, or of reports on them."""

    destination: str
    clear: bytes
    wire: bytes

    @property
    def is_report(self) -> bool:
        return is_rtcp(self.clear)


def pictures_of(talk: Talk, name: str) -> list[Sent]:
    """What one of the two has sent of its video, RTCP included."""
    session = talk.caller if name == "caller" else talk.callee
    assert session.video._session is not None
    ports = (session.video._session.port, session.video._session.port + 1)
    return [
        Sent(event["dst"], base64.b64decode(event["clear"]), base64.b64decode(event["wire"]))
        for event in talk.rtp
        if event["actor"] == name and int(event["src"].rpartition(":")[2]) in ports
    ]


async def pictures_flow(talk: Talk, *names: str) -> None:
    """Wait until each of these has sent three more pictures."""
    before = {name: sum(not sent.is_report for sent in pictures_of(talk, name)) for name in names}
    async with asyncio.timeout(TIMEOUT_S):
        while any(sum(not s.is_report for s in pictures_of(talk, name)) < before[name] + 3 for name in names):
            await asyncio.sleep(0.02)


async def nothing_comes(talk: Talk, name: str) -> None:
    """Check that one of the two sends no pictures, and no reports on any, for longer than a report's time."""
    before = len(pictures_of(talk, name))
    await asyncio.sleep(1.2)
    assert len(pictures_of(talk, name)) == before


async def no_pictures_come(talk: Talk, name: str) -> None:
    """Check that one of the two sends reports alone."""
    before = len(pictures_of(talk, name))
    await asyncio.sleep(1.2)
    after = pictures_of(talk, name)[before:]
    assert after
    assert all(sent.is_report for sent in after)


def said_goodbye(talk: Talk, name: str, *, keyed: bool) -> bool:
    """Whether the last that was sent is a BYE, encrypted if the call is."""
    last = pictures_of(talk, name)[-1]
    assert (last.wire[8:] != last.clear[8:]) is keyed
    return any(isinstance(part, Goodbye) for part in parse_compound(last.clear))


def offer_of(session: Session) -> str:
    """What the session would offer in a change that changes nothing."""
    now = session._now
    own = session.describe(now.codec, now.codec.payload_type, now.own_keys)
    return answer_to(now.offer, now.taken, own, session.video.offered_again()).serialize().decode()


async def offered(session: Session, change: Callable[[str], str]) -> SessionDescription:
    """Send an offer that was changed; returns the answer."""
    sdp = change(offer_of(session))
    answer = await leg_of(session).reinvite(lambda: sdp.encode())
    assert answer.status == 200
    return SessionDescription.parse(answer.sdp)


def stopped(sdp: str) -> str:
    return re.sub(r"m=video \d+", "m=video 0", sdp)


def in_video(line: str) -> Callable[[str], str]:
    """Put a line into the section of the video, and take out its direction."""

    def change(sdp: str) -> str:
        head, video = sdp.split("m=video")
        return f"{head}m=video{video.replace('a=sendrecv' + chr(13) + chr(10), '')}{line}\r\n"

    return change


@pytest.fixture
def elsewhere() -> Iterator[Any]:
    """Another address of the other side: a socket that hears what comes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard:
        heard.bind(("127.0.0.1", 0))
        heard.setblocking(False)
        yield heard


def moved_to(port: int) -> Callable[[str], str]:
    return lambda sdp: re.sub(r"m=video \d+", f"m=video {port}", sdp)


async def has_come(heard: Any) -> bytes:
    async with asyncio.timeout(TIMEOUT_S):
        return await asyncio.get_running_loop().sock_recv(heard, 2048)


# The other side offers.


@pytest.mark.parametrize("srtp", ["none", GCM])
async def test_an_offer_stops_the_video_and_another_takes_it_up(begin: Begin, srtp: str) -> None:
    talk = await begin(srtp, video=True)
    await pictures_flow(talk, "caller", "callee")
    with_video = offer_of(talk.caller)
    answer = await offered(talk.caller, stopped)
    assert [section.port > 0 for section in answer.media] == [True, False]
    assert said_goodbye(talk, "callee", keyed=srtp != "none")
    await nothing_comes(talk, "callee")
    await talk.flows("callee")
    answer = await offered(talk.caller, lambda _: with_video)
    assert answer.media[1].port > 0
    await pictures_flow(talk, "callee")


async def test_an_offer_moves_the_video(begin: Begin, elsewhere: Any) -> None:
    talk = await begin("none", video=True)
    await pictures_flow(talk, "callee")
    await offered(talk.caller, moved_to(elsewhere.getsockname()[1]))
    await has_come(elsewhere)
    await talk.flows("callee")


@pytest.mark.parametrize(("line", "answered"), [("a=sendonly", "recvonly"), ("a=inactive", "inactive")])
async def test_an_offer_holds_the_video_alone(begin: Begin, line: str, answered: str) -> None:
    talk = await begin("none", video=True)
    await pictures_flow(talk, "callee")
    answer = await offered(talk.caller, in_video(line))
    assert answer.direction_of(answer.media[1]) == answered
    assert answer.audio_direction == "sendrecv"
    await asyncio.sleep(SILENT_S)
    await no_pictures_come(talk, "callee")
    await offered(talk.caller, lambda sdp: sdp)
    await pictures_flow(talk, "callee")


async def test_an_offer_with_an_address_of_nobody_is_refused_and_the_video_goes_on(begin: Begin) -> None:
    talk = await begin("none", video=True)
    sdp = in_video("c=IN IP4 224.0.0.1")(offer_of(talk.caller))
    assert (await leg_of(talk.caller).reinvite(lambda: sdp.encode())).status == 488
    await pictures_flow(talk, "callee")


async def test_an_offer_of_pictures_in_clear_gets_none(begin: Begin) -> None:
    """The speech stays under its keys; somebody on the path has changed the video's protocol."""
    talk = await begin(GCM, video=True)
    await pictures_flow(talk, "callee")
    answer = await offered(talk.caller, lambda sdp: sdp.replace("RTP/SAVPF", "RTP/AVPF"))
    assert answer.media[1].port == 0
    await nothing_comes(talk, "callee")
    assert all(event["wire"] != event["clear"] for event in talk.rtp)


async def test_video_that_new_keys_have_passed_by_does_not_come_back_under_old_ones(begin: Begin) -> None:
    talk = await begin(GCM, video=True)
    await pictures_flow(talk, "callee")
    section = offer_of(talk.caller).partition("m=video")[2]
    await offered(talk.caller, stopped)
    talk.caller.video._stop(rekeyed=False)
    await talk.caller.rekey()
    answer = await offered(talk.caller, lambda sdp: sdp.partition("m=video")[0] + "m=video" + section)
    assert answer.media[1].port == 0
    await nothing_comes(talk, "callee")
    await talk.flows("caller", "callee")


# The other side answers.


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], str]], None]:
    """Have answers to re-INVITEs changed before they are sent."""

    def answer(change: Callable[[str], str]) -> None:
        accept = Reinvite.accept

        async def accepted(self: Reinvite, sdp: bytes, *rest: Any) -> bytes:
            return await accept(self, change(sdp.decode()).encode(), *rest)

        monkeypatch.setattr(Reinvite, "accept", accepted)

    return answer


@pytest.mark.parametrize("srtp", ["none", GCM])
async def test_an_answer_stops_the_video(begin: Begin, answering: Any, srtp: str) -> None:
    talk = await begin(srtp, video=True)
    await pictures_flow(talk, "caller")
    answering(stopped)
    await talk.caller.hold()
    assert said_goodbye(talk, "caller", keyed=srtp != "none")
    await talk.caller.resume()
    await nothing_comes(talk, "caller")
    await talk.flows("caller", "callee")
    assert SessionDescription.parse(offer_of(talk.caller).encode()).media[1].port == 0, "it is not offered again"
    if srtp != "none":
        await talk.caller.rekey()  # keys the speech alone
        await talk.flows("caller", "callee")


async def test_an_answer_moves_the_video(begin: Begin, answering: Any, elsewhere: Any) -> None:
    talk = await begin("none", video=True)
    answering(moved_to(elsewhere.getsockname()[1]))
    await talk.caller.hold()
    await talk.caller.resume()
    await has_come(elsewhere)
    await talk.flows("caller")


async def test_an_answer_holds_the_video_alone(begin: Begin, answering: Any) -> None:
    talk = await begin("none", video=True)
    answering(in_video("a=inactive"))
    await talk.caller.hold()
    await talk.caller.resume()
    await asyncio.sleep(SILENT_S)
    await no_pictures_come(talk, "caller")
    await talk.flows("caller", "callee")


@pytest.mark.parametrize(
    "change",
    [lambda sdp: sdp.replace("VP8/90000", "H264/90000"), in_video("c=IN IP4 224.0.0.1")],
    ids=["another coding", "an address of nobody"],
)
async def test_an_answer_that_cannot_be_followed_ends_the_call(begin: Begin, answering: Any, change: Any) -> None:
    talk = await begin("none", video=True)
    answering(change)
    with pytest.raises(ChangeRefusedError):
        await talk.caller.hold()
    assert (await asyncio.wait_for(talk.call, TIMEOUT_S)).established is False
