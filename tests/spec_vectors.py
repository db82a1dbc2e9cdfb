"""The vectors in docs/spec/vectors, made with fixed keys: `make spec` writes them again, byte for byte.

Each question has the result that docs/spec/answers.md demands, which is written here by hand: `tests/test_spec.py`
lets the code judge all of them.
"""

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tests.ledger.conftest import CHAIN, DAY_S, START_S, Federation, MemoryChain
from voice_dpki.codec import cbor
from voice_dpki.ledger import tree
from voice_dpki.ledger.genesis import dump_genesis, load_genesis
from voice_dpki.ledger.header import format_time
from voice_dpki.ledger.members import Member, MemberKind, member_key
from voice_dpki.ledger.parameters import Parameters
from voice_dpki.ledger.proposals import (
    Change,
    RemoveMember,
    SetMember,
    SuspendMember,
    encode_change,
    proposal_id,
)
from voice_dpki.ledger.records import CertStatus
from voice_dpki.ledger.replica import Replica
from voice_dpki.ledger.state import MemoryState
from voice_dpki.ledger.transactions import Propose, Transaction, Vote, endorse
from voice_dpki.names import CertDigest
from voice_dpki.x509.keys import LocalSigner
from voice_dpki.x509.profile import digest_of

OPERATORS = ("Operator A", "Operator B")
VENDORS = ("Suspended Vendor", "Removed Vendor", "Returned Vendor")
Form = dict[str, Any]


class FixedSigner(LocalSigner):
    """A signer with a key that everybody knows, which gives the same signature each time (RFC 6979)."""

    def sign(self, data: bytes) -> bytes:
        """Sign `data` as ES256 does."""
        assert isinstance(self.private_key, ec.EllipticCurvePrivateKey)
        r, s = decode_dss_signature(self.private_key.sign(data, ec.ECDSA(SHA256(), deterministic_signing=True)))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def signer(name: str) -> FixedSigner:
    """Return the signer whose key follows from `name`."""
    secret = int.from_bytes(sha256(name.encode()).digest(), "big") >> 1
    return FixedSigner(ec.derive_private_key(secret, ec.SECP256R1()))


def make_federation() -> Federation:
    """Make two operators with a validator each, and three vendors."""
    keys: dict[str, LocalSigner] = {name: signer(name) for name in (*OPERATORS, *VENDORS)}
    validators = [Ed25519PrivateKey.from_private_bytes(sha256(name.encode()).digest()) for name in OPERATORS]
    members = [
        Member(
            name,
            MemberKind.OPERATOR,
            domains=(f"{name[-1].lower()}.example",),
            validators=(key.public_key().public_bytes_raw(),),
            endorsing_keys=(keys[name].public_key_der,),
        )
        for name, key in zip(OPERATORS, validators, strict=True)
    ]
    members += [Member(name, MemberKind.VENDOR, endorsing_keys=(keys[name].public_key_der,)) for name in VENDORS]
    genesis = dump_genesis(CHAIN, START_S * 10**9, members, parameters=Parameters(delay_s=0))
    return Federation(keys, validators, load_genesis(genesis), genesis)


def certificate(organization: str, name: str, begin_s: int, end_s: int) -> bytes:
    """Make a certificate with a key that follows from its name."""
    key = signer(name).private_key
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    attributes = {NameOID.ORGANIZATION_NAME: organization, NameOID.COMMON_NAME: name}
    subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes.items()])
    start, end = (datetime.fromtimestamp(time_s, UTC) for time_s in (begin_s, end_s))
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1, start, end)
    return builder.sign(key, SHA256(), ecdsa_deterministic=True).public_bytes(Encoding.DER)


_BEFORE, _SOON, _TOMORROW = START_S - DAY_S, START_S + 60, START_S + DAY_S
_LATER, _END = START_S + 10 * DAY_S, START_S + 30 * DAY_S

