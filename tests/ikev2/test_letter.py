"""Where an answer goes, what names an SA, and what nobody has signed: small rules of RFC 7296, one by one."""

import struct
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

import pytest

from voice_dpki.ikev2.child import ChildError, Offer, answer
from voice_dpki.ikev2.events import (
    Address,
    CertificateToJudge,
    Closed,
    Datagram,
    Established,
    Failed,
    Path,
    Untrusted,
)
from voice_dpki.ikev2.failures import Failure
from voice_dpki.ikev2.message import HEADER_BYTES, Header, Message, serialize
from voice_dpki.ikev2.payloads import Nonce, Notify, TsInitiator, TsResponder, Unknown
from voice_dpki.ikev2.proposals import ESP_SUITES, GCM_128, EspSuite, IkeSuite, offer
from voice_dpki.ikev2.registry import ExchangeType, Group, NotifyType, Protocol
from voice_dpki.ikev2.rekey import IkeOffer
from voice_dpki.ikev2.states import State

from .conftest import NOW_S, CountingRandom, Wire
from .test_rekey import ask, at, in_step

NewWire = Callable[..., Wire]

ELSEWHERE = Address("127.0.0.2", 40_500)
"""Where the same device sends from when a NAT has given it another port."""
ON_4500 = Address("127.0.0.3", 4500)


def from_elsewhere(datagram: Datagram) -> Datagram:
    return replace(datagram, path=Path(ELSEWHERE, ON_4500, marked=True))


# --- §2.11: an answer goes to where its request came from, from where it arrived ---------------------------------


def sent_from_elsewhere(wire: Wire, datagram: Datagram) -> list[Datagram]:
    """Let a request reach the gateway from another port, and on its other port; returns the answers."""
    wire.deliver(from_elsewhere(datagram))
    wire._judge()
    return wire.gateway.take_datagrams()


def went_back(answers: list[Datagram]) -> bool:
    return [each.path for each in answers] == [Path(ON_4500, ELSEWHERE, marked=True)] * len(answers) != []


def test_the_answer_to_a_first_request_that_comes_again(wire: Wire) -> None:
    wire.device.start(NOW_S)
    (request,) = wire.device.take_datagrams()
    wire.deliver(request)
    (first,) = wire.gateway.take_datagrams()
    moved = replace(request, path=Path(request.path.local, ON_4500, marked=True))  # one port of ours to the other
    wire.deliver(moved)
    (again,) = wire.gateway.take_datagrams()
    assert again.data == first.data
    assert (again.path, again.repeated) == (Path(ON_4500, request.path.local, marked=True), True)


@pytest.mark.parametrize("trusted", [True, False])
def test_the_answer_to_an_ike_auth_that_comes_again(new_wire: NewWire, trusted: bool) -> None:
    """Also where it is a refusal."""
    wire = new_wire()
    if not trusted:
        wire.verdict = lambda _claim: Untrusted("revoked", "5.4 certificate", "the certificate was revoked")
    wire.start()
    (request,) = (each for each in wire.seen if each.exchange == "IKE_AUTH" and not each.is_response)
    (first,) = (each for each in wire.seen if each.exchange == "IKE_AUTH" and each.is_response)
    answers = sent_from_elsewhere(wire, request)
    assert [each.data for each in answers] == [first.data]
    assert went_back(answers)
    (kept,) = wire.gateway._sas.values()
    assert kept.sa.path != answers[0].path, "a datagram that comes again moves no SA"


