"""Rekeying of the IKE SA and of its child SA: by either end, by both at once, and by a peer that does it wrong."""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

import pytest

from tests.present import present
from voice_dpki.ikev2.crypto import NONCE_BYTES
from voice_dpki.ikev2.events import ChildClosed, ChildRekeyed, Closed, Datagram, Established, Rekeyed
from voice_dpki.ikev2.message import describe
from voice_dpki.ikev2.payloads import Delete, KeyExchange, Nonce, Notify, TsInitiator, TsResponder
from voice_dpki.ikev2.proposals import CIPHERS, GCM_128, EspSuite, IkeSuite, offer
from voice_dpki.ikev2.registry import ExchangeType, Group, NotifyType, Protocol
from voice_dpki.ikev2.rekey import ChildOffer, IkeOffer, Lifetimes
from voice_dpki.ikev2.standing import REPLACED_S, StandingSa
from voice_dpki.ikev2.states import State

from .conftest import DEVICE, GATEWAY, CountingRandom, Wire

NewWire = Callable[..., Wire]
ENDS = ("device", "gateway")


def at(wire: Wire, end: str) -> StandingSa:
    """The SA that stands at one end; there is exactly one."""
    standing = [sa for sa in wire.devices() if sa.state is State.ESTABLISHED]
    (sa,) = standing if end == "device" else list(wire.gateway.sas())
    return sa


def settle(wire: Wire) -> Wire:
    """Let the ends talk until all is quiet, after something was done to the gateway's SAs themselves."""
    for kept in list(wire.gateway._sas.values()):
        wire.gateway._collect(kept, wire.now_s)
    return wire.run()


def in_step(wire: Wire) -> None:
    """Both ends have the same one SA with the same one child SA, and can talk."""
    ours, theirs = at(wire, "device"), at(wire, "gateway")
    assert ours.name == theirs.name
    assert ours.keys == theirs.keys
    (mine,), (other,) = ours.children.values(), theirs.children.values()
    assert (mine.inbound, mine.outbound) == (other.outbound, other.inbound)
    assert mine.child == other.child
    assert mine.child.keys == other.child.keys
    before = len(wire.seen)
    ours.probe(wire.now_s)
    wire.run()
    assert [each.exchange for each in wire.seen[before:]] == ["INFORMATIONAL"] * 2


@pytest.mark.parametrize("end", ENDS)
def test_ike_sa(wire: Wire, end: str) -> None:
    name = wire.start().wait(2).happened("gateway", Established)[0].sa
    child = wire.happened("gateway", Established)[0].child
    at(wire, end).rekey(wire.now_s)
    settle(wire)
    for each, peer in zip(ENDS, (GATEWAY, DEVICE), strict=True):
        (event,) = wire.happened(each, Rekeyed)
        assert (event.old, event.sa, event.identity) == (name, at(wire, each).name, peer)
        assert not wire.happened(each, Closed)
    (held,) = at(wire, "device").children.values()
    assert held.child == child
    assert at(wire, end).is_initiator
    in_step(wire)
    wire.wait(20)
    assert len(wire.gateway) == 1
    assert wire.gateway.pool._used == {0: 1}


@pytest.mark.parametrize("end", ENDS)
def test_child_sa(wire: Wire, end: str) -> None:
    (event,) = wire.start().wait(2).happened("device", Established)
    sa = at(wire, end)
    sa.rekey_child(next(iter(sa.children)), wire.now_s)
    settle(wire)
    ours, theirs = (wire.happened(each, ChildRekeyed)[0] for each in ENDS)
    assert (ours.old_spi, theirs.old_spi) == (event.child.spi_i, event.child.spi_r)
    assert ours.child == theirs.child
    assert ours.child.address == IPv4Address("10.9.0.1")
    assert ours.child.suite == EspSuite(event.child.suite.cipher, Group.ECP_256)
    assert ours.child.keys != event.child.keys
    assert [each.payloads for each in wire.seen[-2:]] == [("D",), ("D",)]
    assert not wire.happened("device", ChildClosed) + wire.happened("gateway", ChildClosed)
    in_step(wire)


