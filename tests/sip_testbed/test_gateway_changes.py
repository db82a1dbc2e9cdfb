"""Changes that the gateway passes on from one side of a call to the other: hold and resume, and other places."""

import asyncio
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sip_testbed import gateway_changes
from sip_testbed.gateway_changes import CallEnd, Changes, silence
from sip_testbed.gateway_refresh import Described
from tests.sip_testbed.test_gateway_refresh import (
    DTLS,
    KEY,
    OTHER_KEY,
    OTHER_SUITE,
    OURS,
    SDES_ANSWER,
    SUITE,
    THEIRS,
    called,
    dtls_side,
    sdes_side,
)
from voice_dpki.errors import MalformedError
from voice_dpki.sip.sdp import Direction, SessionDescription
from voice_dpki.wire.relay import Leg as MediaLeg
from voice_dpki.wire.sip.changes import UnchangedError

ANSWERS = {"sendrecv": "sendrecv", "sendonly": "recvonly", "recvonly": "sendonly", "inactive": "inactive"}


class Telephone:
    """One side's dialog: it answers our offers as `says` has it, with the direction that fits."""

    def __init__(self, says: str) -> None:
        self.says = says
        self.status = 200
        self.offered: list[SessionDescription] = []
        self.ended: list[tuple[str, str]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    def on_reinvite(self, callback: Any) -> None:
        self.answer = callback

    def on_refresh(self, callback: Any) -> None:
        self.refresh = callback

    async def reinvite(self, describe: Callable[[], bytes]) -> Any:
        offer = SessionDescription.parse(describe())
        self.offered.append(offer)
        await self.gate.wait()
        answer = directed(self.says, ANSWERS[offer.audio_direction])
        return SimpleNamespace(status=self.status, sdp=answer)

    async def bye(self, headers: list[tuple[str, str]]) -> None:
        self.ended += headers


class Change:
    """A re-INVITE of a telephone."""

    def __init__(self, sdp: bytes, *, cancelled: bool = False) -> None:
        self.sdp = sdp
        self.cancelled = cancelled
        self.answered: bytes | int | None = None

    async def accept(self, sdp: bytes, apply: Callable[[], None] | None = None) -> bytes:
        if self.cancelled:
            raise UnchangedError("it was cancelled")
        if apply is not None:
            apply()
        self.answered = sdp
        return b""

    def refuse(self, status: int, *_: object) -> None:
        self.answered = status

    @property
    def description(self) -> SessionDescription:
        assert isinstance(self.answered, bytes), self.answered
        return SessionDescription.parse(self.answered)


def directed(text: str, direction: str) -> bytes:
    lines = [line for line in text.splitlines() if line not in {f"a={each}" for each in Direction}]
    return ("\r\n".join([*lines, f"a={direction}"]) + "\r\n").encode()


MIKEY = THEIRS.serialize().decode()


class Call:
    """A call of the domain to an ordinary telephone."""

    def __init__(self, described: Described, telephone: str) -> None:
        self.domain, self.telephone = Telephone(MIKEY), Telephone(telephone)
        self.ends = [
            CallEnd(cast(Any, self.domain), MediaLeg("127.0.0.1"), Described(OURS, THEIRS, THEIRS)),
            CallEnd(cast(Any, self.telephone), MediaLeg("127.0.0.1"), described),
        ]
        self.changes = Changes("gateway.b.example", *self.ends)

    async def change(self, of: Telephone, sdp: bytes, **options: bool) -> Change:
        change = Change(sdp, **options)
        await of.answer(change)
        return change


def call_with(way: str) -> Call:
    side, says = (sdes_side(), SDES_ANSWER) if way == "sdes" else (dtls_side(), DTLS)
    return Call(called(side, says)[1], says)


@pytest.fixture
def sdes() -> Call:
    return call_with("sdes")


@pytest.fixture
async def dtls() -> Call:
    return call_with("dtls")


@pytest.mark.parametrize("direction", ["sendonly", "inactive", "recvonly"])
async def test_a_hold_of_the_domain_is_passed_on_and_so_is_its_end(sdes: Call, direction: str) -> None:
    keys = sdes.ends[1].described.ours.audio.attributes("crypto")
    for asked in (direction, "sendrecv"):
        answer = (await sdes.change(sdes.domain, directed(MIKEY, asked))).description
        offered = sdes.telephone.offered[-1]
        assert offered.audio_direction == asked
        assert offered.audio.attributes("crypto") == keys
        assert answer.audio_direction == ANSWERS[asked]
        assert answer.key_mgmt == OURS.key_mgmt
        assert sdes.changes.is_held is (asked != "sendrecv")
    versions = [offer.lines[1].split()[2] for offer in sdes.telephone.offered]
    assert [int(version) for version in versions] == [3, 4]
    assert not sdes.domain.ended + sdes.telephone.ended


async def test_a_hold_of_the_telephone_names_the_key_by_its_number_in_the_new_offer(sdes: Call) -> None:
    """RFC 4568 §5.1.2. Telephones offer all their suites again, numbered as they like."""
    lines = f"a=crypto:7 {OTHER_SUITE} inline:{OTHER_KEY}\r\na=crypto:8 {SUITE} inline:{KEY}"
    again = SDES_ANSWER.replace(f"a=crypto:1 {SUITE} inline:{KEY}", lines)
    ours = sdes.ends[1].described.ours.audio.attributes("crypto")[0]
    answer = (await sdes.change(sdes.telephone, directed(again, "sendonly"))).description
    assert answer.audio.attributes("crypto") == (ours.replace("1 ", "8 ", 1),)
    assert answer.audio_direction == "recvonly"
    assert sdes.domain.offered[-1].audio_direction == "sendonly"
    sdes.telephone.says = SDES_ANSWER.replace("crypto:1", "crypto:8")
    await sdes.telephone.refresh()  # what was agreed has the new number
    assert sdes.telephone.offered[-1].audio_direction == "recvonly"
    assert sdes.telephone.ended == []


@pytest.mark.parametrize("setup", ["actpass", "active"])
async def test_a_side_of_dtls_that_leaves_the_choice_keeps_its_association(dtls: Call, setup: str) -> None:
    """RFC 5763 §6.6, RFC 8842 §5.3: fingerprint and ICE are as before, so the answer has the side as before."""
    again = directed(DTLS.replace("setup:active", f"setup:{setup}"), "sendonly")
    answer = (await dtls.change(dtls.telephone, again)).description
    assert answer.audio.attributes("setup") == ("passive",)
    assert answer.audio_direction == "recvonly"
    assert answer.audio.attributes("fingerprint") == dtls.ends[1].described.ours.audio.attributes("fingerprint")
    resumed = (await dtls.change(dtls.telephone, directed(DTLS, "sendrecv"))).description
    assert resumed.audio_direction == "sendrecv"


@pytest.mark.parametrize(
    ("way", "old", "new"),
    [
        ("sdes", KEY, OTHER_KEY),
        ("sdes", SUITE, OTHER_SUITE),
        ("sdes", "RTP/SAVP", "RTP/AVP"),
        ("sdes", "a=crypto", "a=x"),
        ("sdes", "SAVP 0", "SAVP 8"),
        ("sdes", "m=audio", "m=video"),
        ("dtls", "AB:", "AC:"),
        ("dtls", "ufrag:abcd", "ufrag:abce"),
        ("dtls", "setup:active", "setup:passive"),
        ("dtls", "UDP/TLS/RTP/SAVPF", "RTP/AVP"),
    ],
)
async def test_a_hold_with_other_keys_or_codecs_is_refused_and_not_passed_on(way: str, old: str, new: str) -> None:
    call = call_with(way)
    assert old in call.telephone.says
    before = [end.described for end in call.ends]
    change = await call.change(call.telephone, directed(call.telephone.says.replace(old, new), "sendonly"))
    assert change.answered == 488
    assert call.domain.offered == []
    assert [end.described for end in call.ends] == before


@pytest.mark.parametrize("status", [486, 488, 491])
async def test_what_the_other_side_refuses_is_refused_alike_and_changes_nothing(sdes: Call, status: int) -> None:
    before = [end.described for end in sdes.ends]
    sdes.telephone.status = status
    assert (await sdes.change(sdes.domain, directed(MIKEY, "sendonly"))).answered == status
    assert [end.described for end in sdes.ends] == before
    assert not sdes.domain.ended + sdes.telephone.ended


async def test_an_answer_to_a_hold_with_another_key_ends_the_call(sdes: Call) -> None:
    sdes.telephone.says = SDES_ANSWER.replace(KEY, OTHER_KEY)
    assert (await sdes.change(sdes.domain, directed(MIKEY, "sendonly"))).answered == 488
    assert [name for name, _ in sdes.telephone.ended] == ["Reason", "Warning"]


async def test_a_change_that_crosses_another_is_to_be_tried_again(sdes: Call) -> None:
    sdes.telephone.gate.clear()
    first = asyncio.create_task(sdes.change(sdes.domain, directed(MIKEY, "sendonly")))
    while not sdes.telephone.offered:
        await asyncio.sleep(0)
    assert (await sdes.change(sdes.telephone, directed(SDES_ANSWER, "inactive"))).answered == 491
    sdes.telephone.gate.set()
    assert (await first).description.audio_direction == "recvonly"
    assert isinstance((await sdes.change(sdes.telephone, directed(SDES_ANSWER, "inactive"))).answered, bytes)


async def test_a_change_that_is_cancelled_is_undone_on_the_other_side(sdes: Call) -> None:
    with pytest.raises(UnchangedError):
        await sdes.change(sdes.domain, directed(MIKEY, "sendonly"), cancelled=True)
    assert [offer.audio_direction for offer in sdes.telephone.offered] == ["sendonly", "sendrecv"]
    assert not sdes.changes.is_held


@pytest.mark.parametrize("address", ["224.0.0.9", "nowhere.example"])
@pytest.mark.parametrize("is_inside", [True, False])
async def test_a_hold_with_an_address_that_cannot_be_sent_to_is_undone_on_the_other_side(
    sdes: Call, address: str, *, is_inside: bool
) -> None:
    end, text = (sdes.domain, MIKEY) if is_inside else (sdes.telephone, SDES_ANSWER)
    unusable = re.sub(r"c=IN IP4 \S+", f"c=IN IP4 {address}", text)
    assert unusable != text
    change = await sdes.change(end, directed(unusable, "inactive"))
    assert change.answered == 488
    assert not sdes.changes.is_held


async def test_media_go_where_a_change_has_them_and_nowhere_on_hold(sdes: Call) -> None:
    for old, new in (("audio 5000", "audio 5002"), ("c=IN IP4 127.0.0.9", "c=IN IP4 0.0.0.0")):
        host, port = ("0.0.0.0", 5000) if "c=" in old else ("127.0.0.9", 5002)
        await sdes.change(sdes.domain, directed(MIKEY.replace(old, new), "sendrecv"))
        assert sdes.ends[0].media._remote == [(host, port), (host, port + 1)]
    assert sdes.changes.is_held
    bad = MIKEY.replace("c=IN IP4 127.0.0.9", "c=IN IP4 224.0.0.1")
    assert (await sdes.change(sdes.domain, directed(bad, "sendrecv"))).answered == 488


async def test_a_hold_may_be_silent_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_changes, "MAX_HOLD_S", 0.3)
    loop = asyncio.get_running_loop()
    relay = cast(Any, SimpleNamespace(silent_s=lambda since_s: loop.time() - since_s))
    for is_held, least_s in ((False, 0.05), (True, 0.3)):
        began_s = loop.time()
        await silence(relay, cast(Any, SimpleNamespace(is_held=is_held)), 0.05)
        assert loop.time() - began_s >= least_s


def test_media_are_sent_to_no_address_that_a_host_cannot_have() -> None:
    leg = MediaLeg("127.0.0.1")
    with pytest.raises(MalformedError):
        leg.move(("224.0.0.1", 5000), ("224.0.0.1", 5001))
