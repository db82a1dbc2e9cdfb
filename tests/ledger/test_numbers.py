"""Members give numbers to one another, from version 5 of the rules on."""

from dataclasses import replace
from typing import Any
from unittest.mock import MagicMock

import pytest

from tests.present import present
from voice_dpki.codec import cbor
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.ledger import numbers, quotas, state
from voice_dpki.ledger.admission import read_admitted
from voice_dpki.ledger.draft import Draft
from voice_dpki.ledger.further import NeedsNewerError, parse_further
from voice_dpki.ledger.held_numbers import (
    NUMBER_LEAF,
    NumberHolder,
    allotment_for,
    count_of,
    is_held,
    number_key,
    numbers_in,
    parse_holder,
)
from voice_dpki.ledger.members import Member
from voice_dpki.ledger.numbers import MAX_GIVEN
from voice_dpki.ledger.proposals import ProposalState, RemoveMember, SetMember, SuspendMember
from voice_dpki.ledger.records import CertRecord, CertStatus
from voice_dpki.ledger.rules import V4, V5
from voice_dpki.ledger.standing import holding_of, recorded_as, status_of, with_number
from voice_dpki.ledger.transactions import Numbers, endorse
from voice_dpki.names import CertDigest, Tn
from voice_dpki.x509.profile import digest_of
from voice_dpki.x509.recorded import CertificateRefused, Distrust, TrustedCertificate, Use, judge
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

from .test_compromise import decide
from .test_governance import CHAIN, KEYS, Ledger, address, member, vote
from .version_4 import A, B, C, D, certificate, change, ledger_of, refusal, submission

PORTED, OTHER = Tn("49301500"), Tn("49301501")
"""Two numbers in the range of the first member, 49301000 to 49301999."""


def given(ledger: Ledger, by: str, to: str, *numbers: Tn, sequence: int | None = None) -> bytes:
    count = count_of(ledger.state, by) if sequence is None else sequence
    return endorse(Numbers(CHAIN, by, to, count, numbers), [KEYS[by]])


def take_part(ledger: Ledger, *members: str) -> None:
    for name in members:
        assert ledger.block(given(ledger, name, name)) == ["ok"]


def ported(*numbers: Tn) -> Ledger:
    """Return a ledger on which A has given numbers to B, both of them and C take part."""
    ledger = ledger_of(V5)
    take_part(ledger, B, C)
    assert ledger.block(given(ledger, A, B, *(numbers or (PORTED,)))) == ["ok"]
    return ledger


def holder(ledger: Ledger, tn: Tn) -> str | None:
    data = ledger.state.leaf(number_key(tn))
    return None if data is None else parse_holder(data).organization


def known(ledger: Ledger, name: str) -> Member:
    return present(ledger.state.member(name))


def of_number(tn: Tn, by: str, **options: Any) -> bytes:
    return certificate(organization=by, tn_auth_list=TnAuthList(tns=(tn,)), **options)


def record_of(ledger: Ledger, der: bytes) -> CertRecord:
    return present(ledger.state.record(digest_of(der)))


def trusted(ledger: Ledger, der: bytes, use: Use = Use.SIGN_CALLS) -> TrustedCertificate:
    """Judge a certificate as a relying party does, that asks of no number."""
    record = record_of(ledger, der)
    owner = ledger.state.member(record.organization)
    status = status_of(record, owner, ledger.time_s)
    digest = CertDigest(digest_of(der))
    height = record.recorded_height
    return judge(recorded_as(digest, status, record, owner, height, der), use, ledger.time_s)


def test_a_ported_number_is_its_new_holders_and_nobody_elses() -> None:
    ledger = ported()
    assert holder(ledger, PORTED) == B
    for uris, wanted in (((), "ok"), ((f"sip:+{PORTED}@b.example", f"tel:+{PORTED}"), "ok")):
        assert refusal(ledger, submission(of_number(PORTED, B, uris=uris), B)) == wanted
    for by, tn in ((A, PORTED), (C, PORTED), (B, OTHER)):
        assert refusal(ledger, submission(of_number(tn, by), by)) == "numbers-outside-ranges"
    assert refusal(ledger, submission(of_number(OTHER, A))) == "ok"
    urls = certificate(uris=(f"tel:+{PORTED}",))
    assert refusal(ledger, submission(urls)) == "names-outside-domains"
    assert refusal(ledger, submission(certificate(common_name=f"+{PORTED}"))) == "common-name"
    named = of_number(PORTED, B, common_name=f"+{PORTED}")
    assert refusal(ledger, submission(named, B)) == "ok"


