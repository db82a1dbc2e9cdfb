"""Members of the federation and what they own: organisation, domains, numbers, validators and keys.

A member is a leaf of the tree, under SHA-256("voice-dpki/member/v1" ‖ 00 ‖ organisation):

    member = ["member", organization, kind, [domains], [[start, count], ...], [spcs],
              [validator keys], [endorsing keys], revision, admitted height, suspended, ? further]

`voice_dpki.ledger.further` tells what further items are. Members have "cps" (from version 4 of the rules on),
"!by-number" (from version 5 on) and those of `voice_dpki.ledger.single_numbers`.

docs/spec/encodings.md#members specifies it.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from itertools import pairwise
from typing import Any

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from voice_dpki.codec import cbor
from voice_dpki.codec.cbor import Cbor
from voice_dpki.errors import MalformedError
from voice_dpki.ledger import single_numbers
from voice_dpki.ledger.further import MAX_FURTHER_BYTES, Further, further_items, parse_further
from voice_dpki.ledger.leaf import Leaf, Lookup, named
from voice_dpki.ledger.signatures import key_id_of
from voice_dpki.ledger.single_numbers import MAX_SINGLES, in_order, singles_of
from voice_dpki.names import Tn, is_printable
from voice_dpki.x509.allotment import Allotment
from voice_dpki.x509.keys import KeyKindError, algorithm_of, spki
from voice_dpki.x509.other_names import MAX_NAME_LENGTH
from voice_dpki.x509.public import ED25519_KEY_BYTES, check_ed25519
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

KIND = "member"
MEMBER_DOMAIN = b"voice-dpki/member/v1\0"

MAX_ENTRIES = 256
"""Entries in each of a member's lists; every answer about a member's certificate carries its record."""

BY_NUMBER = "!by-number"
"""Name of the further item that says that leaves of numbers override ranges; every reader must know it."""

CPS = "cps"
"""Name of the further item with the URL of a member's call placement service."""
MAX_URL_LENGTH = 255
CPS_FORM = f"https, a host in lower case, perhaps a port and a path, at most {MAX_URL_LENGTH} characters in all"

_PARTS = 7
"""Number of items that proposals decide."""

_CPS = re.compile(r"https://[a-z0-9-]+(\.[a-z0-9-]+)*(:[0-9]{1,5})?(/[A-Za-z0-9._~-]+)*\Z")
_DOMAIN = re.compile(r"(?=.{1,253}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*\Z")


class MemberKind(StrEnum):
    """The kind of a member; only operators run validators, propose and vote."""

    OPERATOR = "operator"
    VENDOR = "vendor"
    SERVICE_PROVIDER = "service_provider"
    CA = "ca"


