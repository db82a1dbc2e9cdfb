"""A key that was revoked as compromised is never recorded again, and what hangs on it falls with it."""

from dataclasses import replace
from typing import Any

import pytest

from voice_dpki.codec import cbor
from voice_dpki.ledger import compromise, owners, quotas
from voice_dpki.ledger.activation import rules_at
from voice_dpki.ledger.draft import Block, Draft
from voice_dpki.ledger.members import Member
from voice_dpki.ledger.owners import KEY_LEAF
from voice_dpki.ledger.proposals import BeginRules, Change, ProposalState, SetMember, SetStatus
from voice_dpki.ledger.records import Authority, CertRecord, CertStatus
from voice_dpki.ledger.rules import V3, V4
from voice_dpki.ledger.signatures import key_id_of
from voice_dpki.ledger.transactions import OwnerStatus, Renew, endorse, renewal_bytes
from voice_dpki.names import CertDigest, Height
from voice_dpki.x509.keys import LocalSigner, generate_es256
from voice_dpki.x509.profile import digest_of

from .test_governance import CHAIN, KEYS, Ledger, identity, member, vote
from .test_rules import judged
from .version_4 import A, B, C, certificate, change, ledger_of, refusal, submission


def recorded(ledger: Ledger, key: LocalSigner | None = None, **options: Any) -> CertDigest:
    der = certificate(key, **options)
    assert ledger.block(submission(der)) == ["ok"]
    return digest_of(der)


def renewal(key: LocalSigner, old: CertDigest, new: bytes) -> bytes:
    signature = key.sign(renewal_bytes(CHAIN, old, digest_of(new)))
    return endorse(Renew(CHAIN, A, new, old, key.public_key_der, signature), [KEYS[A]])


def renewed(ledger: Ledger, key: LocalSigner, old: CertDigest, new_key: LocalSigner | None = None) -> CertDigest:
    new = certificate(new_key)
    assert ledger.block(renewal(key, old, new)) == ["ok"]
    return digest_of(new)


def record_of(ledger: Ledger, digest: CertDigest) -> CertRecord:
    record = ledger.state.record(digest)
    assert record is not None
    return record


def standing(ledger: Ledger, *digests: CertDigest) -> list[tuple[str, str | None, int]]:
    records = [record_of(ledger, digest) for digest in digests]
    return [(str(record.status), record.reason, record.revision) for record in records]


def leaf(ledger: Ledger, key: LocalSigner) -> Any:
    data = ledger.state.leaf(KEY_LEAF.key(key_id_of(key.public_key_der)))
    return None if data is None else cbor.decode(data, "leaf")


def test_a_compromised_key_is_never_recorded_again_not_even_when_its_certificates_are_pruned() -> None:
    ledger, key = ledger_of(retention_s=0), generate_es256()
    digest = recorded(ledger, key, not_after_s=ledger.time_s + 1000)
    assert ledger.block(change(digest)) == ["ok"]
    assert refusal(ledger, submission(certificate(key))) == "compromised-key"
    for _ in range(3):
        ledger.block(after_s=86_400)
    assert ledger.state.record(digest) is None, "it is pruned"
    assert leaf(ledger, key) == ["key", A, 0, [], True]
    for by in (A, B):
        assert refusal(ledger, submission(certificate(key, by), by)) == "compromised-key"


def test_the_leaf_of_a_key_that_is_not_compromised_goes_with_its_last_certificate() -> None:
    ledger, key = ledger_of(retention_s=0), generate_es256()
    ends_s = ledger.time_s + 1000
    digests = sorted(recorded(ledger, key, not_after_s=ends_s) for _ in range(2))
    assert leaf(ledger, key) == ["key", A, 2, digests, False]
    assert ledger.block(change(digests[0], reason="superseded")) == ["ok"]
    assert standing(ledger, digests[1]) == [("valid", None, 0)]
    for _ in range(3):
        ledger.block(after_s=86_400)
    assert leaf(ledger, key) is None


def test_other_certificates_with_the_key_are_revoked_with_it() -> None:
    ledger, key = ledger_of(), generate_es256()
    digests = [recorded(ledger, key, common_name=f"device {number}") for number in range(3)]
    other = recorded(ledger)
    assert ledger.block(change(digests[2], "suspended", reason="certificateHold")) == ["ok"]
    assert ledger.block(change(digests[0])) == ["ok"]
    fallen = ("revoked", "keyCompromise", 1)
    assert standing(ledger, *digests, other) == [
        fallen,
        fallen,
        ("revoked", "keyCompromise", 2),
        ("valid", None, 0),
    ]
    record = record_of(ledger, digests[1])
    assert (record.changed_by, record.changed_height) == (Authority.ENDORSER, ledger.height)


