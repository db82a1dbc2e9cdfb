"""A call that rings at two telephones of one user, over a real proxy: each has its own keys, and one is heard."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from sip_testbed.credentials import Credentials
from sip_testbed.keying import Keying
from sip_testbed.likeness import likeness_of
from sip_testbed.pin_store import Pin, PinStore
from sip_testbed.shared_keying import SharedKeying
from sip_testbed.telephone import Telephone
from tests.recorded import recorded
from tests.sip_testbed.test_early_media import EARLY_S, HEARD_S, SPOKEN_S
from tests.sip_testbed.test_keying import CLOCK, RANDOM, party
from tests.sip_testbed.test_phones import CALLEE, CALLER, TIMEOUT_S, Domain
from tests.sip_testbed.test_phones import domain as domain  # a fixture
from tests.sip_testbed.test_session import End, end_of
from voice_dpki.ledger.answers import InquiryCode, InquiryError
from voice_dpki.ledger.signatures import key_id_of
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.names import CertDigest, Tn
from voice_dpki.wire.media import MediaSession
from voice_dpki.wire.sip.user_agent import IncomingCall
from voice_dpki.x509.allotment import Allotment
from voice_dpki.x509.profile import digest_of, read_profile
from voice_dpki.x509.recorded import CertStatus
from voice_dpki.x509.tnauthlist import TnRange

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

    def keying_of(self, end: End) -> SharedKeying:
        """The keying of all calls of a telephone."""
        assert isinstance(end.telephone._keyings, SharedKeying)
        return end.telephone._keyings

    async def left(self, end: End) -> dict[str, Any]:
        """What a telephone that was called reports, once it does."""
        async with asyncio.timeout(TIMEOUT_S):
            while end.telephone._busy:
                await asyncio.sleep(0.01)
        result: dict[str, Any] = json.loads((end.folder / "callee.json").read_text())
        return result

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
    over.set()
    left = await forks.left(forks.early)
    assert (left["status"], left["established"]) == (487, False)
    assert left["reason"] == "the caller gave up before the call was answered"
    assert not forks.keying_of(forks.caller)._initiator._bundles._open, "the offer is forgotten"
    assert result["media"]["unauthentic"] > 0, "its packets do not verify under the other one's keys"
    assert forks.sessions[forks.early.telephone].statistics().received == 0
    likeness = likeness_of(forks.other.recording("said"), forks.caller.recording("heard"))
    assert likeness is not None
    assert likeness >= 0.99
    likeness = likeness_of(forks.caller.recording("said"), forks.other.recording("heard"))
    assert likeness is not None
    assert likeness >= 0.99


async def test_a_telephone_that_is_heard_and_then_refuses_leaves_nothing(forks: Forks) -> None:
    """The proxy waits for the other one, so the caller hears nothing of the refusal."""
    await forks.start("dhhmac")

    async def refuse() -> None:
        await forks.heard()
        await forks.calls[forks.early.folder].reject(486)

    async def refused() -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while forks.early.folder not in forks.calls:
                await asyncio.sleep(0.01)
        await forks.cancelled(forks.early)

    forks.until = {forks.early.folder: refuse, forks.other.folder: refused}
    result = await forks.place()
    assert (result["established"], result["status"]) == (True, 200)
    assert result["early_s"] >= HEARD_S
    likeness = likeness_of(forks.other.recording("said"), forks.caller.recording("heard"))
    assert likeness is not None
    assert likeness >= 0.99
    left = await forks.left(forks.early)
    assert (left["status"], left["established"]) == (486, False)
    assert all(session._transports[0].is_closing() for session in forks.sessions.values()), "ports are free"
    for end in (forks.caller, forks.early, forks.other):
        assert forks.keying_of(end).updating._bundle is None
        assert end.telephone._busy is False
    assert not forks.keying_of(forks.caller)._initiator._bundles._open


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


class Ledger:
    """A ledger node that knows the certificates of these telephones, each with a key of its own."""

    def __init__(self) -> None:
        self.held: dict[bytes, bytes] = {}

    def client(self, clock: object) -> "Ledger":
        return self

    async def aclose(self) -> None:
        pass

    async def listed(self, keys: Any) -> Any:
        raise InquiryError(InquiryCode.UNREACHABLE, "this node gives no lists")

    async def resolve(self, digest: Any, **_: object) -> Any:
        der = self.held[digest]
        said = recorded(der, Allotment(("a.example",), (TnRange(Tn("493023125000"), 1000),)), "Operator")
        record = SimpleNamespace(
            key_id=key_id_of(read_profile(der).public_key_der), replaces=None, organization="Operator"
        )
        return SimpleNamespace(digest=digest, recorded=said, status=CertStatus.VALID, height=2, record=record)

    def keyed(self, end: End, number: str, pins: PinStore | None = None, *, tells: bool = False) -> bytes:
        """Give a telephone a certificate and keys by DH-SIGN; returns H(CERT)."""
        own = party(f"sip:+{number}@a.example")
        self.held[digest_of(own.certificate)] = own.certificate
        credentials = Credentials(own, SrtpProfile(SRTP), cast(Any, self), pins, tells)
        telephone = end.telephone
        telephone._keying = telephone._keyings = Keying(credentials, telephone._tracer, CLOCK, RANDOM)
        return digest_of(own.certificate)


async def test_the_key_of_who_answers_is_pinned_and_not_that_of_who_is_heard_before(forks: Forks) -> None:
    """One user's telephones have keys of their own; whoever is merely heard may be anybody that was rung."""
    await forks.start("dhhmac")
    ledger, pins = Ledger(), PinStore(forks.folder / "pins.sqlite")
    ledger.keyed(forks.caller, CALLER, pins)
    ledger.keyed(forks.early, CALLEE)
    digest = ledger.keyed(forks.other, CALLEE)
    over = asyncio.Event()

    async def heard() -> None:
        await forks.heard()
        assert pins.all() == [], "nobody has answered"

    forks.until = {forks.early.folder: over.wait, forks.other.folder: heard}
    result = await forks.place()
    assert (result["refused_by"], result["established"], result["peer_key"]) == (None, True, "first")
    assert [pin.digest for pin in pins.all()] == [digest]
    over.set()


