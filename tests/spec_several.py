"""The vectors of answers about several certificates, prefixes and leaves (`tests.spec_vectors` has the others)."""

from collections.abc import Iterator
from hashlib import sha256

from tests.spec_vectors import STATUSES, Form, Ledger, altered, leaf_form, prove, text
from voice_dpki.ledger import tree
from voice_dpki.ledger.answer_forms import MAX_PREFIX_LEAVES
from voice_dpki.ledger.members import member_key
from voice_dpki.ledger.names import subject_key
from voice_dpki.ledger.proof import Proof
from voice_dpki.ledger.records import CertRecord, CertStatus
from voice_dpki.names import CertDigest
from voice_dpki.x509.profile import digest_of

_NAMES = ("valid", "of a removed member", "revoked", "of a suspended member")


def several(ledger: Ledger) -> Iterator[Form]:
    """Yield questions about several certificates, prefixes and leaves, with the result of each."""
    for question in (*_batches(ledger), *_prefixes(ledger), *_leaves(ledger)):
        yield {"now_s": ledger.time_s + 3, "min_height": 0, **question}


def _tail(ledger: Ledger) -> Form:
    assert ledger.chain.replica.last
    signed = ledger.chain.replica.last
    return {"height": signed.header.height, "signed_header": signed.to_json()}


def _members(ledger: Ledger, digests: list[CertDigest]) -> Form:
    records = (ledger.state.record(digest) for digest in digests)
    names = sorted({record.organization for record in records if record is not None})
    return {name: leaf_form(ledger.state, member_key(name)) for name in names}


def _batches(ledger: Ledger) -> Iterator[Form]:
    digests = [*(digest_of(ledger.ders[name]) for name in _NAMES), digest_of(b"no certificate")]
    entries = [{"digest": digest.hex(), **leaf_form(ledger.state, digest)} for digest in digests]
    given = {"entries": entries, "members": _members(ledger, digests), **_tail(ledger)}
    asked = {"kind": "several", "digests": [digest.hex() for digest in digests]}
    statuses = [*(STATUSES[name] for name in _NAMES), CertStatus.UNKNOWN]
    yield {"name": "several", **asked, "answer": given, "result": {"statuses": statuses}}
    first = entries[0]
    for name, changed, error in (
        ("in another order", {"entries": entries[::-1]}, "malformed"),
        ("one left out", {"entries": entries[1:]}, "malformed"),
        ("a member left out", {"members": {}}, "malformed"),
        ("one hidden", {"entries": [first | {"record": None}, *entries[1:]]}, "unproven"),
        ("one altered", {"entries": [first | {"record": altered(str(first["record"]))}, *entries[1:]]}, "unproven"),
    ):
        yield {"name": f"several, {name}", **asked, "answer": given | changed, "result": {"error": error}}


def _prefixes(ledger: Ledger) -> Iterator[Form]:
    digest = digest_of(ledger.ders["valid"])
    for prefix in (digest.hex()[:1], digest.hex()[:2], digest.hex(), sha256(b"no certificate").hexdigest()[:12]):
        yield _prefix(ledger, prefix)
    good = _prefix(ledger, digest.hex()[:1])
    leaves = good["answer"]["leaves"]
    at = next(number for number, leaf in enumerate(leaves) if leaf["key"] == digest.hex())
    value = leaves[at]["value"]
    hidden = [*leaves[:at], *leaves[at + 1 :]]
    for name, changed in (
        ("a leaf left out", hidden),
        ("a leaf altered", [*hidden, leaves[at] | {"value": altered(value)}]),
        ("a leaf too many", [*leaves, {"key": digest.hex()[:1] + "0" * 63, "hash": text(bytes(32))}]),
    ):
        given = good["answer"] | {"leaves": changed}
        yield good | {"name": f"a prefix, {name}", "answer": given, "result": {"error": "unproven"}}
    hashed = [*hidden, {"key": digest.hex(), "hash": text(sha256(_bytes(ledger, digest)).digest())}]
    recorded = {key: status for key, status in good["result"]["recorded"].items() if key != digest.hex()}
    result = {"recorded": recorded, "not_shown": sorted([*good["result"]["not_shown"], digest.hex()])}
    given = good["answer"] | {"leaves": hashed}
    yield good | {"name": "a prefix, a record not shown", "answer": given, "result": result}


def _bytes(ledger: Ledger, key: bytes) -> bytes:
    value = ledger.state.leaf(key)
    assert value is not None
    return value


def _prefix(ledger: Ledger, prefix: str) -> Form:
    proof = tree.prove_prefix(ledger.state, bytes(int(digit, 16) for digit in prefix), MAX_PREFIX_LEAVES)
    names = {digest_of(der).hex(): STATUSES[name] for name, der in ledger.ders.items()}
    leaves = [
        {"key": key.hex(), "value": text(value)}
        if CertRecord.is_one(value := _bytes(ledger, key))
        else {"key": key.hex(), "hash": text(value_hash)}
        for key, value_hash in proof.leaves
    ]
    below = [leaf["key"] for leaf in leaves if leaf["key"].startswith(prefix)]
    return {
        "name": f"the prefix {prefix[:12]}",
        "kind": "prefix",
        "prefix": prefix,
        "answer": {
            "prefix": prefix,
            "proof": text(Proof(proof.siblings, None).serialize()),
            "leaves": leaves,
            "members": _members(ledger, [CertDigest(key) for key, _ in proof.leaves if key.hex() in names]),
            **_tail(ledger),
        },
        "result": {
            "recorded": {key: names[key] for key in below if key in names},
            "not_shown": [key for key in below if key not in names],
        },
    }


def _leaves(ledger: Ledger) -> Iterator[Form]:
    keys = [subject_key("Operator A", "valid"), member_key("Operator B"), member_key("Removed Vendor")]
    forms = [{"key": key.hex(), "value": _text_of(ledger, key), "proof": prove(ledger.state, key)} for key in keys]
    asked = {"kind": "leaves", "keys": [key.hex() for key in keys]}
    given = {"leaves": forms, **_tail(ledger)}
    result = {"values": [form["value"] for form in forms]}
    yield {"name": "leaves", **asked, "answer": given, "result": result}
    hidden = {"leaves": [forms[0] | {"value": None}, *forms[1:]]}
    yield {"name": "leaves, one hidden", **asked, "answer": given | hidden, "result": {"error": "unproven"}}
    others = {"leaves": forms[::-1]}
    yield {"name": "leaves, in another order", **asked, "answer": given | others, "result": {"error": "malformed"}}


def _text_of(ledger: Ledger, key: bytes) -> str | None:
    value = ledger.state.leaf(key)
    return None if value is None else text(value)
