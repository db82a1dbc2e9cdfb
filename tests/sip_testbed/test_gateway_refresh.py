"""Re-INVITEs within a call through the gateway: a refresh is answered, and a change for the worse is refused."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from sip_testbed.gateway_changes import CallEnd, Changes
from sip_testbed.gateway_counts import Counts
from sip_testbed.gateway_keys import MikeyKeys, SideKeys
from sip_testbed.gateway_refresh import Described
from sip_testbed.gateway_sides import DtlsSide, SdesSide, Side
from voice_dpki.effects import SystemRandom
from voice_dpki.media.relay import Translation
from voice_dpki.sip.sdp import SECURE, Direction, RtpMap, SessionDescription, audio_description
from voice_dpki.wire.dtls import DtlsIdentity
from voice_dpki.wire.dtls_leg import DtlsLeg
from voice_dpki.wire.ice_lite import IceLite
from voice_dpki.wire.relay import MediaLeg, Relay

OURS = audio_description("127.0.0.8", 4000, [RtpMap(0, "PCMU/8000")], session_id=1, key_mgmt=["mikey Ag=="])
THEIRS = audio_description("127.0.0.9", 5000, [RtpMap(0, "PCMU/8000")], session_id=2, key_mgmt=["mikey AQ=="])


class Change:
    def __init__(self, sdp: bytes, acknowledged: bytes = b"") -> None:
        self.sdp = sdp
        self.acknowledged = acknowledged
        self.answered: bytes | int | None = None

    async def accept(self, sdp: bytes, apply: Any = None) -> bytes:
        self.answered = sdp
        return self.acknowledged

    def refuse(self, status: int, *_: object) -> None:
        self.answered = status


class Leg:
    def __init__(self) -> None:
        self.status = 200
        self.answer_sdp = b""
        self.ended: list[tuple[str, str]] = []

    def on_reinvite(self, callback: Any) -> None:
        self.answer = callback

    def on_refresh(self, callback: Any) -> None:
        self.refresh = callback

    async def reinvite(self, describe: Callable[[], bytes]) -> Any:
        self.sent = describe()
        return cast(Any, type("Final", (), {"status": self.status, "sdp": self.answer_sdp}))

    async def bye(self, headers: list[tuple[str, str]]) -> None:
        self.ended += headers


@pytest.fixture
def leg() -> Leg:
    return kept(Described(OURS, THEIRS, THEIRS))


def kept(described: Described, keys: SideKeys | None = None) -> Leg:
    made, other = Leg(), Leg()
    other.status = 486
    keys = keys or MikeyKeys(cast(Any, None), "")
    ends = [CallEnd(cast(Any, each), MediaLeg("127.0.0.1"), keys, described) for each in (made, other)]
    Changes("gateway.b.example", SystemRandom(), *ends).begin(relayed(*ends))
    return made


def relayed(inside: CallEnd, outside: CallEnd) -> Relay:
    """A relay of PCMU, as it begins."""
    relay = Relay(inside.media, outside.media, Counts())
    relay.start(*(Translation(ssrc, {0: 0}, 8000, SystemRandom()) for ssrc in (0xAAAA, 0xBBBB)))
    return relay


async def asked(leg: Leg, sdp: bytes, acknowledged: bytes = b"") -> bytes | int | None:
    change = Change(sdp, acknowledged)
    await leg.answer(change)
    return change.answered


async def test_a_repetition_is_answered_with_what_we_said(leg: Leg) -> None:
    again = THEIRS.serialize().replace(b"o=- 2 1 ", b"o=- 2 2 ")
    for sdp in (THEIRS.serialize(), again, b""):
        assert await asked(leg, sdp, b"" if sdp else again) == OURS.serialize()
    assert leg.ended == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"PCMU", b"telephone-event"),
        (b"PCMU/8000", b"PCMU/16000"),
        (b"PCMU/8000", b"PCMU/8000\r\nm=audio 5004 RTP/SAVP 0"),
        (SECURE.encode(), b"RTP/AVP"),
        (b"a=key-mgmt:mikey AQ==", b"a=x:"),
        (b"v=0", b"v=1"),
    ],
)
async def test_a_change_is_refused(leg: Leg, old: bytes, new: bytes) -> None:
    assert old in THEIRS.serialize()
    assert await asked(leg, THEIRS.serialize().replace(old, new)) == 488


async def test_a_refresh_of_ours_repeats_our_description(leg: Leg) -> None:
    leg.answer_sdp = THEIRS.serialize().replace(b"o=- 2 1 ", b"o=- 2 2 ")
    await leg.refresh()
    assert SessionDescription.parse(leg.sent) == OURS
    assert leg.ended == []


PCMU = [RtpMap(0, "PCMU/8000")]
HEAD = "v=0\r\no=- 7 1 IN IP4 127.0.0.9\r\ns=-\r\nc=IN IP4 127.0.0.9\r\nt=0 0\r\n"
SUITE, OTHER_SUITE = "AES_CM_128_HMAC_SHA1_80", "AES_CM_128_HMAC_SHA1_32"
KEY, OTHER_KEY = "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj", "e0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj"
SDES_ANSWER = f"{HEAD}m=audio 5000 RTP/SAVP 0\r\na=crypto:1 {SUITE} inline:{KEY}\r\n"
SDES_OFFER = SDES_ANSWER.replace("crypto:1", "crypto:5").replace(KEY, f"{KEY}|2^20") + (
    f"a=crypto:6 {OTHER_SUITE} inline:{OTHER_KEY}\r\n"
)
DTLS_LINES = "\r\n".join(
    (
        "a=ice-ufrag:abcd",
        "a=ice-pwd:0123456789012345678901",
        "a=rtcp-mux",
        "a=fingerprint:sha-256 " + ":".join(["AB"] * 32),
        "",
    )
)
DTLS = f"{HEAD}m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=setup:active\r\n{DTLS_LINES}"


def sdes_side() -> SdesSide:
    leg = MediaLeg("127.0.0.1")
    leg.port = 4000
    return SdesSide(leg, "127.0.0.1", SystemRandom())


def dtls_side() -> DtlsSide:
    leg = DtlsLeg("127.0.0.1", DtlsIdentity(), IceLite(SystemRandom()))
    leg.port = 4002
    return DtlsSide(leg, "127.0.0.1", SystemRandom())


def called(side: Side, text: str) -> tuple[SessionDescription, Described]:
    """What is left of our offer, which the telephone answered with `text`; and that offer."""
    offer, answer = side.offer(PCMU, Direction.SENDRECV), SessionDescription.parse(text.encode())
    side.confirm(answer)
    return offer, side.settled(offer, answer, answer)


def calls(side: Side, text: str) -> tuple[SessionDescription, Described]:
    """What is left of our answer to the telephone's offer `text`; and that answer."""
    offer = SessionDescription.parse(text.encode())
    side.take(offer)
    answer = side.answer(offer, 0, PCMU, Direction.SENDRECV)
    return answer, side.settled(answer, offer, offer)