CERTIFICATES = {
    "valid": ("Operator A", _BEFORE, _END),
    "suspended": ("Operator A", _BEFORE, _END),
    "resumed": ("Operator A", _BEFORE, _END),
    "revoked": ("Operator A", _BEFORE, _END),
    "expired": ("Operator A", _BEFORE, _SOON),
    "suspended and expired": ("Operator A", _BEFORE, _SOON),
    "revoked and expired": ("Operator A", _BEFORE, _SOON),
    "valid until tomorrow": ("Operator A", _BEFORE, _TOMORROW),
    "not yet valid": ("Operator A", _LATER, _END),
    "not yet valid and suspended": ("Operator A", _LATER, _END),
    "of a suspended member": ("Suspended Vendor", _BEFORE, _END),
    "of a suspended member, not yet valid": ("Suspended Vendor", _LATER, _END),
    "of a removed member": ("Removed Vendor", _BEFORE, _END),
    "of a removed member, expired": ("Removed Vendor", _BEFORE, _SOON),
    "of a removed member, not yet valid": ("Removed Vendor", _LATER, _END),
    "of a member that was removed and admitted again": ("Returned Vendor", _BEFORE, _END),
}
"""For each certificate its organisation, and when it begins and ends."""

STATUSES = {
    "valid": CertStatus.VALID,
    "suspended": CertStatus.SUSPENDED,
    "resumed": CertStatus.VALID,
    "revoked": CertStatus.REVOKED,
    "expired": CertStatus.EXPIRED,
    "suspended and expired": CertStatus.EXPIRED,
    "revoked and expired": CertStatus.REVOKED,
    "valid until tomorrow": CertStatus.VALID,
    "not yet valid": CertStatus.NOT_YET_VALID,
    "not yet valid and suspended": CertStatus.SUSPENDED,
    "of a suspended member": CertStatus.SUSPENDED,
    "of a suspended member, not yet valid": CertStatus.SUSPENDED,
    "of a removed member": CertStatus.REVOKED,
    "of a removed member, expired": CertStatus.EXPIRED,
    "of a removed member, not yet valid": CertStatus.REVOKED,
    "of a member that was removed and admitted again": CertStatus.REVOKED,
}

_CHANGES = (
    ("suspended", "suspended", 0),
    ("resumed", "suspended", 0),
    ("resumed", "valid", 1),
    ("revoked", "revoked", 0),
    ("suspended and expired", "suspended", 0),
    ("revoked and expired", "revoked", 0),
    ("not yet valid and suspended", "suspended", 0),
)


@dataclass
class Ledger:
    """A chain that has all this happen, and the certificates by name."""

    chain: MemoryChain
    ders: dict[str, bytes]

    @property
    def state(self) -> MemoryState:
        """The newest proved state."""
        return self.chain.state

    @property
    def time_s(self) -> int:
        """Time of the newest header."""
        assert self.chain.replica.last
        return self.chain.replica.last.header.time_ns // 10**9


def make_ledger() -> Ledger:
    """Record all certificates, change statuses, and suspend, remove and admit again members."""
    federation = make_federation()
    state = federation.state()
    chain = MemoryChain(federation, state, Replica(state, None))
    ders = {name: certificate(of, name, *validity) for name, (of, *validity) in CERTIFICATES.items()}
    chain.add([federation.submission(ders[name], of) for name, (of, *_) in CERTIFICATES.items()])
    chain.add([federation.change(digest_of(ders[name]), status, at) for name, status, at in _CHANGES])
    returned = federation.genesis.member("Returned Vendor")
    assert returned
    decide(chain, SuspendMember("Suspended Vendor"))
    decide(chain, RemoveMember("Removed Vendor"))
    decide(chain, RemoveMember("Returned Vendor"))
    decide(chain, SetMember(returned, None))
    for _ in range(8):
        chain.take(chain.next_block())
    return Ledger(chain, ders)


def decide(chain: MemoryChain, change: Change) -> None:
    """Have both operators approve a change, and take blocks until it has taken effect."""
    federation = chain.federation
    body = Propose(CHAIN, "Operator A", START_S + DAY_S, encode_change(change))
    proposal = endorse(body, [federation.keys["Operator A"]])
    identity = proposal_id(Transaction.parse(proposal).body_bytes)
    vote = endorse(Vote(CHAIN, "Operator B", identity, True), [federation.keys["Operator B"]])
    chain.add([proposal, vote])
    chain.add([])


def answers(ledger: Ledger) -> Form:
    """Return questions with answers, good and bad, and the status or error of each."""
    genesis = ledger.chain.federation.genesis
    return {
        "chain_id": genesis.chain_id,
        "genesis": {"time": format_time(genesis.time_ns), **genesis.validators.to_json()},
        "max_age_s": 30,
        "questions": [*_good(ledger), *_bad(ledger), *_further(ledger)],
    }


