"""A call that rings at two telephones of one user, over a real proxy: each has its own keys, and one is heard."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sip_testbed.likeness import likeness_of
from sip_testbed.telephone import Telephone
from tests.sip_testbed.test_early_media import EARLY_S, HEARD_S, SPOKEN_S
from tests.sip_testbed.test_phones import CALLEE, TIMEOUT_S, Domain
from tests.sip_testbed.test_phones import domain as domain  # a fixture
from tests.sip_testbed.test_session import End, end_of
from voice_dpki.wire.media import MediaSession
from voice_dpki.wire.sip.user_agent import IncomingCall

SRTP = "AES_CM_128_HMAC_SHA1_80"


class Forks:
    """A caller, a telephone that plays early media, and another one of the same user that only rings."""

    def __init__(self, domain: Domain, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.domain, self.folder = domain, folder
        self.sessions: dict[Telephone, MediaSession] = {}
        self.calls: dict[Path, IncomingCall] = {}
        self.until: dict[Path, Callable[[], Coroutine[Any, Any, object]]] = {}
        """What each telephone waits for before it answers."""
        domain.proxy._config = msgspec.structs.replace(domain.proxy._config, ring_all=True)
        open_media, answer = Telephone._open_media, IncomingCall.answer

        async def watched(telephone: Telephone) -> MediaSession:
            self.sessions[telephone] = await open_media(telephone)
            return self.sessions[telephone]

        async def held(call: IncomingCall, sdp: bytes, headers: Any = ()) -> None:
            folder = next(
                end.folder for end in (self.early, self.other) if call._line.contact == end.agent._contact
            )
            self.calls[folder] = call
            await self.until[folder]()
            await answer(call, sdp, headers)

        patch.setattr(Telephone, "_open_media", watched)
        patch.setattr(IncomingCall, "answer", held)

    async def start(self, mode: str) -> None:
        options: dict[str, Any] = {"srtp": SRTP, "mode": mode, "spoken_s": SPOKEN_S}
        self.caller = await end_of(self.domain, self.folder, "caller", **options)
        folders = [self.folder / name for name in ("early", "other")]
        for folder in folders:
            folder.mkdir()
        self.early = await end_of(self.domain, folders[0], "callee", early_s=EARLY_S, **options)
        self.other = await end_of(self.domain, folders[1], "callee", **options)

    async def heard(self) -> None:
        """Wait until the caller has heard enough of the early media."""
        media = self.sessions[self.caller.telephone]
        async with asyncio.timeout(TIMEOUT_S):
            while media._streams is None or media.heard.duration_s < HEARD_S:
                await asyncio.sleep(0.01)

    async def cancelled(self, end: End) -> None:
        await asyncio.wait_for(self.calls[end.folder].ended.wait(), TIMEOUT_S)

    async def place(self) -> dict[str, Any]:
        await asyncio.wait_for(self.caller.telephone.call(f"sip:+{CALLEE}@a.example"), TIMEOUT_S)
        result: dict[str, Any] = json.loads((self.folder / "caller.json").read_text())
        return result


@pytest.fixture
def forks(domain: Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Forks:
    return Forks(domain, tmp_path, monkeypatch)


async def test_the_telephone_that_answers_is_heard_and_the_other_one_is_a_stranger(forks: Forks) -> None:
    """The one whose early media are heard goes on sending when the other one has answered."""
    await forks.start("dhhmac")
    over = asyncio.Event()
    forks.until = {forks.early.folder: over.wait, forks.other.folder: forks.heard}
    result = await forks.place()
    assert (result["established"], result["status"]) == (True, 200)
    assert result["early_s"] >= HEARD_S
    assert forks.calls[forks.early.folder].ended_by_peer, "it was cancelled"
    assert result["media"]["unauthentic"] > 0, "its packets do not verify under the other one's keys"
    assert forks.sessions[forks.early.telephone].statistics().received == 0
    likeness = likeness_of(forks.other.recording("said"), forks.caller.recording("heard"))
    assert likeness is not None
    assert likeness >= 0.99
    likeness = likeness_of(forks.caller.recording("said"), forks.other.recording("heard"))
    assert likeness is not None
    assert likeness >= 0.99
    over.set()


async def test_the_telephone_that_is_heard_goes_on_when_it_answers(forks: Forks) -> None:
    await forks.start("dhhmac")

    async def never() -> None:
        await forks.cancelled(forks.other)

    forks.until = {forks.early.folder: forks.heard, forks.other.folder: never}
    result = await forks.place()
    assert (result["established"], result["media"]["unauthentic"]) == (True, 0)
    await forks.cancelled(forks.other)
    assert forks.calls[forks.other.folder].ended_by_peer
    likeness = likeness_of(forks.early.recording("said"), forks.caller.recording("heard"))
    assert likeness is not None
    assert likeness >= 0.99


async def test_telephones_that_answer_with_the_same_keys_are_not_talked_to(forks: Forks) -> None:
    """Under a pre-shared key the caller chooses the keys, so both have them, and streams of both would have one."""
    await forks.start("psk")
    over = asyncio.Event()
    forks.until = {forks.early.folder: over.wait, forks.other.folder: forks.heard}
    result = await forks.place()
    assert (result["established"], result["refused_by"]) == (False, "MIKEY fork")
    over.set()
