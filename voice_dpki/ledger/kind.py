"""The parts of a kind of transaction.

Each kind has a module of its own, which holds its body and its `Kind`: the name, the parsers of the body's members,
who may send it, what it does, and which certificates it brings. `voice_dpki.ledger.transactions.KINDS` lists them.

docs/spec/encodings.md#transactions specifies it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from voice_dpki.codec.cbor import Cbor
from voice_dpki.errors import MalformedError
from voice_dpki.ledger.draft import Block, Draft
from voice_dpki.ledger.leaf import Leaf
from voice_dpki.ledger.members import Member
from voice_dpki.ledger.refusals import Refusal, Refused
from voice_dpki.ledger.signatures import signed_bytes, verify
from voice_dpki.ledger.view import StateView

MAX_SIGNATURE_BYTES = 1024
"""Size of a signature by the largest RSA key."""

MAX_KEY_BYTES = 2048
"""Largest SubjectPublicKeyInfo; that of the largest RSA key has about 1100 bytes."""

MAX_TEXT_LENGTH = 64
"""Characters of a text in a body; an organisation's name has no more (RFC 5280, ub-organization-name)."""


@dataclass(frozen=True, slots=True)
class Body:
    """The members of every body: the ledger that it is for, and the organisation in whose name it is made."""

    chain: str
    by: str


@dataclass(frozen=True, slots=True)
class Endorsement:
    """One signature, and the SHA-256 of the SubjectPublicKeyInfo of the key that made it."""

    key_id: bytes
    signature: bytes


_B = TypeVar("_B", bound=Body, covariant=True)
_SentT = TypeVar("_SentT", bound=Body, contravariant=True)
_SenderT = TypeVar("_SenderT", covariant=True)


@dataclass(frozen=True, slots=True)
class SignedBody(Generic[_B]):
    """A body with its signatures; `body_bytes` are the bytes that are signed, as received."""

    body: _B
    body_bytes: bytes
    endorsements: tuple[Endorsement, ...]


Parser: TypeAlias = Callable[[Cbor], Any]
"""Reads one member of a body; raises MalformedError."""


@dataclass(frozen=True, slots=True)
class Sender(Generic[_SentT, _SenderT]):
    """Who may send a kind of transaction."""

    authenticate: Callable[[StateView, SignedBody[_SentT]], _SenderT]
    """Verifies the signatures and returns the sender; raises Refused."""
    is_member: bool
    """Whether a member sends it, with its endorsing keys; otherwise a certificate's owner does, with its key."""


def _member(view: StateView, signed: SignedBody[Body]) -> Member:
    """Return the member in whose name the transaction is made, after verifying that all signatures are its own."""
    member = view.member(signed.body.by)
    if member is None:
        raise Refused(Refusal.MEMBER)
    if member.suspended:
        raise Refused(Refusal.SUSPENDED)
    for endorsement in signed.endorsements:
        key = member.endorsing_key(endorsement.key_id)
        if key is None:
            raise Refused(Refusal.SIGNER)
        verify(key, signed_bytes(signed.body_bytes), endorsement.signature)
    return member


BY_MEMBER = Sender(_member, is_member=True)


def brings_no_certificates(_: Body) -> tuple[bytes, ...]:
    """Return an empty tuple: the kind records no certificates."""
    return ()


_BodyT = TypeVar("_BodyT", bound=Body)
_ByT = TypeVar("_ByT")


@dataclass(frozen=True, slots=True)
class Kind(Generic[_BodyT, _ByT]):
    """One kind of transaction."""

    name: str
    """The body's member `kind`."""
    since: int
    """First version of the ledger's rules (`version.app` in headers) that has the kind."""
    body: type[_BodyT]
    members: Mapping[str, Parser]
    """A parser for each member that the body has besides `kind`, `chain` and `by`."""
    sender: Sender[_BodyT, _ByT]
    execute: Callable[[Draft, Block, _ByT, SignedBody[_BodyT]], None]
    """Changes the state; raises Refused, and the draft is then thrown away."""
    certificates: Callable[[_BodyT], tuple[bytes, ...]] = brings_no_certificates
    """Returns the certificates (DER) that a body asks to record."""
    leaves: tuple[Leaf[Any], ...] = ()
    """The kinds of leaves that it writes, besides its member's usage."""


_T = TypeVar("_T")


def typed(kind: type[_T], value: object) -> _T:
    """Return `value` if it has exactly this type; raises MalformedError."""
    if type(value) is not kind:
        raise MalformedError("a transaction's member is of another type")
    return value


def list_of(value: Cbor, least: int, most: int) -> list[Cbor]:
    """Read a list of `least` to `most` items."""
    items: list[Cbor] = typed(list, value)
    if not least <= len(items) <= most:
        raise MalformedError("a transaction's list is too short or too long")
    return items


def text(value: Cbor) -> str:
    """Read a text of 1 to MAX_TEXT_LENGTH characters."""
    found = typed(str, value)
    if not 1 <= len(found) <= MAX_TEXT_LENGTH:
        raise MalformedError("a text in a transaction is empty or too long")
    return found


def digest(value: Cbor) -> bytes:
    """Read a SHA-256 hash, such as H(CERT)."""
    return _bytes(value, 32, 32)


def signature(value: Cbor) -> bytes:
    """Read a signature of at most MAX_SIGNATURE_BYTES."""
    return _bytes(value, 64, MAX_SIGNATURE_BYTES)


def key(value: Cbor) -> bytes:
    """Read a SubjectPublicKeyInfo of at most MAX_KEY_BYTES."""
    return _bytes(value, 1, MAX_KEY_BYTES)


def long_bytes(value: Cbor) -> bytes:
    """Read bytes whose size only that of the transaction limits."""
    return typed(bytes, value)


def number(value: Cbor) -> int:
    """Read a whole number."""
    return typed(int, value)


def flag(value: Cbor) -> bool:
    """Read a boolean."""
    return typed(bool, value)


def _bytes(value: Cbor, least: int, most: int) -> bytes:
    data = typed(bytes, value)
    if not least <= len(data) <= most:
        raise MalformedError("a byte string in a transaction has another size")
    return data
