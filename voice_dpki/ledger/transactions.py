"""Transactions: the members' requests to the ledger, in signed deterministic CBOR.

    transaction = [1, body: bytes, [+ [key_id: bytes .size 32, signature: bytes .size (64..1024)]]]
    body        = {"chain": text, "by": text, "kind": text, ...}                -- by: an organisation

    "submit"        "certificate": bytes
    "batch"         "certificates": [+ bytes]                                   -- all are recorded, or none
    "renew"         "certificate": bytes, "replaces": H(CERT), "owner_key": bytes, "owner_signature": bytes
    "status"        "digest": H(CERT), "revision": uint, "status": text, "reason": text
    "owner-status"  the same and "key": bytes, the certificate's own key, which signs
    "propose"       "until_s": uint, "change": bytes                            -- `voice_dpki.ledger.proposals`
    "vote"          "proposal": bytes .size 32, "approve": bool

A signature is over "voice-dpki/tx/v1", a zero byte and the bytes of the body as received: ECDSA P-256 with SHA-256
as r ‖ s, or RSASSA-PSS for a certificate's RSA key. The key is named by the SHA-256 of its SubjectPublicKeyInfo. A
body can take effect only once (a certificate is recorded once, a status changes once from a given revision, an
operator votes once), so repeating a transaction, or signing its body again, changes nothing.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

from voice_dpki.codec import cbor
from voice_dpki.codec.cbor import Cbor
from voice_dpki.effects import Signer
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.ledger.refusals import Refusal, Refused
from voice_dpki.names import CertDigest

VERSION = 1

MAX_TRANSACTION_BYTES = 64 * 1024
"""Largest transaction: a batch of about a hundred certificates, or a proposal with the largest member."""

MAX_BATCH = 256
"""Certificates in a batch."""

MAX_SIGNATURE_BYTES = 1024
"""Size of a signature by the largest RSA key."""

MAX_KEY_BYTES = 2048
"""Largest SubjectPublicKeyInfo; that of the largest RSA key has about 1100 bytes."""

MAX_SIGNATURES = 32
"""Signatures on one transaction, with room for a quorum's; each costs every validator 80 µs."""

MAX_TEXT_LENGTH = 64
"""Characters of a text in a body; an organisation's name has no more (RFC 5280, ub-organization-name)."""

_PARSED = 64
"""Cached parsed transactions: several callers parse each received transaction, one after the other."""

SIGNATURE_DOMAIN = b"voice-dpki/tx/v1\0"
"""Separates these signatures from everything else that an endorsing key may sign."""

RENEWAL_DOMAIN = b"voice-dpki/renewal/v1\0"
"""The same for an owner's signature on a renewal."""


@dataclass(frozen=True, slots=True)
class Submit:
    """Record `certificate` (DER): the endorsement of the member `by`."""

    chain: str
    by: str
    certificate: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """Record all of `certificates` (DER), or none: one endorsement for many."""

    chain: str
    by: str
    certificates: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Renew:
    """Record `certificate` as the successor of `replaces`, whose owner's key signs `renewal_bytes`."""

    chain: str
    by: str
    certificate: bytes
    replaces: CertDigest
    owner_key: bytes
    owner_signature: bytes


@dataclass(frozen=True, slots=True)
class ChangeStatus:
    """Change the status of the certificate `digest`, at `revision`, to `status`, in the name of the member `by`."""

    chain: str
    by: str
    digest: CertDigest
    revision: int
    status: str
    reason: str


@dataclass(frozen=True, slots=True)
class OwnerStatus:
    """The same by the certificate's own key (DER SubjectPublicKeyInfo); `by` is the member that endorsed it."""

    chain: str
    by: str
    digest: CertDigest
    revision: int
    status: str
    reason: str
    key: bytes


@dataclass(frozen=True, slots=True)
class Propose:
    """Propose a change (`voice_dpki.ledger.proposals.Change`) that the operators can decide on until `until_s`."""

    chain: str
    by: str
    until_s: int
    change: bytes


@dataclass(frozen=True, slots=True)
class Vote:
    """The vote of the operator `by` on a proposal."""

    chain: str
    by: str
    proposal: bytes
    approve: bool


Body: TypeAlias = Submit | Batch | Renew | ChangeStatus | OwnerStatus | Propose | Vote


@dataclass(frozen=True, slots=True)
class Endorsement:
    """One signature, and the SHA-256 of the SubjectPublicKeyInfo of the key that made it."""

    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction as received; `body_bytes` are the signed bytes of its body."""

    body: Body
    body_bytes: bytes
    endorsements: tuple[Endorsement, ...]

    @classmethod
    def parse(cls, raw: bytes) -> "Transaction":
        """Parse one transaction; raises Refused with TOO_LARGE, MALFORMED, VERSION or KIND."""
        return _parse(raw)

    def serialize(self) -> bytes:
        """Encode the transaction."""
        return cbor.encode(
            [VERSION, self.body_bytes, [[item.key_id, item.signature] for item in self.endorsements]]
        )


@lru_cache(_PARSED)
def _parse(raw: bytes) -> Transaction:
    if len(raw) > MAX_TRANSACTION_BYTES:
        raise Refused(Refusal.TOO_LARGE)
    try:
        version, *rest = _as(list, cbor.decode(raw, "transaction"))
        if _as(int, version) != VERSION:
            raise Refused(Refusal.VERSION)
        body_bytes, endorsements = rest
        return Transaction(
            _parse_body(_as(bytes, body_bytes)),
            _as(bytes, body_bytes),
            tuple(_parse_endorsement(item) for item in _list(endorsements, 1, MAX_SIGNATURES)),
        )
    except (MalformedError, ValueError):
        raise Refused(Refusal.MALFORMED) from None


def certificates_in(body: Body) -> tuple[bytes, ...]:
    """Return the certificates (DER) that a transaction's body asks to record."""
    if isinstance(body, Batch):
        return body.certificates
    return (body.certificate,) if isinstance(body, Submit | Renew) else ()


