"""Early media over a real proxy, with MIKEY: encrypted, and heard before the call is answered; nothing in clear."""

import asyncio
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sip_testbed.likeness import likeness_of
from sip_testbed.telephone import Telephone
from tests.sip_testbed.test_phones import CALLEE, TIMEOUT_S, Domain
from tests.sip_testbed.test_phones import domain as domain  # a fixture
from tests.sip_testbed.test_session import End, end_of
from voice_dpki.media.pcm import Pcm
from voice_dpki.media.recording import read_wav, write_wav
from voice_dpki.media.rtp import RtpPacket
from voice_dpki.wire.media import MediaSession
from voice_dpki.wire.sip.user_agent import IncomingCall

EARLY_S = SPOKEN_S = 0.8
HEARD_S = 0.6
"""How much of the early media the test waits for before the call is answered."""


async def ends(domain: Domain, folder: Path, srtp: str, mode: str = "dhhmac") -> tuple[End, End]:
    caller = await end_of(domain, folder, "caller", srtp=srtp, mode=mode, spoken_s=SPOKEN_S)
    callee = await end_of(domain, folder, "callee", srtp=srtp, mode=mode, spoken_s=SPOKEN_S, early_s=EARLY_S)
    return caller, callee


async def place(caller: End) -> dict[str, Any]:
    await asyncio.wait_for(caller.telephone.call(f"sip:+{CALLEE}@a.example"), TIMEOUT_S)
    async with asyncio.timeout(TIMEOUT_S):
        while not (caller.folder / "callee.json").exists():
            await asyncio.sleep(0.01)
    result: dict[str, Any] = json.loads((caller.folder / "caller.json").read_text())
    return result


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[MediaSession]:
    """The media sessions that telephones open, in their order: the caller's is the first."""
    opened: list[MediaSession] = []
    open_media = Telephone._open_media

    async def watched(self: Telephone) -> MediaSession:
        opened.append(await open_media(self))
        return opened[-1]

    monkeypatch.setattr(Telephone, "_open_media", watched)
    return opened


async def until_heard(sessions: list[MediaSession]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while sessions[0].heard.duration_s < HEARD_S:
            await asyncio.sleep(0.01)


@pytest.fixture
def at_the_answer(monkeypatch: pytest.MonkeyPatch, sessions: list[MediaSession]) -> list[Callable[[], None]]:
    """What is done before the callee answers, once the caller has heard HEARD_S."""
    done: list[Callable[[], None]] = []
    answer = IncomingCall.answer

    async def watched(self: IncomingCall, sdp: bytes, headers: Any = ()) -> None:
        await until_heard(sessions)
        for act in done:
            act()
        await answer(self, sdp, headers)

    monkeypatch.setattr(IncomingCall, "answer", watched)
    return done


@pytest.mark.parametrize(("srtp", "mode"), [("AES_CM_128_HMAC_SHA1_80", "dhhmac"), ("AEAD_AES_128_GCM", "psk")])
async def test_early_media_are_heard_before_the_answer_and_encrypted(
    domain: Domain,
    tmp_path: Path,
    sessions: list[MediaSession],
    at_the_answer: list[Callable[[], None]],
    srtp: str,
    mode: str,
) -> None:
    heard: list[Pcm] = []
    at_the_answer.append(lambda: heard.append(sessions[0].heard))
    caller, callee = await ends(domain, tmp_path, srtp, mode)
    result = await place(caller)
    assert (result["established"], result["status"], result["srtp"]) == (True, 200, srtp)
    assert result["early_s"] >= HEARD_S
    said = read_wav(callee.recording("said")).part(0.0, HEARD_S - 0.1)
    likeness = likeness_of(write_wav(said), write_wav(heard[0]))
    assert likeness is not None
    assert likeness >= 0.99
    for one, other in ((caller, callee), (callee, caller)):
        likeness = likeness_of(one.recording("said"), other.recording("heard"))
        assert likeness is not None
        assert likeness >= 0.99
    for end in (caller, callee):
        packets = [event for event in end.events if event["kind"] == "rtp"]
        assert packets
        assert all(event["wire"] != event["clear"] for event in packets)


async def test_what_comes_in_clear_is_not_played(
    domain: Domain, tmp_path: Path, sessions: list[MediaSession], at_the_answer: list[Callable[[], None]]
) -> None:
    """A stranger sends a tone in clear to the caller's port, before the early answer and after it."""
    caller, callee = await ends(domain, tmp_path, "AES_CM_128_HMAC_SHA1_80")
    stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def intrude() -> None:
        for sequence in range(20):
            packet = RtpPacket(
                payload_type=0, sequence=sequence, timestamp=160 * sequence, ssrc=7, payload=b"\x10" * 160
            )
            stranger.sendto(packet.serialize(), ("127.0.0.1", sessions[0].port))

    at_the_answer.append(intrude)
    with stranger:
        placing = asyncio.create_task(place(caller))
        async with asyncio.timeout(TIMEOUT_S):
            while not sessions:
                await asyncio.sleep(0.001)
        intrude()
        result = await placing
    assert result["established"]
    assert result["media"]["unauthentic"] == 40
    likeness = likeness_of(callee.recording("said"), caller.recording("heard"))
    assert likeness is not None
    assert likeness >= 0.99


async def test_an_early_answer_without_keys_is_not_heard_and_the_call_is_ended(
    domain: Domain, tmp_path: Path, sessions: list[MediaSession]
) -> None:
    """The callee speaks in clear: nothing is played or sent before the answer, and the answer is refused."""
    caller, callee = await ends(domain, tmp_path, "AES_CM_128_HMAC_SHA1_80")

    async def in_clear(call: IncomingCall) -> None:
        sdp = call.sdp.decode()
        lines = [line for line in sdp.splitlines() if not line.startswith("a=key-mgmt")]
        answer = ("\r\n".join(lines) + "\r\n").replace("RTP/SAVP ", "RTP/AVP ").encode()
        await call.progress(answer)
        await asyncio.sleep(0.3)
        await call.answer(answer)
        await call.ended.wait()
        (tmp_path / "callee.json").write_text("{}")

    callee.agent.on_invite = in_clear
    result = await place(caller)
    assert (result["established"], result["early_s"], result["media"]) == (False, 0.0, None)
    assert result["refused_by"] is not None
    assert [event for event in caller.events if event["kind"] == "rtp"] == []
    notes = [event["text"] for event in caller.events if event["kind"] == "note"]
    assert any(text.startswith("early media not played") for text in notes)


async def test_an_announcement_is_heard_of_a_call_that_is_then_refused(
    domain: Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sessions: list[MediaSession]
) -> None:
    async def refuse(self: IncomingCall, sdp: bytes, headers: Any = ()) -> None:
        await until_heard(sessions)
        await self.reject(404)

    monkeypatch.setattr(IncomingCall, "answer", refuse)
    caller, _ = await ends(domain, tmp_path, "AES_CM_128_HMAC_SHA1_80")
    result = await place(caller)
    assert (result["established"], result["status"]) == (False, 404)
    assert result["early_s"] >= HEARD_S
    assert read_wav(caller.recording("heard")).duration_s >= HEARD_S


async def test_a_caller_that_knows_no_reliable_responses_hears_nothing_before_the_answer(
    domain: Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voice_dpki.wire.sip.call.SUPPORTED", "timer")
    caller, _ = await ends(domain, tmp_path, "AES_CM_128_HMAC_SHA1_80")
    result = await place(caller)
    assert (result["established"], result["early_s"]) == (True, 0.0)
    assert json.loads((tmp_path / "callee.json").read_text())["early_s"] == 0.0