def test_a_number_as_common_name_is_named_elsewhere_too() -> None:
    """Else the ledger would not find the certificate when the number goes."""
    common = f"+{PORTED}"
    near = TnAuthList(tns=(OTHER,), ranges=(TnRange(PORTED, 3),))
    alone, beside = certificate(common_name=common), certificate(common_name=common, tn_auth_list=near)
    by_list = of_number(PORTED, A, common_name=common)
    by_uri = certificate(common_name=common, uris=(f"tel:{common}",))
    ledger = ledger_of(V5)
    take_part(ledger, B)
    for der, wanted in ((alone, "common-name"), (beside, "common-name"), (by_list, "ok"), (by_uri, "ok")):
        assert refusal(ledger, submission(der)) == wanted
    assert refusal(ledger_of(V4), submission(alone)) == "ok"
    assert ledger.block(submission(by_list), submission(by_uri)) == ["ok"] * 2
    assert ledger.block(given(ledger, A, B, PORTED)) == ["ok"]
    assert {record_of(ledger, der).status for der in (by_list, by_uri)} == {CertStatus.REVOKED}


def test_it_goes_on_to_a_third_and_comes_back_without_a_leaf() -> None:
    ledger = ported()
    assert refusal(ledger, given(ledger, A, C, PORTED)) == "number-not-held", "who had it cannot give it again"
    assert ledger.block(given(ledger, B, C, PORTED)) == ["ok"]
    assert holder(ledger, PORTED) == C
    assert ledger.block(given(ledger, C, A, PORTED)) == ["ok"]
    assert holder(ledger, PORTED) is None
    assert refusal(ledger, submission(of_number(PORTED, A))) == "ok"
    assert refusal(ledger, submission(of_number(PORTED, C), C)) == "numbers-outside-ranges"


def test_certificates_that_name_it_are_revoked_when_it_goes() -> None:
    """Those that have it in a range stay, and so do those of others' numbers, and those of the new holder."""
    ledger = ledger_of(V5)
    take_part(ledger, B, C)
    beside = TnRange(PORTED, 3)  # its first block is listed like the number itself
    exact, uri, wide, other = (
        of_number(PORTED, A),
        certificate(uris=(f"sip:+{PORTED}@a.example",)),
        certificate(tn_auth_list=TnAuthList(ranges=(beside,))),
        of_number(OTHER, A),
    )
    assert ledger.block(*map(submission, (exact, uri, wide, other))) == ["ok"] * 4
    assert ledger.block(given(ledger, A, B, PORTED)) == ["ok"]
    found = [(record_of(ledger, der).status, record_of(ledger, der).reason) for der in (exact, uri, wide, other)]
    gone, stays = (CertStatus.REVOKED, "affiliationChanged"), (CertStatus.VALID, None)
    assert found == [gone, gone, stays, stays]
    mine = of_number(PORTED, B)
    assert ledger.block(submission(mine, B)) == ["ok"]
    assert record_of(ledger, mine).numbers == (PORTED,)
    assert ledger.block(given(ledger, B, B, PORTED)) == ["ok"]
    assert record_of(ledger, mine).status is CertStatus.VALID
    assert ledger.block(given(ledger, B, C, PORTED)) == ["ok"]
    assert record_of(ledger, mine).status is CertStatus.REVOKED


