"""Members of the federation and what is theirs: organisation, domains, numbers, validators and keys.

A member is a leaf of the tree, under SHA-256("voice-dpki/member/v1" ‖ 00 ‖ organisation):

    member = ["member", organization, kind, [domains], [[start, count], ...], [spcs],
              [validator keys], [endorsing keys]]
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import pairwise

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from voice_dpki.codec import cbor
from voice_dpki.codec.cbor import Cbor
from voice_dpki.errors import MalformedError
from voice_dpki.ledger.transactions import key_id_of
from voice_dpki.names import Tn
from voice_dpki.x509.keys import KeyKindError, algorithm_of, spki
from voice_dpki.x509.profile import MAX_NAME_LENGTH
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

KIND = "member"
MEMBER_DOMAIN = b"voice-dpki/member/v1\0"

MAX_ENTRIES = 256
"""Entries in each of a member's lists; its record goes with every answer about one of its certificates."""

ED25519_KEY_BYTES = 32

_DOMAIN = re.compile(r"(?=.{1,253}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*\Z")


class MemberKind(StrEnum):
    """What a member is; only operators hold telephone numbers and run validators."""

    OPERATOR = "operator"
    VENDOR = "vendor"
    SERVICE_PROVIDER = "service_provider"
    CA = "ca"


@dataclass(frozen=True)
class Member:
    """One member. Raises MalformedError when made of what a member must not have."""

    organization: str
    kind: MemberKind
    domains: tuple[str, ...] = ()
    """Lower-case host names; names below them are the member's too."""
    ranges: tuple[TnRange, ...] = ()
    spcs: tuple[str, ...] = ()
    validators: tuple[bytes, ...] = ()
    """Ed25519 public keys."""
    endorsing_keys: tuple[bytes, ...] = ()
    """ECDSA P-256 public keys, as DER SubjectPublicKeyInfo: they sign the member's transactions."""

    def __post_init__(self) -> None:
        _check_organization(self.organization)
        for entries in (self.domains, self.ranges, self.spcs, self.validators, self.endorsing_keys):
            if len(entries) > MAX_ENTRIES or len(set(entries)) != len(entries):
                raise MalformedError(f"member: a list has more than {MAX_ENTRIES} entries, or one of them twice")
        if not all(_DOMAIN.match(domain) for domain in self.domains):
            raise MalformedError("member: a domain is not a lower-case host name")
        if self.ranges or self.spcs:
            TnAuthList(
                spcs=self.spcs, ranges=self.ranges
            )  # refuses codes and ranges that no certificate could name
        if any(len(key) != ED25519_KEY_BYTES for key in self.validators):
            raise MalformedError("member: a validator's key is not an Ed25519 public key of 32 bytes")
        for key in self.endorsing_keys:
            _check_endorsing_key(key)
        if self.kind is not MemberKind.OPERATOR and self.validators:
            raise MalformedError("member: only operators run validators")

    @classmethod
    def parse(cls, data: bytes) -> "Member":
        """Parse a member's record; raises MalformedError on anything but its one encoding."""
        match cbor.decode(data, "member"):
            case ["member", str(organization), str(kind), *lists] if len(lists) == 5:
                if kind not in set(MemberKind):
                    raise MalformedError("member: its kind is not known")
                domains, ranges, spcs, validators, endorsing_keys = lists
                return cls(
                    organization=organization,
                    kind=MemberKind(kind),
                    domains=tuple(_each(str, domains)),
                    ranges=tuple(_range(item) for item in _each(list, ranges)),
                    spcs=tuple(_each(str, spcs)),
                    validators=tuple(_each(bytes, validators)),
                    endorsing_keys=tuple(_each(bytes, endorsing_keys)),
                )
        raise MalformedError("member: not a list of a member's parts")

    def serialize(self) -> bytes:
        """Encode the member's record."""
        ranges: list[Cbor] = [[entry.start, entry.count] for entry in self.ranges]
        lists: list[Cbor] = [self.domains, ranges, self.spcs, self.validators, self.endorsing_keys]
        return cbor.encode([KIND, self.organization, str(self.kind), *lists])

    @cached_property
    def key_ids(self) -> frozenset[bytes]:
        """Names of the endorsing keys."""
        return frozenset(key_id_of(key) for key in self.endorsing_keys)

    def endorsing_key(self, key_id: bytes) -> bytes | None:
        """Return the endorsing key of that name, if the member has it."""
        return next((key for key in self.endorsing_keys if key_id_of(key) == key_id), None)

    def holds_number(self, tn: Tn) -> bool:
        """Tell whether one of the member's ranges covers `tn`."""
        return any(entry.covers(tn) for entry in self.ranges)

    def holds_host(self, host: str) -> bool:
        """Tell whether `host`, in lower case, is one of the member's domains or lies below one."""
        return any(host == domain or host.endswith("." + domain) for domain in self.domains)


def member_key(organization: str) -> bytes:
    """Key of a member's leaf in the tree."""
    return hashlib.sha256(MEMBER_DOMAIN + organization.encode("utf-8")).digest()


def check_apart(members: Sequence[Member]) -> None:
    """Raise MalformedError unless no two members share an organisation, domain, number, code or key."""
    _check_unique("organisation", (member.organization for member in members))
    _check_unique("domain", (domain for member in members for domain in member.domains))
    _check_domains_apart(members)
    _check_unique("service provider code", (spc for member in members for spc in member.spcs))
    _check_unique("validator key", (key for member in members for key in member.validators))
    _check_unique("endorsing key", (key for member in members for key in member.endorsing_keys))
    spans = sorted(
        (len(entry.start), int(entry.start), entry.count) for member in members for entry in member.ranges
    )
    for (digits, start, count), (next_digits, next_start, _) in pairwise(spans):
        if digits == next_digits and next_start < start + count:
            raise MalformedError("members: two number ranges overlap")


def _check_domains_apart(members: Sequence[Member]) -> None:
    """Refuse a domain below another member's: both would hold the names under it."""
    for member in members:
        others = [other for other in members if other is not member]
        if any(other.holds_host(domain) for domain in member.domains for other in others):
            raise MalformedError("members: a domain lies below another member's")


def _check_unique(what: str, values: Iterable[object]) -> None:
    listed = list(values)
    if len(set(listed)) != len(listed):
        raise MalformedError(f"members: a {what} is given twice")


def _check_organization(organization: str) -> None:
    if not 1 <= len(organization) <= MAX_NAME_LENGTH or not organization.isprintable():
        raise MalformedError(f"member: an organisation's name has 1 to {MAX_NAME_LENGTH} printable characters")
    if organization != organization.strip():
        raise MalformedError("member: an organisation's name has no white space around it")


def _check_endorsing_key(key: bytes) -> None:
    try:
        loaded = load_der_public_key(key)
        if isinstance(loaded, EllipticCurvePublicKey) and algorithm_of(loaded) == "ES256" and spki(loaded) == key:
            return
    except (ValueError, UnsupportedAlgorithm, KeyKindError):
        pass
    raise MalformedError("member: an endorsing key is not an ECDSA P-256 SubjectPublicKeyInfo in DER")


def _each(kind: type, items: Cbor) -> list:  # type: ignore[type-arg]
    if not isinstance(items, list) or not all(type(item) is kind for item in items):
        raise MalformedError("member: a list holds something of another type")
    return items


def _range(item: list[Cbor]) -> TnRange:
    match item:
        case [str(start), count] if type(count) is int:
            return TnRange(Tn(start), count)
    raise MalformedError("member: a number range is not a start and a count")