@pytest.mark.parametrize("suite", CIPHERS, ids=lambda cipher: cipher.name)
@pytest.mark.parametrize("group", Group)
def test_every_suite(new_wire: NewWire, suite: Any, group: Group) -> None:
    suites = {"ike_suites": (IkeSuite(suite, group),), "esp_suites": (EspSuite(suite),)}
    wire = new_wire(device=suites).start().wait(2)
    for end in ENDS:
        at(wire.wait(2), end).rekey(wire.now_s)
        settle(wire)
        sa = at(wire, end)
        sa.rekey_child(next(iter(sa.children)), wire.now_s)
        settle(wire)
        in_step(wire)
    assert present(at(wire, "device").keys).suite == IkeSuite(suite, group)


def test_again_and_again_over_lost_messages(new_wire: NewWire) -> None:
    lives = {"lifetimes": Lifetimes(ike_s=100, child_s=40)}
    wire, count = new_wire(device=lives).start(), iter(range(10**6))
    wire.path = lambda datagram: [] if next(count) % 5 == 0 else [datagram]
    wire.wait(1000)
    assert len(wire.happened("device", Rekeyed)) == len(wire.happened("gateway", Rekeyed)) >= 10
    assert len(wire.happened("device", ChildRekeyed)) >= 20
    assert not wire.happened("device", Closed) + wire.happened("gateway", Closed)
    wire.path = lambda datagram: [datagram]
    in_step(wire.wait(3))
    assert len(wire.gateway) <= 2


def test_lifetime_ends_where_the_peer_does_not_rekey(new_wire: NewWire) -> None:
    wire = new_wire(device={"lifetimes": Lifetimes(ike_s=100, child_s=50)}).start()
    busy = (Notify(NotifyType.TEMPORARY_FAILURE),)
    at(wire, "gateway")._renewal = lambda *_: busy  # type: ignore[method-assign]
    wire.wait(60)
    assert [event.reason for event in wire.happened("device", ChildClosed)] == ["its lifetime is over"]
    assert [event.reason for event in wire.happened("gateway", ChildClosed)] == ["deleted by the peer"]
    wire.wait(50)
    assert [event.reason for event in wire.happened("device", Closed)] == ["its lifetime is over"]


# --- both at once (RFC 7296 §2.8.1, §2.25) ------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_both_rekey_the_ike_sa(wire: Wire, seed: int) -> None:
    wire.start().wait(2)
    ours, theirs = at(wire, "device"), at(wire, "gateway")
    ours._random, theirs._random = CountingRandom(f"one {seed}"), CountingRandom(f"other {seed}")
    ours.rekey(wire.now_s)
    theirs.rekey(wire.now_s)
    settle(wire)
    in_step(wire)
    for end in ENDS:
        assert len(wire.happened(end, Rekeyed)) == 1
        assert not wire.happened(end, Closed)
    wire.wait(60)
    in_step(wire)
    assert len(wire.gateway) == 1


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("lost", range(8))
def test_both_rekey_the_ike_sa_and_a_message_is_lost(wire: Wire, seed: int, lost: int) -> None:
    wire.start().wait(2)
    ours, theirs = at(wire, "device"), at(wire, "gateway")
    ours._random, theirs._random = CountingRandom(f"one {seed}"), CountingRandom(f"other {seed}")
    ours.rekey(wire.now_s)
    theirs.rekey(wire.now_s)
    count = iter(range(10**6))
    wire.path = lambda datagram: [] if next(count) == lost else [datagram]
    settle(wire).wait(60)
    in_step(wire)
    for end in ENDS:
        assert len(wire.happened(end, Rekeyed)) == 1
        assert not wire.happened(end, Closed)
    assert len(wire.gateway) == 1
    assert wire.gateway.pool._used == {0: 1}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("lost", [None, *range(8)])
