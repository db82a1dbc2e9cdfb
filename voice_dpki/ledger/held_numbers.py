"""Numbers whose holder a leaf of their own names, whatever members' ranges say (from version 5 of the rules on).

    SHA-256("voice-dpki/number/v1" ‖ 00 ‖ number)         -> ["number", organization, admitted height]
    SHA-256("voice-dpki/numbers/v1" ‖ 00 ‖ organization)  -> ["numbers", transactions]

A number that was ported has such a leaf. It names its holder, and the block that admitted the holder. A number
without a leaf belongs to the member whose ranges cover it. Nodes ignore a leaf whose holder has left the
federation, so that the range's member can take the number back. The second leaf counts a member's transactions
about numbers, so that none of them can be replayed.

A reader of a member's ranges must know that leaves override them. A member that has ever given or taken numbers is
therefore marked in its record (`by_number`), and so is one with ranges whose record changes while another member is
marked. Hence every member that a leaf names is marked, and so is each whose ranges cover the leaf's number, as long
as the leaf counts.

docs/spec/encodings.md#leaves specifies it.
"""

import hashlib
from dataclasses import dataclass, replace

from voice_dpki.codec import cbor
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.ledger.draft import Draft
from voice_dpki.ledger.leaf import Leaf, Lookup, numbered
from voice_dpki.ledger.members import Member
from voice_dpki.ledger.records import MAX_NUMBERS
from voice_dpki.ledger.refusals import Refusal, Refused
from voice_dpki.ledger.view import StateView
from voice_dpki.names import Tn
from voice_dpki.x509.allotment import Allotment, UriClaim
from voice_dpki.x509.profile import CertificateProfile

_NUMBER_DOMAIN = b"voice-dpki/number/v1\0"
_COUNT_DOMAIN = b"voice-dpki/numbers/v1\0"


@dataclass(frozen=True, slots=True)
class NumberHolder:
    """The member that a number's leaf names."""

    organization: str
    admitted_height: int
    """The block that admitted the member. A later member of the same name does not hold the number."""

    def is_of(self, member: Member) -> bool:
        """Tell whether this is the member."""
        return (self.organization, self.admitted_height) == (member.organization, member.admitted_height)


def number_key(tn: Tn) -> bytes:
    """Return the key of a number's leaf."""
    return hashlib.sha256(_NUMBER_DOMAIN + tn.encode("ascii")).digest()


def parse_holder(data: bytes) -> NumberHolder:
    """Parse the value of a number's leaf; raises MalformedError."""
    match cbor.decode(data, "number leaf"):
        case ["number", str(organization), int(admitted_height)] if admitted_height >= 0:
            return NumberHolder(organization, admitted_height)
    raise MalformedError("number leaf: not an organisation and the block that admitted it")


def count_key(organization: str) -> bytes:
    """Return the key of the leaf that counts a member's transactions about numbers."""
    return hashlib.sha256(_COUNT_DOMAIN + organization.encode("utf-8")).digest()


def parse_count(data: bytes) -> int:
    """Parse the value of a member's leaf to that count; raises MalformedError."""
    match cbor.decode(data, "numbers leaf"):
        case ["numbers", int(count)]:
            return count
    raise MalformedError("numbers leaf: not a count")


NUMBER_LEAF = Leaf(kind="number", key=number_key, parse=parse_holder, lookup=Lookup("numbers", numbered("tn")))
COUNT_LEAF = Leaf(kind="numbers", key=count_key, parse=parse_count)


def count_of(view: StateView, organization: str) -> int:
    """Return how many transactions about numbers a member has made."""
    data = view.leaf(count_key(organization))
    return 0 if data is None else parse_count(data)


def put_count(draft: Draft, organization: str, count: int) -> None:
    """Set how many transactions about numbers a member has made."""
    draft.put(count_key(organization), ["numbers", count])


def mark(draft: Draft, member: Member) -> None:
    """Set the mark `by_number` of a member; raises Refused if its record has no room."""
    if not member.by_number:
        draft.put_member(marked(member))


def marked(member: Member) -> Member:
    """Return a member's record with the mark `by_number`; raises Refused if it has no room for that."""
    try:
        return replace(member, by_number=True)
    except MalformedError:
        raise Refused(Refusal.NUMBERS_ROOM) from None


def is_held(view: StateView, member: Member, tn: Tn) -> bool:
    """Tell whether a member holds a number, by its leaf or, if none counts, by a range."""
    named = _named(view, tn)
    return member.allotment.holds_number(tn) if named is None else named.is_of(member)


def put_holder(draft: Draft, tn: Tn, member: Member) -> None:
    """Make a member the holder of a number: by a leaf, or without one if the number lies in one of its ranges.

    A leaf that already names the member stays, whoever gets the range later: the records of the member's
    certificates say that it holds the number by the leaf (`!numbers`).
    """
    named = _named(draft, tn)
    if named is not None and named.is_of(member):
        return
    if member.allotment.holds_number(tn):
        draft.put(number_key(tn), None)
    else:
        draft.put(number_key(tn), ["number", member.organization, member.admitted_height])


def names_number(profile: CertificateProfile, tn: Tn) -> bool:
    """Tell whether a certificate names a number itself, not only a range that covers it."""
    return tn in numbers_in(profile)


def numbers_in(profile: CertificateProfile) -> set[Tn]:
    """Return the numbers that a certificate names itself, in its TNAuthList and its URIs."""
    listed = profile.tn_auth_list
    return {*(listed.tns if listed else ()), *_in_uris(profile)}


def _in_uris(profile: CertificateProfile) -> set[Tn]:
    found: set[Tn] = set()
    for uri in profile.uris:
        try:
            number = UriClaim.of(uri).number
        except MalformedError:  # no certificate with such a URI is recorded
            continue
        if number is not None:
            found.add(number)
    return found


def allotment_for(view: StateView, member: Member, profile: CertificateProfile) -> Allotment:
    """Return a member's allotment, adjusted by the leaves of the numbers that a certificate names.

    Raises Refused if the member holds more than MAX_NUMBERS of them by leaves of their own.
    """
    found = member.allotment
    if not member.by_number:
        return found
    for tn in sorted(numbers_in(profile)):
        named = _named(view, tn)
        found = found.with_number(tn, holds=None if named is None else named.is_of(member))
    if len(found.singles) > MAX_NUMBERS:
        raise Refused(Refusal.MANY_NUMBERS)
    return found


def _named(view: StateView, tn: Tn) -> NumberHolder | None:
    """Return the holder that a number's leaf names; None if there is no leaf, or if that member has left."""
    data = view.leaf(number_key(tn))
    if data is None:
        return None
    try:
        named = parse_holder(data)
    except MalformedError:
        raise LocalError("the ledger's state is damaged: the leaf of a number is not one") from None
    member = view.member(named.organization)
    return named if member is not None and named.is_of(member) else None
