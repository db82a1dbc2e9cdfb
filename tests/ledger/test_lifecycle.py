"""A certificate's life: batches, renewal by the owner's key, and who may suspend, resume and revoke what."""

from dataclasses import replace
from typing import Any

import pytest

from voice_dpki.ledger import tree
from voice_dpki.ledger.members import member_key
from voice_dpki.ledger.quotas import usage
from voice_dpki.ledger.records import Authority, CertStatus
from voice_dpki.ledger.refusals import Refusal
from voice_dpki.ledger.standing import status_of
from voice_dpki.ledger.state import OK, Block, MemoryState, apply
from voice_dpki.ledger.transactions import (
    Batch,
    OwnerStatus,
    Renew,
    Transaction,
    endorse,
    renewal_bytes,
)
from voice_dpki.names import Height
from voice_dpki.x509.keys import LocalSigner, generate_es256, generate_rsa
from voice_dpki.x509.profile import digest_of

CHAIN = "test-1"
START_S = 1_790_000_000
DAY_S = 86_400
A = "Operator A"


def execute(state: MemoryState, *raws: bytes, height: int = 1, time_s: int = START_S) -> list[str]:
    outcome = apply(state, Block(Height(height), time_s, raws))
    state.commit(outcome)
    return [result.name for result in outcome.results]


def refused(state: MemoryState, transaction: bytes, **at: int) -> str:
    """Return the name of the refusal, having checked that nothing changed."""
    before = tree.root(state)
    (name,) = execute(state, transaction, **at)
    assert name == OK.name or tree.root(state) == before
    return name


def own(key: LocalSigner, der: bytes, status: str, revision: int, by: str = A, **changes: Any) -> bytes:
    parts = {"reason": "keyCompromise", "key": key.public_key_der, **changes}
    signer = parts.pop("signer", key)
    return endorse(OwnerStatus(CHAIN, by, digest_of(der), revision, status, **parts), [signer])


def batch(federation: Any, *ders: bytes, by: str = A) -> bytes:
    return endorse(Batch(CHAIN, by, ders), [federation.keys[by]])


def renewal(federation: Any, key: LocalSigner, old: bytes, new: bytes, by: str = A, **changes: Any) -> bytes:
    signature = key.sign(renewal_bytes(CHAIN, digest_of(old), digest_of(new)))
    body = Renew(CHAIN, by, new, digest_of(old), key.public_key_der, signature)
    return endorse(replace(body, **changes), [federation.keys[by]])


def test_a_batch_is_as_good_as_its_certificates_one_by_one(federation: Any) -> None:
    ders = [federation.certificate(common_name=f"device {number % 3}") for number in range(100)]
    together, apart = federation.state(), federation.state()
    assert execute(together, batch(federation, *ders)) == ["ok"]
    assert set(execute(apart, *map(federation.submission, ders))) == {"ok"}
    assert tree.root(together) == tree.root(apart)
    assert together == apart


def test_a_batch_is_recorded_whole_or_not_at_all(federation: Any) -> None:
    state, ders = federation.state(), [federation.certificate() for _ in range(3)]
    assert refused(state, batch(federation, *ders, federation.certificate("Operator B"))) == "wrong-organization"
    assert refused(state, batch(federation, *ders, ders[0])) == "already-recorded"
    assert execute(state, batch(federation, *ders)) == ["ok"]
    assert refused(state, batch(federation, *ders)) == "already-recorded"


@pytest.mark.parametrize("generate", [generate_es256, generate_rsa])
def test_the_owner_changes_its_certificates_status(federation: Any, generate: Any) -> None:
    state, key = federation.state(), generate()
    der = federation.certificate(key=key)
    suspend, resume, revoke = own(key, der, "suspended", 0), own(key, der, "valid", 1), own(key, der, "revoked", 2)
    assert execute(
        state, federation.submission(der), suspend, suspend, resume, suspend, resume, revoke, revoke
    ) == [
        "ok",
        "ok",
        "wrong-revision",
        "ok",
        "wrong-revision",
        "wrong-revision",
        "ok",
        "wrong-revision",
    ]
    record = state.record(digest_of(der))
    assert (record.status, record.revision, record.changed_by) == (CertStatus.REVOKED, 3, Authority.OWNER)
    assert refused(state, own(key, der, "valid", 3)) == "transition-not-allowed"


