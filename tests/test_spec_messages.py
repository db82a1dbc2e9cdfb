"""The code judges messages.json of docs/spec/vectors as it says there."""

import base64
import json
from typing import Any

import pytest

from segw_agent.way import follow_way
from tests.spec import FOLDER
from voice_dpki.errors import MalformedError
from voice_dpki.ikev2.events import SaName
from voice_dpki.ikev2.integrity import IntegrityInfo, Result
from voice_dpki.ledger.answers import AnswerVerifier, InquiryError
from voice_dpki.ledger.changes import changed_keys, parse_changes
from voice_dpki.ledger.evidence import DuplicateVote, EvidenceError, evidence_hash, misbehaving, parse_all
from voice_dpki.ledger.header import ValidatorSet, parse_time
from voice_dpki.ledger.light import LightClient, TrustPoint
from voice_dpki.ledger.names import KINDS_OF_NAMES
from voice_dpki.ledger.proof import ProofError
from voice_dpki.ledger.proposals import encode_change, parse_change
from voice_dpki.ledger.refusals import Refused
from voice_dpki.ledger.signatures import key_id_of, signed_bytes, verify
from voice_dpki.ledger.transactions import Transaction, check_one_signature, kind_of
from voice_dpki.names import CertDigest
from voice_dpki.stir.passport import ClaimError, key_mgmt_digests, read_key_mgmt
from voice_dpki.x509.keys import SignatureError
from voice_dpki.x509.profile import read_profile

VECTORS = json.loads((FOLDER / "vectors/messages.json").read_bytes())
HEADERS = json.loads((FOLDER / "vectors/headers.json").read_bytes())


def each(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", VECTORS[kind], ids=lambda vector: vector["name"])


@each("transactions")
def test_transactions(vector: dict[str, Any]) -> None:
    key = base64.b64decode(vector["key"])
    try:
        transaction = Transaction.parse(base64.b64decode(vector["transaction"]))
        check_one_signature(transaction)
        (endorsement,) = transaction.endorsements
        assert endorsement.key_id == key_id_of(key)
        verify(key, signed_bytes(transaction.body_bytes), endorsement.signature)
        result = {"kind": kind_of(transaction.body).name.replace("_", "-")}
    except Refused as refused:
        result = {"error": refused.refusal.kebab}
    assert result == vector["result"]


@each("changes")
def test_changes(vector: dict[str, Any]) -> None:
    data = base64.b64decode(vector["change"])
    try:
        assert encode_change(parse_change(data)) == data
    except MalformedError:
        assert vector["result"] == {"error": "malformed"}
    else:
        assert vector["result"] == {"change": vector["name"]}


@each("names")
def test_names(vector: dict[str, Any]) -> None:
    found = KINDS_OF_NAMES[vector["kind"]](vector["name"], vector["organization"])
    assert {"keys": [key.hex() for key in found]} == vector["result"]


@each("evidence")
def test_evidence(vector: dict[str, Any]) -> None:
    key = base64.b64decode(vector["key"])
    try:
        evidence = parse_all([base64.b64decode(item) for item in vector["evidence"]])
        for piece in evidence:
            if isinstance(piece, DuplicateVote):
                piece.verify(vector["chain_id"], key)
        convicted = [address.hex().upper() for address in misbehaving(evidence)]
        result: Any = {"evidence_hash": evidence_hash(evidence).hex().upper(), "misbehaving": convicted}
    except EvidenceError:
        result = {"error": "not-signed"}
    except MalformedError:
        result = {"error": "malformed"}
    assert result == vector["result"]


@each("tree_changes")
def test_tree_changes(vector: dict[str, Any]) -> None:
    answer = json.dumps({"steps": vector["steps"], "signed_header": {}})
    before, after = (bytes.fromhex(vector[name]) for name in ("before", "after"))
    try:
        steps = parse_changes(answer.encode()).steps
        assert steps is not None
        result: Any = {"keys": sorted(key.hex() for key in changed_keys(before, steps, after))}
    except ProofError:
        result = {"error": "unproven"}
    except MalformedError:
        result = {"error": "malformed"}
    assert result == vector["result"]


@each("key_mgmt")
def test_key_management(vector: dict[str, Any]) -> None:
    claims = {} if vector["claim"] is None else {"key-mgmt": vector["claim"]}
    try:
        signed = read_key_mgmt(claims)
    except (ClaimError, MalformedError):
        assert vector["result"] == "malformed"
        return
    agree = key_mgmt_digests(vector["values"]) == signed
    assert vector["result"] == ("refused" if not agree else "verified" if signed else "none")


@each("integrity_info")
def test_statements_of_integrity(vector: dict[str, Any]) -> None:
    sa = SaName(bytes.fromhex(vector["spi_i"]), bytes.fromhex(vector["spi_r"]))
    result: dict[str, Any]
    try:
        info = IntegrityInfo.parse(base64.b64decode(vector["content"]))
        info.verify(sa, read_profile(base64.b64decode(vector["certificate"])))
        found = {measurement.name: measurement.digest.hex() for measurement in info.measurements}
        result = {"passed": info.result is Result.PASSED, "time_s": info.time_s, "measurements": found}
    except MalformedError:
        result = {"error": "malformed"}
    except SignatureError:
        result = {"error": "forged"}
    assert result == vector["result"]


@each("ledger_answer")
def test_stapled_answers(vector: dict[str, Any]) -> None:
    validators = ValidatorSet.from_json({"validators": HEADERS["genesis"]["validators"]})
    light = LightClient(HEADERS["chain_id"], TrustPoint.genesis(validators, parse_time(HEADERS["genesis"]["time"])))
    data, digest = json.dumps(vector["answer"]).encode(), CertDigest(bytes.fromhex(vector["digest"]))
    try:
        follow_way(data, light, vector["now_s"])
        verifier = AnswerVerifier(light, max_age_s=30)
        found = verifier.verify(data, digest, vector["now_s"], min_height=0, with_certificate=False)
        result = {"status": str(found.status)}
    except InquiryError as error:
        result = {"error": str(error.code)}
    assert result == vector["result"]