def test_both_rekey_the_child_sa(wire: Wire, seed: int, lost: int | None) -> None:
    wire.start().wait(2)
    for end in ENDS:
        sa = at(wire, end)
        sa._random = CountingRandom(f"{end} {seed}")
        sa.rekey_child(next(iter(sa.children)), wire.now_s)
    count = iter(range(10**6))
    wire.path = lambda datagram: [] if next(count) == lost else [datagram]
    settle(wire).wait(60)
    in_step(wire)
    for end in ENDS:
        assert len(wire.happened(end, ChildRekeyed)) == 1
        assert not wire.happened(end, ChildClosed)


@dataclass
class GivenNonces:
    """Random bytes whose nonces are given; only nonces have 32 bytes in an exchange that rekeys."""

    nonces: list[bytes]
    others: CountingRandom

    def token(self, size: int) -> bytes:
        return self.nonces.pop(0) if size == NONCE_BYTES and self.nonces else self.others.token(size)


LOW, MIDDLE = bytes(31) + b"\x01", bytes(31) + b"\x02"
HIGH, HIGHEST = b"\x01" + bytes(31), b"\xff" * 32
BY_THE_RULE = [
    # Nonces of the exchange that the device began, Ni and Nr, and of the gateway's; whose new SA stays.
    ((LOW, HIGH), (MIDDLE, HIGHEST), "gateway"),
    ((HIGH, LOW), (MIDDLE, HIGHEST), "gateway"),
    ((MIDDLE, HIGHEST), (LOW, HIGH), "device"),
    ((HIGHEST, MIDDLE), (HIGH, LOW), "device"),
]
"""RFC 7296 §2.8.1: of two redundant SAs, the one created with the lowest of the four nonces is closed by the end
that created it; octets are compared one by one, from the first on. Both ends are ours, and could be wrong alike."""


@pytest.mark.parametrize(("device", "gateway", "stays"), BY_THE_RULE)
def test_the_lowest_nonce_loses(
    wire: Wire, device: tuple[bytes, bytes], gateway: tuple[bytes, bytes], stays: str
) -> None:
    wire.start().wait(2)
    ours, theirs = at(wire, "device"), at(wire, "gateway")
    ours._random = GivenNonces([device[0], gateway[1]], CountingRandom("one"))
    theirs._random = GivenNonces([gateway[0], device[1]], CountingRandom("other"))
    ours.rekey(wire.now_s)
    theirs.rekey(wire.now_s)
    settle(wire)
    in_step(wire)
    assert {end: at(wire, end).is_initiator for end in ENDS} == {end: end == stays for end in ENDS}


@pytest.mark.parametrize(("device", "gateway", "stays"), BY_THE_RULE)
def test_the_lowest_nonce_loses_for_child_sas_too(
    wire: Wire, device: tuple[bytes, bytes], gateway: tuple[bytes, bytes], stays: str
) -> None:
    wire.start().wait(2)
    nonces = {"device": [device[0], gateway[1]], "gateway": [gateway[0], device[1]]}
    for end in ENDS:
        sa = at(wire, end)
        sa._random = GivenNonces(nonces[end], CountingRandom(end))
        sa.rekey_child(next(iter(sa.children)), wire.now_s)
    settle(wire)
    in_step(wire)
    for end in ENDS:
        (held,) = at(wire, end).children.values()
        assert held.created == (end == stays)


def test_ike_sa_and_child_sa_at_once(wire: Wire) -> None:
    wire.start().wait(2)
    ours, theirs = at(wire, "device"), at(wire, "gateway")
    ours.rekey(wire.now_s)
    theirs.rekey_child(next(iter(theirs.children)), wire.now_s)
    settle(wire)
    refusals = [each for each in wire.seen if each.payloads == ("N(TEMPORARY_FAILURE)",)]
    assert len(refusals) == 2
    wire.wait(10)
    in_step(wire)


def test_rekeying_and_deletion_at_once(wire: Wire) -> None:
    wire.start().wait(2)
    at(wire, "device").rekey(wire.now_s)
    wire.gateway.delete(at(wire, "gateway").name, "revoked", wire.now_s)
    wire.run()
    assert wire.happened("gateway", Closed)[0].reason == "revoked"
    assert wire.happened("device", Closed)[0].reason == "deleted by the peer"
    assert not list(wire.gateway.sas())


