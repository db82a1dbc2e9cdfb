"""Claim constraints: the claims that PASSporTs signed under a certificate may have (RFC 8226 §8, RFC 9118 §3).

JWTClaimConstraints         ::= SEQUENCE { mustInclude [0] JWTClaimNames OPTIONAL,
                                           permittedValues [1] JWTClaimValuesList OPTIONAL }    -- explicit tags
EnhancedJWTClaimConstraints ::= SEQUENCE { the same two, mustExclude [2] JWTClaimNames OPTIONAL }
JWTClaimNames               ::= SEQUENCE SIZE (1..MAX) OF JWTClaimName
JWTClaimValuesList          ::= SEQUENCE SIZE (1..MAX) OF JWTClaimValues
JWTClaimValues              ::= SEQUENCE { claim JWTClaimName, values SEQUENCE SIZE (1..MAX) OF UTF8String }
JWTClaimName                ::= IA5String                -- and at least one of the optional members is there
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeVar

from voice_dpki.codec import canonical_json
from voice_dpki.codec.canonical_json import Json
from voice_dpki.codec.cursor import Cursor
from voice_dpki.errors import MalformedError, PeerError
from voice_dpki.x509 import der

OID: Final = "1.3.6.1.5.5.7.1.27"
"""id-pe-JWTClaimConstraints (RFC 8226 §8)."""
ENHANCED_OID: Final = "1.3.6.1.5.5.7.1.33"
"""id-pe-eJWTClaimConstraints (RFC 9118 §3)."""

BASELINE: Final = frozenset({"dest", "iat", "orig"})
"""The claims that every PASSporT has, and that no constraint can take away (RFC 9118 §3)."""

_INCLUDE, _PERMIT, _EXCLUDE = 0xA0, 0xA1, 0xA2
_PLAIN_NAME = re.compile(r"[A-Za-z][A-Za-z-]{0,31}\Z")
"""Names that sentences may quote. Any other text in a certificate could be a subscriber's number."""

_WHAT: Final = "claim constraints"

_T = TypeVar("_T")


class ConstraintError(PeerError):
    """The certificate does not permit the claims; the message names the claim, but none of its values."""


