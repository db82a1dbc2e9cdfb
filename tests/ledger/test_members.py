"""Members: one encoding, sound parts, and nothing that two members share."""

from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.codec import cbor
from voice_dpki.errors import MalformedError
from voice_dpki.ledger.members import MAX_ENTRIES, Member, MemberKind, check_apart, member_key
from voice_dpki.names import Tn
from voice_dpki.x509.allotment import Allotment
from voice_dpki.x509.keys import generate_es256, generate_rsa, spki
from voice_dpki.x509.tnauthlist import TnRange

KEY = generate_es256().public_key_der
VALIDATOR = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
SOUND: dict[str, Any] = {
    "organization": "Operator A",
    "kind": MemberKind.OPERATOR,
    "domains": ("a.example",),
    "ranges": (TnRange(Tn("493023125000"), 1000),),
    "spcs": ("1234",),
    "validators": (VALIDATOR,),
    "endorsing_keys": (KEY,),
}


def member(**changes: Any) -> Member:
    return Member(**SOUND | changes)


def test_round_trip() -> None:
    assert Member.parse(member().serialize()) == member()
    assert Member.parse(Member("Vendor", MemberKind.VENDOR).serialize()) == Member("Vendor", MemberKind.VENDOR)


def test_a_call_placement_service_is_a_further_item() -> None:
    with_cps = member(cps="https://cps.a.example:8443/v1")
    kept = cbor.decode(with_cps.serialize(), "member")
    assert isinstance(kept, list)
    assert kept[-1] == {"cps": "https://cps.a.example:8443/v1"}
    assert Member.parse(with_cps.serialize()) == with_cps
    both = replace(with_cps, further=(("note", cbor.encode("x")),))
    assert Member.parse(both.serialize()) == both


@pytest.mark.parametrize("value", ["http://cps.a.example", 7, ["https://cps.a.example"], ""])
def test_what_a_later_version_may_write_there_counts_for_nothing(value: Any) -> None:
    further = (("cps", cbor.encode(value)),)
    parsed = Member.parse(member(further=further).serialize())
    assert (parsed.cps, parsed.further) == ("", further)


def test_a_record_never_has_more_further_items_than_readers_take() -> None:
    numbers = tuple(TnRange(Tn(f"{10**14 + number}"), 1) for number in range(240))
    full = member(ranges=numbers)
    long = "https://" + "a" * 247
    for url, is_short in (("https://b.example", True), (long, False)):
        if is_short:
            kept = replace(full, cps=url)
            assert Member.parse(kept.serialize()) == kept
        else:
            with pytest.raises(MalformedError, match="no room"):
                replace(full, cps=url)


NO_CPS = (
    "http://cps.a.example",
    "https://",
    "https://CPS.a.example",
    "https://u@cps.a.example",
    "https://cps.a.example/",
    "https://cps.a.example?x",
    "https://cps.a.example#x",
    "https://cps.a.example:123456",
    "https://cps.a.example/\u212a",
    "https://cps.a.example/x y",
    "https://[::1]",
    "https://" + "a" * 256,
)


def test_what_is_a_members() -> None:
    assert member().allotment == Allotment(member().domains, member().ranges, member().spcs)
    assert member_key("Operator A") != member_key("Operator B")


P384 = spki(ec.generate_private_key(ec.SECP384R1()).public_key())


@pytest.mark.parametrize(
    "changes",
    [
        *({"cps": url} for url in NO_CPS),
        {"organization": ""},
        {"organization": "x" * 65},
        {"organization": " Operator A"},
        {"organization": "Operator\nA"},
        {"domains": ("A.example",)},
        {"domains": ("a..example",)},
        {"domains": ("a.example", "a.example")},
        {"domains": tuple(f"a{n}.example" for n in range(MAX_ENTRIES + 1))},
        {"spcs": ("with space",)},
        {"validators": (bytes(31),)},
        {"endorsing_keys": (b"",)},
        {"endorsing_keys": (P384,)},
        {"endorsing_keys": (generate_rsa().public_key_der,)},
        {"endorsing_keys": (KEY + b"\0",)},
        {"kind": MemberKind.VENDOR},
        {"revision": -1},
        {"revision": True},
        {"admitted_height": -1},
        {"suspended": 1},
    ],
)
def test_refuses_unsound_parts(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        member(**changes)


@given(st.binary(max_size=80))
def test_any_bytes_parse_or_raise(data: bytes) -> None:
    try:
        parsed = Member.parse(data)
    except MalformedError:
        return
    assert parsed.serialize() == data


@given(st.data())
def test_a_changed_record_parses_to_itself_or_raises(data: st.DataObject) -> None:
    changed = bytearray(member().serialize())
    changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        parsed = Member.parse(bytes(changed))
    except MalformedError:
        return
    assert parsed.serialize() == changed


WRONG: tuple[cbor.Cbor, ...] = (None, {}, ["x", 1], 99)


@pytest.mark.parametrize("at", range(8))
def test_refuses_other_types(at: int) -> None:
    parts: Any = cbor.decode(member().serialize(), "member")
    for value in WRONG:
        with pytest.raises(MalformedError):
            Member.parse(cbor.encode([*parts[:at], value, *parts[at + 1 :]]))


@pytest.mark.parametrize("item", [["493023125000"], ["493023125000", True], [493023125000, 1], "493023125000", []])
def test_a_range_is_a_start_and_a_count(item: cbor.Cbor) -> None:
    parts: Any = cbor.decode(member().serialize(), "member")
    at = parts.index([["493023125000", 1000]])
    with pytest.raises(MalformedError):
        Member.parse(cbor.encode([*parts[:at], [item], *parts[at + 1 :]]))


OTHER: dict[str, Any] = {
    "organization": "Operator B",
    "domains": ("b.example",),
    "ranges": (TnRange(Tn("442079460000"), 1000),),
    "spcs": ("4321",),
    "validators": (bytes(32),),
    "endorsing_keys": (),
}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"organization": "Operator A"}, "organisation"),
        ({"domains": ("a.example",)}, "domain"),
        ({"domains": ("sub.a.example",)}, "below"),
        ({"domains": ("example",)}, "below"),
        ({"spcs": ("1234",)}, "service provider code"),
        ({"validators": (VALIDATOR,)}, "validator key"),
        ({"endorsing_keys": (KEY,)}, "endorsing key"),
        ({"ranges": (TnRange(Tn("493023125999"), 2),)}, "overlap"),
        ({"ranges": (TnRange(Tn("493023124999"), 2),)}, "overlap"),
        ({"ranges": (TnRange(Tn("493023000000"), 500_000),)}, "overlap"),
    ],
)
def test_members_share_nothing(changes: dict[str, Any], match: str) -> None:
    check_apart([member(), member(**OTHER)])
    with pytest.raises(MalformedError, match=match):
        check_apart([member(), member(**OTHER | changes)])


def test_ranges_that_touch_or_have_other_lengths_do_not_overlap() -> None:
    neighbours = (TnRange(Tn("493023126000"), 10), TnRange(Tn("49302312500"), 10))
    check_apart([member(), member(**OTHER | {"ranges": neighbours})])
