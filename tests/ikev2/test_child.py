"""The child SA by itself: which traffic selectors are left, and which inner address (RFC 7296 §2.9, §2.19)."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from voice_dpki.ikev2 import child
from voice_dpki.ikev2.payloads import Configuration, Payload, Selector, TsInitiator, TsResponder
from voice_dpki.ikev2.proposals import ESP_SUITES
from voice_dpki.ikev2.registry import CfgAttribute, CfgType, NotifyType

INNER = IPv4Network("10.8.0.0/16")
OPTIONS: dict[str, Any] = {"spi": b"1234", "inner": INNER, "sk_d": bytes(32), "nonces": (b"i", b"r")}


def selector(protocol: int = 0, ports: tuple[int, int] = (0, 65_535), ts_type: int = 7) -> Selector:
    return replace(child.network_selector(INNER), protocol=protocol, ports=ports, ts_type=ts_type)


def test_selectors_are_narrowed_in_protocol_and_ports() -> None:
    """RFC 7296 §2.9: protocol 0 is any; 6 is TCP and 17 UDP."""
    for offered, allowed, common in (
        (selector(17), selector(6), None),
        (selector(17), selector(0), selector(17)),
        (selector(0), selector(17), selector(17)),
        (selector(17), selector(17), selector(17)),
        (selector(17, (0, 99)), selector(17, (100, 200)), None),
        (selector(17, (0, 100)), selector(17, (100, 200)), selector(17, (100, 100))),
        (selector(ts_type=8), selector(), None),
    ):
        assert child.narrowed((offered,), allowed) == (() if common is None else (common,))


def test_selectors_that_share_one_address() -> None:
    def between(start: str, end: str) -> Selector:
        return Selector(7, IPv4Address(start).packed, IPv4Address(end).packed)

    one = child.narrowed((between("10.8.0.0", "10.8.0.9"),), between("10.8.0.9", "10.8.0.20"))
    assert one == (between("10.8.0.9", "10.8.0.9"),)
    assert child.narrowed((between("10.8.0.0", "10.8.0.8"),), between("10.8.0.9", "10.8.0.20")) == ()


def test_an_offer_that_has_nothing_in_common_with_the_network() -> None:
    offer = child.Offer(b"\0\0\1\0", ESP_SUITES[:1], want_address=False).payloads()
    outside = child.network_selector(IPv4Network("10.9.0.0/16"))
    for bent, notify in (
        ((*offer[:2], TsResponder((outside,))), NotifyType.TS_UNACCEPTABLE),
        ((offer[0], TsInitiator((outside,)), offer[2]), NotifyType.TS_UNACCEPTABLE),
        ((*offer[:2],), NotifyType.INVALID_SYNTAX),
        ((*offer, offer[2]), NotifyType.INVALID_SYNTAX),
    ):
        with pytest.raises(child.ChildError) as caught:
            child.answer(bent, address=IPv4Address("10.10.0.1"), **OPTIONS)
        assert caught.value.notify is notify


def answered(*, address: IPv4Address | None) -> tuple[Payload, ...]:
    offer = child.Offer(b"\0\0\1\0", ESP_SUITES[:1]).payloads()
    return child.answer(offer, address=address, **OPTIONS | {"spi": b"\0\0\2\0"}).payloads


def test_an_answer_to_who_wants_an_address() -> None:
    wanted = child.Offer(b"\0\0\1\0", ESP_SUITES[:1])
    keyed = bytes(32), (b"i", b"r")
    address = IPv4Address("10.9.0.1")
    assert wanted.complete(answered(address=address), *keyed).address == address
    assert replace(wanted, want_address=False).complete(answered(address=address), *keyed).address is None
    rest = answered(address=None)
    short = Configuration(CfgType.REPLY, ((CfgAttribute.INTERNAL_IP4_ADDRESS, b"\1\2\3"),))
    request = Configuration(CfgType.REQUEST, ((CfgAttribute.INTERNAL_IP4_ADDRESS, address.packed),))
    for given in (), (short,), (request,):
        with pytest.raises(child.ChildError, match="no inner address") as caught:
            wanted.complete((*given, *rest), *keyed)
        assert caught.value.notify is NotifyType.FAILED_CP_REQUIRED
    security, ts_i, ts_r = rest
    for empty in (security, TsInitiator(()), ts_r), (security, ts_i, TsResponder(())):
        with pytest.raises(child.ChildError, match="lacks traffic selectors") as caught:
            wanted.complete(empty, *keyed)
        assert caught.value.notify is NotifyType.TS_UNACCEPTABLE


def test_the_pool_passes_over_addresses_in_use() -> None:
    pool = child.AddressPool(IPv4Network("10.9.0.0/30"))
    pool.take("stays")
    pool.take("goes")
    pool.give_back("goes")
    assert pool.take("comes") == IPv4Address("10.9.0.2")