def key_id_of(public_key_der: bytes) -> bytes:
    """Return a key's identifier: the SHA-256 of its DER SubjectPublicKeyInfo."""
    return hashlib.sha256(public_key_der).digest()


def signed_bytes(body_bytes: bytes) -> bytes:
    """Return the bytes that an endorsement of a body signs."""
    return SIGNATURE_DOMAIN + body_bytes


def renewal_bytes(chain: str, replaces: CertDigest, digest: CertDigest) -> bytes:
    """Return the bytes that a certificate's owner signs with its key to accept `digest` as the successor."""
    return RENEWAL_DOMAIN + cbor.encode([chain, replaces, digest])


def certificates_of(body: Body) -> tuple[bytes, ...]:
    """Return the certificates (DER) that a body asks to record."""
    match body:
        case Submit() | Renew():
            return (body.certificate,)
        case Batch():
            return body.certificates
    return ()


def endorse(body: Body, signers: Sequence[Signer]) -> bytes:
    """Serialise `body` as a transaction with the signature of each of `signers`.

    Raises LocalError if an endorsing key has the wrong type, or if the transaction would be too large.
    """
    if not isinstance(body, OwnerStatus) and any(signer.algorithm != "ES256" for signer in signers):
        raise LocalError("an endorsing key must be ECDSA on P-256")
    body_bytes = cbor.encode(_body_map(body))
    signed = signed_bytes(body_bytes)
    endorsements = tuple(Endorsement(key_id_of(s.public_key_der), s.sign(signed)) for s in signers)
    raw = Transaction(body, body_bytes, endorsements).serialize()
    if len(raw) > MAX_TRANSACTION_BYTES:
        raise LocalError(f"a transaction has at most {MAX_TRANSACTION_BYTES} bytes, and this one has {len(raw)}")
    return raw


_T = TypeVar("_T")


def _as(kind: type[_T], value: object) -> _T:
    if type(value) is not kind:
        raise MalformedError("a transaction's member is of another type")
    return value


def _list(value: Cbor, least: int, most: int) -> list[Cbor]:
    items: list[Cbor] = _as(list, value)
    if not least <= len(items) <= most:
        raise MalformedError("a transaction's list is too short or too long")
    return items


def _bytes(value: Cbor, least: int, most: int) -> bytes:
    data = _as(bytes, value)
    if not least <= len(data) <= most:
        raise MalformedError("a byte string in a transaction has another size")
    return data


def _text(value: Cbor) -> str:
    text = _as(str, value)
    if not 1 <= len(text) <= MAX_TEXT_LENGTH:
        raise MalformedError("a text in a transaction is empty or too long")
    return text


def _parse_endorsement(value: Cbor) -> Endorsement:
    key_id, signature = _list(value, 2, 2)
    return Endorsement(_hash(key_id), _signature(signature))


def _hash(value: Cbor) -> bytes:
    return _bytes(value, 32, 32)


def _signature(value: Cbor) -> bytes:
    return _bytes(value, 64, MAX_SIGNATURE_BYTES)


def _key(value: Cbor) -> bytes:
    return _bytes(value, 1, MAX_KEY_BYTES)


def _long(value: Cbor) -> bytes:
    return _as(bytes, value)


def _number(value: Cbor) -> int:
    return _as(int, value)


def _flag(value: Cbor) -> bool:
    return _as(bool, value)


def _certificates(value: Cbor) -> tuple[bytes, ...]:
    return tuple(map(_long, _list(value, 1, MAX_BATCH)))


_Parser: TypeAlias = Callable[[Cbor], Any]

_COMMON: dict[str, _Parser] = {"chain": _text, "by": _text}
_CHANGE: dict[str, _Parser] = {**_COMMON, "digest": _hash, "revision": _number, "status": _text, "reason": _text}

_KINDS: dict[str, tuple[type[Body], dict[str, _Parser]]] = {
    "submit": (Submit, {**_COMMON, "certificate": _long}),
    "batch": (Batch, {**_COMMON, "certificates": _certificates}),
    "renew": (
        Renew,
        {**_COMMON, "certificate": _long, "replaces": _hash, "owner_key": _key, "owner_signature": _signature},
    ),
    "status": (ChangeStatus, _CHANGE),
    "owner-status": (OwnerStatus, {**_CHANGE, "key": _key}),
    "propose": (Propose, {**_COMMON, "until_s": _number, "change": _long}),
    "vote": (Vote, {**_COMMON, "proposal": _hash, "approve": _flag}),
}
"""The class of each kind, and a parser for each field of its body, which has exactly these fields and `kind`."""

_KIND_OF = {body_type: kind for kind, (body_type, _) in _KINDS.items()}


def _parse_body(body_bytes: bytes) -> Body:
    members: dict[str, Cbor] = _as(dict, cbor.decode(body_bytes, "transaction body"))
    if "kind" not in members:
        raise MalformedError("a transaction's body has no kind")
    kind = _text(members.pop("kind"))
    if kind not in _KINDS:
        raise Refused(Refusal.KIND)
    body_type, parsers = _KINDS[kind]
    if members.keys() != parsers.keys():
        raise MalformedError("a transaction's body lacks a member or has one too many")
    return body_type(**{name: parse(members[name]) for name, parse in parsers.items()})


def _body_map(body: Body) -> dict[str, Cbor]:
    return {"kind": _KIND_OF[type(body)]} | {each.name: getattr(body, each.name) for each in fields(body)}