def test_deleted_while_its_rekeying_is_under_way(wire: Wire) -> None:
    wire.start().wait(2)
    sa = at(wire, "device")
    sa.rekey(wire.now_s)
    sa.delete("switched off", wire.now_s)
    wire.run().wait(60)
    assert not list(wire.gateway.sas())
    assert wire.happened("device", Closed)[0].reason == "switched off"
    assert len(wire.gateway) == 0


def test_deleted_while_both_rekey_the_ike_sa(wire: Wire) -> None:
    wire.start().wait(2)
    ours, theirs = at(wire, "device"), at(wire, "gateway")
    ours.rekey(wire.now_s)
    theirs.rekey(wire.now_s)
    wire.path = lambda datagram: [] if datagram.is_response else [datagram]
    settle(wire)
    ours.delete("switched off", wire.now_s)
    wire.path = lambda datagram: [datagram]
    wire.run().wait(60)
    assert [event.reason for event in wire.happened("device", Closed)] == ["switched off"]
    assert len(wire.gateway) == 0
    assert not wire.gateway.pool._used


def test_refused_while_the_peer_rekeys_the_ike_sa(wire: Wire) -> None:
    wire.start().wait(2)
    theirs = at(wire, "gateway")
    theirs._renewal = lambda *_: (Notify(NotifyType.TEMPORARY_FAILURE),)  # type: ignore[method-assign]
    at(wire, "device").rekey(wire.now_s)
    theirs.rekey(wire.now_s)
    settle(wire)
    assert at(wire, "gateway").is_initiator
    in_step(wire)


def test_deleted_while_its_childs_rekeying_is_under_way(wire: Wire) -> None:
    wire.start().wait(2)
    sa = at(wire, "device")
    sa.rekey_child(next(iter(sa.children)), wire.now_s)
    sa.delete("switched off", wire.now_s)
    wire.run()
    assert not list(wire.gateway.sas())
    assert not wire.happened("device", ChildClosed)


def test_deletion_by_the_old_name(wire: Wire) -> None:
    name = wire.start().wait(2).happened("gateway", Established)[0].sa
    wire.path = lambda datagram: [] if "D" in datagram.payloads else [datagram]  # the old SA stays for a moment
    at(wire, "device").rekey(wire.now_s)
    wire.run()
    wire.path = lambda datagram: [datagram]
    wire.gateway.delete(name, "revoked", wire.now_s)
    wire.run()
    assert wire.happened("device", Closed)[0].reason == "deleted by the peer"


def test_one_device_is_one_device(wire: Wire) -> None:
    wire.start().wait(2)
    at(wire, "device").rekey(wire.now_s)
    wire.run()
    assert wire.gateway.forget_others(at(wire, "gateway").name, "replaced", wire.now_s) == 0


# --- a peer that does it wrong ------------------------------------------------------------------------------------


def ask(wire: Wire, *payloads: Any) -> Datagram:
    """Have the device ask for something with CREATE_CHILD_SA; returns the answer."""
    before = len(wire.seen)
    at(wire, "device")._ask(ExchangeType.CREATE_CHILD_SA, payloads, wire.now_s, lambda *_: None)
    wire.run()
    return wire.seen[before + 1]


def test_child_that_is_not_there(wire: Wire) -> None:
    wire.start().wait(2)
    sa = at(wire, "device")
    (held,) = sa.children.values()
    _, *rest = ChildOffer.make(held, Group.ECP_256, CountingRandom("x")).payloads()
    for protocol in (Protocol.ESP, Protocol.AH):
        answer = ask(wire, Notify(NotifyType.REKEY_SA, protocol=protocol, spi=b"none"), *rest)
        assert answer.payloads == ("N(CHILD_SA_NOT_FOUND)",)
    in_step(wire)


def test_child_that_the_peer_has_lost(wire: Wire) -> None:
    wire.start().wait(2)
    at(wire, "gateway").children.clear()
    sa = at(wire, "device")
    sa.rekey_child(next(iter(sa.children)), wire.now_s)
    wire.run()
    assert [event.reason for event in wire.happened("device", ChildClosed)] == ["deleted by the peer"]
    assert not sa.children


