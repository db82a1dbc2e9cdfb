"""Version 3 of the rules: votes are counted again, proposals withdrawn and the operators' suspensions ended."""

from dataclasses import replace

import pytest

from voice_dpki.ledger.proposals import (
    Change,
    ProposalState,
    RemoveMember,
    ResumeMember,
    SetMember,
    SetStatus,
    SuspendMember,
)
from voice_dpki.ledger.records import Authority, CertStatus
from voice_dpki.ledger.transactions import ChangeStatus, endorse
from voice_dpki.names import CertDigest
from voice_dpki.x509.profile import digest_of

from .test_governance import CHAIN, KEYS, Ledger, identity, member, vote
from .test_rules import A, B, C, D, certificate, decided, judged, submission, version_2, version_3

DONE = ProposalState.DONE, None
GROWN = replace(member(B, 2), domains=("b.example", "b2.example"))


def proposed(ledger: Ledger, change: Change, *voters: str, by: str = A) -> bytes:
    raw = ledger.propose(change, by=by, until_s=ledger.time_s + 10_000)
    assert ledger.block(raw, *(vote(raw, voter) for voter in voters)) == ["ok"] * (1 + len(voters))
    return raw


def recorded(ledger: Ledger) -> CertDigest:
    der = certificate(A, "device", KEYS[A])
    assert ledger.block(submission(der=der)) == ["ok"]
    return digest_of(der)


def test_votes_count_anew_when_an_operator_has_left() -> None:
    """Three of five is no quorum, and three of four is."""
    for ledger, then in ((version_2(), ProposalState.OPEN), (version_3(), ProposalState.PASSED)):
        assert decided(ledger, SetMember(member("Operator E", 5), None), B, C) == DONE
        raw = proposed(ledger, SetMember(GROWN, 0), B, C)
        assert decided(ledger, RemoveMember("Operator E"), B, C, D) == DONE
        assert ledger.state_of(identity(raw))[0] is then


def test_a_proposal_that_cannot_pass_any_more_fails_when_an_operator_leaves() -> None:
    ledger = version_3()
    raw = proposed(ledger, SetMember(GROWN, 0))
    assert ledger.block(vote(raw, B, False)) == ["ok"]
    assert ledger.state_of(identity(raw))[0] is ProposalState.OPEN
    assert decided(ledger, RemoveMember(D), B, C) == DONE
    assert ledger.state_of(identity(raw)) == (ProposalState.FAILED, "no-quorum")


@pytest.mark.parametrize("last", [False, True])
def test_votes_are_counted_until_the_operators_stay(last: bool) -> None:
    """Of five, E is suspended; then three of four suspend D, which was open; then two of three can pass nothing."""
    ledger = version_3()
    assert decided(ledger, SetMember(member("Operator E", 5), None), B, C) == DONE
    second = proposed(ledger, SuspendMember(D), B, C)
    for until_s in range(ledger.time_s + 900, ledger.time_s + 1000):  # they are counted in the order of their ids
        raw = ledger.propose(SetMember(GROWN, 0), by=C, until_s=until_s)
        if (identity(raw) > identity(second)) is last:
            break
    assert ledger.block(raw, vote(raw, B, False)) == ["ok", "ok"]
    assert [ledger.state_of(identity(each))[0] for each in (second, raw)] == [ProposalState.OPEN] * 2
    proposed(ledger, SuspendMember("Operator E"), B, C, D)
    assert ledger.state_of(identity(second)) == DONE
    assert ledger.state_of(identity(raw)) == (ProposalState.FAILED, "no-quorum")


@pytest.mark.parametrize("voters", [(), (B, C)])
def test_a_proposer_withdraws_what_is_open_or_waits_for_its_time(voters: tuple[str, ...]) -> None:
    ledger = version_3()
    raw = proposed(ledger, SetMember(GROWN, 0), *voters)
    assert ledger.block(vote(raw, A, False)) == ["ok"]
    ledger.pass_delay()
    assert ledger.state_of(identity(raw)) == (ProposalState.FAILED, "withdrawn")
    assert ledger.block(vote(raw, D), vote(raw, A, False)) == ["not-open"] * 2
    assert ledger.state.member(B).revision == 0  # type: ignore[union-attr]


