"""Giving numbers to another member, for instance when they are ported (from version 5 of the rules on).

"numbers"       "to": text, "sequence": uint, "numbers": [* number]         -- ascending

Only the holder of a number can give it away, and the transfer leaves no time without a holder. A member can receive
numbers only once it is marked (`by_number`). It marks itself by a transaction to itself without numbers.
`directory.install` also marks it if others are marked, so the mark alone does not prove its consent. A number that
comes back to the member in whose range it lies loses its leaf. A transfer revokes all certificates that name the
number itself, except the new holder's. Relying parties therefore need to look up the caller's number only where a
certificate covers it by a range or by a service provider code.

`sequence` is the number of such transactions that the member has made before. It prevents the replay of an old one
after the numbers have come back.

docs/spec/encodings.md#transactions specifies it.
"""

from dataclasses import dataclass, replace

from voice_dpki.codec.cbor import Cbor
from voice_dpki.errors import MalformedError
from voice_dpki.ledger import held_numbers, names, quotas
from voice_dpki.ledger.admission import read_admitted
from voice_dpki.ledger.draft import Block, Draft
from voice_dpki.ledger.kind import BY_MEMBER, Body, Kind, SignedBody, list_of, number, text
from voice_dpki.ledger.leaf import number_of
from voice_dpki.ledger.members import MEMBER_LEAF, Member
from voice_dpki.ledger.records import CERTIFICATE_LEAF, Authority, CertStatus
from voice_dpki.ledger.refusals import Refusal, Refused
from voice_dpki.names import CertDigest, Tn

MAX_GIVEN = 1000
"""Numbers in one transaction. Each counts as a certificate in the member's hour, and in the block."""

_REASON = "affiliationChanged"


@dataclass(frozen=True, slots=True)
class Numbers(Body):
    """Give `numbers` of the member `by` to the member `to`; without numbers: say that `by` itself takes numbers."""

    to: str
    sequence: int
    numbers: tuple[Tn, ...]


def _numbers(value: Cbor) -> tuple[Tn, ...]:
    found = tuple(number_of(item) for item in list_of(value, 0, MAX_GIVEN))
    if list(found) != sorted(set(found)):
        raise MalformedError("a transaction's numbers do not ascend")
    return found


def _execute(draft: Draft, block: Block, member: Member, signed: SignedBody[Numbers]) -> None:
    body = signed.body
    if body.sequence != held_numbers.count_of(draft, member.organization):
        raise Refused(Refusal.SEQUENCE)
    held_numbers.put_count(draft, member.organization, body.sequence + 1)
    if not body.numbers:
        _take_part(draft, member, body.to)
        return
    to = draft.member(body.to)
    if to is None or to.suspended or not to.by_number:
        raise Refused(Refusal.RECIPIENT)
    quotas.take_room(draft, len(body.numbers))
    quotas.enter_other(draft, member.organization, block.time_s, len(body.numbers) - 1)  # one is counted already
    held_numbers.mark(draft, member)
    if not all(held_numbers.is_held(draft, member, tn) for tn in body.numbers):
        raise Refused(Refusal.NOT_HELD)  # before any certificate is read
    for tn in body.numbers:
        _revoke_others(draft, block, tn, to.organization)
        held_numbers.put_holder(draft, tn, to)


def _take_part(draft: Draft, member: Member, to: str) -> None:
    """Mark a member that agrees to take numbers; raises Refused if it names another one, or is marked already."""
    if to != member.organization or member.by_number:
        raise Refused(Refusal.RECIPIENT)
    held_numbers.mark(draft, member)


def _revoke_others(draft: Draft, block: Block, tn: Tn, organization: str) -> None:
    """Revoke all certificates that name a number itself and are not those of its new holder; raises Refused.

    Each listed certificate counts against the block's limit, revoked or not, because it is read.
    """
    listed = names.listed_for_number(draft, tn, but=organization)
    quotas.take_room(draft, len(listed))
    for digest in listed:
        record = draft.record(digest)
        if record is None or record.status is CertStatus.REVOKED or not _names(draft, digest, tn):
            continue
        changed = replace(
            record,
            status=CertStatus.REVOKED,
            changed_height=block.height,
            revision=record.revision + 1,
            reason=_REASON,
            changed_by=Authority.ENDORSER,
        )
        draft.put_record(digest, changed)


def _names(draft: Draft, digest: CertDigest, tn: Tn) -> bool:
    """Tell whether a listed certificate names the number; a block of a range can also be this number alone."""
    return held_numbers.names_number(read_admitted(draft.certificate(digest) or b""), tn)


NUMBERS = Kind(
    name="numbers",
    since=5,
    body=Numbers,
    members={"to": text, "sequence": number, "numbers": _numbers},
    sender=BY_MEMBER,
    execute=_execute,
    leaves=(held_numbers.NUMBER_LEAF, held_numbers.COUNT_LEAF, MEMBER_LEAF, CERTIFICATE_LEAF),
)