def test_child_that_was_lost_is_made_anew(wire: Wire) -> None:
    wire.start().wait(2)
    sa = at(wire, "device")
    (held,) = sa.children.values()
    _, *offered = ChildOffer.make(held, Group.ECP_256, CountingRandom("x")).payloads()
    assert ask(wire, *offered).payloads == ("N(NO_ADDITIONAL_SAS)",)
    sa._ask(ExchangeType.INFORMATIONAL, (Delete(Protocol.ESP, (held.inbound,)),), wire.now_s)
    wire.run()
    at(wire, "device").rekey(wire.now_s)
    wire.run()
    assert ask(wire, *offered).payloads == ("SA", "Nonce", "KE", "TSi", "TSr")
    (new,) = at(wire, "gateway").children.values()
    assert new.child.address == IPv4Address("10.9.0.1")
    assert ask(wire, *offered).payloads == ("N(NO_ADDITIONAL_SAS)",)


def test_old_ike_sa_that_is_never_deleted(wire: Wire) -> None:
    wire.start().wait(2)
    old = at(wire, "device")
    payloads = IkeOffer.make(present(old.keys).suite, CountingRandom("x")).payloads()
    old._ask(ExchangeType.CREATE_CHILD_SA, payloads, wire.now_s, lambda *_: None)
    wire.run()
    assert ask(wire, *payloads).payloads == ("N(TEMPORARY_FAILURE)",)
    assert len(wire.gateway) == 2
    wire.wait(REPLACED_S + 1)
    assert old.state is State.CLOSED
    assert wire.happened("gateway", Closed) == []


def test_old_child_sa_that_is_never_deleted(wire: Wire) -> None:
    """It is rekeyed once, and does not stay for ever."""
    wire.start().wait(2)
    (held,) = at(wire, "device").children.values()
    rekeyed = Notify(NotifyType.REKEY_SA, protocol=Protocol.ESP, spi=held.inbound)
    rest = Nonce(bytes(16)), TsInitiator(held.local), TsResponder(held.remote)
    for spi, answered in ((b"\0\0\1\1", "SA"), (b"\0\0\1\2", "N(TEMPORARY_FAILURE)")):
        assert ask(wire, rekeyed, offer((EspSuite(GCM_128),), Protocol.ESP, spi), *rest).payloads[0] == answered
    gateway = at(wire, "gateway")
    assert len(gateway.children) == 2
    wire.wait(REPLACED_S - 1)
    assert len(gateway.children) == 2
    wire.wait(2)
    (left,) = gateway.children.values()
    assert left.outbound == b"\0\0\1\1"


def test_children_are_bounded(wire: Wire) -> None:
    wire.start().wait(2)
    answers = []
    for number in range(6):
        held = list(at(wire, "gateway").children.values())[-1]
        mirrored = type(held)(held.child, not held.created, held.life)
        offered = ChildOffer.make(mirrored, Group.ECP_256, CountingRandom(str(number)))
        answers.append(ask(wire, *offered.payloads()).payloads)
    assert answers[3:] == [("N(TEMPORARY_FAILURE)",)] * 3
    assert len(at(wire, "gateway").children) == 4


@pytest.mark.parametrize(
    ("drop", "answer"),
    [
        ("Nonce", "N(INVALID_SYNTAX)"),
        ("SA", "N(INVALID_SYNTAX)"),
        ("KE", "N(INVALID_SYNTAX)"),
        ("TSi", "N(INVALID_SYNTAX)"),
    ],
)
def test_something_is_missing(wire: Wire, drop: str, answer: str) -> None:
    wire.start().wait(2)
    (held,) = at(wire, "device").children.values()
    payloads = ChildOffer.make(held, Group.ECP_256, CountingRandom("x")).payloads()
    assert ask(wire, *(each for each in payloads if describe((each,)) != (drop,))).payloads == (answer,)
    if drop != "TSi":
        payloads = IkeOffer.make(present(at(wire, "device").keys).suite, CountingRandom("x")).payloads()
        assert ask(wire, *(each for each in payloads if describe((each,)) != (drop,))).payloads == (answer,)
    in_step(wire)