def answer(ledger: Ledger, digest: CertDigest) -> Form:
    """Return what a node answers about a certificate, with the certificate."""
    record = ledger.state.record(digest)
    assert ledger.chain.replica.last
    form: Form = {
        "digest": digest.hex(),
        "status": "valid",
        "record": record and text(record.serialize()),
        "proof": prove(ledger.state, digest),
        "member": record and leaf_form(ledger.state, member_key(record.organization)),
        "height": ledger.chain.replica.last.header.height,
        "signed_header": ledger.chain.replica.last.to_json(),
    }
    return {**form, "certificate": text(ledger.state.certificates[digest])} if record else form


def prove(state: MemoryState, key: bytes) -> str:
    """Return the proof about a key."""
    return text(tree.prove(state, key).serialize())


def leaf_form(state: MemoryState, key: bytes) -> Form:
    """Return a leaf, or its absence, with the proof."""
    value = state.leaf(key)
    return {"record": value and text(value), "proof": prove(state, key)}


def _question(ledger: Ledger, name: str, digest: CertDigest, given: Form, **result: Any) -> Form:
    asked = {"digest": digest.hex(), "now_s": ledger.time_s + 3, "min_height": 0, "with_certificate": True}
    asked |= {key: result.pop(key) for key in asked.keys() & result.keys()}
    return {"name": name, **asked, "answer": given, "result": result}


def _good(ledger: Ledger) -> Iterator[Form]:
    for name, der in ledger.ders.items():
        digest = digest_of(der)
        yield _question(ledger, name, digest, answer(ledger, digest), status=STATUSES[name])
    absent = digest_of(b"no certificate")
    yield _question(ledger, "not recorded", absent, answer(ledger, absent), status=CertStatus.UNKNOWN)
    yield from _times(ledger)
    digest = digest_of(ledger.ders["valid"])
    more = answer(ledger, digest) | {"way": [], "later": {"nodes": "say more"}}
    yield _question(ledger, "members that are not known", digest, more, status=CertStatus.VALID)
    without = answer(ledger, digest)
    del without["certificate"], without["digest"], without["status"], without["height"]
    yield _question(
        ledger, "without what is not proved", digest, without, status=CertStatus.VALID, with_certificate=False
    )


def _times(ledger: Ledger) -> Iterator[Form]:
    """Ask at the ends of validities and of the trusting period, for each with a header made then."""
    for name, of, now_s, result in (
        ("the last second of a validity", "valid until tomorrow", _TOMORROW, {"status": CertStatus.VALID}),
        ("the second after a validity", "valid until tomorrow", _TOMORROW + 1, {"status": CertStatus.EXPIRED}),
        ("the second before a validity", "not yet valid", _LATER - 1, {"status": CertStatus.NOT_YET_VALID}),
        ("the first second of a validity", "not yet valid", _LATER, {"status": CertStatus.VALID}),
        ("the genesis is just trusted", "valid", START_S + 14 * DAY_S - 1, {"status": CertStatus.VALID}),
        ("the genesis is too old", "valid", START_S + 14 * DAY_S, {"error": "unproven"}),
    ):
        digest = digest_of(ledger.ders[of])
        block = ledger.chain.next_block(time_ns=now_s * 10**9)
        given = answer(ledger, digest) | {"signed_header": block.signed_header.to_json()}
        yield _question(ledger, name, digest, given, now_s=now_s, **result)


def _bad(ledger: Ledger) -> Iterator[Form]:
    digest = digest_of(ledger.ders["valid"])
    given = answer(ledger, digest)
    now_s, height = ledger.time_s, given["height"]
    absent = answer(ledger, digest_of(b"no certificate"))
    revoked = answer(ledger, digest_of(ledger.ders["revoked"]))

    def bad(name: str, error: str, changed: Form, **asked: Any) -> Form:
        return _question(ledger, name, digest, given | changed, error=error, **asked)

    yield bad("too old", "stale", {}, now_s=now_s + 31)
    yield bad("from the future", "clock", {}, now_s=now_s - 11)
    yield bad("an old answer", "unproven", {}, min_height=height + 1)
    yield bad("the record is hidden", "unproven", {"record": None})
    yield bad("another's proof of absence", "unproven", {"record": None, "proof": absent["proof"]})
    yield bad("another's record and proof", "unproven", {"record": revoked["record"], "proof": revoked["proof"]})
    yield bad("the record is altered", "unproven", {"record": altered(given["record"])})
    yield bad("a hash of the proof is altered", "unproven", {"proof": altered(given["proof"])})
    yield bad("the proof is not in its one encoding", "malformed", {"proof": text(_unwrap(given["proof"]) + b"\0")})
    yield bad("the proof is not base64", "malformed", {"proof": "#" + given["proof"][1:]})
    yield bad("the member is not given", "malformed", {"member": None})
    yield bad("the member is hidden", "unproven", {"member": given["member"] | {"record": None}})
    other = leaf_form(ledger.state, member_key("Operator B"))
    yield bad("the member is another one", "unproven", {"member": other})
    gone = leaf_form(ledger.state, member_key("Removed Vendor"))
    yield bad("another member's absence", "unproven", {"member": gone})
    yield bad("the certificate is not given", "malformed", {"certificate": None})
    yield bad("the certificate is another one", "unproven", {"certificate": revoked["certificate"]})
    yield _question(ledger, "about another certificate", digest, revoked, error="unproven")
    yield from _bad_headers(ledger, bad, given)


