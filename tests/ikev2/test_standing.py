"""An IKE SA that stands: what it drops and counts, its probes, its timers, its end, and when it is rekeyed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from voice_dpki.ikev2.events import Closed, Datagram, Failed, Path, SaName
from voice_dpki.ikev2.failures import Failure
from voice_dpki.ikev2.message import Header, Message
from voice_dpki.ikev2.payloads import Notify, Payload
from voice_dpki.ikev2.proposals import GCM_128, EspSuite, offer
from voice_dpki.ikev2.registry import ExchangeType, NotifyType
from voice_dpki.ikev2.rekey import Life
from voice_dpki.ikev2.sa import IkeSa
from voice_dpki.ikev2.standing import StandingSa
from voice_dpki.ikev2.states import State
from voice_dpki.x509.keys import LocalSigner

from .conftest import DEVICE, DEVICE_AT, GATEWAY_AT, NOW_S, Wire, new_device, party
from .test_rekey import ask, at, settle
from .test_turns import first_answer

NewWire = Callable[..., Wire]
INBOUND = Path(GATEWAY_AT, DEVICE_AT)
"""How the gateway sees what a device sends."""


# --- an SA that stands --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exchange", [34, 35, 38, 240])
def test_an_exchange_that_nobody_knows(wire: Wire, exchange: Any) -> None:
    wire.start()
    (sa,) = wire.gateway.sas()
    header = Header(*wire.device.name, exchange, wire.device._requests.next_id, True, False)
    for each in wire.device._sealed(header, ()):
        sa.receive(Message.parse(each.data), INBOUND, wire.now_s)
    (answer,) = sa.take_datagrams()
    assert answer.payloads == ("N(INVALID_SYNTAX)",)
    assert Message.parse(answer.data).header.exchange == exchange
    assert sa.state is State.ESTABLISHED


def others(name: SaName) -> list[SaName]:
    low, high = bytes(7) + b"\1", b"\xff" * 8
    return [SaName(spi, name.spi_r) for spi in (low, high)] + [SaName(name.spi_i, spi) for spi in (low, high)]


@pytest.mark.parametrize("end", ["device", "gateway"])
def test_what_is_not_of_this_sa_is_dropped_and_counted(wire: Wire, end: str) -> None:
    wire.start()
    (gateways,) = wire.gateway.sas()
    sa, peer = (wire.device, gateways) if end == "device" else (gateways, wire.device)
    wrong = [replace(peer._header(37, 0, is_response=False), spi_i=i, spi_r=r) for i, r in others(sa.name)]
    expected = sa._responses.expected
    wrong += [
        replace(peer._header(37, expected, is_response=False), from_initiator=sa.is_initiator),
        peer._header(37, (expected - 1) % 2**32, is_response=False),
        peer._header(37, expected + 1, is_response=False),
        peer._header(37, expected, is_response=True),
        peer._header(37, 2**32 - 1, is_response=True),
    ]
    for number, header in enumerate(wrong, 1):
        for each in peer._sealed(header, ()):
            sa.receive(Message.parse(each.data), sa.path, wire.now_s)
        assert sa.dropped == number, header
    (right,) = peer._sealed(peer._header(37, expected, is_response=False), ())
    bent = right.data[:-1] + bytes((right.data[-1] ^ 1,))
    sa.receive(Message.parse(bent), sa.path, wire.now_s)
    assert (sa.dropped, sa.take_datagrams(), sa.state) == (len(wrong) + 1, [], State.ESTABLISHED)
    sa.receive(Message.parse(right.data), sa.path, wire.now_s)
    assert (sa.dropped, len(sa.take_datagrams())) == (len(wrong) + 1, 1)


@pytest.mark.parametrize("state", State)
def test_only_an_sa_that_stands_is_probed(new_wire: NewWire, state: State) -> None:
    wire = new_wire(device={"probe_s": 20.0}).start()
    device = wire.device
    device.state = state
    standing = state is State.ESTABLISHED
    assert IkeSa.timer_s(device) == (NOW_S + 20 if standing else None)
    device.handle_timer(NOW_S + 19.9)
    assert device.take_datagrams() == []
    device.handle_timer(NOW_S + 20)
    assert len(device.take_datagrams()) == standing
    device._requests.answered()
    device.probe(NOW_S + 20)
    assert len(device.take_datagrams()) == standing


def test_a_peer_that_is_heard_is_not_probed(new_wire: NewWire) -> None:
    wire = new_wire(gateway={"probe_s": 20.0}).start().wait(15)
    wire.device.probe(wire.now_s)
    wire.run()
    before = len(wire.seen)
    wire.wait(19.9)
    assert len(wire.seen) == before
    wire.wait(0.2)
    assert len(wire.seen) == before + 2


def test_one_probe_is_sent_until_it_is_answered(new_wire: NewWire) -> None:
    wire = new_wire(gateway={"probe_s": 20.0}).start()
    lost = iter([True, True])
    wire.path = lambda datagram: [] if next(lost, False) else [datagram]
    before = len(wire.seen)
    wire.wait(30)
    requests = [each for each in wire.seen[before:] if not each.is_response]
    assert {Message.parse(each.data).header.message_id for each in requests} == {0}
    assert not wire.happened("gateway", Closed)


def outer(sa: StandingSa, *before: tuple[int, bool], fragment: tuple[int, int] | None = None) -> bytes:
    """An INFORMATIONAL request, or one fragment of it, with payloads in front of the encrypted one."""
    place = b"" if fragment is None else b"".join(each.to_bytes(2, "big") for each in fragment)
    length = 4 + len(place) + sa._cipher.sealed_bytes(0)
    kinds = [kind for kind, _ in before] + [53 if place else 46]
    clear = b"".join(
        bytes((after, 0x80 * critical)) + b"\0\x05x" for (_, critical), after in zip(before, kinds[1:], strict=True)
    )
    header = sa._header(ExchangeType.INFORMATIONAL, sa._requests.next_id, is_response=False)
    octets = header.serialize(kinds[0], 28 + len(clear) + length) + clear
    octets += b"\0\0" + length.to_bytes(2, "big") + place
    return octets + sa._cipher.seal(octets, b"")


@pytest.mark.parametrize("before", [((200, True), (201, False)), ((200, False), (201, True))])
def test_every_payload_before_the_encrypted_one_is_looked_at(
    wire: Wire, before: tuple[tuple[int, bool], ...]
) -> None:
    """RFC 7296 §2.5, §3.14."""
    wire.start()
    wire.gateway.receive(outer(wire.device, *before), INBOUND, wire.now_s)
    (answer,) = wire.gateway.take_datagrams()
    assert answer.payloads == ("N(UNSUPPORTED_CRITICAL_PAYLOAD)",)


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ((200, True), (201, False), ("N(UNSUPPORTED_CRITICAL_PAYLOAD)",)),
        ((200, False), (201, True), ()),
    ],
)
def test_of_fragments_the_first_says_what_stands_before(
    wire: Wire, first: tuple[int, bool], second: tuple[int, bool], told: tuple[str, ...]
) -> None:
    """RFC 7383 §2.5.3: what is put together has the headers of fragment 1."""
    wire.start()
    fragments = [outer(wire.device, each, fragment=(at, 2)) for at, each in enumerate((first, second), 1)]
    for datagram in fragments:
        wire.gateway.receive(datagram, INBOUND, wire.now_s)
    (answer,) = wire.gateway.take_datagrams()
    assert answer.payloads == told


def test_a_closed_sa_repeats_its_last_answer_for_10_seconds(wire: Wire) -> None:
    wire.start().wait(100)
    wire.device.delete("over", wire.now_s)
    wire.run()
    request = next(each for each in wire.seen if each.exchange == "INFORMATIONAL" and not each.is_response)
    wire.wait(9.9)
    wire.deliver(request)
    (again,) = wire.gateway.take_datagrams()
    assert again.repeated
    wire.wait(0.1)
    assert len(wire.gateway) == 0
    wire.deliver(request)
    assert wire.gateway.take_datagrams() == []


def test_the_end_of_an_sa_leaves_nothing(wire: Wire) -> None:
    wire.start()
    wire.device.delete("over", wire.now_s)
    wire.run().wait(40)
    assert (wire.device.children, wire.device.timer_s()) == ({}, None)
    gateway = wire.gateway
    left = gateway._of_identity, gateway._inits, gateway._half_open_at, gateway._sas, gateway.pool._used
    assert not any(left)
    assert gateway.timer_s() is None


def test_of_many_timers_that_are_due_none_is_passed_over(new_wire: NewWire, keys: dict[str, LocalSigner]) -> None:
    """Also behind one of an SA that is not there any more, and of one that is removed."""
    wire = new_wire().start()
    wire.device.delete("over", wire.now_s)
    wire.run()  # this one is removed by its timer
    names: list[SaName] = []
    for number in range(3):
        wire.device = new_device(party(DEVICE, keys["device"]), seed=f"device {number}")
        half_open_before = set(wire.gateway._sas)
        first_answer(wire)
        names += set(wire.gateway._sas) - half_open_before
    del wire.gateway._sas[names[0]]
    wire.gateway.handle_timer(NOW_S + 100)
    failed = [event for event in wire.gateway.take_events() if isinstance(event, Failed)]
    assert {event.sa for event in failed} == set(names[1:])
    assert {event.error.failure for event in failed} == {Failure.TIMEOUT}


@pytest.mark.parametrize("end", ["device", "gateway"])
def test_fragments_go_on_after_a_rekeying(new_wire: NewWire, end: str) -> None:
    cut = {"fragment_bytes": 400}
    wire = new_wire(device=cut, gateway=cut).start().wait(2)
    at(wire, "device").rekey(wire.now_s)
    settle(wire)
    sa = at(wire, end)
    sa._ask(ExchangeType.INFORMATIONAL, (Notify(NotifyType.COOKIE, bytes(900)),), wire.now_s)
    assert {each.fragment[1] for each in sa.take_datagrams()} == {3}


def test_only_the_first_fragment_brings_the_answer_again(new_wire: NewWire) -> None:
    """RFC 7383 §2.6.1."""
    cut = {"fragment_bytes": 400}
    wire = new_wire(device=cut, gateway=cut).start()
    wire.device._ask(ExchangeType.INFORMATIONAL, (Notify(NotifyType.COOKIE, bytes(900)),), wire.now_s)
    request = wire.device.take_datagrams()
    for each in request:
        wire.deliver(each)
    (answer,) = wire.gateway.take_datagrams()
    for each, brings in zip(request, (True, False, False), strict=True):
        wire.deliver(each)
        assert [again.data for again in wire.gateway.take_datagrams()] == [answer.data] * brings


@pytest.mark.parametrize("state", State)
def test_what_can_be_deleted(wire: Wire, state: State) -> None:
    wire.start()
    wire.device.state = state
    wire.device.delete("over", wire.now_s)
    stands = state in (State.ESTABLISHED, State.REPLACED)
    assert len(wire.device.take_datagrams()) == stands
    assert wire.device.state is (State.DELETING if stands else state)


# --- rekeying -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("busy", [False, True])
def test_when_an_sa_begins_to_rekey(wire: Wire, state: State, busy: bool) -> None:
    wire.start()
    sa = wire.device
    if busy:
        sa.probe(wire.now_s)
        sa.take_datagrams()
    sa.state = state
    sa.rekey(wire.now_s)
    sent = len(sa.take_datagrams())
    assert sent == (state is State.ESTABLISHED and not busy)
    assert bool(sa._ike_offer) == bool(sent)
    sa._requests.answered()
    if busy:
        return
    (held,) = sa.children.values()
    sa.rekey_child(held.inbound, wire.now_s)
    assert len(sa.take_datagrams()) == (state is State.ESTABLISHED)


def test_child_sas_that_are_not_rekeyed(wire: Wire) -> None:
    wire.start()
    sa = wire.device
    (held,) = sa.children.values()
    sa.rekey_child(b"none", wire.now_s)
    held.replaced = True
    sa.rekey_child(held.inbound, wire.now_s)
    assert (sa.take_datagrams(), held.life) == ([], Life())


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 255])
def test_proposals_that_are_for_no_ike_sa(wire: Wire, protocol: Any) -> None:
    """RFC 7296 §3.3.1: protocol 1 is IKE's."""
    wire.start().wait(2)
    assert ask(wire, offer((EspSuite(GCM_128),), protocol, b"\1\2\3\4")).payloads == ("N(NO_ADDITIONAL_SAS)",)


