"""Lists of all certificates of a name: complete, each in few leaves, and never in the way of another member."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.codec import cbor
from voice_dpki.errors import MalformedError
from voice_dpki.ledger import names, tree
from voice_dpki.ledger.refusals import Refusal, Refused
from voice_dpki.ledger.state import Block, MemoryState, apply
from voice_dpki.ledger.transactions import Batch, endorse
from voice_dpki.names import CertDigest, Height, Tn
from voice_dpki.x509.profile import digest_of
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

START_S = 1_790_000_000
RANGES = st.integers(1, 6).flatmap(
    lambda digits: st.tuples(st.integers(0, 10**digits - 3), st.integers(2, 10**digits)).map(
        lambda pair: TnRange(Tn(str(pair[0]).zfill(digits)), min(pair[1], 10**digits - pair[0] - 1))
    )
)


def record(state: MemoryState, federation: Any, *ders: bytes) -> str:
    raw = endorse(Batch("test-1", "Operator A", ders), [federation.keys["Operator A"]])
    outcome = apply(state, Block(Height(1), START_S, (raw,)))
    state.commit(outcome)
    return outcome.results[0].name


def listed(state: MemoryState, *keys: bytes) -> set[CertDigest]:
    return {digest for key in keys if (data := state.leaf(key)) for digest in names.parse_listed(data)}


def test_each_name_lists_its_certificates(federation: Any) -> None:
    state = federation.state()
    one = federation.certificate(
        uris=("sip:+493023125001@a.example", "SIP:alice@A.Example"), dns_names=("A.Example",)
    )
    two = federation.certificate(tn_auth_list=TnAuthList(spcs=("1234",), ranges=(TnRange(Tn("493023125000"), 20),)))
    three = federation.certificate(common_name="other", tn_auth_list=TnAuthList(tns=(Tn("493023125001"),)))
    assert record(state, federation, one, two, three) == "ok"
    found = {
        names.subject_key("Operator A", "device"): {one, two},
        names.subject_key("Operator A", "other"): {three},
        names.uri_key("sip:alice@a.example"): {one},
        names.uri_key("sip:+493023125001@a.example"): set(),
        names.dns_key("a.example"): {one},
        names.spc_key("1234"): {two},
    }
    for key, ders in found.items():
        assert listed(state, key) == set(map(digest_of, ders))
    assert listed(state, *names.number_keys(Tn("493023125001"))) == set(map(digest_of, (one, two, three)))
    assert listed(state, *names.number_keys(Tn("493023125019"))) == {digest_of(two)}
    assert listed(state, *names.number_keys(Tn("493023125020"))) == set()
    assert all(tree.get(state, key) is not None for key in found if state.leaf(key))


@given(RANGES)
def test_a_range_is_cut_into_decimal_blocks_that_hold_its_numbers_and_no_others(entry: TnRange) -> None:
    blocks = list(names.decimal_blocks(entry))
    digits = len(entry.start)
    spans = [(int(block.ljust(digits, "0")), int(block.ljust(digits, "9"))) for block in blocks]
    assert all(1 <= len(block) <= digits for block in blocks)
    assert len(blocks) <= 18 * digits
    assert spans[0][0] == int(entry.start)
    assert spans[-1][1] == int(entry.start) + entry.count - 1
    assert all(end + 1 == start for (_, end), (start, _) in pairwise(spans))


@pytest.mark.parametrize(
    ("start", "count", "blocks"),
    [
        ("10", 80, ["1", "2", "3", "4", "5", "6", "7", "8"]),
        ("00", 90, ["0", "1", "2", "3", "4", "5", "6", "7", "8"]),
        ("09", 12, ["09", "1", "20"]),
        ("1000", 1001, ["1", "2000"]),
    ],
)
def test_blocks_have_a_digit_at_least(start: str, count: int, blocks: list[str]) -> None:
    assert list(names.decimal_blocks(TnRange(Tn(start), count))) == blocks


def test_a_list_and_a_certificates_names_are_bounded(federation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "MAX_LISTED", 3)
    state = federation.state()
    ders = [federation.certificate() for _ in range(4)]
    assert record(state, federation, *ders[:3]) == "ok"
    assert record(state, federation, ders[3]) == "name-full"
    monkeypatch.setattr(names, "MAX_NAMES", 20)
    many = TnAuthList(tns=tuple(Tn(f"493023125{number:03}") for number in range(21)))
    assert record(state, federation, federation.certificate(common_name="x", tn_auth_list=many)) == "too-many-names"
    odd = TnAuthList(ranges=(TnRange(Tn("493023125001"), 998), TnRange(Tn("493023125001"), 997)))
    assert record(state, federation, federation.certificate(common_name="x", tn_auth_list=odd)) == "too-many-names"


def test_a_range_is_read_no_further_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many blocks it is cut into: the keys are counted while they are made."""
    monkeypatch.setattr(names, "MAX_NAMES", 3)
    made = list[bytes]()
    odd = TnRange(Tn("4930231250011"), 99_999)
    with pytest.raises(Refused) as caught:
        made.extend(names._range_keys([odd]))
    assert caught.value.refusal is Refusal.TOO_MANY_NAMES


@pytest.mark.parametrize(
    "value",
    [
        ["name", []],
        ["name", [["A", []]]],
        ["name", [["A", [b""]]]],
        ["name", [["A", [bytes(32)] * 2]]],
        ["name", [["B", [bytes(32)]], ["A", [bytes(32)]]]],
        ["name", [["A", [bytes(32)]]] * 2],
        ["name", [bytes(32)]],
        ["key", [["A", [bytes(32)]]]],
        0,
    ],
)
def test_refuses_what_is_no_list(value: Any) -> None:
    with pytest.raises(MalformedError):
        names.parse_listed(cbor.encode(value))


@pytest.mark.parametrize(
    ("uri", "number", "by_name"),
    [
        ("sip:+493023125001@a.example", "493023125001", False),
        ("SIPS:+493023125001@A.example", "493023125001", False),
        ("tel:+493023125001", "493023125001", False),
        ("sip:493023125001@a.example", "493023125001", True),
        ("sip:+49-3023125001@a.example", "493023125001", True),
        ("sip:alice@a.example", None, True),
        ("urn:uuid:00000000-0000-1000-8000-000a95a0e128", None, True),
    ],
)
def test_all_certificates_for_a_uri_are_in_these_lists(uri: str, number: str | None, by_name: bool) -> None:
    assert names.number_of_uri(uri) == number
    of_number = [] if number is None else names.number_keys(Tn(number))
    assert names.keys_of_uri(uri) == of_number + ([names.uri_key(uri)] if by_name else [])


@pytest.mark.parametrize("text", ["", "sip:", "alice", "http://a.example", "sip:a b@c", "sip:" + "a" * 251])
def test_what_no_certificate_names_has_no_lists(text: str) -> None:
    with pytest.raises(MalformedError):
        names.keys_of_uri(text)