def test_only_the_certificates_own_key_is_its_owner(federation: Any) -> None:
    """What no owner signs enters no block: its codes are below 100."""
    state, key, other = federation.state(), generate_es256(), generate_es256()
    der, foreign = federation.certificate(key=key), federation.certificate(key=other)
    execute(state, federation.submission(der), federation.submission(foreign))
    assert refused(state, own(other, der, "revoked", 0)) == "unknown-owner"
    assert refused(state, own(key, der, "revoked", 0, by="Operator B")) == "unknown-owner"
    assert refused(state, own(key, federation.certificate(), "revoked", 0)) == "unknown-owner"
    assert refused(state, own(key, der, "revoked", 0, signer=other)) == "unknown-owner"
    true = Transaction.parse(own(key, der, "revoked", 0))
    forged = replace(true, endorsements=(replace(true.endorsements[0], signature=bytes(64)),))
    assert refused(state, forged.serialize()) == "bad-signature"
    doubled = replace(true, endorsements=true.endorsements * 2)
    assert refused(state, doubled.serialize()) == "unknown-owner"
    assert refused(state, federation.change(digest_of(der), "revoked", 0, by="Vendor")) == "not-the-owner"


def test_nobody_resumes_what_a_higher_authority_suspended(federation: Any) -> None:
    state, key = federation.state(), generate_es256()
    der = federation.certificate(key=key)
    digest = digest_of(der)
    execute(state, federation.submission(der), federation.change(digest, "suspended", 0))
    assert refused(state, own(key, der, "valid", 1)) == "outranked"
    assert execute(state, federation.change(digest, "valid", 1), own(key, der, "suspended", 2)) == ["ok", "ok"]
    assert execute(state, federation.change(digest, "valid", 3)) == ["ok"]


def test_a_renewed_certificate_and_its_follower_name_each_other_and_are_both_valid(federation: Any) -> None:
    state, key = federation.state(), generate_es256()
    old = federation.certificate(key=key)
    new = federation.certificate(not_before_s=START_S + 29 * DAY_S, not_after_s=START_S + 60 * DAY_S)
    assert execute(state, federation.submission(old), renewal(federation, key, old, new)) == ["ok", "ok"]
    before, after = state.record(digest_of(old)), state.record(digest_of(new))
    assert (before.replaced_by, after.replaces) == (digest_of(new), digest_of(old))
    overlap_s = START_S + 29 * DAY_S
    assert before.status_at(overlap_s) == after.status_at(overlap_s) == CertStatus.VALID
    third = federation.certificate()
    assert refused(state, renewal(federation, key, old, third)) == "already-renewed"
    assert refused(state, renewal(federation, key, old, new)) == "already-renewed"


def test_renewals_that_are_refused(federation: Any) -> None:
    state, key, thief = federation.state(), generate_es256(), generate_es256()
    old, new = federation.certificate(key=key), federation.certificate()
    assert refused(state, renewal(federation, key, old, new)) == "not-recorded"
    execute(state, federation.submission(old))
    assert refused(state, renewal(federation, thief, old, new)) == "owner-signature"
    assert refused(state, renewal(federation, thief, old, new, owner_key=key.public_key_der)) == "owner-signature"
    assert refused(state, renewal(federation, key, old, new, by="Operator B")) == "not-the-owner"
    other = federation.certificate(common_name="another device")
    assert refused(state, renewal(federation, key, old, other)) == "other-subject"
    late = {"not_before_s": START_S + 30 * DAY_S + 1, "not_after_s": START_S + 60 * DAY_S}
    apart = renewal(federation, key, old, federation.certificate(**late))
    assert refused(state, apart, time_s=START_S + DAY_S) == "no-overlap"
    assert refused(state, renewal(federation, key, old, old)) == "already-recorded"
    execute(state, federation.change(digest_of(old), "suspended", 0))
    assert refused(state, renewal(federation, key, old, new)) == "not-valid"
    execute(state, federation.change(digest_of(old), "valid", 1))
    assert execute(state, renewal(federation, key, old, new), time_s=START_S + 31 * DAY_S) == ["not-valid"]