def test_renewals_fall_with_what_they_replaced() -> None:
    """A thief of the key could have signed them; their own keys are not barred."""
    ledger = ledger_of()
    keys = [generate_es256() for _ in range(4)]
    first = recorded(ledger, keys[0])
    second = renewed(ledger, keys[0], first, keys[1])
    third = renewed(ledger, keys[1], second, keys[0])
    fourth = renewed(ledger, keys[0], third, keys[3])
    apart = recorded(ledger, keys[3])
    assert ledger.block(change(first)) == ["ok"]
    withdrawn, compromised = ("revoked", "privilegeWithdrawn", 1), ("revoked", "keyCompromise", 1)
    assert standing(ledger, first, second, third, fourth) == [compromised, withdrawn, compromised, withdrawn]
    assert standing(ledger, apart) == [("valid", None, 0)]
    assert ledger.block(submission(certificate(keys[1]))) == ["ok"]


def test_what_was_revoked_before_still_leads_to_its_renewal() -> None:
    ledger, keys = ledger_of(), [generate_es256() for _ in range(2)]
    first = recorded(ledger, keys[0])
    second = renewed(ledger, keys[0], first, keys[1])
    assert ledger.block(change(first, reason="superseded")) == ["ok"]
    assert ledger.block(change(first, revision=1)) == ["ok"], "a second time, for the compromise"
    assert standing(ledger, first, second) == [
        ("revoked", "keyCompromise", 2),
        ("revoked", "privilegeWithdrawn", 1),
    ]
    assert refusal(ledger, change(first, revision=2)) == "transition-not-allowed"


def test_what_was_revoked_before_for_another_reason_stays_as_it_was() -> None:
    ledger, key = ledger_of(), generate_es256()
    first, other = (recorded(ledger, key, common_name=f"device {number}") for number in range(2))
    assert ledger.block(change(other, reason="superseded")) == ["ok"]
    before = record_of(ledger, other)
    assert ledger.block(change(first)) == ["ok"]
    assert standing(ledger, first) == [("revoked", "keyCompromise", 1)]
    assert record_of(ledger, other) == before


@pytest.mark.parametrize("reason", ["superseded", "unspecified"])
def test_no_other_reason_bars_a_key_or_revokes_twice(reason: str) -> None:
    ledger, key = ledger_of(), generate_es256()
    first, second = recorded(ledger, key), recorded(ledger, key)
    assert ledger.block(change(first, reason=reason)) == ["ok"]
    assert standing(ledger, second) == [("valid", None, 0)]
    assert refusal(ledger, change(first, revision=1, reason=reason)) == "transition-not-allowed"
    assert ledger.block(change(second, "suspended")) == ["ok"], "a suspension for it bars nothing"
    assert ledger.block(submission(certificate(key))) == ["ok"]


def test_the_owner_bars_its_own_key() -> None:
    ledger, key = ledger_of(), generate_es256()
    first, second = recorded(ledger, key), recorded(ledger, key)
    body = OwnerStatus(CHAIN, A, first, 0, "revoked", "keyCompromise", key.public_key_der)
    assert ledger.block(endorse(body, [key])) == ["ok"]
    assert standing(ledger, second) == [("revoked", "keyCompromise", 1)]
    assert record_of(ledger, second).changed_by is Authority.OWNER
    assert refusal(ledger, submission(certificate(key))) == "compromised-key"


def decide(ledger: Ledger, new: Change) -> tuple[ProposalState, str | None]:
    raw = ledger.propose(new, until_s=ledger.time_s + 10_000)
    assert ledger.block(raw, vote(raw, B), vote(raw, C)) == ["ok"] * 3
    ledger.pass_delay()
    return ledger.state_of(identity(raw))


def test_operators_bar_a_key_at_once_also_of_what_is_revoked() -> None:
    ledger, key = ledger_of(), generate_es256()
    first, second = recorded(ledger, key), recorded(ledger, key)
    assert ledger.block(change(first, reason="superseded")) == ["ok"]
    done = decide(ledger, SetStatus((first,), CertStatus.REVOKED, "keyCompromise"))
    assert done == (ProposalState.DONE, None)
    assert standing(ledger, first, second) == [("revoked", "keyCompromise", 2), ("revoked", "keyCompromise", 1)]
    assert record_of(ledger, second).changed_by is Authority.QUORUM


def test_what_only_an_older_block_recorded_cannot_be_renewed_or_resumed() -> None:
    """Version 3 listed no certificates with their key, so the ledger does not find the second one by itself."""
    ledger, key = ledger_of(V3), generate_es256()
    first, second, third = (recorded(ledger, key) for _ in range(3))
    assert ledger.block(change(third, "suspended")) == ["ok"]
    assert leaf(ledger, key) == ["key", A, 3]
    begin_4(ledger)
    assert ledger.block(change(first)) == ["ok"]
    assert leaf(ledger, key) == ["key", A, 3, [], True]
    assert standing(ledger, second) == [("valid", None, 0)]
    assert refusal(ledger, renewal(key, second, certificate())) == "not-valid"
    assert refusal(ledger, change(third, "valid", 1, "removeFromCRL")) == "compromised-key"
    assert refusal(ledger, submission(certificate(key))) == "compromised-key"
    assert ledger.block(change(second)) == ["ok"]


