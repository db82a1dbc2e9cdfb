"""What the ledger says of a certificate, and what the judgement makes of it: trusted exactly while it is valid."""

from dataclasses import replace
from itertools import product

import pytest

from voice_dpki.ledger.held_numbers import NumberHolder
from voice_dpki.ledger.members import Member, MemberKind
from voice_dpki.ledger.records import RECORDED, CertRecord, CertStatus
from voice_dpki.ledger.standing import recorded_as, status_of, with_number
from voice_dpki.names import CertDigest, Height, Tn
from voice_dpki.x509.recorded import CertificateRefused, RecordedCertificate, check_standing

DIGEST = CertDigest(bytes(32))
NUMBER = Tn("4930")
BEGIN_S, END_S = 1_790_000_000, 1_790_086_400
RECORD = CertRecord(CertStatus.VALID, "Operator A", BEGIN_S, END_S, Height(5), Height(5), 0, None, bytes(32))
MEMBER = Member("Operator A", MemberKind.OPERATOR, ("a.example",), admitted_height=5)

RECORDS = (None, *(replace(RECORD, status=status) for status in sorted(RECORDED)))
MEMBERS = (
    None,
    MEMBER,
    replace(MEMBER, suspended=True),
    replace(MEMBER, admitted_height=6),
)
TIMES_S = (BEGIN_S - 1, BEGIN_S, END_S, END_S + 1)


def trusted(recorded: RecordedCertificate, now_s: float) -> bool:
    try:
        check_standing(recorded, now_s)
    except CertificateRefused:
        return False
    return True


@pytest.mark.parametrize("record", RECORDS)
@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize(
    ("asked_s", "now_s"), [times for times in product(TIMES_S, TIMES_S) if times[0] <= times[1]]
)
def test_a_certificate_is_trusted_exactly_while_its_status_is_valid(
    record: CertRecord | None, member: Member | None, asked_s: float, now_s: float
) -> None:
    """It makes no difference when the ledger was asked: time goes on by itself."""
    recorded = recorded_as(DIGEST, status_of(record, member, asked_s), record, member, Height(9))
    assert trusted(recorded, now_s) is (status_of(record, member, now_s) is CertStatus.VALID)


@pytest.mark.parametrize("member", MEMBERS)
def test_what_lasts_is_told_whatever_became_of_the_member(member: Member | None) -> None:
    """An expired or revoked certificate is not suspended with its member, nor revoked by the member's removal."""
    revoked = replace(RECORD, status=CertStatus.REVOKED)
    assert status_of(revoked, member, BEGIN_S) is CertStatus.REVOKED
    assert status_of(RECORD, member, END_S + 1) is CertStatus.EXPIRED


@pytest.mark.parametrize(
    ("holder", "singles", "gone"),
    [
        (None, set(), set()),
        (NumberHolder("Operator A", 5), {NUMBER}, set()),
        (NumberHolder("Operator A", 4), set(), {NUMBER}),
        (NumberHolder("Operator A", 6), set(), {NUMBER}),
        (NumberHolder("Operator B", 5), set(), {NUMBER}),
    ],
)
def test_a_number_s_leaf_speaks_of_the_member_that_was_admitted_in_that_block(
    holder: NumberHolder | None, singles: set[Tn], gone: set[Tn]
) -> None:
    recorded = recorded_as(DIGEST, CertStatus.VALID, RECORD, MEMBER, Height(9), None)
    found = with_number(recorded, NUMBER, holder).allotment
    assert found is not None
    assert [set(each) for each in (found.singles, found.gone, found.asked)] == [singles, gone, {NUMBER}]