@dataclass(frozen=True, slots=True)
class ClaimConstraints:
    """The constraints of one certificate; without any member it constrains nothing."""

    must_include: tuple[str, ...] = ()
    permitted: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Names of claims, each with the values that it may have."""
    must_exclude: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes, *, enhanced: bool) -> "ClaimConstraints":
        """Parse the value of the extension of RFC 9118, or of RFC 8226 if it is not `enhanced`.

        Raises MalformedError on anything but strict DER of the syntax above. Where mustExclude names a baseline
        claim, the extension counts as not present, so nothing is constrained (RFC 9118 §3, third).
        """
        lists = _members(data, (_INCLUDE, _PERMIT, _EXCLUDE) if enhanced else (_INCLUDE, _PERMIT))
        exclude = _listed(lists[_EXCLUDE], _name) if _EXCLUDE in lists else ()
        constraints = cls(
            must_include=_listed(lists[_INCLUDE], _name) if _INCLUDE in lists else (),
            permitted=_listed(lists[_PERMIT], _values) if _PERMIT in lists else (),
            must_exclude=exclude,
        )
        return cls() if BASELINE & set(exclude) else constraints

    def serialize(self) -> bytes:
        """Encode as DER."""
        members = (
            (_INCLUDE, [_encoded_name(name) for name in self.must_include]),
            (_PERMIT, [_encoded_values(name, values) for name, values in self.permitted]),
            (_EXCLUDE, [_encoded_name(name) for name in self.must_exclude]),
        )
        encoded = (der.encode(tag, _sequence(*items)) for tag, items in members if items)
        return _sequence(*encoded)

    def check(self, claims: Mapping[str, Json]) -> None:
        """Check the claims of a PASSporT; raises ConstraintError.

        A string is compared with the permitted values as it is, any other value by its canonical JSON (RFC 8225
        §9).
        """
        for name in self.must_include:
            if name not in claims:
                raise ConstraintError(f"{_called(name)} is not there, and must be")
        for name, values in self.permitted:
            if name in claims and _text(claims[name]) not in values:
                raise ConstraintError(f"{_called(name)} has none of the values that are permitted")
        for name in self.must_exclude:
            if name in claims:
                raise ConstraintError(f"{_called(name)} is there, and must not be")


UNCONSTRAINED: Final = ClaimConstraints()


@lru_cache(maxsize=256)
def constraints_in(extensions: tuple[tuple[str, bytes], ...]) -> ClaimConstraints:
    """Parse a certificate's claim constraints, given as OID and value of each extension; raises MalformedError.

    A certificate has at most one of the two extensions (RFC 9118 §6).
    """
    if len(extensions) > 1:
        raise MalformedError(f"{_WHAT}: both extensions are there (RFC 9118 §6)")
    for oid, value in extensions:
        return ClaimConstraints.parse(value, enhanced=oid == ENHANCED_OID)
    return UNCONSTRAINED


def extension_for(constraints: ClaimConstraints) -> tuple[str, bytes]:
    """Return OID and value, in the form of RFC 8226 if that suffices: more verifiers know it (RFC 9118 §6)."""
    return ENHANCED_OID if constraints.must_exclude else OID, constraints.serialize()


def _members(data: bytes, tags: Collection[int]) -> Mapping[int, Cursor]:
    """Read the members, by tag; raises MalformedError unless their tags are among `tags` and ascend."""
    outer = Cursor(data, _WHAT)
    members = Cursor(der.read_as(outer, der.SEQUENCE, _WHAT), _WHAT)
    outer.finish()
    found: dict[int, Cursor] = {}
    while members.remaining:
        tag, content = der.read(members)
        if tag not in tags or any(tag <= before for before in found):
            raise MalformedError(f"{_WHAT}: tag {tag:#04x} is none of this syntax, or out of order (RFC 8226 §8)")
        found[tag] = Cursor(content, _WHAT)
    if not found:
        raise MalformedError(f"{_WHAT}: no member is there (RFC 8226 §8)")
    return found


def _listed(cursor: Cursor, item: Callable[[Cursor], _T]) -> tuple[_T, ...]:
    """Read a list of at least one item, with nothing behind it; raises MalformedError."""
    items = Cursor(der.read_as(cursor, der.SEQUENCE, _WHAT), _WHAT)
    cursor.finish()
    found: list[_T] = []
    while items.remaining:
        found.append(item(items))
    if not found:
        raise MalformedError(f"{_WHAT}: a list is empty (RFC 8226 §8)")
    return tuple(found)


def _name(cursor: Cursor) -> str:
    return _decoded(der.read_as(cursor, der.IA5_STRING, _WHAT), "ascii")


def _values(cursor: Cursor) -> tuple[str, tuple[str, ...]]:
    body = Cursor(der.read_as(cursor, der.SEQUENCE, _WHAT), _WHAT)
    return _name(body), _listed(body, _value)


def _value(cursor: Cursor) -> str:
    return _decoded(der.read_as(cursor, der.UTF8_STRING, _WHAT), "utf-8")


def _decoded(content: bytes, encoding: str) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        raise MalformedError(f"{_WHAT}: a text is not {encoding}") from None


def _sequence(*items: bytes) -> bytes:
    return der.encode(der.SEQUENCE, b"".join(items))


def _encoded_name(name: str) -> bytes:
    if not name.isascii():
        raise MalformedError("the name of a claim is ASCII (RFC 9118 §3)")
    return der.encode(der.IA5_STRING, name.encode("ascii"))


def _encoded_values(name: str, values: tuple[str, ...]) -> bytes:
    return _sequence(
        _encoded_name(name), _sequence(*(der.encode(der.UTF8_STRING, value.encode()) for value in values))
    )


def _text(value: Json) -> str:
    return value if isinstance(value, str) else canonical_json.encode(value).decode()


def _called(name: str) -> str:
    return f"claim {name}" if _PLAIN_NAME.match(name) else "a claim"
