"""What two ends agree on, bound by bound: the window, proposals, and what a rekeying keeps."""

from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address
from typing import Any

import pytest

from voice_dpki.ikev2 import child, proposals, rekey
from voice_dpki.ikev2.crypto import IkeKeys, KeyPair
from voice_dpki.ikev2.events import Datagram, Path, SaName
from voice_dpki.ikev2.failures import Failure
from voice_dpki.ikev2.payloads import (
    KeyExchange,
    Nonce,
    Notify,
    Proposal,
    SecurityAssociation,
    Selector,
    Transform,
    TsInitiator,
    TsResponder,
)
from voice_dpki.ikev2.proposals import (
    CBC_128,
    CBC_256,
    ESP_SUITES,
    GCM_128,
    GCM_256,
    IKE_SUITES,
    EspSuite,
    IkeSuite,
)
from voice_dpki.ikev2.registry import Group, NotifyType, Protocol
from voice_dpki.ikev2.rekey import ChildOffer, HeldChild, IkeOffer, Life
from voice_dpki.ikev2.window import Requests, Responses, Retransmission

from .conftest import DEVICE_AT, GATEWAY_AT, CountingRandom
from .test_bounds import INNER, OURS, SA, Draws, refused

# --- the window ---------------------------------------------------------------------------------------------------


def test_only_the_last_request_brings_its_answer_again() -> None:
    """RFC 7296 §2.1: by its message ID and by its octets."""
    datagram = Datagram(Path(GATEWAY_AT, DEVICE_AT), b"answer", "INFORMATIONAL", True, ())
    responses = Responses(1)
    assert responses.repeated(0, b"request") == ()
    responses.answered(b"request", (datagram,))
    assert responses.expected == 2
    assert responses.repeated(1, b"request") == (datagram,)
    for message_id, octets in ((0, b"request"), (2, b"request"), (1, b"Request"), (1, b"")):
        assert responses.repeated(message_id, octets) == ()


def test_message_ids_are_compared_as_numbers() -> None:
    datagram = Datagram(Path(GATEWAY_AT, DEVICE_AT), b"answer", "INFORMATIONAL", True, ())
    responses = Responses(100_000)
    responses.answered(b"request", (datagram,))
    assert responses.repeated(int("100000"), b"request") == (datagram,)


def test_what_a_request_waits_for() -> None:
    requests = Requests(Retransmission(first_s=1.5, factor=3.0, tries=2))
    datagram = Datagram(Path(DEVICE_AT, GATEWAY_AT), b"request", "INFORMATIONAL", False, ())
    assert (requests.due_s, requests.waiting_for, requests.exchange, requests.next_id) == (None, None, None, 0)
    requests.sent((datagram,), 10.0)
    assert (requests.due_s, requests.waiting_for, requests.exchange) == (11.5, 0, "INFORMATIONAL")
    assert requests.next_id == 1
    assert requests.repeat(11.4) == ()
    assert requests.repeat(11.5) == (datagram,)
    assert requests.due_s == 16.0
    assert requests.repeat(15.9) == ()
    assert requests.repeat(16.0) is None
    assert requests.repeat(100.0) == ()
    requests.sent((datagram,), 20.0)
    assert requests.next_id == 2
    assert requests.exchange == "INFORMATIONAL"
    requests.answered()
    assert requests.repeat(100.0) == ()


def test_the_schedule_unless_told_otherwise() -> None:
    assert [Retransmission().pause_s(sent) for sent in range(1, 6)] == [1, 2, 4, 8, 16]
    assert Retransmission().tries == 5


# --- proposals ----------------------------------------------------------------------------------------------------


def test_proposals_are_numbered_from_1() -> None:
    """RFC 7296 §3.3.1: the first is 1, each following one more."""
    offered = proposals.offer(ESP_SUITES, Protocol.ESP, b"spi1")
    assert [(each.number, each.protocol, each.spi) for each in offered.proposals] == [
        (at, 3, b"spi1") for at in (1, 2, 3, 4)
    ]
    suite, proposal = proposals.choose(offered, ESP_SUITES[2:], Protocol.ESP)
    assert (suite, proposal.number, proposal.spi) == (ESP_SUITES[2], 3, b"spi1")


def test_suites_have_names() -> None:
    assert [each.name for each in (GCM_128, GCM_256, CBC_128, CBC_256)] == [
        "AES-GCM-16-128", "AES-GCM-16-256", "AES-CBC-128-HMAC-SHA-256-128", "AES-CBC-256-HMAC-SHA-256-128"
    ]  # fmt: skip
    assert IkeSuite(GCM_128, Group.ECP_384).name == "AES-GCM-16-128, PRF-HMAC-SHA-256, ECP_384"
    assert EspSuite(CBC_256, Group.ECP_384).name == "AES-CBC-256-HMAC-SHA-256-128"
    assert len(IKE_SUITES) == 8
    assert [each.cipher for each in ESP_SUITES] == [GCM_128, GCM_256, CBC_128, CBC_256]


