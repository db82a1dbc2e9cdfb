"""Each member's usage and quotas, so that no member can fill the ledger alone, and the limit of a block.

SHA-256("voice-dpki/usage/v1" ‖ 00 ‖ organization) -> ["usage", certificates, hour, certificates in that hour]

docs/spec/encodings.md#leaves specifies it.
"""

import hashlib

from voice_dpki.codec import cbor
from voice_dpki.errors import LocalError
from voice_dpki.ledger.draft import Draft
from voice_dpki.ledger.leaf import Leaf
from voice_dpki.ledger.parameters import HOUR_S, parameters_of
from voice_dpki.ledger.refusals import Refusal, Refused
from voice_dpki.ledger.view import StateView

MAX_BLOCK_CERTIFICATES = 4000
"""Certificates that one block records, or revokes with others: half a second to a second of one core's work."""

_DOMAIN = b"voice-dpki/usage/v1\0"


def check_room(draft: Draft, count: int) -> None:
    """Raise Refused if the block has no room for `count` new certificates; call it before checking them."""
    if draft.recorded + count > MAX_BLOCK_CERTIFICATES:
        raise Refused(Refusal.BLOCK_FULL)


def take_room(draft: Draft, count: int) -> None:
    """Take room of the block for `count` certificates that are revoked with another; raises Refused."""
    check_room(draft, count)
    draft.recorded += count


def enter(draft: Draft, organization: str, count: int, time_s: int) -> None:
    """Add `count` new certificates to a member's usage; raises Refused if that exceeds a quota."""
    _count(draft, organization, count, count, time_s)
    draft.recorded += count


def enter_other(draft: Draft, organization: str, time_s: int, count: int = 1) -> None:
    """Count a transaction without certificates as `count` certificates in the hour; raises Refused if too many."""
    _count(draft, organization, 0, count, time_s)


def _count(draft: Draft, organization: str, recorded: int, counted: int, time_s: int) -> None:
    """Add `recorded` certificates to a member's total, and `counted` to its hour."""
    parameters, hour = parameters_of(draft), time_s // HOUR_S
    total, last_hour, recent = usage(draft, organization)
    recent = counted + (recent if last_hour == hour else 0)
    if recent > parameters.certificates_per_hour:
        raise Refused(Refusal.QUOTA_HOUR)
    if total + recorded > parameters.certificates_per_member:
        raise Refused(Refusal.QUOTA_TOTAL)
    draft.put(_key(organization), ["usage", total + recorded, hour, recent])


def leave(draft: Draft, organization: str) -> None:
    """Take one certificate off a member's total."""
    total, hour, recent = usage(draft, organization)
    draft.put(_key(organization), ["usage", total - 1, hour, recent])


def usage(view: StateView, organization: str) -> tuple[int, int, int]:
    """Return a member's certificates on the ledger, the hour last counted, and the count in that hour.

    Hours count from the Unix epoch. The count has recorded certificates and, from version 2 of the rules on, other
    transactions.
    """
    data = view.leaf(_key(organization))
    return (0, 0, 0) if data is None else parse_usage(data)


def parse_usage(data: bytes) -> tuple[int, int, int]:
    """Parse the value of a member's leaf to the three numbers that `usage` returns; raises LocalError."""
    match cbor.decode(data, "usage leaf"):
        case ["usage", int(total), int(hour), int(recent)]:
            return total, hour, recent
    raise LocalError("the ledger's state is damaged: the usage of a member is not such")


def _key(organization: str) -> bytes:
    return hashlib.sha256(_DOMAIN + organization.encode("utf-8")).digest()


USAGE_LEAF = Leaf(kind="usage", key=_key, parse=parse_usage)