@dataclass(frozen=True)
class Member:
    """One member. Raises MalformedError for values that a member must not have."""

    organization: str
    kind: MemberKind
    domains: tuple[str, ...] = ()
    """Lower-case host names; names below them are the member's too."""
    ranges: tuple[TnRange, ...] = ()
    """Ranges of numbers; those of one number, which version 4 of the rules brought, come last."""
    spcs: tuple[str, ...] = ()
    validators: tuple[bytes, ...] = ()
    """Ed25519 public keys."""
    endorsing_keys: tuple[bytes, ...] = ()
    """ECDSA P-256 public keys, as DER SubjectPublicKeyInfo: they sign the member's transactions."""
    revision: int = 0
    """Grows with each change, so that one proposal cannot overwrite another's change unnoticed."""
    admitted_height: int = 0
    """Block that admitted the member, 0 at genesis. Earlier certificates under its name are not its own."""
    suspended: bool = False
    """Whether a quorum suspended the member. Its transactions are then refused and its certificates suspended."""
    by_number: bool = False
    """Whether leaves of numbers can override the ranges (from version 5 of the rules on)."""
    cps: str = ""
    """URL of the call placement service for calls to the member's numbers; "" if it has none."""
    further: Further = ()
    """Items of later versions of the rules, which have no effect here."""

    def __post_init__(self) -> None:
        _check_organization(self.organization)
        for entries in (self.domains, self.ranges, self.spcs, self.validators, self.endorsing_keys):
            if len(entries) > MAX_ENTRIES or len(set(entries)) != len(entries):
                raise MalformedError(f"member: a list has more than {MAX_ENTRIES} entries, or one of them twice")
        if not all(_DOMAIN.match(domain) for domain in self.domains):
            raise MalformedError("member: a domain is not a lower-case host name")
        if self.ranges or self.spcs:
            TnAuthList.of(self.spcs, self.ranges)  # refuses codes and ranges that no certificate could name
        if len(singles_of(self.ranges)) > MAX_SINGLES or in_order(self.ranges) != self.ranges:
            raise MalformedError(f"member: single numbers are more than {MAX_SINGLES}, or not behind the ranges")
        if any(len(key) != ED25519_KEY_BYTES for key in self.validators):
            raise MalformedError("member: a validator's key is not an Ed25519 public key of 32 bytes")
        for key in self.endorsing_keys:
            _check_endorsing_key(key)
        if self.kind is not MemberKind.OPERATOR and self.validators:
            raise MalformedError("member: only operators run validators")
        if any(type(number) is not int or number < 0 for number in (self.revision, self.admitted_height)):
            raise MalformedError("member: revisions and heights are whole numbers from 0")
        if type(self.suspended) is not bool:
            raise MalformedError("member: it is suspended or not")
        if self.cps and not is_cps(self.cps):
            raise MalformedError(f"member: the URL of a call placement service is {CPS_FORM}")
        if self.cps and len(cbor.encode(further_items(self._items())[0])) > MAX_FURTHER_BYTES:
            raise MalformedError("member: its single numbers leave no room for the URL of a call placement service")
        if type(self.by_number) is not bool:
            raise MalformedError("member: numbers' own leaves count or do not")

    def check_validators(self) -> None:
        """Raise MalformedError if a validator's key is not one that only its holder can sign under.

        Making a member does not check this, because version 1 of the rules admits such keys.
        """
        try:
            for key in self.validators:
                check_ed25519(key)
        except KeyKindError as error:
            raise MalformedError(f"member: a validator's key is {error}") from None

    @classmethod
    def parse(cls, data: bytes) -> "Member":
        """Parse a member's record; raises MalformedError on anything but the canonical encoding."""
        match cbor.decode(data, "member"):
            case ["member", *items] if len(items) >= _PARTS + 3:
                revision, admitted_height, suspended, *more = items[_PARTS:]
                kept: Any = {"revision": revision, "admitted_height": admitted_height, "suspended": suspended}
                further = parse_further(more, "member", (*single_numbers.NAMES, BY_NUMBER))
                member = cls.of_parts(items[:_PARTS])
                if singles_of(member.ranges):
                    raise MalformedError("member: a range of its record has one number")
                kept["ranges"] = (*member.ranges, *single_numbers.read_items(further))
                kept["by_number"] = _is_by_number(further)
                rest = tuple(item for item in further if item[0] not in (*single_numbers.NAMES, BY_NUMBER))
                kept["cps"], kept["further"] = _cps_in(rest)
                return replace(member, **kept)  # checked by the class
        raise MalformedError("member: not a list of a member's parts")

    @classmethod
    def of_parts(cls, parts: Sequence[Cbor]) -> "Member":
        """Make a member from the result of `parts`; raises MalformedError."""
        match parts:
            case [str(organization), str(kind), domains, ranges, spcs, validators, endorsing_keys]:
                if kind not in set(MemberKind):
                    raise MalformedError("member: its kind is not known")
                return cls(
                    organization=organization,
                    kind=MemberKind(kind),
                    domains=tuple(_each(str, domains)),
                    ranges=in_order(_range(item) for item in _each(list, ranges)),
                    spcs=tuple(_each(str, spcs)),
                    validators=tuple(_each(bytes, validators)),
                    endorsing_keys=tuple(_each(bytes, endorsing_keys)),
                )
        raise MalformedError("member: not a list of a member's parts")

    def parts(self) -> list[Cbor]:
        """Return the fields that proposals decide, ready for encoding, without those that the ledger maintains."""
        return self._parts(self.ranges)

    def _parts(self, entries: Iterable[TnRange]) -> list[Cbor]:
        ranges: list[Cbor] = [[entry.start, entry.count] for entry in entries]
        lists: list[Cbor] = [self.domains, ranges, self.spcs, self.validators, self.endorsing_keys]
        return [self.organization, str(self.kind), *lists]

    def serialize(self) -> bytes:
        """Encode the member's record."""
        kept: list[Cbor] = [self.revision, self.admitted_height, self.suspended]
        singles = singles_of(self.ranges)
        parts = self._parts(self.ranges[: len(self.ranges) - len(singles)])
        return cbor.encode([KIND, *parts, *kept, *further_items(self._items())])

    def _items(self) -> Further:
        by_number = ((BY_NUMBER, cbor.encode(True)),) if self.by_number else ()
        singles = single_numbers.items_of(singles_of(self.ranges))
        return (*self.own_items(), *self.further, *by_number, *singles)

    def own_items(self) -> Further:
        """Return the further items that proposals decide."""
        return ((CPS, cbor.encode(self.cps)),) if self.cps else ()

    @property
    def votes(self) -> bool:
        """Whether the member may propose and vote."""
        return self.kind is MemberKind.OPERATOR and not self.suspended

    @cached_property
    def key_ids(self) -> frozenset[bytes]:
        """The endorsing keys' identifiers, as `key_id_of` gives them."""
        return frozenset(key_id_of(key) for key in self.endorsing_keys)

    def endorsing_key(self, key_id: bytes) -> bytes | None:
        """Return the endorsing key with this identifier, or None if the member does not have it."""
        return next((key for key in self.endorsing_keys if key_id_of(key) == key_id), None)

    @cached_property
    def allotment(self) -> Allotment:
        """The domains, numbers and codes that the member's certificates may claim."""
        return Allotment(self.domains, self.ranges, self.spcs, self.by_number)


