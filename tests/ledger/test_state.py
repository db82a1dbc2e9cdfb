"""The state machine: what takes effect, what is refused with which code, and that every node computes the same."""

import inspect
import re
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from voice_dpki.ledger import tree
from voice_dpki.ledger.kind import Endorsement
from voice_dpki.ledger.members import member_key
from voice_dpki.ledger.proof import verify_absence, verify_inclusion
from voice_dpki.ledger.records import CertRecord, CertStatus
from voice_dpki.ledger.refusals import PROFILE_REFUSALS, Refusal
from voice_dpki.ledger.state import OK, Block, MemoryState, Outcome, apply, check, check_sender
from voice_dpki.ledger.transactions import (
    MAX_TRANSACTION_BYTES,
    Batch,
    Transaction,
    endorse,
)
from voice_dpki.ledger.view import value_hashes
from voice_dpki.names import CertDigest, Height, Tn
from voice_dpki.x509 import profile
from voice_dpki.x509.keys import generate_es256, generate_rsa
from voice_dpki.x509.profile import digest_of
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

START_S = 1_790_000_000
DAY_S = 86_400


def execute(state: MemoryState, *transactions: bytes, height: int = 1, time_s: int = START_S) -> Outcome:
    outcome = apply(state, Block(Height(height), time_s, transactions))
    state.commit(outcome)
    return outcome


def code(state: MemoryState, transaction: bytes) -> Refusal | None:
    """Execute one transaction; if it is refused, check that it changed nothing, and return the refusal."""
    before = tree.root(state)
    outcome = execute(state, transaction)
    (result,) = outcome.results
    if result == OK:
        return None
    assert outcome.app_hash == before
    assert not any((outcome.leaves, outcome.certificates, outcome.update.nodes))
    refusal = next(refusal for refusal in Refusal if refusal.code == result.code)
    assert (result.name, result.detail) == (refusal.kebab, refusal.sentence)
    return refusal


def test_a_submitted_certificate_is_recorded_and_proved(federation: Any) -> None:
    state, der = federation.state(), federation.certificate()
    outcome = execute(state, federation.submission(der), height=7)
    record = state.record(digest_of(der))
    assert outcome.results == (OK,)
    assert (record.status, record.organization, record.recorded_height, record.revision) == (
        CertStatus.VALID,
        "Operator A",
        7,
        0,
    )
    assert state.certificates == {digest_of(der): der}
    assert tree.root(state) == outcome.app_hash != tree.root(federation.state())
    verify_inclusion(outcome.app_hash, record_key(der), record.value_hash(), tree.prove(state, record_key(der)))
    verify_absence(outcome.app_hash, bytes(32), tree.prove(state, bytes(32)))


def record_key(der: bytes) -> bytes:
    return bytes(digest_of(der))


def test_genesis_members_are_in_the_tree(federation: Any) -> None:
    state = federation.state()
    for member in federation.genesis.members:
        assert tree.get(state, member_key(member.organization)) is not None


def test_everything_that_a_member_may_name(federation: Any) -> None:
    der = federation.certificate(
        key=generate_rsa(),
        uris=(
            "sip:alice@a.example",
            "sips:+493023125001@sip.a.example:5061",
            "tel:+493023125002",
            "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
        ),
        dns_names=("a.example", "*.pbx.a.example"),
        tn_auth_list=TnAuthList(
            spcs=("1234",), ranges=(TnRange(Tn("493023125100"), 900),), tns=(Tn("493023125000"),)
        ),
    )
    assert code(federation.state(), federation.submission(der)) is None


def test_who_names_nobody_may_be_recorded_by_anyone(federation: Any) -> None:
    der = federation.certificate(None, common_name=None)
    state = federation.state()
    assert code(state, federation.submission(der, "Vendor")) is None
    assert state.record(digest_of(der)).organization == "Vendor"


