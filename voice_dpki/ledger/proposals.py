"""Proposals: the changes that operators decide on, and the state of their votes.

    change   = ["member", revision / null, organization, kind, [domains], [ranges], [spcs], [validators], [keys],
                ? {"cps": URL}]                                          -- the map from version 4 of the rules on
             / ["remove", organization]
             / ["suspend", organization]
             / ["status", [+ H(CERT)], "revoked" / "suspended" / "valid", reason]   -- "valid" from version 3 on
             / ["rules", version, height]                                -- from version 2 of the rules on
             / ["resume", organization]                                  -- from version 3 on

    SHA-256("voice-dpki/proposal/v1" ‖ 00 ‖ id) -> ["proposal", by, change: bytes, until_s, state, why / null,
                                                    [* approving], [* rejecting], due height, due_s, ? further]
    SHA-256("voice-dpki/proposals/v1" ‖ 00)     -> ["proposals", [* [id, by, height, time_s]]]

The id is the SHA-256 of the body of the transaction that proposes it. "member" admits a member (revision null), or
replaces the record that has this revision, which also ends a suspension; "resume" only ends one. The list gives
for each proposal the first height and time at which a block must act on it. `voice_dpki.ledger.further` tells what
further items are.

docs/spec/encodings.md#changes-that-are-proposed specifies it.
"""

import hashlib
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias

from voice_dpki.codec import cbor
from voice_dpki.codec.cbor import Cbor
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.ledger.draft import Draft
from voice_dpki.ledger.further import Further, further_items, parse_further
from voice_dpki.ledger.leaf import Leaf
from voice_dpki.ledger.members import Member
from voice_dpki.ledger.records import REASONS, CertStatus
from voice_dpki.ledger.view import StateView
from voice_dpki.names import CertDigest

LIST_KEY = hashlib.sha256(b"voice-dpki/proposals/v1\0").digest()

MAX_PROPOSALS = 256
"""Proposals on the ledger at a time, of all operators."""

MAX_CERTIFICATES = 256
"""Most certificates whose status one proposal changes."""

MAX_VERSION = 1 << 32
MAX_HEIGHT = 10**12
"""Versions of the rules, and first blocks of them, are below these."""

_STATUSES = frozenset({CertStatus.REVOKED, CertStatus.SUSPENDED, CertStatus.VALID})

_DOMAIN = b"voice-dpki/proposal/v1\0"


@dataclass(frozen=True, slots=True)
class SetMember:
    """Admit a member (`revision` None), or change the one whose record has that revision."""

    member: Member
    revision: int | None


@dataclass(frozen=True, slots=True)
class RemoveMember:
    """Remove a member; its certificates are no longer trusted."""

    organization: str


@dataclass(frozen=True, slots=True)
class SuspendMember:
    """Suspend a compromised member at once: its transactions are refused and its certificates are suspended."""

    organization: str


@dataclass(frozen=True, slots=True)
class ResumeMember:
    """End a member's suspension, and leave its record as it is."""

    organization: str


@dataclass(frozen=True, slots=True)
class SetStatus:
    """Revoke or suspend certificates at once, whichever member endorsed them, or end the operators' suspensions."""

    digests: tuple[CertDigest, ...]
    status: CertStatus
    reason: str


@dataclass(frozen=True, slots=True)
class BeginRules:
    """Follow `version` of the rules from the block at `height` on, or from the next one if that is later.

    The present version cancels one that is scheduled.
    """

    version: int
    height: int


Change: TypeAlias = SetMember | RemoveMember | SuspendMember | ResumeMember | SetStatus | BeginRules


class ProposalState(StrEnum):
    """State of a proposal."""

    OPEN = "open"
    PASSED = "passed"
    """It has its quorum, and takes effect after the delay."""
    DONE = "done"
    FAILED = "failed"


def encode_change(change: Change) -> bytes:
    """Encode a change for `voice_dpki.ledger.propose.Propose`."""
    match change:
        case SetMember(member, revision):
            return cbor.encode(["member", revision, *member.parts(), *further_items(member.own_items())])
        case RemoveMember(organization):
            return cbor.encode(["remove", organization])
        case SuspendMember(organization):
            return cbor.encode(["suspend", organization])
        case ResumeMember(organization):
            return cbor.encode(["resume", organization])
        case SetStatus(digests, status, reason):
            return cbor.encode(["status", digests, str(status), reason])
        case BeginRules(version, height):
            return cbor.encode(["rules", version, height])


