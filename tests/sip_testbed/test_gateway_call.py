"""What the gateway does before a telephone is called, or the domain: what is checked, when, and how it refuses."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sipmessage import Request

from sip_testbed.gateway_call import Bridge, Inside
from sip_testbed.gateway_counts import CALLS, End, Way
from sip_testbed.gateway_phones import NotRegisteredError
from tests.descriptors import descriptors_left, sockets_open
from tests.sip_testbed.test_gateway_changes import Change, directed
from tests.sip_testbed.test_gateway_refresh import DTLS
from voice_dpki.effects import SystemRandom
from voice_dpki.errors import MalformedError
from voice_dpki.shell.trace import Tracer
from voice_dpki.sip.location import Binding, Target
from voice_dpki.sip.message import Hop, parse_uri
from voice_dpki.wire.dtls_leg import DtlsLeg
from voice_dpki.wire.sip.line import FinalAnswer
from voice_dpki.wire.sip.provisional import UnacknowledgedError

HEAD = b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
AUDIO = HEAD + b"m=audio 5000 RTP/SAVP 0\r\na=key-mgmt:mikey AQ==\r\n"
CRYPTO = b"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj\r\n"
NO_ENCODING = AUDIO.replace(b"SAVP 0", b"SAVP 99") + CRYPTO
NO_ADDRESS = AUDIO.replace(b"c=IN IP4 127.0.0.1\r\n", b"") + CRYPTO
TLS, UDP = Hop("tls", "127.0.0.1", 5061), Hop("udp", "127.0.0.1", 5060)


class Phones:
    """A registrar whose telephone is at the next of `hops` each time it is looked up; None is nowhere."""

    def __init__(self, *hops: Hop | None) -> None:
        self.hops = list(hops)
        self.rung: list[Hop] = []

    def binding_of(self, telephone: object) -> Binding:
        hop = self.hops.pop(0) if self.hops else None
        if hop is None:
            raise NotRegisteredError("the telephone is not registered at the gateway")
        return Binding(parse_uri("sip:phone@127.0.0.1"), 1.0, "id", 1, Target(hop))

    def ring(self, telephone: object, binding: Binding, *_: object) -> Any:
        self.rung.append(binding.target.hop)
        return Refused()


class Refused:
    """A call that the other side refuses."""

    def __init__(self) -> None:
        self.ringing = asyncio.Event()

    def on_reinvite(self, callback: object) -> None: ...

    async def answered(self) -> FinalAnswer:
        return FinalAnswer(486, "Busy Here")


class Ringing:
    """A call that rings on the other side until it is cancelled; one that is `answered_late` is answered first."""

    def __init__(self, *, answered_late: bool) -> None:
        self.ringing = asyncio.Event()
        self.ringing.set()
        self.cancelled = self.hung_up = False
        self._final = 200 if answered_late else 487
        self._over = asyncio.Event()

    def on_reinvite(self, callback: object) -> None: ...

    async def answered(self) -> FinalAnswer:
        await self._over.wait()
        return FinalAnswer(self._final, "")

    def cancel(self) -> None:
        self.cancelled = True
        self._over.set()

    async def bye(self, *_: object) -> None:
        self.hung_up = True


class Call:
    """A call that came in, and how it was refused."""

    def __init__(self, sdp: bytes, uri: str = "sip:+442079460123@gateway.b.example") -> None:
        self.sdp = sdp
        self.request = Request("INVITE", parse_uri(uri))
        self.from_ = "<sip:+442079460999@a.example>;tag=1"
        self.asserted_identity = None
        self.ended = asyncio.Event()
        self.status: int | None = None

    async def reject(self, status: int, *_: object) -> None:
        self.status = status

    async def bye(self, *_: object) -> None: ...

    def on_reinvite(self, callback: object) -> None: ...

    async def ring(self) -> None:
        """As IncomingCall does where no PRACK comes: the call is refused then."""
        self.ended.set()
        raise UnacknowledgedError("no PRACK")


class Keying:
    """Agrees on no keys really, and counts."""

    def __init__(self) -> None:
        self.accepted = self.offered = self.ended = 0
        self.parties: list[str] = []

    def of_call(self, party: str) -> "Keying":
        self.parties.append(party)
        return self

    async def accept(self, *_: object) -> object:
        self.accepted += 1
        return SimpleNamespace(keys=SimpleNamespace(lines=(None,)), message=b"\x01")

    async def meet(self, _: str) -> None: ...

    def offer(self, *_: object) -> object:
        self.offered += 1
        return SimpleNamespace(message=b"\x01")

    def end(self, _: object) -> None:
        self.ended += 1


class Agent:
    """The telephone's representative at the domain."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault
        self.invited: list[str] = []
        self.headers: list[tuple[str, str]] = []

    async def invite(self, target: str, _: bytes, headers: list[tuple[str, str]]) -> Refused:
        if self.fault:
            raise self.fault
        self.invited.append(target)
        self.headers += headers
        return Refused()