async def test_nobody_is_pinned_in_a_call_that_nobody_answers(
    forks: Forks, monkeypatch: pytest.MonkeyPatch
) -> None:
    await forks.start("dhhmac")
    ledger, pins = Ledger(), PinStore(forks.folder / "pins.sqlite")
    ledger.keyed(forks.caller, CALLER, pins)
    ledger.keyed(forks.early, CALLEE)
    ledger.keyed(forks.other, CALLEE)

    async def refuse(call: IncomingCall, sdp: bytes, headers: Any = ()) -> None:
        await forks.heard()
        await call.reject(486)

    monkeypatch.setattr(IncomingCall, "answer", refuse)
    result = await forks.place()
    assert (result["status"], result["peer_key"]) == (486, "first")
    assert pins.all() == []


async def test_the_report_is_about_who_answers(forks: Forks) -> None:
    """The telephone that is heard first has another key than the pinned one, which is told, and does not answer."""
    await forks.start("dhhmac")
    ledger, pins = Ledger(), PinStore(forks.folder / "pins.sqlite")
    ledger.keyed(forks.caller, CALLER, pins, tells=True)
    ledger.keyed(forks.early, CALLEE)
    digest = ledger.keyed(forks.other, CALLEE)
    key_id = key_id_of(read_profile(ledger.held[digest]).public_key_der)
    pins.keep(Pin(Tn(CALLEE), f"sip:+{CALLEE}@a.example", CertDigest(digest), key_id, "Operator", 1))
    over = asyncio.Event()
    forks.until = {forks.early.folder: over.wait, forks.other.folder: forks.heard}
    result = await forks.place()
    assert (result["established"], result["peer_key"]) == (True, "known")
    assert not [remark for remark in result["remarks"] if "key is not the one" in remark]
    over.set()