@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        ({"organization": "Operator B"}, Refusal.ORGANIZATION),
        ({"organization": None}, Refusal.ORGANIZATION),
        ({"tn_auth_list": TnAuthList(ranges=(TnRange(Tn("493023125000"), 1001),))}, Refusal.NUMBERS),
        ({"tn_auth_list": TnAuthList(ranges=(TnRange(Tn("442079460000"), 2),))}, Refusal.NUMBERS),
        ({"tn_auth_list": TnAuthList(tns=(Tn("493023126000"),))}, Refusal.NUMBERS),
        ({"tn_auth_list": TnAuthList(spcs=("4321",))}, Refusal.NUMBERS),
        ({"uris": ("sip:alice@b.example",)}, Refusal.NAMES),
        ({"uris": ("sip:alice@nota.example",)}, Refusal.NAMES),
        ({"uris": ("sip:alice@a.example@b.example",)}, Refusal.NAMES),
        ({"uris": ("sip:alice@a.example;maddr=b.example",)}, Refusal.NAMES),
        ({"uris": ("sip:+442079460001@a.example",)}, Refusal.NAMES),
        ({"uris": ("tel:+442079460001",)}, Refusal.NAMES),
        ({"uris": ("https://a.example/",)}, Refusal.NAMES),
        ({"dns_names": ("b.example",)}, Refusal.NAMES),
        ({"dns_names": ("*.example",)}, Refusal.NAMES),
        ({"not_after_s": START_S - 1}, Refusal.EXPIRED),
        ({"not_before_s": START_S + 30 * DAY_S + 1, "not_after_s": START_S + 60 * DAY_S}, Refusal.NOT_YET_VALID),
    ],
)
def test_certificates_that_a_member_may_not_have_recorded(
    federation: Any, options: dict[str, Any], refusal: Refusal
) -> None:
    der = federation.certificate(**options)
    assert code(federation.state(), federation.submission(der)) is refusal


def test_the_edges_of_validity_are_inside(federation: Any) -> None:
    for times in (
        {"not_after_s": START_S},
        {"not_before_s": START_S + 30 * DAY_S, "not_after_s": START_S + 60 * DAY_S},
    ):
        assert code(federation.state(), federation.submission(federation.certificate(**times))) is None


def test_a_certificate_that_breaks_the_profile_is_refused_by_its_own_code(federation: Any) -> None:
    der = bytearray(federation.certificate())
    assert code(federation.state(), federation.submission(bytes(der[:-1]))) is Refusal.CERTIFICATE_MALFORMED
    der[-1] ^= 1
    assert code(federation.state(), federation.submission(bytes(der))) is Refusal.CERTIFICATE_SIGNATURE
    big = federation.submission(bytes(9000))
    assert code(federation.state(), big) is Refusal.CERTIFICATE_TOO_LARGE


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 1024)])
def test_weak_and_other_keys_are_refused(federation: Any, key: Any) -> None:
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Operator A")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, datetime(2026, 1, 1), datetime(2027, 1, 1))
    der = builder.sign(key, SHA256()).public_bytes(Encoding.DER)
    assert code(federation.state(), federation.submission(der)) is Refusal.CERTIFICATE_KEY


def test_every_rule_of_the_profile_has_its_own_refusal() -> None:
    rules = set(re.findall(r'ProfileError\(\s*"([a-z-]+)"', inspect.getsource(profile)))
    assert rules == set(PROFILE_REFUSALS)


def test_envelopes_that_are_refused(federation: Any) -> None:
    state, der = federation.state(), federation.certificate()
    assert code(state, b"\xff") is Refusal.MALFORMED
    assert code(state, bytes(MAX_TRANSACTION_BYTES + 1)) is Refusal.TOO_LARGE
    assert code(state, federation.submission(der, chain="other")) is Refusal.CHAIN
    assert code(state, federation.submission(der, "Stranger", key="Operator A")) is Refusal.MEMBER
    assert code(state, federation.submission(der, key="Operator B")) is Refusal.SIGNER


def test_each_signature_must_be_the_members_own_over_this_body(federation: Any) -> None:
    mine, other = (Transaction.parse(federation.submission(federation.certificate())) for _ in range(2))
    state = federation.state()
    swapped = Transaction(mine.body, mine.body_bytes, other.endorsements)
    assert code(state, swapped.serialize()) is Refusal.SIGNATURE
    stranger = Endorsement(bytes(32), mine.endorsements[0].signature)
    for endorsements in ((*mine.endorsements, stranger), (*mine.endorsements, *other.endorsements)):
        assert code(state, Transaction(mine.body, mine.body_bytes, endorsements).serialize()) is not None
    twisted = Endorsement(mine.endorsements[0].key_id, bytes(64))
    assert code(state, Transaction(mine.body, mine.body_bytes, (twisted,)).serialize()) is Refusal.SIGNATURE