async def test_an_answer_to_a_telephones_refresh_has_the_one_key_that_was_agreed() -> None:
    side = sdes_side()
    offer, described = called(side, SDES_ANSWER)
    answer = await asked(kept(described, side.keys), SDES_ANSWER.encode())
    assert isinstance(answer, bytes)
    (crypto,) = SessionDescription.parse(answer).audio.attributes("crypto")
    assert crypto in offer.audio.attributes("crypto")
    assert crypto.startswith(f"1 {SUITE} ")


async def test_an_answer_to_a_telephones_refresh_has_the_chosen_side_of_the_handshake() -> None:
    for theirs, ours in (("active", "passive"), ("passive", "active")):
        text = DTLS.replace("setup:active", f"setup:{theirs}")
        side = dtls_side()
        offer, described = called(side, text)
        assert offer.audio.attributes("setup") == ("actpass",)
        answer = await asked(kept(described, side.keys), text.encode())
        assert isinstance(answer, bytes)
        assert SessionDescription.parse(answer).audio.attributes("setup") == (ours,)


@pytest.mark.parametrize("direction", Direction)
async def test_an_ordinary_telephone_is_told_the_direction_in_words(direction: Direction) -> None:
    """aiortc fails where it is left out, though RFC 8866 §6.7 has a default."""
    for side in (sdes_side(), dtls_side()):
        lines = side.offer(PCMU, direction).audio.lines
        assert [line for line in lines if line in {f"a={each}" for each in Direction}] == [f"a={direction}"]