def test_each_certificate_that_is_listed_takes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that stay, for they are read; and where a number is not held, none is read."""
    ledger = ledger_of(V5)
    take_part(ledger, B)
    wide = [certificate(tn_auth_list=TnAuthList(ranges=(TnRange(PORTED, 3),))) for _ in range(3)]
    assert ledger.block(*map(submission, wide)) == ["ok"] * 3
    read = MagicMock(side_effect=read_admitted)
    monkeypatch.setattr(numbers, "read_admitted", read)
    assert refusal(ledger, given(ledger, A, B, PORTED, Tn("49309999"))) == "number-not-held"
    monkeypatch.setattr(quotas, "MAX_BLOCK_CERTIFICATES", 3)
    assert refusal(ledger, given(ledger, A, B, PORTED)) == "block-full"
    read.assert_not_called()
    monkeypatch.setattr(quotas, "MAX_BLOCK_CERTIFICATES", 4)
    assert ledger.block(given(ledger, A, B, PORTED)) == ["ok"]
    assert read.call_count == 3


def test_a_leaf_stays_as_long_as_certificates_may_name_it() -> None:
    """A member that has the number in its ranges, too, cannot keep it in a certificate when the range goes."""
    ledger = ported()
    mine = of_number(PORTED, B)
    assert ledger.block(submission(mine, B)) == ["ok"]
    half = (TnRange(Tn("49301000"), 500), TnRange(Tn("49301500"), 500))
    move(ledger, A, half[0])
    move(ledger, B, *member(B, 2).ranges, half[1])
    assert ledger.block(given(ledger, B, B, PORTED)) == ["ok"]
    assert (holder(ledger, PORTED), record_of(ledger, mine).status) == (B, CertStatus.VALID)
    move(ledger, B, *member(B, 2).ranges)
    move(ledger, C, *member(C, 3).ranges, half[1])
    assert refusal(ledger, submission(of_number(PORTED, C), C)) == "numbers-outside-ranges"
    assert ledger.block(given(ledger, B, C, PORTED)) == ["ok"]
    assert (holder(ledger, PORTED), record_of(ledger, mine).status) == (None, CertStatus.REVOKED)
    assert refusal(ledger, submission(of_number(PORTED, C), C)) == "ok"


def move(ledger: Ledger, name: str, *ranges: TnRange) -> None:
    """Have the operators set a member's ranges."""
    old = known(ledger, name)
    assert decide(ledger, SetMember(replace(old, ranges=ranges), old.revision)) == (ProposalState.DONE, None)


def test_a_certificate_of_an_earlier_holder_does_not_come_back() -> None:
    """Whoever the number goes on from, all others' certificates that name it fall."""
    ledger = ledger_of(V5)
    take_part(ledger, B, C)
    old = of_number(PORTED, A)
    assert ledger.block(submission(old)) == ["ok"]
    smaller = replace(member(A, 1), ranges=())
    assert decide(ledger, SetMember(smaller, 0)) == (ProposalState.DONE, None)
    larger = replace(member(B, 2), ranges=(*member(B, 2).ranges, *member(A, 1).ranges))
    assert decide(ledger, SetMember(larger, 0)) == (ProposalState.DONE, None)
    assert record_of(ledger, old).status is CertStatus.VALID
    assert ledger.block(given(ledger, B, C, PORTED)) == ["ok"]
    assert record_of(ledger, old).status is CertStatus.REVOKED


def test_an_old_transaction_does_not_take_effect_again() -> None:
    ledger = ledger_of(V5)
    take_part(ledger, B)
    first = given(ledger, A, B, PORTED)
    assert ledger.block(first) == ["ok"]
    assert ledger.block(given(ledger, B, A, PORTED)) == ["ok"]
    assert refusal(ledger, first) == "wrong-sequence"
    assert refusal(ledger, given(ledger, A, B, PORTED, sequence=2)) == "wrong-sequence"
    pair = [given(ledger, A, B, tn, sequence=number) for number, tn in ((1, PORTED), (2, OTHER))]
    assert ledger.block(*pair) == ["ok", "ok"]


def test_a_change_of_a_member_with_ranges_marks_it_as_taking_numbers() -> None:
    ledger = ledger_of(V5)
    take_part(ledger, B)
    move(ledger, C, *member(C, 3).ranges)
    assert known(ledger, C).by_number
    assert refusal(ledger, given(ledger, C, C)) == "no-recipient", "it need not say so any more"
    assert ledger.block(given(ledger, A, C, PORTED)) == ["ok"]


def test_only_a_marked_member_takes_numbers() -> None:
    ledger = ledger_of(V5)
    assert refusal(ledger, given(ledger, A, B, PORTED)) == "no-recipient"
    assert refusal(ledger, given(ledger, A, B)) == "no-recipient", "nobody says it for another"
    take_part(ledger, B)
    assert refusal(ledger, given(ledger, B, B)) == "no-recipient", "it is said once"
    assert refusal(ledger, given(ledger, A, "Nobody", PORTED)) == "no-recipient"
    assert not known(ledger, A).by_number
    assert decide(ledger, SuspendMember(B)) == (ProposalState.DONE, None)
    assert refusal(ledger, given(ledger, A, B, PORTED)) == "no-recipient"


def test_it_comes_with_version_5() -> None:
    ledger = ledger_of(V4)
    assert refusal(ledger, given(ledger, A, A)) == "unknown-kind"