def parse_change(data: bytes) -> Change:
    """Parse a change; raises MalformedError on anything but what `encode_change` gives."""
    match cbor.decode(data, "change"):
        case ["member", revision, *parts] if revision is None or type(revision) is int:
            return SetMember(_member(parts), revision)
        case ["remove", str(organization)]:
            return RemoveMember(organization)
        case ["suspend", str(organization)]:
            return SuspendMember(organization)
        case ["resume", str(organization)]:
            return ResumeMember(organization)
        case ["status", list(digests), str(status), str(reason)] if status in _STATUSES and reason in REASONS:
            return SetStatus(_digests(digests), CertStatus(status), reason)
        case ["rules", int(version), int(height)] if 0 < version < MAX_VERSION and 0 <= height < MAX_HEIGHT:
            return BeginRules(version, height)
    raise MalformedError("change: none that the ledger knows")


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposal on the ledger."""

    by: str
    change: bytes
    until_s: int
    state: ProposalState
    why: str | None
    """Name of the refusal for which it failed; None if it has not."""
    approving: tuple[str, ...]
    rejecting: tuple[str, ...]
    due_height: int
    due_s: int
    """A passed proposal takes effect with the first block that has reached both `due_height` and `due_s`."""
    further: Further = ()
    """Items of later versions of the rules, which have no effect here."""

    @classmethod
    def parse(cls, data: bytes) -> "Proposal":
        """Parse the value of a proposal's leaf; raises MalformedError."""
        match cbor.decode(data, "proposal"):
            case ["proposal", str(by), bytes(change), int(until_s), str(state), why, approving, rejecting, *due]:
                if state not in set(ProposalState) or not isinstance(why, str | None):
                    raise MalformedError("proposal: its state is not known")
                height, time_s = _numbers(due[:2])
                names = _names(approving), _names(rejecting)
                further = parse_further(due[2:], "proposal")
                return cls(by, change, until_s, ProposalState(state), why, *names, height, time_s, further)
        raise MalformedError("proposal: not one")

    def serialize(self) -> bytes:
        """Encode the leaf's value."""
        votes: list[Cbor] = [self.approving, self.rejecting]
        head: list[Cbor] = ["proposal", self.by, self.change, self.until_s, str(self.state), self.why]
        return cbor.encode([*head, *votes, self.due_height, self.due_s, *further_items(self.further)])


@dataclass(frozen=True, slots=True)
class Entry:
    """A proposal in the list, with the first height and time at which a block must act on it."""

    proposal_id: bytes
    by: str
    height: int
    time_s: int


def proposal_id(body_bytes: bytes) -> bytes:
    """Return the id of the proposal that a transaction's body makes."""
    return hashlib.sha256(body_bytes).digest()


def proposal_key(identity: bytes) -> bytes:
    """Return the key of a proposal's leaf."""
    return hashlib.sha256(_DOMAIN + identity).digest()


def proposal_of(view: StateView, identity: bytes) -> Proposal | None:
    """Return a proposal, or None if the state does not hold it."""
    data = view.leaf(proposal_key(identity))
    return None if data is None else Proposal.parse(data)


def entries_of(view: StateView) -> list[Entry]:
    """Return the list of proposals, in the order of their ids."""
    data = view.leaf(LIST_KEY)
    return [] if data is None else parse_entries(data)


def parse_entries(data: bytes) -> list[Entry]:
    """Parse the value of the list's leaf; raises LocalError if it is not one."""
    match cbor.decode(data, "proposal list"):
        case ["proposals", list(entries)]:
            return [Entry(*entry) for entry in entries]
    raise LocalError("the ledger's state is damaged: the list of proposals is not one")


PROPOSAL_LEAF = Leaf(kind="proposal", key=proposal_key, parse=Proposal.parse)
LIST_LEAF = Leaf(kind="proposals", key=lambda: LIST_KEY, parse=parse_entries)


def put(draft: Draft, identity: bytes, proposal: Proposal) -> None:
    """Write a proposal and its entry in the list."""
    draft.leaves[proposal_key(identity)] = proposal.serialize()
    passed = proposal.state is ProposalState.PASSED
    height, time_s = (proposal.due_height, proposal.due_s) if passed else (0, proposal.until_s + 1)
    _write(draft, [*_others(draft, identity), Entry(identity, proposal.by, height, time_s)])


def drop(draft: Draft, identity: bytes) -> None:
    """Remove a proposal and its entry in the list."""
    draft.put(proposal_key(identity), None)
    _write(draft, _others(draft, identity))


def _others(draft: Draft, identity: bytes) -> list[Entry]:
    return [entry for entry in entries_of(draft) if entry.proposal_id != identity]


def _write(draft: Draft, entries: list[Entry]) -> None:
    listed: list[Cbor] = [
        [entry.proposal_id, entry.by, entry.height, entry.time_s]
        for entry in sorted(entries, key=lambda entry: entry.proposal_id)
    ]
    draft.put(LIST_KEY, ["proposals", listed] if listed else None)


def _member(parts: list[Cbor]) -> Member:
    """Read the parts of a member, and the further items after them, if any; raises MalformedError."""
    *first, last = parts
    if not isinstance(last, dict):
        return Member.of_parts(parts)
    match last:
        case {"cps": str(cps)} if len(last) == 1 and cps:
            return replace(Member.of_parts(first), cps=cps)
    raise MalformedError("change: none of a member's items that the ledger knows")


def _digests(items: list[Cbor]) -> tuple[CertDigest, ...]:
    found = tuple(CertDigest(item) for item in items if isinstance(item, bytes) and len(item) == 32)
    if len(found) != len(items) or not 1 <= len(found) <= MAX_CERTIFICATES or len(set(found)) != len(found):
        raise MalformedError("change: not a list of certificates")
    return found


def _names(items: Cbor) -> tuple[str, ...]:
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise MalformedError("proposal: votes are a list of organisations")
    return tuple(item for item in items if isinstance(item, str))


def _numbers(items: list[Cbor]) -> tuple[int, int]:
    match items:
        case [int(height), int(time_s)]:
            return height, time_s
    raise MalformedError("proposal: it is due at a height and a time")
