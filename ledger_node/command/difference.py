"""What a decision changes, as removed and added lines."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ledger_node.command.session import Session
from voice_dpki.ledger.members import MEMBER_LEAF, Member, member_key
from voice_dpki.ledger.proposals import (
    BeginRules,
    Change,
    RemoveMember,
    ResumeMember,
    SetMember,
    SetStatus,
    SuspendMember,
)
from voice_dpki.ledger.records import CERTIFICATE_LEAF, CertRecord
from voice_dpki.ledger.signatures import key_id_of
from voice_dpki.x509.tnauthlist import TnRange

_Span = tuple[int, int, int]
"""Numbers of one length: their count of digits, the first number, and the one after the last."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The lines of a record that a change removes and adds; `note` says what else voters should know."""

    gone: tuple[str, ...] = ()
    come: tuple[str, ...] = ()
    note: str = ""

    def lines(self) -> list[str]:
        """Return all in the form of a difference."""
        return [*(f"- {line}" for line in self.gone), *(f"+ {line}" for line in self.come)]


def between(before: Member | None, after: Member | None) -> Difference:
    """Return how a member's record changes; None is no member. Numbers are compared as sets, not as entries."""
    old, new = _lines(before), _lines(after)
    had, has = before.ranges if before else (), after.ranges if after else ()
    gone = [line for line in old if line not in set(new)] + describe_numbers(_without(had, has))
    come = [line for line in new if line not in set(old)] + describe_numbers(_without(has, had))
    return Difference(tuple(gone), tuple(come))


def describe_member(member: Member) -> list[str]:
    """Return a member's whole record, a line each."""
    kept = [f"revision: {member.revision}", f"admitted: block {member.admitted_height}"]
    return [*_lines(member), *describe_numbers(map(_span, member.ranges)), *kept]


def describe_numbers(spans: Iterable[_Span]) -> list[str]:
    """Return sets of numbers, a line each."""
    return [
        f"numbers: +{start:0{digits}} to +{end - 1:0{digits}} ({end - start})"
        for digits, start, end in sorted(spans)
    ]


async def difference_of(session: Session, change: Change, present_version: int) -> Difference:
    """Return what a change does to the present ledger; raises InquiryError."""
    match change:
        case SetMember(member, revision):
            (before,) = await session.client.read(MEMBER_LEAF, [member_key(member.organization)])
            return _replacing(before, member, revision)
        case RemoveMember(organization):
            (before,) = await session.client.read(MEMBER_LEAF, [member_key(organization)])
            note = "" if before else f"{organization} is no member: this cannot take effect"
            return _noted(between(before, None), note)
        case SuspendMember(organization):
            state = f"suspended: {organization} sends nothing, has no vote, and its certificates do not count"
            return Difference(come=(state,))
        case ResumeMember(organization):
            return Difference(gone=(f"suspended: {organization}",))
        case BeginRules(version, height):
            begun = f"rules: version {version} from {f'block {height}' if height else 'the next block'} on"
            return Difference((f"rules: version {present_version}",), (begun,))
    return await _of_certificates(session, change)


def _replacing(before: Member | None, after: Member, revision: int | None) -> Difference:
    found = before.revision if before else None
    if found == revision:
        return between(before, after)
    replaced = "admits a new member" if revision is None else f"replaces revision {revision}"
    there = "there is none" if found is None else f"the ledger has revision {found}"
    return _noted(between(before, after), f"This {replaced}, and {there}: it cannot take effect as it is")


def _noted(difference: Difference, note: str) -> Difference:
    return Difference(difference.gone, difference.come, note)


async def _of_certificates(session: Session, change: SetStatus) -> Difference:
    keys = [CERTIFICATE_LEAF.key(digest) for digest in change.digests]
    records = await session.client.read(CERTIFICATE_LEAF, keys)
    named = [
        (f"certificate {digest.hex()} of {record.organization if record else 'nobody'}: ", record)
        for digest, record in zip(change.digests, records, strict=True)
    ]
    gone = tuple(name + _status(record) for name, record in named)
    return Difference(gone, tuple(f"{name}{change.status} ({change.reason})" for name, _ in named))


def _status(record: CertRecord | None) -> str:
    return str(record.status) if record else "not recorded"


def _lines(member: Member | None) -> list[str]:
    """Return all of a member's record that decisions change, except its numbers."""
    if member is None:
        return []
    return [
        f"organization: {member.organization}",
        f"kind: {member.kind}",
        *(["suspended: yes"] if member.suspended else []),
        *(f"domain: {domain}" for domain in member.domains),
        *([f"call placement service: {member.cps}"] if member.cps else []),
        *(f"service provider code: {code}" for code in member.spcs),
        *(f"validator: {key.hex()}" for key in member.validators),
        *(f"endorsing key: key id {key_id_of(key).hex()}" for key in member.endorsing_keys),
    ]


def _span(entry: TnRange) -> _Span:
    return len(entry.start), int(entry.start), int(entry.start) + entry.count


def _without(ranges: Sequence[TnRange], others: Sequence[TnRange]) -> list[_Span]:
    """Return the numbers in `ranges` that are not in `others`."""
    left = [_span(entry) for entry in ranges]
    for other in map(_span, others):
        left = [piece for span in left for piece in _cut(span, other)]
    return left


def _cut(span: _Span, other: _Span) -> list[_Span]:
    (digits, start, end), (other_digits, cut_start, cut_end) = span, other
    if digits != other_digits:
        return [span]
    pieces = (digits, start, min(end, cut_start)), (digits, max(start, cut_end), end)
    return [piece for piece in pieces if piece[1] < piece[2]]