def test_a_rogue_operator_can_use_neither_anothers_name_nor_its_numbers_nor_its_key(federation: Any) -> None:
    state = federation.state()
    theirs = federation.certificate("Operator A")
    assert code(state, federation.submission(theirs, "Operator B")) is Refusal.ORGANIZATION
    shared = generate_es256()
    assert code(state, federation.submission(federation.certificate(key=shared))) is None
    copied = federation.certificate("Operator B", key=shared)
    assert code(state, federation.submission(copied, "Operator B")) is Refusal.KEY_IN_USE
    endorsing = federation.certificate("Operator B", key=federation.keys["Operator A"])
    assert code(state, federation.submission(endorsing, "Operator B")) is Refusal.KEY_IN_USE


def test_a_member_may_renew_under_the_same_key(federation: Any) -> None:
    state, key = federation.state(), generate_es256()
    for name in ("old", "new"):
        assert code(state, federation.submission(federation.certificate(key=key, common_name=name))) is None


def test_a_certificate_is_recorded_once_even_within_a_block(federation: Any) -> None:
    state, der = federation.state(), federation.certificate()
    first, second = execute(state, federation.submission(der), federation.submission(der)).results
    assert (first, second.name) == (OK, "already-recorded")
    assert code(state, federation.submission(der)) is Refusal.RECORDED


def test_a_block_sees_what_came_before_in_it(federation: Any) -> None:
    state, der = federation.state(), federation.certificate()
    digest = digest_of(der)
    transactions = [
        federation.change(digest, "revoked", 0),
        federation.submission(der),
        federation.change(digest, "suspended", 0),
        federation.change(digest, "valid", 1),
        federation.change(digest, "revoked", 2, reason="keyCompromise"),
        federation.change(digest, "valid", 3),
    ]
    results = execute(state, *transactions, height=9).results
    assert [result.name for result in results] == ["not-recorded", "ok", "ok", "ok", "ok", "transition-not-allowed"]
    record = state.record(digest)
    assert (record.status, record.revision, record.reason) == (CertStatus.REVOKED, 3, "keyCompromise")
    assert (record.recorded_height, record.changed_height) == (9, 9)


ALLOWED = {("valid", "suspended"), ("valid", "revoked"), ("suspended", "valid"), ("suspended", "revoked")}


@pytest.mark.parametrize("before", ["valid", "suspended", "revoked"])
@pytest.mark.parametrize("after", ["valid", "suspended", "revoked", "expired", "unknown", "dance"])
def test_every_change_of_status(federation: Any, before: str, after: str) -> None:
    state, der = federation.state(), federation.certificate()
    execute(state, federation.submission(der))
    revision = 0
    if before != "valid":
        execute(state, federation.change(digest_of(der), before, 0))
        revision = 1
    refusal = code(state, federation.change(digest_of(der), after, revision))
    assert refusal is (None if (before, after) in ALLOWED else Refusal.TRANSITION)


def test_changes_that_are_refused(federation: Any) -> None:
    state, der = federation.state(), federation.certificate()
    digest = digest_of(der)
    execute(state, federation.submission(der))
    assert code(state, federation.change(CertDigest(bytes(32)), "revoked", 0)) is Refusal.NOT_RECORDED
    assert code(state, federation.change(digest, "revoked", 0, by="Operator B")) is Refusal.NOT_OWNER
    assert code(state, federation.change(digest, "revoked", 1)) is Refusal.REVISION
    assert code(state, federation.change(digest, "revoked", 0, reason="whim")) is Refusal.REASON


def test_an_old_change_cannot_be_replayed(federation: Any) -> None:
    state, der = federation.state(), federation.certificate()
    suspend = federation.change(digest_of(der), "suspended", 0)
    resume = federation.change(digest_of(der), "valid", 1)
    execute(state, federation.submission(der), suspend, resume)
    assert code(state, suspend) is Refusal.REVISION
    assert code(state, resume) is Refusal.REVISION


def test_check_tells_what_would_happen_and_changes_nothing(federation: Any) -> None:
    state, der = federation.state(), federation.certificate()
    before = tree.root(state)
    assert check(state, Height(1), START_S, federation.submission(der)) == OK
    assert check(state, Height(1), START_S, b"").name == "malformed"
    assert tree.root(state) == before
    assert state.record(digest_of(der)) is None