def test_the_answer_to_what_cannot_be_read(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """An authentic request with malformed payloads inside."""
    wire.start()
    monkeypatch.setattr("voice_dpki.ikev2.message.serialize_payloads", lambda *_: b"\0\0\0\3")
    monkeypatch.setattr("voice_dpki.ikev2.protect.serialize_payloads", lambda *_: b"\0\0\0\3", raising=False)
    wire.device._ask(ExchangeType.INFORMATIONAL, (Notify(NotifyType.INITIAL_CONTACT),), NOW_S)
    monkeypatch.undo()
    (request,) = wire.device.take_datagrams()
    assert went_back(sent_from_elsewhere(wire, request))
    assert wire.happened("gateway", Closed)


def test_the_refusal_of_a_first_request(wire: Wire) -> None:
    wire.device.start(NOW_S)
    (request,) = wire.device.take_datagrams()
    newer = request.data[:17] + b"\x30" + request.data[18:]
    assert went_back(sent_from_elsewhere(wire, replace(request, data=newer)))


# --- §2.5: critical payloads, also in front of the encrypted one -------------------------------------------------


def with_outer(wire: Wire, *, critical: bool) -> Datagram:
    """An INFORMATIONAL request of the device with a payload that nobody knows in front of the encrypted one."""
    sa = wire.device
    header = Header(*sa.name, ExchangeType.INFORMATIONAL, sa._requests.next_id, True, False)
    sealed = sa._cipher.sealed_bytes(0)
    before = header.serialize(200, HEADER_BYTES + 8 + 4 + sealed)
    before += struct.pack("!BBH", 46, 0x80 * critical, 8) + b"what" + struct.pack("!BBH", 0, 0, 4 + sealed)
    return Datagram(sa.path, before + sa._cipher.seal(before, b""), "INFORMATIONAL", False, ())


@pytest.mark.parametrize(("critical", "told"), [(True, ("N(UNSUPPORTED_CRITICAL_PAYLOAD)",)), (False, ())])
def test_a_critical_payload_before_the_encrypted_one(wire: Wire, critical: bool, told: tuple[str, ...]) -> None:
    wire.start()
    wire.deliver(with_outer(wire, critical=critical))
    (answered,) = wire.gateway.take_datagrams()
    assert answered.payloads == told
    assert list(wire.gateway.sas())


@pytest.mark.parametrize("state", [State.REPLACED, State.DELETING])
def test_an_sa_on_its_way_out_survives_a_critical_payload(wire: Wire, state: State) -> None:
    wire.start()
    (sa,) = wire.gateway.sas()
    sa.state = state
    wire.device._ask(ExchangeType.INFORMATIONAL, (Unknown(200, b"what", True),), NOW_S)
    for each in wire.device.take_datagrams():
        wire.deliver(each)
    assert wire.gateway.take_datagrams()[0].payloads == ("N(UNSUPPORTED_CRITICAL_PAYLOAD)",)
    assert sa.state is state


# --- the exchange -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exchange", [ExchangeType.INFORMATIONAL, ExchangeType.CREATE_CHILD_SA, 240])
def test_another_exchange_while_half_open(wire: Wire, exchange: Any) -> None:
    """§1.2: only IKE_AUTH may follow IKE_SA_INIT. The answer is of the request's exchange (§3.1)."""
    wire.device.start(NOW_S)
    for each in wire.device.take_datagrams():
        wire.deliver(each)
    for each in wire.gateway.take_datagrams():
        wire.deliver(each)
    wire.device.take_datagrams()
    wire.device._requests.answered()
    wire.device._requests.next_id = 1
    wire.device._ask(exchange, (), NOW_S)
    for each in wire.device.take_datagrams():
        wire.deliver(each)
    (answered,) = wire.gateway.take_datagrams()
    assert Message.parse(answered.data).header.exchange == exchange
    assert answered.payloads == ("N(INVALID_SYNTAX)",)
    (failed,) = (event for event in wire.gateway.take_events() if isinstance(event, Failed))
    assert failed.error.failure is Failure.PAYLOADS
    assert wire.gateway.half_open == 0


def test_an_answer_of_another_exchange_is_none(wire: Wire) -> None:
    """Whoever holds the keys of an SA must still answer what was asked."""
    wire.start()
    (sa,) = wire.gateway.sas()
    wire.device.probe(NOW_S)
    (request,) = wire.device.take_datagrams()
    wire.deliver(request)
    wire.gateway.take_datagrams()
    header = Header(*sa.name, ExchangeType.CREATE_CHILD_SA, sa._responses.expected - 1, False, True)
    for forged in sa._sealed(header, ()):
        wire.deliver(forged)
    assert wire.device._requests.waiting_for is not None
    assert wire.device.dropped == 1


# --- SPIs ---------------------------------------------------------------------------------------------------------


def test_the_spi_of_the_initiator_is_not_zero(wire: Wire) -> None:
    """§3.1: this value MUST NOT be zero."""
    wire.device.start(NOW_S)
    (request,) = wire.device.take_datagrams()
    wire.deliver(replace(request, data=bytes(8) + request.data[8:]))
    assert (len(wire.gateway), wire.gateway.dropped, wire.gateway.take_datagrams()) == (0, 1, [])
    wire.deliver(request)
    assert len(wire.gateway) == 1


def test_an_initiator_never_draws_the_spi_zero(new_wire: NewWire, monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = [bytes(8)]
    token = CountingRandom.token
    monkeypatch.setattr(CountingRandom, "token", lambda self, size: zeros.pop() if zeros else token(self, size))
    assert new_wire().device.name.spi_i != bytes(8)


@pytest.mark.parametrize("spi", [bytes(4), b"\0\0\0\xff", b"123"])
def test_reserved_spis_of_a_child_sa(new_wire: NewWire, monkeypatch: pytest.MonkeyPatch, spi: bytes) -> None:
    """RFC 4303 §2.1: zero never goes over the wire, and 1 to 255 are reserved."""
    wire = new_wire()
    object.__setattr__(wire.device._child, "spi", spi)
    wire.start()
    (theirs,), (ours,) = wire.happened("gateway", Established), wire.happened("device", Established)
    assert theirs.child is None
    assert ours.child_error == "the peer answers NO_PROPOSAL_CHOSEN"


def test_a_reserved_spi_in_the_answer(new_wire: NewWire, monkeypatch: pytest.MonkeyPatch) -> None:
    wire = new_wire()
    monkeypatch.setattr("voice_dpki.ikev2.responder.child.new_spi", lambda _random: bytes(4))
    wire.start()
    (ours,) = wire.happened("device", Established)
    assert ours.child is None
    assert ours.child_error == "the proposal for a child SA names no SPI of 4 bytes from 256 on"


def test_a_child_sa_is_not_rekeyed_with_its_old_spi(wire: Wire) -> None:
    wire.start().wait(2)
    (held,) = at(wire, "device").children.values()
    rekeyed = Notify(NotifyType.REKEY_SA, protocol=Protocol.ESP, spi=held.inbound)
    rest = Nonce(bytes(16)), TsInitiator(held.local), TsResponder(held.remote)
    for spi in (held.inbound, bytes(4)):
        same = offer((EspSuite(GCM_128),), Protocol.ESP, spi)
        assert ask(wire, rekeyed, same, *rest).payloads == ("N(INVALID_SYNTAX)",)
    in_step(wire)
    assert len(at(wire, "gateway").children) == 1


def test_an_ike_sa_is_not_rekeyed_with_its_old_spi(wire: Wire) -> None:
    wire.start().wait(2)
    sa = at(wire, "device")
    made = IkeOffer.make(IkeSuite(GCM_128, Group.ECP_256), CountingRandom("x"))
    for spi in (sa.name.spi_i, bytes(8)):
        assert ask(wire, *replace(made, spi=spi).payloads()).payloads == ("N(INVALID_SYNTAX)",)
    in_step(wire)


def test_an_answer_with_the_old_spi_rekeys_nothing(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    wire.start().wait(2)
    old = at(wire, "device").name
    offered = IkeOffer.make(IkeSuite(GCM_128, Group.ECP_256), CountingRandom("offer"))
    monkeypatch.setattr(IkeOffer, "make", classmethod(lambda *_: offered))
    monkeypatch.setattr("voice_dpki.ikev2.rekey.new_ike_spi", lambda _random: old.spi_r)
    at(wire, "device").rekey(wire.now_s)
    for datagram in wire.device.take_datagrams():
        wire.deliver(datagram)
    for datagram in wire.gateway.take_datagrams():
        wire.deliver(datagram)
    assert wire.device.state is State.ESTABLISHED
    assert wire.device.name == old


# --- §2.21.1: nobody has signed an answer to IKE_SA_INIT ---------------------------------------------------------


def refused_in_clear(wire: Wire, *payloads: Any) -> Datagram:
    header = Header(wire.device.name.spi_i, bytes(8), ExchangeType.IKE_SA_INIT, 0, False, True)
    back = Path(wire.device.path.remote, wire.device.path.local)
    return Datagram(back, serialize(header, payloads), "IKE_SA_INIT", True, ())


FORGED = [
    (Notify(NotifyType.NO_PROPOSAL_CHOSEN),),
    (Notify(NotifyType.INVALID_SYNTAX),),
    (Notify(NotifyType.AUTHENTICATION_FAILED),),
    (Notify(NotifyType.COOKIE, b""),),
    (Notify(NotifyType.INVALID_KE_PAYLOAD, b"\0\1"),),
    (Unknown(200, b"what", True),),
    (),
]


@pytest.mark.parametrize("payloads", FORGED)
def test_a_forged_refusal_ends_no_attempt(wire: Wire, payloads: tuple[Any, ...]) -> None:
    """The gateway's own answer comes a little later."""
    wire.device.start(NOW_S)
    (request,) = wire.device.take_datagrams()
    for _ in range(3):
        wire.deliver(refused_in_clear(wire, *payloads))
    assert wire.device.state is State.INIT
    assert not wire.device.take_events()
    wire.deliver(request)
    wire.run().wait(10)
    assert wire.happened("device", Established)
    assert not wire.happened("device", Failed)


@pytest.mark.parametrize("payloads", FORGED)
def test_a_refusal_that_stands_ends_the_attempt(wire: Wire, payloads: tuple[Any, ...]) -> None:
    """Once the request was sent again, and nothing better came; and with the refusal's code."""
    wire.path = lambda datagram: [] if not datagram.is_response else [datagram]
    wire.start()
    wire.deliver(refused_in_clear(wire, *payloads))
    wire.wait(1.9)
    assert len(wire.seen) == 2
    assert not wire.happened("device", Failed)
    wire.wait(0.2)
    (failed,) = wire.happened("device", Failed)
    assert failed.error.failure is not Failure.TIMEOUT
    assert wire.device.state is State.CLOSED


# --- octets by hand -----------------------------------------------------------------------------------------------


def test_a_child_offer_by_hand() -> None:
    """The Responder's own check of what the Initiator names, without an IKE SA."""
    made = Offer(b"\0\0\1\0", ESP_SUITES[:1], want_address=False).payloads()
    options: dict[str, Any] = {"inner": IPv4Network("10.8.0.0/16"), "address": None, "sk_d": bytes(32)}
    assert answer(made, spi=b"1234", nonces=(b"i", b"r"), **options).child.spi_i == b"\0\0\1\0"
    with pytest.raises(ChildError, match="from 256 on"):
        answer(
            Offer(b"\0\0\0\xff", ESP_SUITES[:1], want_address=False).payloads(),
            spi=b"1234",
            nonces=(b"i", b"r"),
            **options,
        )


def test_claims_are_judged_once(wire: Wire) -> None:
    """Forged refusals after IKE_SA_INIT change nothing either: they are not of the SA's keys."""
    wire.start()
    wire.deliver(refused_in_clear(wire, Notify(NotifyType.NO_PROPOSAL_CHOSEN)))
    assert len(wire.happened("device", CertificateToJudge)) == 1
    assert wire.device.state is State.ESTABLISHED
