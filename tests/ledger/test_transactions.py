"""Transactions: one encoding, bounded, and any bytes parse or are refused."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scratch import ROOT
from voice_dpki.codec import cbor
from voice_dpki.errors import LocalError
from voice_dpki.ledger.refusals import PROFILE_REFUSALS, Refusal, Refused
from voice_dpki.ledger.transactions import (
    MAX_TRANSACTION_BYTES,
    ChangeStatus,
    Submit,
    Transaction,
    endorse,
    key_id_of,
    signed_bytes,
)
from voice_dpki.names import CertDigest
from voice_dpki.x509.keys import generate_es256, generate_rsa, verify_signature

KEY = generate_es256()
SUBMIT = Submit("test-1", "Operator A", b"certificate")
CHANGE = ChangeStatus("test-1", "Operator A", CertDigest(bytes(32)), 3, "revoked", "keyCompromise")
BODY = {"chain": "test-1", "by": "Operator A", "kind": "submit", "certificate": b"certificate"}
ENDORSEMENT = [bytes(32), bytes(64)]


def raw(body: Any = BODY, endorsements: Any = (ENDORSEMENT,), version: Any = 1) -> bytes:
    return cbor.encode([version, body if isinstance(body, bytes) else cbor.encode(body), endorsements])


def refusal_of(data: bytes) -> Refusal:
    with pytest.raises(Refused) as caught:
        Transaction.parse(data)
    return caught.value.refusal


@pytest.mark.parametrize("body", [SUBMIT, CHANGE])
def test_what_is_endorsed_parses_and_verifies(body: Submit | ChangeStatus) -> None:
    data = endorse(body, [KEY, generate_es256()])
    transaction = Transaction.parse(data)
    assert transaction.body == body
    assert transaction.serialize() == data
    assert transaction.endorsements[0].key_id == key_id_of(KEY.public_key_der)
    signed = signed_bytes(transaction.body_bytes)
    assert signed.startswith(b"voice-dpki/tx/v1\0")
    verify_signature(KEY.public_key_der, "ES256", signed, transaction.endorsements[0].signature)


@pytest.mark.parametrize(
    ("data", "refusal"),
    [
        (b"", Refusal.MALFORMED),
        (bytes(MAX_TRANSACTION_BYTES + 1), Refusal.TOO_LARGE),
        (raw(version=2), Refusal.VERSION),
        (raw(version=True), Refusal.MALFORMED),
        (cbor.encode([]), Refusal.MALFORMED),
        (cbor.encode([1, b""]), Refusal.MALFORMED),
        (cbor.encode({"1": 2}), Refusal.MALFORMED),
        (raw() + b"\0", Refusal.MALFORMED),
        (b"\x98\x03" + raw()[1:], Refusal.MALFORMED),
        (b"\x9f" + raw()[1:] + b"\xff", Refusal.MALFORMED),
        (raw(b"\xbf\xff"), Refusal.MALFORMED),
        (raw(BODY | {"kind": "dance"}), Refusal.KIND),
        (raw(BODY | {"kind": 1}), Refusal.MALFORMED),
        (raw({k: v for k, v in BODY.items() if k != "kind"}), Refusal.MALFORMED),
        (raw({k: v for k, v in BODY.items() if k != "by"}), Refusal.MALFORMED),
        (raw(BODY | {"more": 1}), Refusal.MALFORMED),
        (raw(BODY | {"certificate": "text"}), Refusal.MALFORMED),
        (raw(BODY | {"by": ""}), Refusal.MALFORMED),
        (raw(BODY | {"by": "x" * 65}), Refusal.MALFORMED),
        (raw(endorsements=[]), Refusal.MALFORMED),
        (raw(endorsements=[ENDORSEMENT] * 33), Refusal.MALFORMED),
        (raw(endorsements=[[bytes(31), bytes(64)]]), Refusal.MALFORMED),
        (raw(endorsements=[[bytes(32), bytes(1025)]]), Refusal.MALFORMED),
        (raw(endorsements=[[bytes(32), bytes(64), None]]), Refusal.MALFORMED),
    ],
)
def test_refuses_with_the_code_for_what_is_wrong(data: bytes, refusal: Refusal) -> None:
    assert refusal_of(data) is refusal


STATUS = {
    "chain": "test-1",
    "by": "Operator A",
    "kind": "status",
    "digest": bytes(32),
    "revision": 0,
    "status": "revoked",
    "reason": "unspecified",
}


@pytest.mark.parametrize("change", [{"digest": bytes(33)}, {"revision": True}, {"revision": "0"}, {"reason": ""}])
def test_refuses_a_malformed_status_change(change: dict[str, Any]) -> None:
    Transaction.parse(raw(STATUS))
    assert refusal_of(raw(STATUS | change)) is Refusal.MALFORMED


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    try:
        transaction = Transaction.parse(data)
    except Refused:
        return
    assert transaction.serialize() == data


@given(st.data())
def test_a_changed_transaction_parses_to_itself_or_is_refused(data: st.DataObject) -> None:
    changed = bytearray(endorse(CHANGE, [KEY]))
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    del changed[data.draw(st.integers(1, len(changed))) :]
    try:
        transaction = Transaction.parse(bytes(changed))
    except Refused:
        return
    assert transaction.serialize() == changed


def test_only_p256_keys_endorse_and_only_within_the_bound() -> None:
    with pytest.raises(LocalError, match="P-256"):
        endorse(SUBMIT, [generate_rsa()])
    with pytest.raises(LocalError, match="65536"):
        endorse(Submit("test-1", "Operator A", bytes(MAX_TRANSACTION_BYTES)), [KEY])


def test_every_refusal_has_its_own_code_name_and_sentence() -> None:
    for part in ("code", "kebab", "sentence"):
        assert len({getattr(refusal, part) for refusal in Refusal}) == len(Refusal)
    assert all(refusal.sentence.endswith(".") and refusal.code > 0 for refusal in Refusal)
    assert len(set(PROFILE_REFUSALS.values())) == len(PROFILE_REFUSALS)


def test_refusals_have_the_codes_that_the_specification_gives_to_other_programs() -> None:
    written = (ROOT / "docs/spec/state.md").read_text()
    table = re.findall(r"^\| (\d+) \| `([a-z0-9-]+)` \|", written, re.MULTILINE)
    assert {(str(refusal.code), refusal.kebab) for refusal in Refusal} <= set(table)