async def test_a_narrowed_description_has_the_next_version_and_others_keep_theirs() -> None:
    for offer, described in (called(sdes_side(), SDES_ANSWER), called(dtls_side(), DTLS)):
        assert [line.split()[2] for line in (offer.lines[1], described.ours.lines[1])] == ["1", "2"]
    for answer, described in (calls(sdes_side(), SDES_OFFER), calls(dtls_side(), DTLS)):
        assert described.ours == answer


Agree = Callable[[Side, str], tuple[SessionDescription, Described]]
SIDES: dict[str, tuple[Callable[[], Side], Agree, str, str]] = {
    "sdes called": (sdes_side, called, SDES_ANSWER, SDES_ANSWER),
    "sdes calls": (sdes_side, calls, SDES_OFFER, SDES_ANSWER.replace("crypto:1", "crypto:5")),
    "dtls called": (dtls_side, called, DTLS, DTLS.replace("audio 9", "audio 5009")),
    "dtls calls": (dtls_side, calls, DTLS.replace("setup:active", "setup:actpass"), DTLS),
}


@pytest.mark.parametrize("way", SIDES)
async def test_an_answer_with_what_was_agreed_keeps_the_call(way: str) -> None:
    make, agree, first, again = SIDES[way]
    side = make()
    leg = kept(agree(side, first)[1], side.keys)
    leg.answer_sdp = again.encode()
    await leg.refresh()
    await asked(leg, b"", again.encode())
    assert leg.ended == []


@pytest.mark.parametrize(
    ("way", "old", "new"),
    [
        ("sdes called", SUITE, OTHER_SUITE),
        ("sdes called", KEY, f"{KEY} UNENCRYPTED_SRTP"),
        ("sdes called", "a=crypto:1", f"a=crypto:2 {SUITE} inline:{OTHER_KEY}\r\na=crypto:1"),
        ("sdes called", "a=crypto", "a=x"),
        ("sdes called", "RTP/SAVP", "RTP/AVP"),
        ("sdes called", "audio 5000", "audio 5002"),
        ("sdes called", "m=audio", "m=video"),
        ("sdes called", SDES_ANSWER, ""),
        ("dtls called", "AB:", "AC:"),
        ("dtls called", "setup:active", "setup:passive"),
        ("dtls calls", "setup:active", "setup:passive"),
        ("dtls called", "ufrag:abcd", "ufrag:abce"),
    ],
)
async def test_an_answer_with_anything_else_ends_the_call_with_a_reason(way: str, old: str, new: str) -> None:
    make, agree, first, again = SIDES[way]
    assert old in again
    changed = again.replace(old, new).encode()
    for late in (False, True):
        side = make()
        leg = kept(agree(side, first)[1], side.keys)
        leg.answer_sdp = changed
        await (asked(leg, b"", changed) if late else leg.refresh())
        assert [name for name, _ in leg.ended] == ["Reason", "Warning"]


async def test_a_refused_refresh_changes_nothing(leg: Leg) -> None:
    leg.status = 491
    await leg.refresh()
    assert leg.ended == []