@pytest.mark.parametrize("numbers", [("1x",), ("+49301",), ("",), ("49301501", "49301500"), ("49301500",) * 2])
def test_numbers_have_one_form(numbers: tuple[str, ...]) -> None:
    ledger = ported(OTHER)
    assert refusal(ledger, given(ledger, A, B, *map(Tn, numbers))) == "malformed"


def test_there_are_at_most_a_thousand_and_each_counts() -> None:
    ledger = ledger_of(V5, certificates_per_hour=1003)
    take_part(ledger, B)
    numbers = [Tn(f"49301{number:03}") for number in range(MAX_GIVEN)]
    assert refusal(ledger, given(ledger, A, B, *numbers, Tn("49301999999"))) == "malformed"
    assert ledger.block(given(ledger, A, B, *numbers)) == ["ok"]
    assert ledger.block(given(ledger, B, A, *numbers[:500])) == ["ok"]
    assert refusal(ledger, given(ledger, A, B, *numbers[:4])) == "hourly-quota"
    assert refusal(ledger, given(ledger, A, B, *numbers[:3])) == "ok"


def test_the_marks_follow_the_numbers() -> None:
    """Each member that a leaf names is marked, and each whose range has such a number, whoever gets the range."""
    ledger = ported()
    assert [known(ledger, name).by_number for name in (A, B, C)] == [True, True, True]
    ledger = ledger_of(V5)
    take_part(ledger, B)
    assert ledger.block(given(ledger, A, B, PORTED)) == ["ok"]
    assert [known(ledger, name).by_number for name in (A, B, C)] == [True, True, False]
    assert known(ledger, A).revision == 0, "proposals that are open stay possible"
    assert decide(ledger, SetMember(replace(member(A, 1), ranges=()), 0)) == (ProposalState.DONE, None)
    moved = replace(member(C, 3), ranges=(*member(C, 3).ranges, *member(A, 1).ranges))
    assert decide(ledger, SetMember(moved, 0)) == (ProposalState.DONE, None)
    assert [known(ledger, name).by_number for name in (A, B, C)] == [True, True, True]
    assert refusal(ledger, submission(of_number(PORTED, C), C)) == "numbers-outside-ranges"


def test_a_removed_members_numbers_fall_back_to_whose_range_they_are() -> None:
    ledger = ported()
    mine = of_number(PORTED, B)
    assert ledger.block(submission(mine, B)) == ["ok"]
    assert decide(ledger, RemoveMember(B)) == (ProposalState.DONE, None)
    assert status_of(record_of(ledger, mine), ledger.state.member(B), ledger.time_s) is CertStatus.REVOKED
    assert ledger.block(given(ledger, A, A, PORTED)) == ["ok"]
    assert holder(ledger, PORTED) is None
    assert refusal(ledger, submission(of_number(PORTED, A))) == "ok"


def test_a_member_of_the_same_name_does_not_hold_an_earlier_ones_numbers() -> None:
    ledger = ledger_of(V5)
    take_part(ledger, B, D)
    assert ledger.block(given(ledger, A, D, PORTED)) == ["ok"]
    assert decide(ledger, RemoveMember(D)) == (ProposalState.DONE, None)
    assert decide(ledger, SetMember(member(D, 4), None)) == (ProposalState.DONE, None)
    assert known(ledger, D).by_number, "its ranges may have numbers that are others'"
    assert refusal(ledger, submission(of_number(PORTED, D), D)) == "numbers-outside-ranges"
    assert refusal(ledger, given(ledger, D, B, PORTED)) == "number-not-held"
    assert refusal(ledger, submission(of_number(PORTED, A))) == "ok"


def test_a_certificate_names_at_most_sixty_of_them() -> None:
    numbers = [Tn(f"49301{number:03}") for number in range(61)]
    ledger = ported(*numbers)
    for count, wanted in ((61, "too-many-single-numbers"), (60, "ok")):
        listed = TnAuthList(tns=tuple(numbers[:count]))
        assert refusal(ledger, submission(certificate(organization=B, tn_auth_list=listed), B)) == wanted
    many = certificate(organization=B, tn_auth_list=TnAuthList(tns=tuple(numbers[:60])))
    assert ledger.block(submission(many, B)) == ["ok"]
    assert record_of(ledger, many).numbers == tuple(numbers[:60])