@pytest.mark.parametrize("why", ["deleting", "replaced", "rival", "rekeying", "full", "fuller", "nothing"])
def test_when_a_child_sa_cannot_be_rekeyed_by_the_peer(wire: Wire, why: str) -> None:
    """RFC 7296 §2.25.1: something else is under way, so the peer is to try again later."""
    wire.start().wait(2)
    sa = at(wire, "gateway")
    (held,) = sa.children.values()
    if why in ("deleting", "replaced"):
        setattr(held, why, True)
    elif why == "rival":
        sa._child_rival = held
    elif why == "rekeying":
        sa._ike_offer = object()  # type: ignore[assignment]
    elif why in ("full", "fuller"):
        for number in range(3 if why == "full" else 4):
            sa.children[b"%04d" % number] = replace(held, child=replace(held.child, spi_i=b"%04d" % number))
    device = at(wire, "device")
    device.rekey_child(next(iter(device.children)), wire.now_s)
    for each in device.take_datagrams():
        wire.deliver(each)
    answered = wire.gateway.take_datagrams()
    busy = answered[0].payloads == ("N(TEMPORARY_FAILURE)",)
    assert busy is (why != "nothing")


def test_an_sa_that_is_being_deleted_does_nothing_else(new_wire: NewWire) -> None:
    """Its lives and those of its child SAs are over meanwhile."""
    wire = new_wire().start()
    device = wire.device
    device.delete("over", wire.now_s)
    device.take_datagrams()
    device._life = Life(NOW_S, NOW_S)
    for held in device.children.values():
        held.life = Life(NOW_S, NOW_S)
    device.handle_timer(NOW_S + 0.5)
    assert (device.take_datagrams(), device._queue, device.take_events()) == ([], [], [])
    assert device.state is State.DELETING