def _bad_headers(ledger: Ledger, bad: Callable[..., Form], given: Form) -> Iterator[Form]:
    signed = given["signed_header"]

    def header(**changed: Any) -> Form:
        return {"signed_header": signed | {"header": signed["header"] | changed}}

    def commit(**changed: Any) -> Form:
        return {"signed_header": signed | {"commit": signed["commit"] | changed}}

    def made(**parts: Any) -> Form:
        return {"signed_header": ledger.chain.next_block(**parts).signed_header.to_json()}

    votes = signed["commit"]["signatures"]
    yield bad("the state of the header is altered", "unproven", header(app_hash="AB" * 32))
    yield bad("a header with a member that is not known", "malformed", header(more="1"))
    yield bad("a number that is not text", "malformed", header(height=given["height"]))
    yield bad("a vote is forged", "unproven", commit(signatures=[forged(votes[0]), *votes[1:]]))
    yield bad("votes in other places", "unproven", commit(signatures=votes[::-1]))
    yield bad("a vote is missing", "unproven", commit(signatures=votes[1:]))
    yield bad("another ledger's header", "unproven", made(chain_id="other"))
    yield bad("records that this reader does not know", "newer-rules", made(version_app=65537))
    digest = digest_of(ledger.ders["valid"])
    yield _question(
        ledger,
        "a version of the rules that is not known",
        digest,
        given | made(version_app=99),
        now_s=ledger.time_s + 8,
        status=CertStatus.VALID,
    )


def _further(ledger: Ledger) -> Iterator[Form]:
    """Ask for records that end in further items, of which version 5 writes the numbers."""
    digest = digest_of(ledger.ders["valid"])
    for name, items, result in (
        ("a further item that is not known", [{"later": 1}], {"status": CertStatus.VALID}),
        ("a further item that must be understood", [{"!later": 1}], {"error": "newer-rules"}),
        (
            "numbers that are held by leaves of their own",
            [{"!numbers": ["4930", "4931"]}],
            {"status": CertStatus.VALID},
        ),
        ("numbers that do not ascend", [{"!numbers": ["4931", "4930"]}], {"error": "malformed"}),
        ("the mark of a member in another record", [{"!by-number": True}], {"error": "newer-rules"}),
        ("no further item where there must be one", [{}], {"error": "malformed"}),
        ("more than a record has", [{"later": 1}, 1], {"error": "malformed"}),
    ):
        state = MemoryState(CHAIN, dict(ledger.state.nodes), dict(ledger.state.leaves))
        known: Any = cbor.decode(state.leaves[digest], "record")
        state.leaves[digest] = cbor.encode([*known, *items])
        update = tree.update(state, {digest: sha256(state.leaves[digest]).digest()})
        state.nodes |= {path: node for path, node in update.nodes.items() if node is not None}
        block = ledger.chain.next_block(app_hash=update.root)
        given = answer(ledger, digest) | leaf_form(state, digest)
        given |= {
            "member": leaf_form(state, member_key("Operator A")),
            "signed_header": block.signed_header.to_json(),
        }
        yield _question(ledger, name, digest, given, now_s=ledger.time_s + 8, **result)


def altered(encoded: str) -> str:
    """Return base64 with the last bit of its bytes changed."""
    data = _unwrap(encoded)
    return text(data[:-1] + bytes([data[-1] ^ 1]))


def forged(vote: Form) -> Form:
    """Return a vote whose signature does not verify."""
    return vote | {"signature": altered(vote["signature"])}


def text(data: bytes) -> str:
    """Return base64."""
    return base64.b64encode(data).decode("ascii")


def _unwrap(text: str) -> bytes:
    return base64.b64decode(text)