def test_what_version_3_revoked_as_compromised_is_revoked_again_to_bar_the_key() -> None:
    ledger, key = ledger_of(V3), generate_es256()
    first = recorded(ledger, key)
    assert ledger.block(change(first)) == ["ok"]
    assert judged(ledger, change(first, revision=1)) == "transition-not-allowed"
    assert ledger.block(submission(certificate(key))) == ["ok"], "version 3 has the key recorded again"
    begin_4(ledger)
    assert ledger.block(change(first, revision=1)) == ["ok"]
    assert refusal(ledger, submission(certificate(key))) == "compromised-key"


def begin_4(ledger: Ledger) -> None:
    raw = ledger.propose(BeginRules(4, 1), until_s=ledger.time_s + 10_000)
    assert ledger.block(raw, vote(raw, B), vote(raw, C)) == ["ok"] * 3
    ledger.pass_delay()
    ledger.block()
    assert rules_at(ledger.state, ledger.height) is V4


def test_operators_cannot_resume_what_has_a_compromised_key() -> None:
    ledger, key = ledger_of(V3), generate_es256()
    first, second = recorded(ledger, key), recorded(ledger, key)
    begin_4(ledger)
    assert decide(ledger, SetStatus((second,), CertStatus.SUSPENDED, "unspecified")) == (ProposalState.DONE, None)
    assert ledger.block(change(first)) == ["ok"]
    resume = SetStatus((second,), CertStatus.VALID, "unspecified")
    assert refusal(ledger, ledger.propose(resume, until_s=ledger.time_s + 10)) == "compromised-key"


def test_a_compromised_key_becomes_no_endorsing_key() -> None:
    ledger, key = ledger_of(), generate_es256()
    digest = recorded(ledger, key)
    assert ledger.block(change(digest)) == ["ok"]
    for name, block in ((A, 1), ("Operator E", 5)):
        old = ledger.state.member(name)
        endorsing = (KEYS[name].public_key_der, key.public_key_der)
        new: Member = replace(member(name, block), endorsing_keys=endorsing)
        raw = ledger.propose(SetMember(new, old.revision if old else None), until_s=ledger.time_s + 10)
        assert refusal(ledger, raw) == "compromised-key"


def test_a_key_has_a_bounded_number_of_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "MAX_CERTIFICATES", 2)
    for rules, name in ((V3, "ok"), (V4, "key-full")):
        ledger, key = ledger_of(rules), generate_es256()
        for _ in range(2):
            recorded(ledger, key)
        assert ledger.block(submission(certificate(key))) == [name]


def test_what_falls_takes_room_of_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "MAX_BLOCK_CERTIFICATES", 3)
    ledger, key = ledger_of(), generate_es256()
    first, *_ = (recorded(ledger, key) for _ in range(3))
    new = [submission(certificate()) for _ in range(2)]
    assert ledger.block(*new, change(first)) == ["ok", "ok", "block-full"]
    assert ledger.block(change(first), *map(submission, (certificate(), certificate()))) == [
        "ok",
        "ok",
        "block-full",
    ]


def test_operators_revoke_no_more_than_a_block_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "MAX_BLOCK_CERTIFICATES", 1)
    ledger, key = ledger_of(), generate_es256()
    first, *_ = (recorded(ledger, key) for _ in range(3))
    revoke = SetStatus((first,), CertStatus.REVOKED, "keyCompromise")
    assert refusal(ledger, ledger.propose(revoke, until_s=ledger.time_s + 10)) == "too-many-fall"


def test_a_long_chain_of_renewals_falls_from_its_near_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compromise, "MAX_FALLEN", 2)
    ledger, keys = ledger_of(), [generate_es256() for _ in range(3)]
    first = recorded(ledger, keys[0])
    second = renewed(ledger, keys[0], first, keys[1])
    third = renewed(ledger, keys[1], second, keys[2])
    assert ledger.block(change(first)) == ["ok"]
    assert [status for status, _, _ in standing(ledger, second, third)] == ["revoked", "valid"]


def test_what_bars_no_key_takes_nothing_with_it() -> None:
    ledger = ledger_of()
    digest = recorded(ledger, generate_es256())
    block = Block(Height(ledger.height + 1), ledger.time_s, ())
    for status, reason in ((CertStatus.REVOKED, "superseded"), (CertStatus.SUSPENDED, "keyCompromise")):
        draft = Draft(ledger.state, V4)
        changed = replace(record_of(ledger, digest), status=status, reason=reason)
        assert compromise.spread(draft, block, digest, changed) == 0
        assert not draft.leaves