class Gateway:
    """A bridge without a network behind it, but for the media's sockets."""

    def __init__(self, agent: Agent | None = None, *, unprotected: bool = False, media: str = "sdes") -> None:
        address = SimpleNamespace(host="127.0.0.1", advertised="127.0.0.1")
        config = SimpleNamespace(max_calls=1, outside=address, listen=address, idle_s=1.0)
        setup = cast(Any, SimpleNamespace(name="gateway.b.example", config=config))
        self.keying, self.agent = Keying(), agent or Agent()
        account = SimpleNamespace(domain="b.example")
        telephone = SimpleNamespace(media=media, unprotected_sip=unprotected, account=account)
        self.inside = Inside(cast(Any, telephone), cast(Any, self.agent), cast(Any, self.keying))
        self.bridge = Bridge(setup, Tracer(None, "gateway"), SystemRandom())

    async def inwards(self, sdp: bytes, phones: Phones) -> int | None:
        call = Call(sdp)
        await self.bridge.to_telephone(self.inside, cast(Any, phones), cast(Any, call))
        return call.status

    async def outwards(self, call: Call, source: Hop = TLS) -> int | None:
        await self.bridge.to_domain(self.inside, cast(Any, call), source)
        return call.status


async def test_the_flow_is_judged_that_the_telephone_has_once_keys_are_agreed() -> None:
    gateway, phones = Gateway(), Phones(TLS, UDP, TLS)
    assert await gateway.inwards(AUDIO, phones) == 488
    assert (gateway.keying.accepted, phones.rung) == (1, [])


async def test_a_registration_that_ends_while_keys_are_agreed_is_as_none() -> None:
    for hops, accepted in (((TLS, None), 1), ((None,), 0)):
        gateway, phones = Gateway(), Phones(*hops)
        assert await gateway.inwards(AUDIO, phones) == 480
        assert (gateway.keying.accepted, phones.rung) == (accepted, [])


async def test_the_telephone_is_called_on_the_flow_that_was_judged() -> None:
    other = Hop("tls", "127.0.0.1", 5062)
    phones = Phones(TLS, other, UDP)
    assert await Gateway().inwards(AUDIO, phones) == 486
    assert (phones.rung, phones.hops) == ([other], [UDP])


async def test_a_flow_without_tls_is_refused_before_keys_are_agreed() -> None:
    gateway, phones = Gateway(), Phones(UDP, UDP)
    assert await gateway.inwards(AUDIO, phones) == 488
    assert gateway.keying.accepted == 0
    assert await Gateway(unprotected=True).inwards(AUDIO, Phones(UDP, UDP)) == 486
    assert await Gateway().outwards(Call(AUDIO + CRYPTO), UDP) == 488


@pytest.mark.parametrize("sdp", [NO_ENCODING, NO_ADDRESS, b"", HEAD])
async def test_an_offer_that_cannot_be_passed_on_is_refused_before_keys_are_agreed(sdp: bytes) -> None:
    gateway, phones = Gateway(), Phones(TLS, TLS)
    assert await gateway.inwards(sdp, phones) == 488
    assert await gateway.outwards(Call(sdp)) == 488
    assert (gateway.keying.accepted, gateway.keying.offered, phones.rung) == (0, 0, [])


