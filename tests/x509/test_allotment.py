"""What a certificate claims, and whether its organisation holds it."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from voice_dpki.errors import MalformedError
from voice_dpki.names import Tn
from voice_dpki.x509.allotment import Allotment, UriClaim
from voice_dpki.x509.tnauthlist import TnRange

HELD = Allotment(("a.example",), (TnRange(Tn("493023125000"), 1000),), ("709J",))


@pytest.mark.parametrize(
    ("uri", "host", "number"),
    [
        ("sip:+493023125001@a.example", "a.example", "493023125001"),
        ("SIPS:+493023125001@A.Example:5061", "a.example", "493023125001"),
        ("sip:alice@sip.a.example", "sip.a.example", None),
        ("sip:493023125001@a.example", "a.example", None),
        ("sip:a.example", "a.example", None),
        ("tel:+493023125001", None, "493023125001"),
        ("urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6", None, None),
    ],
)
def test_what_a_uri_claims(uri: str, host: str | None, number: Tn | None) -> None:
    assert UriClaim.of(uri) == UriClaim(host, number)


@pytest.mark.parametrize(
    "uri",
    ["https://a.example/", "tel:493023125001", "sip:+493023125001@a.example;x=@b.example", "sip:a@b@a.example", ""],
)
def test_other_uris_claim_nothing_that_can_be_held(uri: str) -> None:
    with pytest.raises(MalformedError, match="none of sip, sips, tel and urn"):
        UriClaim.of(uri)


def test_a_certificate_with_a_uri_that_claims_nothing_known_holds_neither_host_nor_number() -> None:
    known: Any = SimpleNamespace(dns_names=(), uris=("sip:+493023125001@a.example",), tn_auth_list=None)
    assert HELD.holds_hosts_of(known)
    assert HELD.holds_uri_numbers_of(known)
    other: Any = SimpleNamespace(dns_names=(), uris=(*known.uris, "https://a.example/"), tn_auth_list=None)
    assert not HELD.holds_hosts_of(other)
    assert not HELD.holds_uri_numbers_of(other)


def test_numbers_lie_in_a_range() -> None:
    assert HELD.holds_number(Tn("493023125999"))
    assert not HELD.holds_number(Tn("493023126000"))


@pytest.mark.parametrize(
    ("host", "held"),
    [
        ("a.example", True),
        ("sip.a.example", True),
        ("ba.example", False),
        ("example", False),
        ("a.example.b", False),
    ],
)
def test_hosts_are_a_domain_or_below_one(host: str, held: bool) -> None:
    assert HELD.holds_host(host) is held


ONE, OTHER = Tn("493023125001"), Tn("442079460001")


def test_ranges_count_alone_unless_the_ledger_may_say_more_of_a_number() -> None:
    by_number = replace(HELD, by_number=True)
    assert HELD.is_settled(ONE)
    assert not by_number.is_settled(ONE)
    assert by_number.with_number(ONE, holds=True).is_settled(ONE)
    assert not by_number.with_number(ONE, holds=True).is_settled(OTHER)


@pytest.mark.parametrize(
    ("holds", "one", "other"), [(True, True, True), (False, False, False), (None, True, False)]
)
def test_what_the_ledger_says_of_a_number_goes_before_its_range(holds: bool | None, one: bool, other: bool) -> None:
    """What it says last counts, and where it says nothing, the range does."""
    for earlier in (True, False, None):
        told = HELD
        for number in (ONE, OTHER):
            told = told.with_number(number, holds=earlier).with_number(number, holds=holds)
        assert (told.holds_number(ONE), told.holds_number(OTHER)) == (one, other)
        assert told.asked == {ONE, OTHER}
    assert HELD.with_number(OTHER, holds=True).holds_number(ONE), "other numbers stay as they are"
