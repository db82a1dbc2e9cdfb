"""Changes that the gateway passes on from one side of a call to the other: hold and resume, and other places."""

import asyncio
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import REGISTRY

from sip_testbed import allowance, gateway_changes
from sip_testbed.allowance import MAX_CHANGES
from sip_testbed.gateway_changes import CallEnd, Changes, await_changes, silence
from sip_testbed.gateway_keys import MikeyKeys, SideKeys
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
    relayed,
    sdes_side,
)
from tests.sip_testbed.test_keying import CALLEE, CALLER
from tests.sip_testbed.test_updating import pair_by
from voice_dpki.effects import SystemRandom
from voice_dpki.errors import MalformedError
from voice_dpki.media.rtp import RtpPacket
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.keys import SrtpKeys, StreamKey
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.mikey.sdp import key_mgmt_value
from voice_dpki.sip.sdp import Direction, SessionDescription
from voice_dpki.wire.relay import MediaLeg
from voice_dpki.wire.sip.changes import Reinvite, UnchangedError

ANSWERS = {"sendrecv": "sendrecv", "sendonly": "recvonly", "recvonly": "sendonly", "inactive": "inactive"}


class Telephone:
    """One side's dialog: it answers our offers as `says` has it, with the direction that fits."""

    def __init__(self, says: str) -> None:
        self.says = says
        self.status = 200
        self.tries = 1
        """How often an offer is made to it: all but the last get 491."""
        self.offered: list[SessionDescription] = []
        self.ended: list[tuple[str, str]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    def on_reinvite(self, callback: Any) -> None:
        self.answer = callback

    def on_refresh(self, callback: Any) -> None:
        self.refresh = callback

    async def reinvite(self, describe: Callable[[], bytes]) -> Any:
        for _ in range(self.tries):
            offer = SessionDescription.parse(describe())
            self.offered.append(offer)
        await self.gate.wait()
        answer = directed(self.says, ANSWERS[offer.audio_direction])
        return SimpleNamespace(status=self.status, sdp=answer)

    async def bye(self, headers: list[tuple[str, str]]) -> None:
        self.ended += headers

    def hang_up(self) -> None:
        self.ended.append(("", ""))


class Change:
    """A re-INVITE of a telephone."""

    def __init__(self, sdp: bytes, *, cancelled: bool = False) -> None:
        self.sdp = sdp
        self.cancelled = cancelled
        self.limit: asyncio.Timeout | None = None
        self.answered: bytes | int | None = None
        self.headers: dict[str, str] = {}

    is_overdue = Reinvite.is_overdue

    async def accept(self, sdp: bytes, apply: Callable[[], None] | None = None) -> bytes:
        if self.cancelled:
            raise UnchangedError("it was cancelled")
        if apply is not None:
            apply()
        self.answered = sdp
        return b""

    def refuse(self, status: int, _: str | None = None, headers: Sequence[tuple[str, str]] = ()) -> None:
        self.answered, self.headers = status, dict(headers)

    @property
    def description(self) -> SessionDescription:
        assert isinstance(self.answered, bytes), self.answered
        return SessionDescription.parse(self.answered)


def directed(text: str, direction: str) -> bytes:
    lines = [line for line in text.splitlines() if line not in {f"a={each}" for each in Direction}]
    return ("\r\n".join([*lines, f"a={direction}"]) + "\r\n").encode()


def counted_refusals(reason: str) -> float:
    found = REGISTRY.get_sample_value("voice_dpki_gateway_changes_refused_total", {"reason": reason})
    assert found is not None
    return found


MIKEY = THEIRS.serialize().decode()


def keyed(message: bytes) -> str:
    """The domain's description with another message of MIKEY."""
    return MIKEY.replace("mikey AQ==", key_mgmt_value(message))


class Keying:
    """Agrees on keys without messages of MIKEY, which others test: new ones each time, unless it is to `fail`."""

    def __init__(self) -> None:
        self.fails = False
        self.made = self.offered = self.proposed = 0
        self.updating = SimpleNamespace(is_update=lambda _: False, answered=lambda _: None)

    async def accept(self, key_mgmt: Any, initiator_uri: str, lines: int) -> Any:
        assert (initiator_uri, lines) == ("sip:caller@a.example", 1)
        return SimpleNamespace(message=b"answer", keys=self.keys(), bundle=None)

    async def meet(self, _: str) -> None: ...

    def offer(self, *_: object) -> Any:
        self.proposed += 1
        self.offered += 1
        return SimpleNamespace(message=b"offer%d" % self.offered)

    async def confirm(self, *_: object) -> SrtpKeys:
        return self.keys()

    def end(self, _: object) -> None:
        self.proposed -= 1

    def keys(self) -> SrtpKeys:
        if self.fails:
            raise MikeyError(Failure.SIGNATURE, "the signature is wrong")
        self.made += 1
        ours, theirs = (StreamKey(ssrc + self.made, bytes([self.made]) * 16, bytes(14)) for ssrc in (0x100, 0x200))
        return SrtpKeys(SrtpProfile.AES_CM_128_HMAC_SHA1_80, ours, theirs)


class Call:
    """A call of the domain to an ordinary telephone."""

    def __init__(self, described: Described, keys: SideKeys, telephone: str) -> None:
        self.domain, self.telephone, self.keying = Telephone(MIKEY), Telephone(telephone), Keying()
        mikey = MikeyKeys(cast(Any, self.keying), "sip:caller@a.example")
        self.ends = [
            CallEnd(cast(Any, self.domain), MediaLeg("127.0.0.1"), mikey, Described(OURS, THEIRS, THEIRS)),
            CallEnd(cast(Any, self.telephone), MediaLeg("127.0.0.1"), keys, described),
        ]
        self.relay = relayed(*self.ends)
        self.changes = Changes("gateway.b.example", SystemRandom(), *self.ends)
        self.changes.begin(self.relay)

    def streams(self) -> list[tuple[int, int]]:
        """SSRC and clock rate of what is sent to the domain, and to the telephone."""
        sent = [self.relay.sent_to(end.media) for end in self.ends]
        return [(each.ssrc, each.clock_rate) for each in sent]

    async def change(self, of: Telephone, sdp: bytes, **options: bool) -> Change:
        change = Change(sdp, **options)
        await of.answer(change)
        for end in self.ends:
            end.media._turn_now()  # as if the side had been heard under its new keys
        return change


def call_with(way: str) -> Call:
    side, says = (sdes_side(), SDES_ANSWER) if way == "sdes" else (dtls_side(), DTLS)
    return Call(called(side, says)[1], side.keys, says)


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


async def test_each_further_offer_leaves_the_side_of_dtls_open_and_an_answer_does_not(dtls: Call) -> None:
    """RFC 8842 §5.5. Linphone answers an offer of our side alone without its fingerprint."""
    offered, telephone = dtls.telephone.offered, dtls.telephone
    assert isinstance((await dtls.change(dtls.domain, directed(MIKEY, "sendonly"))).answered, bytes)
    await telephone.refresh()
    asked = await dtls.change(telephone, b"")
    offers = [*offered, asked.description]
    assert [offer.audio.attributes("setup") for offer in offers] == [("actpass",)] * 3
    repeated = (await dtls.change(telephone, dtls.ends[1].described.theirs.serialize())).description
    assert repeated.audio.attributes("setup") == ("passive",)
    versions = [int(said.lines[1].split()[2]) for said in (*offers, repeated)]
    assert versions == sorted(set(versions))  # no two that differ have the same (RFC 3264 §8)
    assert repeated.audio.attributes("fingerprint") == offered[0].audio.attributes("fingerprint")


@pytest.mark.parametrize(
    ("way", "old", "new"),
    [
        ("sdes", "RTP/SAVP", "RTP/AVP"),
        ("sdes", "a=crypto", "a=x"),
        ("sdes", SUITE, "AES_CM_256_HMAC_SHA1_80"),
        ("sdes", "SAVP 0", "SAVP 8\r\na=rtpmap:8 PCMU/8000"),
        ("sdes", "SAVP 0", "SAVP 101\r\na=rtpmap:101 telephone-event/8000"),
        ("sdes", "m=audio", "m=video"),
        ("dtls", "AB:", "AC:"),
        ("dtls", "ufrag:abcd", "ufrag:abce"),
        ("dtls", "setup:active", "setup:passive"),
        ("dtls", "UDP/TLS/RTP/SAVPF", "RTP/AVP"),
    ],
)
async def test_a_hold_that_changes_what_it_must_not_is_refused_and_not_passed_on(
    way: str, old: str, new: str
) -> None:
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


@pytest.mark.parametrize(
    ("old", "new"), [("SAVP 0", "SAVP 8"), (SUITE, OTHER_SUITE), ("crypto:1", "crypto:9"), ("RTP/SAVP", "RTP/AVP")]
)
async def test_an_answer_to_a_hold_with_what_was_not_offered_ends_the_call(sdes: Call, old: str, new: str) -> None:
    sdes.telephone.says = SDES_ANSWER.replace(old, new)
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
    before = counted_refusals("given-up")
    with pytest.raises(UnchangedError):
        await sdes.change(sdes.domain, directed(MIKEY, "sendonly"), cancelled=True)
    assert counted_refusals("given-up") == before + 1
    assert [offer.audio_direction for offer in sdes.telephone.offered] == ["sendonly", "sendrecv"]
    assert not sdes.changes.is_held


async def test_a_change_that_is_not_done_in_time_is_counted_and_one_of_a_gateway_that_stops_is_not(
    sdes: Call,
) -> None:
    sdes.telephone.gate.clear()
    before = counted_refusals("timed-out")
    late = Change(directed(MIKEY, "sendonly"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01) as late.limit:
            await sdes.domain.answer(late)
    assert counted_refusals("timed-out") == before + 1
    async with asyncio.timeout(60) as limit:
        stopped = Change(directed(MIKEY, "sendonly"))
        stopped.limit = limit
        changing = asyncio.create_task(sdes.domain.answer(stopped))
        while len(sdes.telephone.offered) < 2:
            await asyncio.sleep(0)
        changing.cancel()
        await asyncio.wait((changing,))
    assert counted_refusals("timed-out") == before + 1


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


# New keys.


async def test_new_keys_of_mikey_are_answered_and_the_telephone_hears_nothing_of_them(sdes: Call) -> None:
    (inwards, _), outwards = sdes.streams()
    for number in (1, 2):
        again = MIKEY.replace("AQ==", f"A{number}Q=")
        answer = (await sdes.change(sdes.domain, directed(again, "sendrecv"))).description
        assert answer.key_mgmt == ("mikey YW5zd2Vy",)
        assert sdes.streams() == [(0x100 + number, 8000), outwards]
    assert inwards not in (0x101, 0x102)
    assert sdes.telephone.offered == []


async def test_keys_that_do_not_verify_are_refused_and_change_nothing(sdes: Call) -> None:
    before, streams = [end.described for end in sdes.ends], sdes.streams()
    sdes.keying.fails = True
    assert (await sdes.change(sdes.domain, directed(MIKEY.replace("AQ", "Ag"), "sendonly"))).answered == 488
    assert (sdes.telephone.offered, sdes.streams()) == ([], streams)
    assert [end.described for end in sdes.ends] == before


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is, no further change is allowed during the test."""
    monkeypatch.setattr(allowance, "CHANGE_S", 3600.0)


@pytest.mark.usefixtures("unhurried")
async def test_keys_are_agreed_on_so_often_and_then_only_now_and_then(sdes: Call) -> None:
    """Each costs a signature, and a place among its organisation's replays. The other side has its own changes."""
    before = counted_refusals("too-often")
    agains = [MIKEY.replace("AQ==", f"A{number}Q=") for number in range(MAX_CHANGES + 2)]
    changes = [await sdes.change(sdes.domain, directed(again, "sendrecv")) for again in agains]
    assert [isinstance(change.answered, bytes) for change in changes] == [True] * MAX_CHANGES + [False] * 2
    assert (changes[-1].answered, sdes.keying.made) == (500, MAX_CHANGES)
    assert 1 <= int(changes[-1].headers["Retry-After"]) <= 3600
    assert counted_refusals("too-often") == before + 2
    assert isinstance((await sdes.change(sdes.domain, directed(agains[-3], "sendrecv"))).answered, bytes)
    sdes.domain.says = agains[-3]
    assert isinstance((await sdes.change(sdes.telephone, directed(SDES_ANSWER, "sendonly"))).answered, bytes)


@pytest.mark.usefixtures("unhurried")
async def test_a_telephone_that_changes_codecs_makes_keys_so_often_and_no_more(sdes: Call) -> None:
    """A codec of another clock has the gateway offer the domain new keys."""
    sdes.domain.status = 488
    changes = [await sdes.change(sdes.telephone, recoded(SDES_ANSWER, 107, OPUS)) for _ in range(MAX_CHANGES + 2)]
    assert [change.answered for change in changes] == [488] * MAX_CHANGES + [500] * 2
    assert sdes.keying.offered == len(sdes.domain.offered) == MAX_CHANGES


@pytest.mark.parametrize("refused", ["by the telephone", "as its caller cancels it", "for its address"])
async def test_keys_of_a_refused_change_are_forgotten(sdes: Call, refused: str) -> None:
    """The caller has not got our answer, so its next update is of the bundle from before."""
    pair = pair_by("psk")
    await pair.begin()
    sdes.ends[0].keys = MikeyKeys(pair.callee, CALLER)
    sdes.telephone.status = 486 if refused == "by the telephone" else 200
    again = Change(directed(keyed(pair.caller.offer(CALLEE).message), "sendonly"))
    if refused == "for its address":
        again.sdp = re.sub(rb"c=IN IP4 \S+", b"c=IN IP4 224.0.0.9", again.sdp)
    again.cancelled = refused == "as its caller cancels it"
    with suppress(UnchangedError):
        await sdes.domain.answer(again)
    assert not isinstance(again.answered, bytes)
    sdes.telephone.status = 200
    offer = pair.offer()
    answer = (await sdes.change(sdes.domain, directed(keyed(offer.message), "sendonly"))).description
    keys = pair.caller.updating.confirm(offer, answer.key_mgmt)
    assert sdes.streams()[0][0] == keys.receive.ssrc
    assert sdes.changes.is_held


async def test_each_try_of_an_offer_of_keys_has_keys_of_its_own(sdes: Call) -> None:
    """What the domain has looked at before it said 491 would be a replay (RFC 3830 §5.4)."""
    sdes.domain.tries = 3
    sdes.domain.says = recoded(MIKEY.replace("a=rtpmap:0 PCMU/8000\r\n", ""), 96, OPUS).decode()
    await sdes.change(sdes.telephone, recoded(SDES_ANSWER, 107, OPUS))
    assert len({offer.key_mgmt for offer in sdes.domain.offered}) == 3
    assert (sdes.keying.offered, sdes.keying.proposed) == (3, 0)
    assert sdes.streams()[0] == (0x101, 48_000)


async def test_a_new_key_of_sdes_is_answered_with_one_of_ours_for_another_ssrc(sdes: Call) -> None:
    own = sdes.ends[1].described.crypto.ours
    (inwards, (outwards, rate)) = sdes.streams()
    again = SDES_ANSWER.replace("crypto:1", "crypto:4").replace(KEY, OTHER_KEY)
    answer = (await sdes.change(sdes.telephone, directed(again, "sendrecv"))).description
    crypto = sdes.ends[1].described.crypto
    assert answer.audio.attributes("crypto") == (crypto.ours.serialize(),)
    assert (crypto.ours.tag, crypto.theirs.tag) == (4, 4)
    assert crypto.ours.key != own.key
    assert sdes.streams() == [inwards, (outwards + 1, rate)]
    assert sdes.domain.offered == []


async def test_an_answer_may_bring_another_key_of_its_sender(sdes: Call) -> None:
    """Ours stays, and so does what is sent under it: its roll-over counter must not begin anew."""
    own, streams = sdes.ends[1].described.crypto.ours, sdes.streams()
    sdes.telephone.says = SDES_ANSWER.replace(KEY, OTHER_KEY)
    await sdes.change(sdes.domain, directed(MIKEY, "sendonly"))
    await sdes.telephone.refresh()
    crypto = sdes.ends[1].described.crypto
    assert crypto.theirs.serialize().endswith(OTHER_KEY)
    assert (crypto.ours, sdes.streams()) == (own, streams)
    assert not sdes.telephone.ended + sdes.domain.ended


# Other codecs.

PCMA, OPUS = "PCMA/8000", "opus/48000/2"


def recoded(text: str, number: int, encoding: str) -> bytes:
    return directed(text.replace("SAVP 0", f"SAVP {number}\r\na=rtpmap:{number} {encoding}"), "sendrecv")


async def test_another_codec_is_offered_to_the_other_side_and_answered_as_that_answers(sdes: Call) -> None:
    sdes.telephone.says = SDES_ANSWER.replace("SAVP 0", "SAVP 8")
    change = await sdes.change(sdes.domain, recoded(MIKEY.replace("a=rtpmap:0 PCMU/8000\r\n", ""), 8, PCMA))
    assert change.description.audio.formats == ("8",)
    assert sdes.telephone.offered[-1].audio.formats == ("8",)
    assert [line for line in sdes.telephone.offered[-1].audio.lines if line.startswith("i=")]
    assert sdes.keying.made == 0
    packet = RtpPacket(8, 1, 160, 5, b"x").serialize()
    for end in sdes.ends:
        assert RtpPacket.parse(sdes.relay.sent_to(end.media).rtp(packet, 0.0)).payload_type == 8


BARE = MIKEY.replace("a=rtpmap:0 PCMU/8000\r\n", "")
ONE, OTHER = "G726-16/8000", "G726-24/8000"


async def recode(call: Call, number: int, encoding: str, theirs: int | None = None) -> Change:
    """The telephone offers a codec, and the domain takes it up, under a number of its own if `theirs` says one."""
    call.domain.says = recoded(BARE, theirs or number, encoding).decode()
    return await call.change(call.telephone, recoded(SDES_ANSWER, number, encoding))


async def test_a_payload_type_that_was_given_up_stands_for_no_other_codec(sdes: Call) -> None:
    """RFC 3264 §8.3.2: for as long as the call lasts, and also where the offer that described it was refused."""
    for number, encoding in ((107, ONE), (8, PCMA)):
        assert (await recode(sdes, number, encoding)).description.audio.formats == (str(number),)
    sdes.domain.status = 486
    assert (await recode(sdes, 108, "G726-40/8000")).answered == 486
    sdes.domain.status, offered = 200, len(sdes.domain.offered)
    for number in (107, 108):
        assert (await recode(sdes, number, OTHER)).answered == 488
    assert len(sdes.domain.offered) == offered
    assert (await recode(sdes, 109, OTHER)).description.audio.formats == ("109",)
    assert (await recode(sdes, 107, ONE)).description.audio.formats == ("107",)


async def test_a_payload_type_that_a_side_has_given_up_is_offered_to_it_for_no_other_codec(sdes: Call) -> None:
    await recode(sdes, 107, ONE, theirs=98)
    await recode(sdes, 8, PCMA)
    sdes.domain.says = recoded(BARE, 96, OTHER).decode()
    assert (await sdes.change(sdes.telephone, recoded(SDES_ANSWER, 98, OTHER))).description.audio.formats == ("98",)
    assert sdes.domain.offered[-1].audio.formats == ("96",)
    await recode(sdes, 107, ONE, theirs=98)
    assert sdes.domain.offered[-1].audio.formats in (("98",), ("107",))


async def test_a_side_that_has_not_taken_up_a_codec_may_have_its_payload_type_for_another(sdes: Call) -> None:
    """Telephones put all their codecs into each offer, numbered as they like. Only an answer of ours has to fit."""
    sdes.telephone.status = 488
    await sdes.change(sdes.domain, recoded(BARE, 96, ONE))
    sdes.telephone.status = 200
    more = SDES_ANSWER.replace("SAVP 0", "SAVP 0 96") + f"a=rtpmap:96 {OTHER}\r\n"
    assert (await sdes.change(sdes.telephone, directed(more, "sendonly"))).description.audio.formats == ("0",)
    assert (await sdes.change(sdes.telephone, recoded(SDES_ANSWER, 96, OTHER))).answered == 488


async def test_an_answer_that_gives_a_payload_type_another_codec_ends_the_call(sdes: Call) -> None:
    for number, encoding in ((107, ONE), (8, PCMA)):
        await recode(sdes, number, encoding)
    both = recoded(BARE, 96, OTHER).replace(b"SAVP 96", b"SAVP 96 107") + b"a=rtpmap:107 G726-40/8000\r\n"
    sdes.domain.says = both.decode()
    assert (await sdes.change(sdes.telephone, recoded(SDES_ANSWER, 96, OTHER))).answered == 488
    assert [name for name, _ in sdes.domain.ended] == ["Reason", "Warning"]


async def test_an_answer_to_a_refresh_gives_no_payload_type_another_codec(sdes: Call) -> None:
    for number, encoding in ((107, ONE), (8, PCMA)):
        await recode(sdes, number, encoding)
    sdes.telephone.says = recoded(SDES_ANSWER, 107, OTHER).decode().replace("SAVP 107", "SAVP 8 107")
    await sdes.telephone.refresh()
    assert [name for name, _ in sdes.telephone.ended] == ["Reason", "Warning"]


async def test_a_codec_of_another_clock_gets_new_keys_of_mikey_and_other_ssrcs(sdes: Call) -> None:
    (_, (outwards, _)) = sdes.streams()
    sdes.domain.says = recoded(MIKEY.replace("a=rtpmap:0 PCMU/8000\r\n", ""), 96, OPUS).decode()
    change = await sdes.change(sdes.telephone, recoded(SDES_ANSWER, 107, OPUS))
    assert change.description.audio.formats == ("107",)
    assert sdes.domain.offered[-1].key_mgmt == ("mikey b2ZmZXIx",)
    assert sdes.streams() == [(0x101, 48_000), (outwards + 1, 48_000)]
    assert sdes.keying.proposed == 0
    packet = RtpPacket(107, 1, 160, 5, b"x").serialize()
    assert RtpPacket.parse(sdes.relay.sent_to(sdes.ends[0].media).rtp(packet, 0.0)).payload_type == 96


async def test_a_codec_of_another_clock_without_new_keys_is_refused(sdes: Call) -> None:
    bare = MIKEY.replace("a=rtpmap:0 PCMU/8000\r\n", "")
    assert (await sdes.change(sdes.domain, recoded(bare, 96, OPUS))).answered == 488
    assert sdes.telephone.offered == []


async def test_an_offer_with_the_codec_in_use_and_others_is_answered_with_that_alone(sdes: Call) -> None:
    both = SDES_ANSWER.replace("SAVP 0", "SAVP 8 0")
    answer = (await sdes.change(sdes.telephone, directed(both, "sendonly"))).description
    assert answer.audio.formats == ("0",)
    assert sdes.domain.offered[-1].audio.formats == ("0",)


@pytest.mark.parametrize("undone", [200, 488])
async def test_a_codec_that_its_side_gives_up_is_undone_or_the_call_is_over(sdes: Call, undone: int) -> None:
    says, bare = sdes.telephone.says, MIKEY.replace("a=rtpmap:0 PCMU/8000\r\n", "")
    sdes.telephone.says = SDES_ANSWER.replace("SAVP 0", "SAVP 8")
    change = Change(recoded(bare, 8, PCMA))

    async def cancelled(*_: object) -> bytes:
        sdes.telephone.says, sdes.telephone.status = says, undone
        raise UnchangedError("it was cancelled")

    change.accept = cancelled  # type: ignore[method-assign,assignment]
    with pytest.raises(UnchangedError):
        await sdes.domain.answer(change)
    assert [offer.audio.formats for offer in sdes.telephone.offered] == [("8",), ("0",)]
    assert bool(sdes.telephone.ended) is (undone == 488)


async def test_a_change_that_ends_after_the_other_side_has_taken_it_ends_the_call(
    sdes: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time is over while the keys of the answer are verified, so that the side that asked for it is refused."""
    verifying = asyncio.Event()

    async def confirm(*_: object) -> SrtpKeys:
        verifying.set()
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(sdes.keying, "confirm", confirm)
    sdes.domain.says = recoded(MIKEY.replace("a=rtpmap:0 PCMU/8000\r\n", ""), 96, OPUS).decode()
    changing = asyncio.create_task(sdes.telephone.answer(Change(recoded(SDES_ANSWER, 107, OPUS))))
    await verifying.wait()
    changing.cancel()
    await asyncio.wait((changing,))
    assert (len(sdes.domain.ended), sdes.telephone.ended, sdes.keying.proposed) == (1, [], 0)


async def test_a_change_that_cannot_be_undone_in_time_ends_the_call(sdes: Call) -> None:
    change = Change(directed(MIKEY, "sendonly"))
    given_up = asyncio.Event()

    async def cancelled(*_: object) -> bytes:
        sdes.telephone.gate.clear()
        given_up.set()
        raise UnchangedError("it was cancelled")

    change.accept = cancelled  # type: ignore[method-assign,assignment]
    changing = asyncio.create_task(sdes.domain.answer(change))
    await given_up.wait()
    while len(sdes.telephone.offered) < 2:
        await asyncio.sleep(0)
    changing.cancel()
    await asyncio.wait((changing,))
    assert (len(sdes.telephone.ended), sdes.domain.ended) == (1, [])


async def test_changes_wait_until_media_are_relayed(sdes: Call) -> None:
    Changes("gateway.b.example", SystemRandom(), *sdes.ends)
    assert (await sdes.change(sdes.domain, directed(MIKEY, "sendonly"))).answered == 491


async def test_a_change_that_comes_before_the_call_is_keyed_is_to_be_tried_again() -> None:
    """A telephone may hold before its handshake of DTLS is done: 488 would tell it never to ask again."""
    telephone, before = Telephone(DTLS), counted_refusals("pending")
    await_changes(cast(Any, telephone))
    change = Change(directed(DTLS, "inactive"))
    await telephone.answer(change)
    assert (change.answered, counted_refusals("pending")) == (491, before + 1)