def test_another_group_is_wanted(wire: Wire) -> None:
    wire.start().wait(2)
    suite = IkeSuite(GCM_128, Group.ECP_384)
    sa, nonce, _ = IkeOffer.make(suite, CountingRandom("x")).payloads()
    answer = ask(wire, sa, nonce, KeyExchange(Group.ECP_256, bytes(64)))
    assert answer.payloads == ("N(INVALID_KE_PAYLOAD)",)


@pytest.mark.parametrize("demands", [1, 9])
def test_another_group_is_wanted_for_the_child(wire: Wire, demands: int) -> None:
    wire.start().wait(2)
    theirs, sa, offered = at(wire, "gateway"), at(wire, "device"), list[int]()
    renew = theirs._renewal

    def demand(payloads: Any, now_s: float) -> Any:
        offered.append(payloads[3].group)
        if len(offered) > demands:
            return renew(payloads, now_s)
        other = Group.ECP_384 if offered[-1] == Group.ECP_256 else Group.ECP_256
        return (Notify(NotifyType.INVALID_KE_PAYLOAD, other.to_bytes(2, "big")),)

    theirs._renewal = demand  # type: ignore[method-assign]
    sa.rekey_child(next(iter(sa.children)), wire.now_s)
    wire.run()
    assert offered == [Group.ECP_256, Group.ECP_384]
    assert len(wire.happened("device", ChildRekeyed)) == (demands == 1)
    in_step(wire)


def test_a_young_sa_is_not_rekeyed(wire: Wire) -> None:
    wire.start()
    at(wire, "device").rekey(wire.now_s)
    wire.run()
    assert wire.seen[-1].payloads == ("N(TEMPORARY_FAILURE)",)
    wire.wait(6)
    at(wire, "device").rekey(wire.now_s)
    wire.run()
    in_step(wire)


def test_algorithms_selectors_and_spis_that_do_not_fit(wire: Wire) -> None:
    wire.start().wait(2)
    (held,) = at(wire, "device").children.values()
    rekeyed = Notify(NotifyType.REKEY_SA, protocol=Protocol.ESP, spi=held.inbound)
    nonce, suites = Nonce(bytes(16)), (EspSuite(GCM_128),)
    ts = TsInitiator(held.local), TsResponder(held.remote)
    none = offer(suites, Protocol.AH, b"1234")
    assert ask(wire, rekeyed, none, nonce, *ts).payloads == ("N(NO_PROPOSAL_CHOSEN)",)
    short = offer(suites, Protocol.ESP, b"12")
    assert ask(wire, rekeyed, short, nonce, *ts).payloads == ("N(INVALID_SYNTAX)",)
    swapped = TsInitiator(held.remote), TsResponder(held.local)
    good = offer(suites, Protocol.ESP, b"1234")
    assert ask(wire, rekeyed, good, nonce, *swapped).payloads == ("N(TS_UNACCEPTABLE)",)
    without_spi = offer((IkeSuite(GCM_128, Group.ECP_256),), Protocol.IKE, b"")
    exchange = IkeOffer.make(present(at(wire, "device").keys).suite, CountingRandom("x")).payloads()[2]
    assert ask(wire, without_spi, nonce, exchange).payloads == ("N(INVALID_SYNTAX)",)
    in_step(wire)
    assert ask(wire, rekeyed, good, nonce, *ts).payloads == ("SA", "Nonce", "TSi", "TSr")


def test_deletion_of_the_childs_half_that_is_not_the_peers(wire: Wire) -> None:
    wire.start().wait(2)
    sa = at(wire, "device")
    (held,) = sa.children.values()
    sa._ask(ExchangeType.INFORMATIONAL, (Delete(Protocol.ESP, (held.outbound, b"none")),), wire.now_s)
    wire.run()
    assert at(wire, "gateway").children