def small_quotas(federation: Any, **quotas: int) -> MemoryState:
    genesis = federation.genesis
    return replace(genesis, parameters=replace(genesis.parameters, **quotas)).initial_state()


@pytest.mark.parametrize(
    ("quota", "refusal"), [("certificates_per_hour", "hourly-quota"), ("certificates_per_member", "total-quota")]
)
def test_a_senders_room_is_checked_before_its_certificates_are(federation: Any, quota: str, refusal: str) -> None:
    """A node takes no more from a member than a block would record, before the costly part of the work."""
    state = small_quotas(federation, **{quota: 2})
    ders = [federation.certificate() for _ in range(3)]
    execute(state, federation.submission(ders[0]))
    assert check_sender(state, Height(2), START_S, federation.submission(ders[1])) == OK
    execute(state, federation.submission(ders[1]))
    assert check_sender(state, Height(3), START_S, federation.submission(ders[2])).name == refusal


def test_a_sender_of_what_is_recorded_is_told_before_the_certificate_is_verified(federation: Any) -> None:
    state, der = federation.state(), federation.certificate()
    execute(state, federation.submission(der))
    for raw in (federation.submission(der), batch_of(federation, federation.certificate(), der)):
        assert check_sender(state, Height(2), START_S, raw).name == "already-recorded"
    other = batch_of(federation, federation.certificate())
    assert check_sender(state, Height(2), START_S, other) == OK


def test_a_sender_is_who_signed(federation: Any) -> None:
    state = federation.state()
    refused = {
        b"": "malformed",
        federation.submission(federation.certificate(), chain="other"): "wrong-chain",
        federation.submission(federation.certificate(), "Operator A", key="Operator B"): "unknown-signer",
        federation.change(CertDigest(bytes(32)), "revoked", 0): "not-recorded",
    }
    found = [check_sender(state, Height(1), START_S, raw).name for raw in refused]
    assert found == list(refused.values())


def batch_of(federation: Any, *ders: bytes) -> bytes:
    return endorse(Batch("test-1", "Operator A", ders), [federation.keys["Operator A"]])


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["submit", "valid", "suspended", "revoked"]),
        st.integers(0, 3),
        st.sampled_from(["Operator A", "Operator B"]),
        st.integers(0, 2),
    ),
    max_size=12,
)


@pytest.fixture(scope="module")
def four(federation: Any) -> list[tuple[str, bytes]]:
    names = ["Operator A", "Operator A", "Operator B", "Operator B"]
    return [(name, federation.certificate(name)) for name in names]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=40)
@given(operations=OPERATIONS, cuts=st.lists(st.integers(0, 12), max_size=3))
def test_any_history_follows_the_model_and_depends_on_the_blocks_alone(
    federation: Any, four: list[tuple[str, bytes]], operations: list[Any], cuts: list[int]
) -> None:
    model: dict[int, tuple[str, int]] = {}
    transactions, expected = [], []
    for kind, at, by, revision in operations:
        owner, der = four[at]
        if kind == "submit":
            transactions.append(federation.submission(der, by))
            expected.append(by == owner and at not in model)
            if expected[-1]:
                model[at] = ("valid", 0)
        else:
            transactions.append(federation.change(digest_of(der), kind, revision, by))
            status, current = model.get(at, ("", -1))
            expected.append(by == owner and revision == current and (status, kind) in ALLOWED)
            if expected[-1]:
                model[at] = (kind, current + 1)
    state = federation.state()
    results: list[Any] = []
    edges = [0, *sorted(cuts), len(transactions)]
    for height, (start, end) in enumerate(pairwise(edges), 1):
        results += execute(state, *transactions[start:end], height=height).results
    assert [result.code == 0 for result in results] == expected
    assert {at: (str(record.status), record.revision) for at, record in recorded(state, four)} == model
    rebuilt = tree.update(MemoryState(""), value_hashes(state.leaves))
    assert rebuilt.root == tree.root(state)
    assert rebuilt.nodes == state.nodes


def recorded(state: MemoryState, four: list[tuple[str, bytes]]) -> list[tuple[int, CertRecord]]:
    found = [(at, state.record(digest_of(der))) for at, (_, der) in enumerate(four)]
    return [(at, record) for at, record in found if record]