async def test_a_uri_that_cannot_be_called_is_refused_and_the_keys_are_let_go() -> None:
    gateway = Gateway(Agent(MalformedError("not a SIP or TEL URI")))
    assert await gateway.outwards(Call(AUDIO + CRYPTO)) == 488
    assert (gateway.keying.offered, gateway.keying.ended) == (1, 1)


async def test_a_user_with_escapes_is_called_with_them_at_the_telephones_domain() -> None:
    gateway = Gateway()
    assert await gateway.outwards(Call(AUDIO + CRYPTO, "sip:a%20b@gateway.b.example")) == 486
    assert gateway.agent.invited == ["sip:a%20b@b.example"]


async def test_each_call_has_keys_of_its_own_with_whom_it_is() -> None:
    gateway = Gateway()
    await gateway.inwards(AUDIO, Phones(TLS, TLS))
    await gateway.outwards(Call(AUDIO + CRYPTO))
    assert gateway.keying.parties == ["caller", "callee"]


async def test_our_side_is_told_where_encryption_ends_and_whether_sip_is_protected() -> None:
    told = "<sip:gateway.b.example>;purpose=media-gateway;outside=sdes;inside=mikey"
    for source, more in ((TLS, ""), (UDP, ";sip=unprotected")):
        gateway = Gateway(unprotected=True)
        await gateway.outwards(Call(AUDIO + CRYPTO), source)
        assert gateway.agent.headers == [("Call-Info", told + more)]


@pytest.mark.parametrize("answered_late", [False, True])
@pytest.mark.parametrize("inwards", [False, True])
async def test_a_caller_that_does_not_acknowledge_ringing_leaves_no_call_on_the_other_side(
    monkeypatch: pytest.MonkeyPatch, *, inwards: bool, answered_late: bool
) -> None:
    gateway, phones, placed = Gateway(), Phones(TLS, TLS), Ringing(answered_late=answered_late)

    async def invite(*_: object) -> Ringing:
        return placed

    monkeypatch.setattr(phones, "ring", lambda *_: placed)
    monkeypatch.setattr(gateway.agent, "invite", invite)
    assert await (gateway.inwards(AUDIO, phones) if inwards else gateway.outwards(Call(AUDIO + CRYPTO))) == 487
    assert (placed.cancelled, placed.hung_up) == (True, answered_late)


class Unkeyed(Ringing):
    """A telephone that answers with DTLS-SRTP, and then does nothing for its handshake; it holds at once."""

    def __init__(self) -> None:
        super().__init__(answered_late=True)
        self.answer: Any = None

    def on_reinvite(self, callback: Any) -> None:
        self.answer = callback

    async def answered(self) -> FinalAnswer:
        return FinalAnswer(200, "", DTLS.encode())


async def test_a_hold_before_the_handshake_of_dtls_is_done_is_to_be_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gateway, phones, placed = Gateway(media="dtls"), Phones(TLS, TLS), Unkeyed()
    monkeypatch.setattr(phones, "ring", lambda *_: placed)
    handshakes = asyncio.Event()
    monkeypatch.setattr(DtlsLeg, "handshake", lambda *_, **__: handshakes.set())  # the telephone sends nothing
    calling = asyncio.create_task(gateway.inwards(AUDIO, phones))
    await asyncio.wait_for(handshakes.wait(), 10)
    change = Change(directed(DTLS, "inactive"))
    await placed.answer(change)
    assert (change.answered, calling.done(), placed.hung_up) == (491, False, False)
    calling.cancel()
    await asyncio.wait((calling,))


@pytest.mark.parametrize("left", [0, 1, 2, 3])
async def test_a_gateway_without_ports_says_that_it_is_full(left: int, caplog: pytest.LogCaptureFixture) -> None:
    """There are no file descriptors for the four sockets of a call, or only for some."""
    gateway = Gateway()
    before, opened = CALLS.labels(Way.OUT, End.BUSY)._value.get(), sockets_open()
    with descriptors_left(left):
        assert await gateway.outwards(Call(AUDIO + CRYPTO)) == 503
    assert CALLS.labels(Way.OUT, End.BUSY)._value.get() == before + 1
    assert sockets_open() == opened
    assert "no ports for another call" in caplog.text
    assert await gateway.outwards(Call(AUDIO + CRYPTO)) == 486