def test_an_rsa_owner_renews(federation: Any) -> None:
    state, key = federation.state(), generate_rsa()
    old, new = federation.certificate(key=key), federation.certificate(key=key)
    assert execute(state, federation.submission(old), renewal(federation, key, old, new)) == ["ok", "ok"]


def test_a_suspended_member_can_do_nothing_and_its_certificates_rest(federation: Any) -> None:
    state, der, key = federation.state(), federation.certificate(), generate_es256()
    owned = federation.certificate(key=key)
    execute(state, federation.submission(der), federation.submission(owned))
    member = replace(state.member(A), suspended=True)
    state.leaves[member_key(A)] = member.serialize()
    for transaction in (
        federation.submission(federation.certificate()),
        federation.change(digest_of(der), "revoked", 0),
    ):
        assert execute(state, transaction) == ["suspended-member"]
    assert execute(state, own(key, owned, "revoked", 0)) == ["ok"], "owners still protect themselves"
    record = state.record(digest_of(der))
    assert status_of(record, member, START_S) is CertStatus.SUSPENDED


def test_what_a_certificate_is_worth_depends_on_its_member(federation: Any) -> None:
    state, der = federation.state(), federation.certificate()
    execute(state, federation.submission(der), height=5)
    record, member = state.record(digest_of(der)), state.member(A)
    assert status_of(None, member, START_S) is CertStatus.UNKNOWN
    assert status_of(record, member, START_S) is CertStatus.VALID
    assert status_of(record, member, START_S + 31 * DAY_S) is CertStatus.EXPIRED
    assert status_of(record, None, START_S) is CertStatus.REVOKED
    assert status_of(record, replace(member, admitted_height=5), START_S) is CertStatus.VALID
    assert status_of(record, replace(member, admitted_height=6), START_S) is CertStatus.REVOKED, "another member"


def test_quotas_bound_what_one_member_records(federation: Any) -> None:
    state = small(federation, certificates_per_hour=3, certificates_per_member=5)
    ders = [federation.certificate() for _ in range(6)]
    assert execute(state, *map(federation.submission, ders[:4])) == ["ok", "ok", "ok", "hourly-quota"]
    assert refused(state, batch(federation, *ders[3:])) == "hourly-quota"
    assert refused(state, federation.submission(ders[0])) == "already-recorded", "asked again"
    theirs = federation.certificate("Operator B")
    assert execute(state, federation.submission(theirs, "Operator B")) == ["ok"], "others are not held up"
    later = START_S + 3600
    assert execute(state, *map(federation.submission, ders[3:]), time_s=later) == ["ok", "ok", "total-quota"]
    assert usage(state, A) == (5, later // 3600, 2)


def test_a_full_block_leaves_a_transaction_to_a_later_one(federation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voice_dpki.ledger.quotas.MAX_BLOCK_CERTIFICATES", 3)
    state, ders = federation.state(), [federation.certificate() for _ in range(5)]
    first, second = batch(federation, *ders[:2]), batch(federation, *ders[2:4])
    assert execute(state, first, second, federation.submission(ders[4])) == ["ok", "block-full", "ok"]
    assert execute(state, second) == ["ok"]
    assert Refusal.BLOCK_FULL.code < 100, "it stays in the mempool"


def small(federation: Any, **parameters: int) -> MemoryState:
    """Return a genesis state with other parameters."""
    genesis = federation.genesis
    return replace(genesis, parameters=replace(genesis.parameters, **parameters)).initial_state()
