"""The vectors of what members, devices and authentication servers send: transactions, changes, names, statements.

The results are written here by hand; `tests/test_spec_messages.py` lets the code judge all of them.
"""

import base64
import json
from collections.abc import Iterator
from hashlib import sha256
from itertools import pairwise
from typing import Any

from tests.ledger.conftest import CHAIN, START_S
from tests.ledger.test_evidence import CHAIN as OF_EVIDENCE
from tests.ledger.test_evidence import NAMES, load, raws
from tests.ledger.test_tree import MemoryNodes, number
from tests.spec_headers import headers
from tests.spec_vectors import CERTIFICATES, OPERATORS, FixedSigner, Form, altered, certificate, signer, text
from voice_dpki.codec import base64url, cbor
from voice_dpki.ikev2.events import SaName
from voice_dpki.ikev2.integrity import IntegrityInfo, Measurement, Result
from voice_dpki.ledger import tree
from voice_dpki.ledger.changes import encode_step
from voice_dpki.ledger.header import Validator
from voice_dpki.ledger.members import Member, MemberKind
from voice_dpki.ledger.names import subject_key
from voice_dpki.ledger.proposals import (
    BeginRules,
    Change,
    RemoveMember,
    ResumeMember,
    SetMember,
    SetStatus,
    SuspendMember,
    encode_change,
)
from voice_dpki.ledger.records import CertStatus
from voice_dpki.ledger.transactions import (
    Batch,
    Body,
    ChangeStatus,
    OwnerStatus,
    Propose,
    Renew,
    Submit,
    Vote,
    endorse,
    renewal_bytes,
)
from voice_dpki.names import CertDigest, Tn
from voice_dpki.x509.profile import digest_of
from voice_dpki.x509.tnauthlist import TnRange

BY = OPERATORS[0]


def messages() -> Form:
    """Return the vectors by what they are about."""
    return {
        "chain_id": CHAIN,
        "transactions": list(_transactions()),
        "changes": list(_changes()),
        "names": list(_names()),
        "evidence": list(_evidence()),
        "tree_changes": list(_tree_changes()),
        "key_mgmt": list(_key_mgmt()),
        "integrity_info": list(_integrity()),
        "ledger_answer": list(_ledger_answers()),
    }


def _der(name: str) -> bytes:
    return certificate(CERTIFICATES[name][0], name, *CERTIFICATES[name][1:])


def _transactions() -> Iterator[Form]:
    old, new, endorser = _der("valid"), _der("suspended"), signer(BY)
    owner = signer("valid")
    renewal = owner.sign(renewal_bytes(CHAIN, digest_of(old), digest_of(new)))
    digest, status = digest_of(old), CertStatus.REVOKED
    bodies: dict[str, tuple[Body, FixedSigner]] = {
        "submit": (Submit(CHAIN, BY, old), endorser),
        "batch": (Batch(CHAIN, BY, (old, new)), endorser),
        "renew": (Renew(CHAIN, BY, new, digest, owner.public_key_der, renewal), endorser),
        "status": (ChangeStatus(CHAIN, BY, digest, 0, status, "superseded"), endorser),
        "owner-status": (OwnerStatus(CHAIN, BY, digest, 0, status, "superseded", owner.public_key_der), owner),
        "propose": (Propose(CHAIN, BY, START_S, encode_change(RemoveMember("Operator B"))), endorser),
        "vote": (Vote(CHAIN, BY, sha256(b"a proposal").digest(), True), endorser),
    }
    made = {name: endorse(body, [by]) for name, (body, by) in bodies.items()}
    for name, (_, by) in bodies.items():
        key = text(by.public_key_der)
        yield {"name": name, "transaction": text(made[name]), "key": key, "result": {"kind": name}}
    yield from _bad_transactions(made["vote"], text(endorser.public_key_der))