def test_nobody_else_withdraws_and_nobody_before_version_3() -> None:
    for ledger, name in ((version_2(), "already-voted"), (version_3(), "ok")):
        raw = proposed(ledger, SetMember(GROWN, 0))
        assert ledger.block(vote(raw, B, False)) == ["ok"]
        assert ledger.state_of(identity(raw))[0] is ProposalState.OPEN
        assert ledger.block(vote(raw, A, False)) == [name]


def test_operators_end_a_members_suspension() -> None:
    ledger = version_3()
    proposed(ledger, SuspendMember("Vendor"), B, C)
    assert decided(ledger, ResumeMember("Vendor"), B, C) == DONE
    vendor = ledger.state.member("Vendor")
    assert vendor is not None
    assert (vendor.suspended, vendor.revision) == (False, 2)
    for name, why in (("Vendor", "not-suspended"), ("Nobody", "wrong-member-revision")):
        assert judged(ledger, ledger.propose(ResumeMember(name), until_s=ledger.time_s + 10)) == why


def test_operators_end_their_suspension_of_a_certificate_after_the_delay() -> None:
    ledger = version_3()
    digest = recorded(ledger)
    proposed(ledger, SetStatus((digest,), CertStatus.SUSPENDED, "keyCompromise"), B, C)
    raw = proposed(ledger, SetStatus((digest,), CertStatus.VALID, "removeFromCRL"), B, C)
    record = ledger.state.record(digest)
    assert record is not None
    assert record.status is CertStatus.SUSPENDED, "an end of a suspension is no response to a compromise"
    ledger.pass_delay()
    assert ledger.state_of(identity(raw)) == DONE
    record = ledger.state.record(digest)
    assert record is not None
    assert (record.status, record.changed_by, record.reason) == (
        CertStatus.VALID,
        Authority.QUORUM,
        "removeFromCRL",
    )


@pytest.mark.parametrize("status", ["revoked", "suspended", None])
def test_what_others_have_decided_about_a_certificate_stays(status: str | None) -> None:
    ledger = version_3()
    digest = recorded(ledger)
    if status is not None:
        change = ChangeStatus(CHAIN, A, digest, 0, status, "unspecified")
        assert ledger.block(endorse(change, [KEYS[A]])) == ["ok"]
    change_back = SetStatus((digest,), CertStatus.VALID, "unspecified")
    assert judged(ledger, ledger.propose(change_back, until_s=ledger.time_s + 10)) == "not-suspended"


def test_operators_take_back_no_revocation_not_even_their_own() -> None:
    ledger = version_3()
    digest = recorded(ledger)
    proposed(ledger, SetStatus((digest,), CertStatus.REVOKED, "keyCompromise"), B, C)
    revoked = ledger.state.record(digest)
    assert revoked is not None
    assert (revoked.status, revoked.changed_by) == (CertStatus.REVOKED, Authority.QUORUM)
    back = SetStatus((digest,), CertStatus.VALID, "removeFromCRL")
    assert judged(ledger, ledger.propose(back, until_s=ledger.time_s + 10)) == "not-suspended"
    assert ledger.state.record(digest) == revoked


@pytest.mark.parametrize(
    "change", [ResumeMember("Vendor"), SetStatus((CertDigest(bytes(32)),), CertStatus.VALID, "unspecified")]
)
def test_version_2_knows_no_end_of_a_suspension_by_a_proposal_of_its_own(change: Change) -> None:
    ledger = version_2()
    proposed(ledger, SuspendMember("Vendor"), B, C)
    assert judged(ledger, ledger.propose(change, until_s=ledger.time_s + 10)) == "unknown-change"