def test_relying_parties_need_no_leaf_for_a_number_that_is_named() -> None:
    ledger = ported()
    mine = of_number(PORTED, B, uris=(f"sip:+{PORTED}@b.example",))
    assert ledger.block(submission(mine, B)) == ["ok"]
    trusted(ledger, mine).check_number(PORTED)
    trusted(ledger, mine, Use.AUTHENTICATE).check_uri(f"sip:+{PORTED}@b.example")
    assert ledger.block(given(ledger, B, C, PORTED)) == ["ok"]
    with pytest.raises(CertificateRefused) as refused:
        trusted(ledger, mine)
    assert refused.value.code is Distrust.REVOKED


@pytest.mark.parametrize("listed", [TnAuthList(ranges=member(A, 1).ranges), TnAuthList(spcs=("spc-1",))])
def test_for_a_range_or_a_code_the_ledger_must_be_asked(listed: TnAuthList) -> None:
    ledger = ported()
    wide = certificate(tn_auth_list=listed)
    assert ledger.block(submission(wide)) == ["ok"]
    signer = trusted(ledger, wide)
    for tn, holds, wanted in (
        (PORTED, False, Distrust.AUTHORITY),
        (OTHER, None, None),
        (Tn("49302000"), None, Distrust.AUTHORITY),
    ):
        assert code_of(signer, tn) is Distrust.NOT_ASKED
        told = replace(signer, allotment=signer.allotment.with_number(tn, holds=holds))
        assert code_of(told, tn) is wanted


def test_a_code_covers_numbers_that_are_held_singly() -> None:
    ledger = ported()
    wide = certificate(organization=B, tn_auth_list=TnAuthList(spcs=("spc-2",)))
    assert ledger.block(submission(wide, B)) == ["ok"]
    signer = trusted(ledger, wide)
    assert code_of(replace(signer, allotment=signer.allotment.with_number(PORTED, holds=True)), PORTED) is None
    assert code_of(replace(signer, allotment=signer.allotment.with_number(PORTED, holds=None)), PORTED) is (
        Distrust.AUTHORITY
    )


def code_of(signer: TrustedCertificate, tn: Tn) -> Distrust | None:
    try:
        signer.check_number(tn)
    except CertificateRefused as refused:
        return refused.code
    return None


def test_where_nobody_takes_part_nothing_is_asked() -> None:
    ledger = ledger_of(V5)
    wide = certificate(tn_auth_list=TnAuthList(spcs=("spc-1",)))
    assert ledger.block(submission(wide)) == ["ok"]
    assert code_of(trusted(ledger, wide), PORTED) is None


def test_an_older_reader_needs_a_later_release_for_what_it_would_misread() -> None:
    ledger = ported()
    mine = of_number(PORTED, B)
    assert ledger.block(submission(mine, B)) == ["ok"]
    record, owner = record_of(ledger, mine), known(ledger, B)
    assert CertRecord.parse(record.serialize()) == record
    assert Member.parse(owner.serialize()) == owner
    for value, what in ((record, "certificate's record"), (owner, "member")):
        decoded = cbor.decode(value.serialize(), "leaf")
        assert isinstance(decoded, list)
        with pytest.raises(NeedsNewerError):
            parse_further(decoded[-1:], what)


@pytest.mark.parametrize("numbers", [[], ["1", "1"], ["2", "1"], ["x"], [1], "1", [str(n) for n in range(10, 71)]])
def test_a_records_numbers_have_one_form(numbers: Any) -> None:
    ledger = ledger_of(V5)
    der = certificate()
    assert ledger.block(submission(der)) == ["ok"]
    decoded = cbor.decode(record_of(ledger, der).serialize(), "record")
    assert isinstance(decoded, list)
    with pytest.raises(MalformedError):
        CertRecord.parse(cbor.encode([*decoded, {"!numbers": numbers}]))


@pytest.mark.parametrize("mark", [False, 1, None, "yes"])
def test_a_members_mark_has_one_form(mark: Any) -> None:
    decoded = cbor.decode(member(A, 1).serialize(), "member")
    assert isinstance(decoded, list)
    with pytest.raises(MalformedError):
        Member.parse(cbor.encode([*decoded, {"!by-number": mark}]))


def full_record() -> Member:
    singles = tuple(TnRange(Tn(f"{10**14 + number}"), 1) for number in range(240))
    return replace(member(A, 1), ranges=(*member(A, 1).ranges, *singles))


def with_a_full_record() -> Ledger:
    """Return a ledger on which the record of A has no room for the mark."""
    full, ledger = full_record(), ledger_of(V5)
    longest = max((url for length in range(100, 200) if fits(full, url := "https://" + "a" * length)), key=len)
    assert decide(ledger, SetMember(replace(full, cps=longest), 0)) == (ProposalState.DONE, None)
    assert known(ledger, A).cps == longest
    return ledger


