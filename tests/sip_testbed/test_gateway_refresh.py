"""Re-INVITEs within a call through the gateway: a refresh is answered, and a change is refused."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from sip_testbed.gateway_refresh import Described, keep_up
from voice_dpki.sip.sdp import SECURE, RtpMap, SessionDescription, audio_description

OURS = audio_description("127.0.0.8", 4000, [RtpMap(0, "PCMU/8000")], session_id=1)
THEIRS = audio_description("127.0.0.9", 5000, [RtpMap(0, "PCMU/8000")], session_id=2, key_mgmt=["mikey AQ=="])


class Change:
    def __init__(self, sdp: bytes) -> None:
        self.sdp = sdp
        self.answered: bytes | int | None = None

    async def accept(self, sdp: bytes) -> bytes:
        self.answered = sdp
        return b""

    def refuse(self, status: int) -> None:
        self.answered = status


class Leg:
    def on_reinvite(self, callback: Any) -> None:
        self.answer = callback

    def on_refresh(self, callback: Any) -> None:
        self.refresh = callback

    async def reinvite(self, describe: Callable[[], bytes]) -> Any:
        self.sent = describe()
        return cast(Any, type("Final", (), {"status": 200}))


@pytest.fixture
def leg() -> Leg:
    made = Leg()
    keep_up(cast(Any, made), Described(OURS, THEIRS))
    return made


async def asked(leg: Leg, sdp: bytes) -> bytes | int | None:
    change = Change(sdp)
    await leg.answer(change)
    return change.answered


async def test_a_repetition_is_answered_with_what_we_said(leg: Leg) -> None:
    again = THEIRS.serialize().replace(b"o=- 2 1 ", b"o=- 2 2 ")
    for sdp in (THEIRS.serialize(), again, b""):
        assert await asked(leg, sdp) == OURS.serialize()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"a=sendrecv", b"a=inactive"),
        (b"audio 5000", b"audio 5002"),
        (b"c=IN IP4 127.0.0.9", b"c=IN IP4 0.0.0.0"),
        (SECURE.encode(), b"RTP/AVP"),
        (b"mikey AQ==", b"mikey Ag=="),
        (b"v=0", b"v=1"),
    ],
)
async def test_a_change_is_refused(leg: Leg, old: bytes, new: bytes) -> None:
    assert old in THEIRS.serialize()
    assert await asked(leg, THEIRS.serialize().replace(old, new)) == 488


async def test_a_refresh_of_ours_repeats_our_description(leg: Leg) -> None:
    await leg.refresh()
    assert SessionDescription.parse(leg.sent) == OURS