@pytest.mark.parametrize("state", [State.REPLACED, State.DELETING])
def test_an_answer_about_a_child_sa_that_comes_too_late(wire: Wire, state: State) -> None:
    wire.start().wait(2)
    device = at(wire, "device")
    (held,) = device.children.values()
    device.rekey_child(held.inbound, wire.now_s)
    (request,) = device.take_datagrams()
    wire.deliver(request)
    (answer,) = wire.gateway.take_datagrams()
    device.state = state
    device._close_reason = "over"
    before = dict(device.children)
    device._child_answered(_inside(wire, answer), wire.now_s)
    assert (device.take_events(), device.take_datagrams(), device.children) == ([], [], before)
    assert device._child_offer is None


def _inside(wire: Wire, datagram: Datagram) -> tuple[Payload, ...]:
    opened = wire.device._opener
    assert opened is not None
    payloads = opened.open(Message.parse(datagram.data))
    assert payloads is not None
    return payloads


def test_lives_end_at_their_time_and_not_only_then(new_wire: NewWire) -> None:
    """A timer may come late."""
    wire = new_wire().start()
    device = wire.device
    (held,) = device.children.values()
    held.life = Life(NOW_S + 50, NOW_S + 60)
    device.handle_timer(NOW_S + 61.5)
    assert held.deleting
    assert [type(event).__name__ for event in device.take_events()] == ["ChildClosed"]
    assert [each.payloads for each in device.take_datagrams()] == [("D",)]