def test_a_full_record_has_room_for_the_mark() -> None:
    assert Member.parse(replace(full_record(), by_number=True).serialize()).by_number
    ledger = with_a_full_record()
    assert refusal(ledger, given(ledger, A, A)) == "no-room-for-numbers"
    take_part(ledger, B)
    assert refusal(ledger, given(ledger, A, B, PORTED)) == "no-room-for-numbers"


def test_a_member_with_a_full_record_is_suspended() -> None:
    """The mark that it then needs takes the place of its URL."""
    ledger = with_a_full_record()
    take_part(ledger, B)
    raw = ledger.propose(SuspendMember(A), by=B, until_s=ledger.time_s + 10_000)
    assert ledger.block(raw, vote(raw, C), vote(raw, D)) == ["ok"] * 3
    changed = known(ledger, A)
    assert (changed.suspended, changed.by_number, changed.cps) == (True, True, "")


def test_a_member_with_a_full_record_loses_a_validator_that_signed_twice() -> None:
    ledger = with_a_full_record()
    take_part(ledger, B)
    ledger.block(misbehaving=(address(1),))
    changed = known(ledger, A)
    assert (changed.validators, changed.by_number, changed.cps) == ((), True, "")


def fits(full: Member, url: str) -> bool:
    """Tell whether a record has room for the URL of a call placement service."""
    try:
        return bool(replace(full, cps=url))
    except MalformedError:
        return False


def test_a_number_is_asked_for_as_people_write_it() -> None:
    lookup = present(NUMBER_LEAF.lookup)
    assert lookup.argument.of_text("+49301500") == lookup.argument.of_bytes(b"49301500") == "49301500"
    for bad in ("", "+", "4930150x", "1" * 16, "\u0661"):
        with pytest.raises(MalformedError):
            lookup.argument.of_text(bad)
    assert NUMBER_LEAF in state.LEAVES


def test_who_holds_nothing_is_told_nothing_of_a_number() -> None:
    gone = replace(holding_of(member(A, 1)), allotment=None)
    assert with_number(gone, PORTED, NumberHolder(B, 0)) == with_number(gone, PORTED, None) == gone


def test_that_a_member_takes_numbers_counts_in_its_hour() -> None:
    ledger = ledger_of(V5, certificates_per_hour=2)
    take_part(ledger, B)
    assert quotas.usage(ledger.state, B)[2] == 1
    assert ledger.block(given(ledger, A, B, PORTED)) == ["ok"]
    assert ledger.block(given(ledger, B, B, PORTED)) == ["ok"]
    assert refusal(ledger, given(ledger, B, B, PORTED)) == "hourly-quota"


def test_what_is_revoked_already_stays_as_it_was_when_its_number_goes() -> None:
    ledger = ledger_of(V5)
    take_part(ledger, B)
    old, valid = of_number(PORTED, A), of_number(PORTED, A)
    assert ledger.block(*map(submission, (old, valid))) == ["ok"] * 2
    assert ledger.block(change(CertDigest(digest_of(old)), reason="superseded")) == ["ok"]
    before = record_of(ledger, old)
    assert ledger.block(given(ledger, A, B, PORTED)) == ["ok"]
    assert record_of(ledger, old) == before
    after = record_of(ledger, valid)
    assert (after.status, after.revision, after.changed_height) == (CertStatus.REVOKED, 1, ledger.height)


def test_a_number_s_leaf_that_cannot_be_read_is_damage() -> None:
    ledger = ledger_of(V5)
    draft = Draft(ledger.state, V5)
    draft.put(number_key(PORTED), ["number", A])
    with pytest.raises(LocalError, match="the leaf of a number is not one"):
        is_held(draft, known(ledger, A), PORTED)


def test_a_uri_of_another_kind_names_no_number_and_hides_none() -> None:
    uris = ("http://a.example/+49301500", f"tel:+{PORTED}")
    profile = replace(read_admitted(of_number(OTHER, A)), uris=uris)
    assert numbers_in(profile) == {PORTED, OTHER}


def test_no_leaf_is_read_for_a_member_that_takes_no_numbers() -> None:
    ledger = ledger_of(V5)
    view = MagicMock()
    member_ = known(ledger, A)
    assert allotment_for(view, member_, read_admitted(of_number(PORTED, A))) is member_.allotment
    view.leaf.assert_not_called()