def _bad_transactions(good: bytes, key: str) -> Iterator[Form]:
    value: Any = cbor.decode(good, "transaction")
    version, body, ((key_id, signature),) = value
    members: Any = cbor.decode(body, "body")

    def bad(name: str, error: str, data: bytes) -> Form:
        return {"name": name, "transaction": text(data), "key": key, "result": {"error": error}}

    def of_body(changed: Form) -> bytes:
        return cbor.encode([version, cbor.encode(changed), [[key_id, signature]]])

    yield bad("another version", "unknown-version", cbor.encode([2, body, [[key_id, signature]]]))
    yield bad("a kind that is not known", "unknown-kind", of_body(members | {"kind": "other"}))
    yield bad("a member too many", "malformed", of_body(members | {"more": 1}))
    yield bad("a member too few", "malformed", of_body({name: members[name] for name in ("kind", "chain", "by")}))
    yield bad("no signature", "malformed", cbor.encode([version, body, []]))
    yield bad("a short signature", "malformed", cbor.encode([version, body, [[key_id, signature[1:]]]]))
    yield bad("a byte too many", "malformed", good + b"\0")
    yield bad("not the shortest form", "malformed", b"\x83\x18\x01" + good[2:])
    forged = signature[:-1] + bytes([signature[-1] ^ 1])
    yield bad("a forged signature", "bad-signature", cbor.encode([version, body, [[key_id, forged]]]))
    yield bad("another body", "bad-signature", of_body(members | {"approve": False}))
    twice = cbor.encode([version, body, [[key_id, signature]] * 2])
    yield bad("two signatures", "signature-form", twice)
    high = signature[:32] + (_ORDER - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")
    yield bad("a high s", "signature-form", cbor.encode([version, body, [[key_id, high]]]))


_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""The order of P-256 (SP 800-186 §3.2.1.3)."""


def _changes() -> Iterator[Form]:
    member = Member(
        "Operator C",
        MemberKind.OPERATOR,
        domains=("c.example",),
        ranges=(TnRange(Tn("33123400"), 100),),
        spcs=("123A",),
        validators=(Validator(sha256(b"a validator").digest(), 1).public_key,),
        endorsing_keys=(signer("Operator C").public_key_der,),
    )
    digest = CertDigest(sha256(b"a certificate").digest())
    changes: dict[str, Change] = {
        "member": SetMember(member, None),
        "remove": RemoveMember("Operator B"),
        "suspend": SuspendMember("Operator B"),
        "status": SetStatus((digest,), CertStatus.REVOKED, "keyCompromise"),
        "rules": BeginRules(2, 1000),
        "resume": ResumeMember("Operator B"),
    }
    for name, change in changes.items():
        yield {"name": name, "change": text(encode_change(change)), "result": {"change": name}}
    items: dict[str, list[Any]] = {
        "a change that is not known": ["other", 1],
        "no certificate": ["status", [], "revoked", "superseded"],
        "a certificate twice": ["status", [digest, digest], "revoked", "superseded"],
        "a status that nobody proposes": ["status", [digest], "expired", "superseded"],
        "a reason that is not known": ["status", [digest], "revoked", "other"],
        "version 0": ["rules", 0, 1],
        "a height that is too great": ["rules", 2, 10**12],
    }
    for name, item in items.items():
        yield {"name": name, "change": text(cbor.encode(item)), "result": {"error": "malformed"}}


def _key(*name: Any) -> str:
    return sha256(b"voice-dpki/name/v1\0" + cbor.encode([*name])).hexdigest()


def _names() -> Iterator[Form]:
    """The keys are hashed here by the table of the page, and not by the code."""
    assert _key("subject", "A", "b") == subject_key("A", "b").hex()
    number = [_key("number", 4, prefix) for prefix in ("4", "49", "493", "4930")]
    for kind, name, organization, result in (
        ("subject", "b", "A", {"keys": [_key("subject", "A", "b")]}),
        ("uri", "SIP:alice@A.example", "", {"keys": [_key("uri", "sip:alice@a.example")]}),
        ("dns", "Gateway.A.example", "", {"keys": [_key("dns", "gateway.a.example")]}),
        ("spc", "123A", "", {"keys": [_key("spc", "123A")]}),
        ("number", "4930", "", {"keys": number}),
    ):
        yield {"kind": kind, "name": name, "organization": organization, "result": result}


def _evidence() -> Iterator[Form]:
    """The evidence is CometBFT's, and so is its hash."""
    blocks = {name: load(name)["block"] for name in NAMES}
    (validator,) = blocks[NAMES[1]]["evidence"]["evidence"][1]["value"]["ByzantineValidators"]
    key = validator["pub_key"]["value"]

    def about(name: str, items: list[bytes], result: Form, chain_id: str = OF_EVIDENCE) -> Form:
        evidence = [text(item) for item in items]
        return {"name": name, "chain_id": chain_id, "key": key, "evidence": evidence, "result": result}

    for name, block in blocks.items():
        convicted = [validator["address"]] * len(block["evidence"]["evidence"])
        result = {"evidence_hash": block["header"]["evidence_hash"], "misbehaving": convicted}
        yield about(name, raws(name), result)
    (item,) = raws(NAMES[0])
    yield about("votes of another chain", [item], {"error": "not-signed"}, "another-chain")
    yield about("one kind as the other", [b"\x12" + item[1:]], {"error": "malformed"})  # the tag of field 2
    yield about("octets after the end", [item + bytes(1)], {"error": "malformed"})
    yield about("a piece that breaks off", [item[:-1]], {"error": "malformed"})


def _tree_changes() -> Iterator[Form]:
    """A tree of 20 leaves: one goes and one comes, then one gets another value."""
    states = [MemoryNodes()]
    states[0].apply({number(seed): number(seed + 1) for seed in range(20)})
    for change in ({number(3): None, number(900): number(1)}, {number(5): number(2)}):
        states.append(MemoryNodes(states[-1]))
        states[-1].apply(change)
    roots = [tree.root(state).hex() for state in states]
    first, second = (json.loads(encode_step(tree.diff(*pair))) for pair in pairwise(states))
    untold = first | {
        "changes": {key: value for key, value in first["changes"].items() if key != number(900).hex()}
    }
    both = {"keys": sorted(number(seed).hex() for seed in (3, 5, 900))}
    for name, steps, after, result in (
        ("two steps", [first, second], roots[2], both),
        ("no step, for nothing changed", [], roots[0], {"keys": []}),
        ("a step is missing", [first], roots[2], {"error": "unproven"}),
        ("the steps are in another order", [second, first], roots[2], {"error": "unproven"}),
        ("a change is missing", [untold, second], roots[2], {"error": "unproven"}),
        ("a node is another one", [first, second | {"nodes": first["nodes"]}], roots[2], {"error": "unproven"}),
        ("no step, though much changed", [], roots[2], {"error": "unproven"}),
        ("a key that is too short", [{"changes": {"00": None}, "nodes": {}}], roots[0], {"error": "malformed"}),
        ("a path that is none", [{"changes": {}, "nodes": {"0g": "AAAA"}}], roots[0], {"error": "malformed"}),
    ):
        yield {"name": name, "before": roots[0], "steps": steps, "after": after, "result": result}


def _digest(value: str) -> Form:
    return {"alg": "sha-256", "dig": base64url.encode(sha256(value.encode()).digest())}


def _key_mgmt() -> Iterator[Form]:
    """Yield values that came in an SDP, the claim of the PASSporT, and what step E20 finds."""
    one, two = "mikey AQ0FgAAAAAA=", "mikey AQAFgAAAAAA="
    for name, values, claim, result in (
        ("one value", [one], [_digest(one)], "verified"),
        ("two values", [one, two], [_digest(one), _digest(two)], "verified"),
        ("none", [], None, "none"),
        ("in another order", [two, one], [_digest(one), _digest(two)], "refused"),
        ("replaced", [two], [_digest(one)], "refused"),
        ("stripped", [], [_digest(one)], "refused"),
        ("added", [one], None, "refused"),
        ("one more than signed", [one, two], [_digest(one)], "refused"),
        ("16 values", [one] * 16, [_digest(one)] * 16, "verified"),
        ("17 values", [one] * 17, [_digest(one)] * 17, "malformed"),
        ("a digest with padding", [one], [_digest(one) | {"dig": str(_digest(one)["dig"]) + "="}], "malformed"),
        ("no list", [one], _digest(one), "malformed"),
        ("no digest", [one], [{"alg": "sha-256"}], "malformed"),
    ):
        yield {"name": name, "values": values, "claim": claim, "result": result}


def _integrity() -> Iterator[Form]:
    sa, der = SaName(b"initiate", b"responds"), _der("valid")
    boot = Measurement("boot", sha256(b"boot").digest())
    good = IntegrityInfo(Result.PASSED, START_S, (boot,)).sign(signer("valid"), sa, digest_of(der))
    failed = IntegrityInfo(Result.FAILED, START_S, ()).sign(signer("valid"), sa, digest_of(der))
    by_another = IntegrityInfo(Result.PASSED, START_S, (boot,)).sign(signer("revoked"), sa, digest_of(der))
    asked = {"spi_i": sa.spi_i.hex(), "spi_r": sa.spi_r.hex(), "certificate": text(der)}
    passed = {"passed": True, "time_s": START_S, "measurements": {"boot": boot.digest.hex()}}
    for name, content, changed, result in (
        ("a statement", good, {}, passed),
        ("a check that failed", failed, {}, {"passed": False, "time_s": START_S, "measurements": {}}),
        ("another IKE SA", good, {"spi_r": b"replayed".hex()}, {"error": "forged"}),
        ("another certificate", good, {"certificate": text(_der("revoked"))}, {"error": "forged"}),
        ("another key", by_another, {}, {"error": "forged"}),
        ("an altered signature", base64.b64decode(altered(text(good))), {}, {"error": "forged"}),
        ("another version", b"\2" + good[1:], {}, {"error": "malformed"}),
        ("another result", good[:1] + b"\2" + good[2:], {}, {"error": "malformed"}),
        ("a byte too many", good + b"\0", {}, {"error": "malformed"}),
        ("a byte too few", good[:-1], {}, {"error": "malformed"}),
    ):
        yield {"name": name, "content": text(content), **asked, **changed, "result": result}


def _ledger_answers() -> Iterator[Form]:
    """Answers of headers.json's chain, whose tree is empty: without the way, nothing leads to their header."""
    blocks, now_s = headers()["blocks"], START_S + 40
    answer = {"record": None, "proof": text(bytes(3)), "member": None}
    answer["signed_header"] = blocks["7"]["signed_header"]
    unknown, unproven = {"status": "unknown"}, {"error": "unproven"}
    for name, way, result in (
        ("a way", ["5", "7"], unknown),
        ("a longer way", ["3", "5", "6", "7"], unknown),
        ("a way with more than is needed", ["1", "2", "3", "4", "5", "6", "7"], unknown),
        ("no way", [], unproven),
        ("a way without the validators of the answer's header", ["5"], unproven),
        ("a way that leads too far", ["3"], unproven),
        ("a way of another ledger", ["2 of another ledger", "5"], unproven),
        ("a way with a forged header", ["2 with 2 forged", "5"], unproven),
        ("17 headers", ["5"] * 17, {"error": "malformed"}),
    ):
        given = answer | ({"way": [blocks[at] for at in way]} if way else {})
        yield {"name": name, "now_s": now_s, "digest": sha256(b"").hexdigest(), "answer": given, "result": result}