@pytest.mark.parametrize(
    ("suite", "transforms"),
    [
        (IkeSuite(GCM_128, Group.ECP_256), [(1, 20, 128), (2, 5, None), (4, 19, None)]),
        (IkeSuite(CBC_256, Group.ECP_384), [(1, 12, 256), (3, 12, None), (2, 5, None), (4, 20, None)]),
        (EspSuite(GCM_256), [(1, 20, 256), (5, 0, None)]),
        (EspSuite(CBC_128, Group.ECP_256), [(1, 12, 128), (3, 12, None), (4, 19, None), (5, 0, None)]),
    ],
)
def test_the_transforms_of_a_suite(
    suite: IkeSuite | EspSuite, transforms: list[tuple[int, int, int | None]]
) -> None:
    """RFC 7296 §3.3.2, §3.3.3: what an IKE SA and what ESP must name; RFC 5282 §8: no integrity beside an AEAD."""
    assert [(each.type, each.id, each.key_bits) for each in suite.transforms()] == transforms


NONE = {"integ": Transform(3, 0), "ke": Transform(4, 0), "esn": Transform(5, 0)}


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ((Transform(1, 20, 128), Transform(5, 0)), True),
        ((Transform(5, 0), Transform(1, 20, 128)), True),
        ((Transform(1, 20, 128),), True),
        ((Transform(1, 20, 128), *NONE.values()), True),
        ((Transform(1, 20, 256), Transform(5, 0)), False),
        ((Transform(1, 20), Transform(5, 0)), False),
        ((Transform(1, 20, 128), Transform(5, 1)), False),
        ((Transform(1, 20, 128), Transform(5, 0), Transform(4, 19)), False),
        ((Transform(1, 20, 128), Transform(5, 0), Transform(2, 0)), False),  # of a PRF there is no NONE
        ((Transform(1, 20, 128), Transform(1, 20, 128), Transform(5, 0)), False),
        ((Transform(1, 20, 128, True), Transform(5, 0)), False),
        ((), False),
    ],
)
def test_what_answers_an_offer(given: tuple[Transform, ...], right: bool) -> None:
    """RFC 7296 §2.7, §3.3.6: exactly one transform of each type that was offered."""
    answered = SecurityAssociation((Proposal(1, Protocol.ESP, b"spi1", given),))
    if right:
        assert proposals.chosen(answered, ESP_SUITES, Protocol.ESP)[0] == ESP_SUITES[0]
    else:
        refused(Failure.PROPOSAL, lambda: proposals.chosen(answered, ESP_SUITES[:1], Protocol.ESP))
    refused(Failure.PROPOSAL, lambda: proposals.chosen(answered, ESP_SUITES, Protocol.AH))
    refused(Failure.PROPOSAL, lambda: proposals.choose(answered, ESP_SUITES, Protocol.AH))
    refused(Failure.PROPOSAL, lambda: proposals.chosen(SecurityAssociation(()), ESP_SUITES, Protocol.ESP))


# --- rekeying -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left_s", "pause_s"),
    [(1000, 5.0), (20.1, 5.0), (20, 5.0), (16, 4.0), (0.5, 0.125), (0.3, 0.1), (0, 0.1), (-9, 0.1)],
)
def test_when_a_rekeying_is_tried_again(left_s: float, pause_s: float) -> None:
    life = Life(rekey_at_s=1.0, ends_s=100.0 + left_s).again(100.0)
    assert life.rekey_at_s == pytest.approx(100.0 + pause_s)
    assert life.ends_s == 100.0 + left_s


def test_a_life_without_end() -> None:
    assert Life.of(None, 5.0, Draws()) == Life() == Life(float("inf"), float("inf"))


def held(group: Group | None = None, selectors: tuple[Selector, ...] = (OURS,)) -> HeldChild:
    offered = child.Offer(b"\0\0\1\0", ESP_SUITES[:1]).payloads()
    options: dict[str, Any] = {"inner": INNER, "address": None, "sk_d": bytes(32), "nonces": (b"i", b"r")}
    made = child.answer(offered, spi=b"\0\0\2\0", **options).child
    return HeldChild(replace(made, suite=EspSuite(GCM_128, group), ts_i=selectors, ts_r=selectors), True, Life())


@pytest.mark.parametrize(
    ("own", "wanted", "found"),
    [
        (Group.ECP_256, 20, Group.ECP_384),
        (Group.ECP_384, 19, Group.ECP_256),
        (Group.ECP_256, 19, None),
        (Group.ECP_256, 14, None),
        (Group.ECP_256, 21, None),
        (Group.ECP_384, 21, None),
        (Group.ECP_256, 0, None),
    ],
)
def test_the_group_that_a_peer_asks_for(own: Group, wanted: int, found: Group | None) -> None:
    """RFC 7296 §1.3: another one of those that were offered, once."""
    demand = (Notify(NotifyType.INVALID_KE_PAYLOAD, wanted.to_bytes(2, "big")),)
    offer = ChildOffer.make(held(), own, CountingRandom("offer"))
    assert offer.other_group(demand) is found
    assert offer.other_group(()) is None
    assert replace(offer, second=True).other_group(demand) is None