class WrittenRange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A range of numbers in a file: the first in E.164 without +, and how many."""

    start: str
    count: int


class WrittenMember(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The fields of a member in every kind of file. Each kind adds the keys in a form of its own."""

    organization: str
    kind: MemberKind
    domains: tuple[str, ...] = ()
    ranges: tuple[WrittenRange, ...] = ()
    spcs: tuple[str, ...] = ()

    def member_with(self, validators: Iterable[bytes], endorsing_keys: Iterable[bytes]) -> Member:
        """Return the member with its public keys; raises MalformedError for values that it must not have."""
        return Member(
            organization=self.organization,
            kind=self.kind,
            domains=self.domains,
            ranges=in_order(TnRange(Tn(entry.start), entry.count) for entry in self.ranges),
            spcs=self.spcs,
            validators=tuple(validators),
            endorsing_keys=tuple(endorsing_keys),
        )


def is_cps(url: str) -> bool:
    """Tell whether a text has the form of a call placement service's URL, CPS_FORM."""
    return len(url) <= MAX_URL_LENGTH and _CPS.match(url) is not None


def _is_by_number(further: Further) -> bool:
    found = dict(further).get(BY_NUMBER)
    if found not in (None, cbor.encode(True)):
        raise MalformedError("member: whether numbers' own leaves count is true or left out")
    return found is not None


def _cps_in(further: Further) -> tuple[str, Further]:
    """Take the URL out of further items; a value that a later version may have written stays among them."""
    for name, value in further:
        url = cbor.decode(value, "cps") if name == CPS else None
        if isinstance(url, str) and is_cps(url):
            return url, tuple(item for item in further if item[0] != CPS)
    return "", further


def member_key(organization: str) -> bytes:
    """Return the key of a member's leaf in the tree."""
    return hashlib.sha256(MEMBER_DOMAIN + organization.encode("utf-8")).digest()


MEMBER_LEAF = Leaf(
    kind=KIND,
    key=member_key,
    parse=Member.parse,
    lookup=Lookup("members", named("organization", "an organisation's name")),
)


class ConflictError(MalformedError):
    """Two members share something that only one may have: `what`, a key of CONFLICTS."""

    def __init__(self, what: str) -> None:
        super().__init__(f"members: two of them share {CONFLICTS[what]}")
        self.what = what


CONFLICTS = {
    "organization": "an organisation's name",
    "domain": "a domain, or one has a domain below another's",
    "spc": "a service provider code",
    "validator": "a validator key",
    "endorsing-key": "an endorsing key",
    "range": "numbers: two number ranges overlap",
}


def check_apart(members: Sequence[Member]) -> None:
    """Raise ConflictError if two members share an organisation, domain, number, code or key."""
    _check_unique("organization", (member.organization for member in members))
    _check_unique("domain", (domain for member in members for domain in member.domains))
    _check_domains_apart(members)
    _check_unique("spc", (spc for member in members for spc in member.spcs))
    _check_unique("validator", (key for member in members for key in member.validators))
    _check_unique("endorsing-key", (key for member in members for key in member.endorsing_keys))
    spans = sorted(
        (len(entry.start), int(entry.start), entry.count) for member in members for entry in member.ranges
    )
    for (digits, start, count), (next_digits, next_start, _) in pairwise(spans):
        if digits == next_digits and next_start < start + count:
            raise ConflictError("range")


def _check_domains_apart(members: Sequence[Member]) -> None:
    """Refuse a domain below another member's, because both would hold the names under it."""
    holders = {domain: member.organization for member in members for domain in member.domains}
    for domain, holder in holders.items():
        labels = domain.split(".")
        above = (".".join(labels[at:]) for at in range(1, len(labels)))
        if any(holders.get(name, holder) != holder for name in above):
            raise ConflictError("domain")


def _check_unique(what: str, values: Iterable[object]) -> None:
    listed = list(values)
    if len(set(listed)) != len(listed):
        raise ConflictError(what)


def _check_organization(organization: str) -> None:
    if not 1 <= len(organization) <= MAX_NAME_LENGTH or not is_printable(organization):
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
