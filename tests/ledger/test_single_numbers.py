"""Numbers that a member holds one by one: ranges of one in changes, items that must be understood in records."""

import json
from dataclasses import replace
from typing import Any

import pytest

from voice_dpki.codec import cbor
from voice_dpki.errors import MalformedError
from voice_dpki.ledger.further import NeedsNewerError, parse_further
from voice_dpki.ledger.genesis import GenesisError, dump_genesis, load_genesis
from voice_dpki.ledger.members import Member
from voice_dpki.ledger.proposals import ProposalState, SetMember, encode_change, parse_change
from voice_dpki.ledger.rules import V3
from voice_dpki.ledger.single_numbers import MAX_SINGLES
from voice_dpki.names import Tn
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

from .test_compromise import decide
from .test_governance import CHAIN, MEMBERS, START_S, Ledger, member
from .test_rules import judged
from .version_4 import A, B, certificate, ledger_of, refusal, submission

PORTED = Tn("493099999999")
"""The last number of its length, which no range of two could begin with."""


def singles(*numbers: str) -> tuple[TnRange, ...]:
    return tuple(TnRange(Tn(number), 1) for number in numbers)


def grown(*numbers: str) -> Member:
    known = member(A, 1)
    return replace(known, ranges=(*known.ranges, *singles(*numbers)))


def many(number: int) -> tuple[str, ...]:
    return tuple(f"{10**14 + each}" for each in range(number))


def items(known: Member) -> list[Any]:
    decoded = cbor.decode(known.serialize(), "member")
    assert isinstance(decoded, list)
    return decoded


@pytest.mark.parametrize("number", [0, 1, 60, 61, MAX_SINGLES])
def test_a_record_and_a_change_with_single_numbers(number: int) -> None:
    known = replace(grown(*many(number)), further=(("note", cbor.encode("kept")),))
    assert Member.parse(known.serialize()) == known
    change = SetMember(replace(known, further=()), 0)
    assert parse_change(encode_change(change)) == change
    *_, further = items(known)
    assert [len(listed) for name, listed in further.items() if name != "note"] == [60] * (number // 60) + (
        [number % 60] if number % 60 else []
    )


def test_their_number_is_bounded_and_so_is_the_record() -> None:
    assert len(grown(*many(MAX_SINGLES)).serialize()) < 6000
    with pytest.raises(MalformedError):
        grown(*many(MAX_SINGLES + 1))


def test_a_change_may_name_them_in_any_order() -> None:
    entries: list[Any] = [["493010", 1], ["493020", 10], ["493011", 1]]
    parts = items(member(A, 1))[1:8]
    found = Member.of_parts([*parts[:3], entries, *parts[4:]])
    assert found.ranges == (TnRange(Tn("493020"), 10), *singles("493010", "493011"))


def test_an_older_reader_says_that_it_needs_a_later_release() -> None:
    with pytest.raises(NeedsNewerError, match="knows !numbers-1 of a member"):
        parse_further(items(grown("493010"))[-1:], "member")


@pytest.mark.parametrize(
    "further",
    [
        {"!numbers-2": ["493010"]},
        {"!numbers-1": []},
        {"!numbers-1": [493010]},
        {"!numbers-1": 493010},
        {"!numbers-1": None},
        {"!numbers-1": "493010"},
        {"!numbers-1": ["49301x"]},
        {"!numbers-1": ["493010", "493010"]},
        {"!numbers-1": ["493010"], "!numbers-2": ["493011"]},
        {"!numbers-1": list(many(61))},
    ],
)
def test_there_is_one_form(further: dict[str, Any]) -> None:
    with pytest.raises(MalformedError) as caught:
        Member.parse(cbor.encode([*items(member(A, 1)), further]))
    assert not isinstance(caught.value, NeedsNewerError)


def test_no_record_has_a_range_of_one() -> None:
    listed = items(member(A, 1))
    listed[4] = [*listed[4], ["493010", 1]]
    with pytest.raises(MalformedError, match="a range of its record"):
        Member.parse(cbor.encode(listed))


def test_a_certificate_names_no_range_of_one() -> None:
    for bad in (0, 1):
        with pytest.raises(MalformedError):
            TnAuthList(ranges=(TnRange(PORTED, bad),))
    assert TnAuthList.of((), (*singles(PORTED), TnRange(Tn("110"), 2))) == TnAuthList(
        ranges=(TnRange(Tn("110"), 2),), tns=(PORTED,)
    )


def ported() -> Ledger:
    ledger = ledger_of()
    assert decide(ledger, SetMember(grown(PORTED), 0)) == (ProposalState.DONE, None)
    return ledger


def test_a_ported_number_is_the_members_alone() -> None:
    ledger = ported()
    single = TnAuthList(tns=(PORTED,))
    uris = (f"sip:+{PORTED}@a.example", f"tel:+{PORTED}")
    assert (
        refusal(ledger, submission(certificate(organization=B, tn_auth_list=single), B)) == "numbers-outside-ranges"
    )
    assert refusal(ledger, submission(certificate(tn_auth_list=single, uris=uris))) == "ok"
    taken = replace(member(B, 2), ranges=(*member(B, 2).ranges, *singles(PORTED)))
    assert refusal(ledger, ledger.propose(SetMember(taken, 0), until_s=ledger.time_s + 10)) == "range-taken"
    beside = TnAuthList(tns=(Tn("493099999998"),))
    assert refusal(ledger, submission(certificate(tn_auth_list=beside))) == "numbers-outside-ranges"


def test_single_numbers_beside_a_range_join_it() -> None:
    ledger = ledger_of()
    (first, *_) = member(A, 1).ranges
    before = Tn(str(int(first.start) - 1))
    listed = TnAuthList(ranges=(TnRange(before, 2),))
    assert refusal(ledger, submission(certificate(tn_auth_list=listed))) == "numbers-outside-ranges"
    assert decide(ledger, SetMember(grown(before), 0)) == (ProposalState.DONE, None)
    assert refusal(ledger, submission(certificate(tn_auth_list=listed))) == "ok"


def test_earlier_versions_know_no_such_change() -> None:
    ledger = ledger_of(V3)
    assert (
        judged(ledger, ledger.propose(SetMember(grown(PORTED), 0), until_s=ledger.time_s + 10)) == "unknown-change"
    )


def test_no_genesis_has_single_numbers() -> None:
    good = json.loads(dump_genesis(CHAIN, START_S * 10**9, MEMBERS))
    good["app_state"]["members"][0]["ranges"].append({"start": PORTED, "count": 1})
    with pytest.raises(GenesisError, match="version 4 of the rules brings"):
        load_genesis(json.dumps(good).encode())