def test_a_key_exchange_of_another_group_is_refused() -> None:
    for own, other in ((Group.ECP_256, Group.ECP_384), (Group.ECP_384, Group.ECP_256)):
        pair = KeyPair(own, CountingRandom("own"))
        value = KeyPair(own, CountingRandom("other")).public_value
        assert rekey._shared(pair, KeyExchange(own, value)) == pair.shared(value)
        error = refused(Failure.KE_GROUP, partial(rekey._shared, pair, KeyExchange(other, value)))
        assert error.data == int(own).to_bytes(2, "big"), "the group that is wanted (§1.3)"


@pytest.mark.parametrize("spi", [b"", b"\1" * 7, b"\1" * 9, b"\1" * 4, bytes(8)])
def test_spis_that_name_no_ike_sa(spi: bytes) -> None:
    refused(Failure.PAYLOADS, lambda: rekey._ike_spi(Proposal(1, 1, spi, ())))
    assert rekey._ike_spi(Proposal(1, 1, bytes(7) + b"\1", ())) == bytes(7) + b"\1"


@pytest.mark.parametrize("spi", [b"", b"\1" * 3, b"\1" * 5, b"\1" * 8, b"\0\0\0\xff", bytes(4)])
def test_spis_that_name_no_child_sa(spi: bytes) -> None:
    refused(Failure.PAYLOADS, lambda: rekey._esp_spi(Proposal(1, 3, spi, ())))
    with pytest.raises(child.ChildError) as caught:
        child._check_spi(spi)
    assert caught.value.notify is NotifyType.NO_PROPOSAL_CHOSEN
    assert rekey._esp_spi(Proposal(1, 3, b"\0\0\1\0", ())) == b"\0\0\1\0"


def test_nonces_of_a_rekeying_and_the_lower_of_both() -> None:
    """RFC 7296 §2.8.1: the exchange with the lowest of the four nonces loses, compared octet by octet."""
    keys = IkeKeys.derive(IKE_SUITES[0], b"shared", (b"i", b"r"), SA)
    for ours, theirs in ((b"\1" * 32, b"\2" * 32), (b"\2" * 32, b"\1" * 32)):
        offer = replace(IkeOffer.make(IKE_SUITES[0], CountingRandom("offer")), nonce=ours)
        random = Draws(b"\4" * 8, b"\5" * 40, theirs)
        new, payloads = rekey.answer_ike(offer.payloads(), IKE_SUITES, random, keys)
        assert new.lowest == offer.complete(payloads, keys).lowest == b"\1" * 32
        assert new.name == SaName(offer.spi, b"\4" * 8)
        assert new.keys == offer.complete(payloads, keys).keys
        assert [each for each in payloads if isinstance(each, Nonce)] == [Nonce(theirs)]
        child_offer = replace(ChildOffer.make(held(), Group.ECP_256, CountingRandom("offer")), nonce=ours)
        random = Draws(b"\0\0\4\0", theirs, b"\5" * 40)
        made, answered = rekey.answer_child(child_offer.payloads(), held(), ESP_SUITES, random, bytes(32))
        assert made.lowest == child_offer.complete(answered, bytes(32)).lowest == b"\1" * 32
        assert made.child.keys == child_offer.complete(answered, bytes(32)).child.keys


def test_rekeying_adds_no_selectors_and_at_most_64() -> None:
    """RFC 7296 §2.9.2."""

    def one(at: int) -> Selector:
        return Selector(7, IPv4Address(at).packed, IPv4Address(at).packed)

    assert rekey._within((OURS,), (one(1), one(0x0A080001))) == (one(0x0A080001),)
    many = tuple(one(0x0A080000 + at) for at in range(70))
    assert rekey._within((OURS,), many) == many[:64]
    with pytest.raises(child.ChildError) as caught:
        rekey._within((OURS,), (one(1),))
    assert caught.value.notify is NotifyType.TS_UNACCEPTABLE


def test_which_end_a_child_sa_is_seen_from() -> None:
    ts_i, ts_r = (TsInitiator((OURS,)).selectors, TsResponder((child.EVERYTHING,)).selectors)
    made = replace(held().child, ts_i=ts_i, ts_r=ts_r)
    created, taken = HeldChild(made, True, Life()), HeldChild(made, False, Life())
    assert (created.inbound, created.outbound) == (taken.outbound, taken.inbound) == (b"\0\0\1\0", b"\0\0\2\0")
    assert (created.local, created.remote) == (taken.remote, taken.local) == (ts_i, ts_r)
