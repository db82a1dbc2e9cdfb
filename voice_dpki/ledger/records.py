"""Records of certificates: a certificate's record is the leaf of the tree under H(CERT).

record = ["certificate", status, organization, not_before_s, not_after_s, recorded_height, changed_height,
          revision, reason, key_id, changed_by, replaces, replaced_by, ? further]    -- deterministic CBOR

A renewed certificate and the one that replaces it name each other. `voice_dpki.ledger.further` tells what further
items are. This release knows one, "!numbers", from version 5 of the rules on.

docs/spec/encodings.md#certificates specifies it.
"""

import hashlib
from dataclasses import dataclass, replace
from enum import IntEnum

from voice_dpki.codec import cbor
from voice_dpki.errors import MalformedError
from voice_dpki.ledger.further import Further, further_items, parse_further
from voice_dpki.ledger.leaf import Leaf, Lookup, hashed, number_of
from voice_dpki.names import CertDigest, Height, Tn
from voice_dpki.x509.recorded import CertStatus as CertStatus

KIND = "certificate"

NUMBERS = "!numbers"
"""Name of the further item with the numbers that the organisation held by leaves of their own."""
MAX_NUMBERS = 60
"""Most numbers in it: with 15 digits each they have 962 of the 1024 bytes that a further item may have."""


RECORDED = frozenset({CertStatus.VALID, CertStatus.SUSPENDED, CertStatus.REVOKED})

REASONS = frozenset(
    {
        "unspecified",
        "keyCompromise",
        "affiliationChanged",
        "superseded",
        "cessationOfOperation",
        "certificateHold",
        "removeFromCRL",
        "privilegeWithdrawn",
    }
)
"""Reasons for a change of status, named as in RFC 5280 §5.3.1."""


class Authority(IntEnum):
    """Who set a certificate's status, in rising order. Nobody can resume what a higher authority suspended."""

    OWNER = 0
    """The certificate's own key."""
    ENDORSER = 1
    """The member that endorsed it."""
    QUORUM = 2
    """More than two thirds of the operators."""


@dataclass(frozen=True, slots=True)
class CertRecord:
    """One recorded certificate. `revision` starts at 0 and grows with each change of status."""

    status: CertStatus
    organization: str
    not_before_s: int
    not_after_s: int
    recorded_height: Height
    changed_height: Height
    revision: int
    reason: str | None
    key_id: bytes
    """SHA-256 of the certificate's SubjectPublicKeyInfo."""
    changed_by: Authority = Authority.ENDORSER
    replaces: CertDigest | None = None
    replaced_by: CertDigest | None = None
    numbers: tuple[Tn, ...] = ()
    """Numbers that the certificate names and that its organisation held by their own leaves (from version 5 on)."""
    further: Further = ()
    """Items of later versions of the rules, which have no effect here."""

    def __post_init__(self) -> None:
        if self.status not in RECORDED:
            raise MalformedError(f"record: {self.status} is not a status that is recorded")
        numbers = (self.not_before_s, self.not_after_s, self.recorded_height, self.changed_height, self.revision)
        if any(type(number) is not int or number < 0 for number in numbers):
            raise MalformedError("record: times, heights and revisions are whole numbers from 0")
        if not isinstance(self.organization, str) or not isinstance(self.reason, str | None):
            raise MalformedError("record: organisation and reason are text")
        if not isinstance(self.key_id, bytes) or len(self.key_id) != 32:
            raise MalformedError("record: a key is named by 32 bytes")
        if not isinstance(self.changed_by, Authority):
            raise MalformedError("record: who changed it is not known")
        for link in (self.replaces, self.replaced_by):
            if link is not None and not (isinstance(link, bytes) and len(link) == 32):
                raise MalformedError("record: another certificate is named by 32 bytes")

    @classmethod
    def parse(cls, data: bytes) -> "CertRecord":
        """Parse a record; raises MalformedError on anything but the canonical encoding."""
        match cbor.decode(data, "record"):
            case ["certificate", str(status), str(organization), *rest] if len(rest) >= _KNOWN:
                further = parse_further(rest[_KNOWN:], "certificate's record", (NUMBERS,))
                rest = rest[:_KNOWN]
                if status not in RECORDED or type(rest[7]) is not int or rest[7] not in set(Authority):
                    raise MalformedError("record: its status, or who gave it, is not known")
                rest[7] = Authority(rest[7])
                found = cls(CertStatus(status), organization, *rest)  # type: ignore[arg-type]  # checked by the class
                return _with_further(found, further) if further else found
        raise MalformedError("record: not a list of the record's members")

    def serialize(self) -> bytes:
        """Encode the record."""
        return cbor.encode(
            [
                KIND,
                str(self.status),
                self.organization,
                self.not_before_s,
                self.not_after_s,
                self.recorded_height,
                self.changed_height,
                self.revision,
                self.reason,
                self.key_id,
                int(self.changed_by),
                self.replaces,
                self.replaced_by,
                *further_items((*self.further, *self._items())),
            ]
        )

    def _items(self) -> Further:
        return ((NUMBERS, cbor.encode(self.numbers)),) if self.numbers else ()

    @staticmethod
    def is_one(data: bytes) -> bool:
        """Return whether a leaf's value is the record of a certificate."""
        return data.startswith(_PREFIXES)

    def value_hash(self) -> bytes:
        """Return the value hash under which the tree holds the record."""
        return hashlib.sha256(self.serialize()).digest()

    def status_at(self, now_s: float) -> CertStatus:
        """Return the status at `now_s`; a revoked certificate stays revoked after it expires."""
        if self.status is CertStatus.REVOKED:
            return self.status
        if now_s > self.not_after_s:
            return CertStatus.EXPIRED
        if self.status is CertStatus.VALID and now_s < self.not_before_s:
            return CertStatus.NOT_YET_VALID
        return self.status


def _with_further(record: CertRecord, further: Further) -> CertRecord:
    """Return a record with its further items; raises MalformedError for numbers that are not such."""
    listed = dict(further).get(NUMBERS)
    if listed is None:
        return replace(record, further=further)
    numbers = cbor.decode(listed, "numbers")
    if not isinstance(numbers, list) or not 1 <= len(numbers) <= MAX_NUMBERS:
        raise MalformedError(f"record: its numbers are not a list of 1 to {MAX_NUMBERS}")
    found = tuple(number_of(number) for number in numbers)
    if list(found) != sorted(set(found)):
        raise MalformedError("record: its numbers do not ascend")
    return replace(record, numbers=found, further=tuple(item for item in further if item[0] != NUMBERS))


CERTIFICATE_LEAF = Leaf(
    kind=KIND,
    key=CertDigest,
    parse=CertRecord.parse,
    lookup=Lookup("certificates", hashed("digest", "H(CERT)")),
)

_KNOWN = 10
"""Items that every record has after status and organisation."""

_PREFIXES = tuple(cbor.encode([KIND, *[0] * items])[:-items] for items in (_KNOWN + 2, _KNOWN + 3))
"""The first bytes of every record's encoding, without further items and with them, and of no other leaf's."""
