"""Transactions: what members ask of the ledger, as deterministic CBOR under signatures.

    transaction = [1, body: bytes, [+ [key_id: bytes .size 32, signature: bytes .size 64]]]
    body        = {"chain": text, "by": text, "kind": "submit", "certificate": bytes}
                / {"chain": text, "by": text, "kind": "status", "digest": bytes .size 32,
                   "revision": uint, "status": text, "reason": text}

A signature is ECDSA P-256 with SHA-256, r ‖ s, over "voice-dpki/tx/v1", a zero byte and the bytes of the body as
received. The key is named by the SHA-256 of its SubjectPublicKeyInfo. What a body asks for can happen only once (a
certificate is recorded once, a revision is left once), so repeating a transaction, or signing its body again,
changes nothing.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from voice_dpki.codec import cbor
from voice_dpki.codec.cbor import Cbor
from voice_dpki.effects import Signer
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.ledger.refusals import Refusal, Refused
from voice_dpki.names import CertDigest

VERSION = 1

MAX_TRANSACTION_BYTES = 16 * 1024
"""Largest transaction; the largest certificate is half of it."""

MAX_SIGNATURES = 32
"""Signatures on one transaction: a quorum's, in time; each costs every validator 80 µs."""

MAX_TEXT_LENGTH = 64
"""Characters of a text in a body; an organisation's name has no more (RFC 5280, ub-organization-name)."""

SIGNATURE_DOMAIN = b"voice-dpki/tx/v1\0"
"""Keeps these signatures apart from everything else that an endorsing key may sign."""


@dataclass(frozen=True, slots=True)
class Submit:
    """Record `certificate` (DER): the endorsement of the member `by`."""

    chain: str
    by: str
    certificate: bytes


@dataclass(frozen=True, slots=True)
class ChangeStatus:
    """Move the certificate `digest` from its `revision` to `status`, in the name of the member `by`."""

    chain: str
    by: str
    digest: CertDigest
    revision: int
    status: str
    reason: str


Body: TypeAlias = Submit | ChangeStatus


@dataclass(frozen=True, slots=True)
class Endorsement:
    """One signature, r ‖ s, and the SHA-256 of the SubjectPublicKeyInfo of the key that made it."""

    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction as received: `body_bytes` is what was signed."""

    body: Body
    body_bytes: bytes
    endorsements: tuple[Endorsement, ...]

    @classmethod
    def parse(cls, raw: bytes) -> "Transaction":
        """Parse one transaction; raises Refused with TOO_LARGE, MALFORMED, VERSION or KIND."""
        if len(raw) > MAX_TRANSACTION_BYTES:
            raise Refused(Refusal.TOO_LARGE)
        try:
            version, *rest = _as(list, cbor.decode(raw, "transaction"))
            if _as(int, version) != VERSION:
                raise Refused(Refusal.VERSION)
            body_bytes, endorsements = rest
            return cls(
                _parse_body(_as(bytes, body_bytes)),
                _as(bytes, body_bytes),
                tuple(_parse_endorsement(item) for item in _list(endorsements, 1, MAX_SIGNATURES)),
            )
        except (MalformedError, ValueError):
            raise Refused(Refusal.MALFORMED) from None

    def serialize(self) -> bytes:
        """Encode the transaction."""
        return cbor.encode(
            [VERSION, self.body_bytes, [[item.key_id, item.signature] for item in self.endorsements]]
        )


def key_id_of(public_key_der: bytes) -> bytes:
    """Name a key: SHA-256 of its DER SubjectPublicKeyInfo."""
    return hashlib.sha256(public_key_der).digest()


def signed_bytes(body_bytes: bytes) -> bytes:
    """Return what an endorsement of a body signs."""
    return SIGNATURE_DOMAIN + body_bytes


def endorse(body: Body, signers: Sequence[Signer]) -> bytes:
    """Serialise `body` as a transaction with the signature of each of `signers`.

    Raises LocalError if a signer is not ES256 or the transaction would be too large.
    """
    if any(signer.algorithm != "ES256" for signer in signers):
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


def _bytes(value: Cbor, size: int) -> bytes:
    data = _as(bytes, value)
    if len(data) != size:
        raise MalformedError("a byte string in a transaction has another size")
    return data


def _text(value: Cbor) -> str:
    text = _as(str, value)
    if not 1 <= len(text) <= MAX_TEXT_LENGTH:
        raise MalformedError("a text in a transaction is empty or too long")
    return text


def _parse_endorsement(value: Cbor) -> Endorsement:
    key_id, signature = _list(value, 2, 2)
    return Endorsement(_bytes(key_id, 32), _bytes(signature, 64))


def _parse_submit(members: Mapping[str, Cbor]) -> Submit:
    return Submit(_text(members["chain"]), _text(members["by"]), _as(bytes, members["certificate"]))


def _parse_status(members: Mapping[str, Cbor]) -> ChangeStatus:
    return ChangeStatus(
        chain=_text(members["chain"]),
        by=_text(members["by"]),
        digest=CertDigest(_bytes(members["digest"], 32)),
        revision=_as(int, members["revision"]),
        status=_text(members["status"]),
        reason=_text(members["reason"]),
    )


_KINDS: dict[str, tuple[frozenset[str], Callable[[Mapping[str, Cbor]], Body]]] = {
    "submit": (frozenset({"chain", "by", "kind", "certificate"}), _parse_submit),
    "status": (frozenset({"chain", "by", "kind", "digest", "revision", "status", "reason"}), _parse_status),
}
"""For each kind, exactly the members that its body has, and its parser."""


def _parse_body(body_bytes: bytes) -> Body:
    members: dict[str, Cbor] = _as(dict, cbor.decode(body_bytes, "transaction body"))
    if "kind" not in members:
        raise MalformedError("a transaction's body has no kind")
    kind = _text(members["kind"])
    if kind not in _KINDS:
        raise Refused(Refusal.KIND)
    expected, parse = _KINDS[kind]
    if members.keys() != expected:
        raise MalformedError("a transaction's body lacks a member or has one too many")
    return parse(members)


def _body_map(body: Body) -> dict[str, Cbor]:
    common: dict[str, Cbor] = {"chain": body.chain, "by": body.by}
    if isinstance(body, Submit):
        return common | {"kind": "submit", "certificate": body.certificate}
    return common | {
        "kind": "status",
        "digest": body.digest,
        "revision": body.revision,
        "status": body.status,
        "reason": body.reason,
    }
