"""Transactions: the members' requests to the ledger, in signed deterministic CBOR.

    transaction = [1, body: bytes, [+ [key_id: bytes .size 32, signature: bytes .size (64..1024)]]]
    body        = {"chain": text, "by": text, "kind": text, ...}                -- by: an organisation

Each kind of body has a module of its own, and KINDS lists them. docs/spec/encodings.md has the CDDL of all of them.

A signature is over "voice-dpki/tx/v1", a zero byte and the bytes of the body as received: ECDSA P-256 with SHA-256
as r ‖ s, or RSASSA-PSS for a certificate's RSA key. The key is named by the SHA-256 of its SubjectPublicKeyInfo. A
body can take effect only once (a certificate is recorded once, a status changes once from a given revision, an
operator votes once, numbers move once by a given sequence number), so a transaction that is repeated, or whose body
is signed again, changes nothing.

docs/spec/encodings.md#transactions specifies it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

from voice_dpki.codec import cbor
from voice_dpki.codec.cbor import Cbor
from voice_dpki.effects import Signer
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.ledger.batch import BATCH, MAX_BATCH, Batch
from voice_dpki.ledger.kind import (
    MAX_KEY_BYTES,
    MAX_SIGNATURE_BYTES,
    MAX_TEXT_LENGTH,
    Body,
    Endorsement,
    Kind,
    SignedBody,
    digest,
    list_of,
    signature,
    text,
    typed,
)
from voice_dpki.ledger.numbers import NUMBERS, Numbers
from voice_dpki.ledger.owner_status import OWNER_STATUS, OwnerStatus
from voice_dpki.ledger.propose import PROPOSE, Propose
from voice_dpki.ledger.refusals import Refusal, Refused
from voice_dpki.ledger.renew import RENEW, Renew, renewal_bytes
from voice_dpki.ledger.rules import NEWEST, Rules
from voice_dpki.ledger.signatures import canonical_signature, is_canonical, key_id_of, signed_bytes
from voice_dpki.ledger.status import STATUS, ChangeStatus
from voice_dpki.ledger.submit import SUBMIT, Submit
from voice_dpki.ledger.vote import VOTE, Vote

__all__ = [
    "KINDS",
    "MAX_BATCH",
    "MAX_KEY_BYTES",
    "MAX_SIGNATURE_BYTES",
    "MAX_TEXT_LENGTH",
    "MAX_TRANSACTION_BYTES",
    "Batch",
    "Body",
    "ChangeStatus",
    "Numbers",
    "OwnerStatus",
    "Propose",
    "Renew",
    "Submit",
    "Transaction",
    "Vote",
    "canonical",
    "certificates_in",
    "check_one_signature",
    "endorse",
    "key_id_of",
    "kind_of",
    "renewal_bytes",
    "signed_bytes",
]

KINDS: tuple[Kind[Any, Any], ...] = (SUBMIT, BATCH, RENEW, STATUS, OWNER_STATUS, PROPOSE, VOTE, NUMBERS)
"""All kinds of transactions."""

_BY_NAME = {kind.name: kind for kind in KINDS}
_BY_BODY: dict[type[Body], Kind[Any, Any]] = {kind.body: kind for kind in KINDS}

VERSION = 1

MAX_TRANSACTION_BYTES = 64 * 1024
"""Largest transaction: a batch of about a hundred certificates, or a proposal with the largest member."""

MAX_SIGNATURES = 32
"""Signatures on one transaction, with room for a quorum's; each costs every validator 80 µs."""

_PARSED = 64
"""Cached parsed transactions: several callers parse each received transaction, one after the other."""

_COMMON = {"chain": text, "by": text}


@dataclass(frozen=True, slots=True)
class Transaction(SignedBody[Body]):
    """A transaction as received."""

    @classmethod
    def parse(cls, raw: bytes, rules: Rules = NEWEST) -> "Transaction":
        """Parse one transaction; raises Refused with TOO_LARGE, MALFORMED, VERSION or KIND."""
        transaction = _parse(raw)
        if kind_of(transaction.body).since > rules.version:
            raise Refused(Refusal.KIND)
        return transaction

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
        version, *rest = typed(list, cbor.decode(raw, "transaction"))
        if typed(int, version) != VERSION:
            raise Refused(Refusal.VERSION)
        body_bytes, endorsements = rest
        return Transaction(
            _parse_body(typed(bytes, body_bytes)),
            typed(bytes, body_bytes),
            tuple(_parse_endorsement(item) for item in list_of(endorsements, 1, MAX_SIGNATURES)),
        )
    except (MalformedError, ValueError):
        raise Refused(Refusal.MALFORMED) from None


def kind_of(body: Body) -> Kind[Any, Any]:
    """Return the kind of a body."""
    return _BY_BODY[type(body)]


def certificates_in(body: Body) -> tuple[bytes, ...]:
    """Return the certificates (DER) that a body asks to record."""
    return kind_of(body).certificates(body)


def endorse(body: Body, signers: Sequence[Signer]) -> bytes:
    """Serialise `body` as a transaction with the signature of each of `signers`.

    Raises LocalError if an endorsing key has the wrong type, or if the transaction would be too large.
    """
    if kind_of(body).sender.is_member and any(signer.algorithm != "ES256" for signer in signers):
        raise LocalError("an endorsing key must be ECDSA on P-256")
    body_bytes = cbor.encode(_body_map(body))
    signed = signed_bytes(body_bytes)
    endorsements = tuple(
        Endorsement(key_id_of(s.public_key_der), canonical_signature(s.sign(signed))) for s in signers
    )
    raw = Transaction(body, body_bytes, endorsements).serialize()
    if len(raw) > MAX_TRANSACTION_BYTES:
        raise LocalError(f"a transaction has at most {MAX_TRANSACTION_BYTES} bytes, and this one has {len(raw)}")
    return raw


def check_one_signature(signed: SignedBody[Body]) -> None:
    """Raise Refused unless there is one signature, in canonical form: nobody else can then vary the transaction."""
    (first, *others) = signed.endorsements
    if others or not is_canonical(first.signature):
        raise Refused(Refusal.FORM)


def canonical(raw: bytes) -> bytes:
    """Return a transaction with its signatures in canonical form, for clients that do not know this rule.

    Bytes that are not a transaction are returned unchanged.
    """
    try:
        transaction = Transaction.parse(raw)
    except Refused:
        return raw
    given = transaction.endorsements
    signatures = tuple(Endorsement(each.key_id, canonical_signature(each.signature)) for each in given)
    return raw if signatures == given else replace(transaction, endorsements=signatures).serialize()


def _parse_endorsement(value: Cbor) -> Endorsement:
    key_id, signed = list_of(value, 2, 2)
    return Endorsement(digest(key_id), signature(signed))


def _parse_body(body_bytes: bytes) -> Body:
    members: dict[str, Cbor] = typed(dict, cbor.decode(body_bytes, "transaction body"))
    if "kind" not in members:
        raise MalformedError("a transaction's body has no kind")
    name = text(members.pop("kind"))
    if name not in _BY_NAME:
        raise Refused(Refusal.KIND)
    kind = _BY_NAME[name]
    parsers = {**_COMMON, **kind.members}
    if members.keys() != parsers.keys():
        raise MalformedError("a transaction's body lacks a member or has one too many")
    body: Body = kind.body(**{member: parse(members[member]) for member, parse in parsers.items()})
    return body


def _body_map(body: Body) -> dict[str, Cbor]:
    return {"kind": kind_of(body).name} | {each.name: getattr(body, each.name) for each in fields(body)}
