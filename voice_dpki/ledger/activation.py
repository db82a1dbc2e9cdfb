"""Which version of the rules a block follows, and how the operators decide it.

    SHA-256("voice-dpki/rules/v1" ‖ 00) -> ["rules", [+ [version, first height]]]     -- in ascending order

The leaf lists every version that was ever in force, and the next one if it is decided. Version 1 has no such leaf,
and no proposal about versions. Its operators therefore admit a member whose name is a notice: "voice-dpki rules 2
from block 1200". Every release with version 1 accepts it, even one that does not know what the name means. The new
version begins with the named block, or with the block after the notice's admission if that is later. That block
removes the notices and writes the leaf. A notice that is removed or suspended before that has no effect.

docs/spec/state.md#versions-of-the-rules specifies it.
"""

import hashlib
import re
from functools import lru_cache

from voice_dpki.codec import cbor
from voice_dpki.errors import LocalError
from voice_dpki.ledger import directory
from voice_dpki.ledger.draft import Block, Draft
from voice_dpki.ledger.leaf import Leaf
from voice_dpki.ledger.members import Member, MemberKind
from voice_dpki.ledger.refusals import Refusal, Refused
from voice_dpki.ledger.rules import Rules, rules_for
from voice_dpki.ledger.view import StateView

RULES_KEY = hashlib.sha256(b"voice-dpki/rules/v1\0").digest()

_NOTICE = re.compile(r"voice-dpki rules ([1-9][0-9]{0,5}) from block ([1-9][0-9]{0,11})", re.ASCII)

Activations = tuple[tuple[int, int], ...]
"""Versions with the heights of their first blocks, in ascending order."""


def version_at(view: StateView, height: int) -> int:
    """Return the version that the block at `height` follows; `view` is the state before it."""
    return max((version for version, first in activations(view) if first <= height), default=1)


def rules_at(view: StateView, height: int) -> Rules:
    """Return the rules that the block at `height` follows; raises MissingRulesError."""
    return rules_for(version_at(view, height), height)


def scheduled(view: StateView, height: int) -> tuple[int, int] | None:
    """Return the version that begins after `height` and its first block; None if none is decided."""
    later = ((version, first) for version, first in activations(view) if first > height and version > 1)
    return next(later, None)


def activations(view: StateView) -> Activations:
    """Return all versions that were ever in force or are decided."""
    data = view.leaf(RULES_KEY)
    return _noticed(view) if data is None else parse_activations(data)


@lru_cache(8)
def parse_activations(data: bytes) -> Activations:
    """Parse the value of the leaf; raises LocalError if it is no list of versions."""
    match cbor.decode(data, "rules"):
        case ["rules", list(entries)]:
            return tuple((version, first) for version, first in entries)  # only this module writes it
    raise LocalError("the ledger's state is damaged: the versions of its rules are not such")


RULES_LEAF = Leaf(kind="rules", key=lambda: RULES_KEY, parse=parse_activations)


def notice(version: int, height: int) -> Member:
    """Return the member that announces another version to a ledger under version 1."""
    return Member(f"voice-dpki rules {version} from block {height}", MemberKind.VENDOR)


def read_notice(organization: str) -> tuple[int, int] | None:
    """Return the version and the height in a member's name that is a notice; None for any other name."""
    found = _NOTICE.fullmatch(organization)
    return None if found is None else (int(found[1]), int(found[2]))


def begin(draft: Draft) -> None:
    """Begin a block: the first one of a version that was announced by a notice replaces all notices by the leaf."""
    if draft.rules.version == 1 or draft.leaf(RULES_KEY) is not None:
        return
    decided = activations(draft)
    for organization, _, _ in _notices(draft):
        directory.remove(draft, organization)
    _write(draft, decided)


def schedule(draft: Draft, block: Block, version: int, height: int) -> None:
    """Decide that `version` begins with the block at `height`, or with the next one if that is later.

    The present version cancels the scheduled one. Raises Refused for an earlier version, for a later one if one is
    scheduled already, and for the present one if none is scheduled.
    """
    present, is_new = draft.rules.version, version > draft.rules.version
    is_scheduled = scheduled(draft, block.height) is not None
    if version < present or is_new == is_scheduled:
        raise Refused(Refusal.RULES)
    begun = tuple(entry for entry in activations(draft) if entry[1] <= block.height)
    _write(draft, (*begun, (version, max(height, block.height + 1))) if is_new else begun)


def _noticed(view: StateView) -> Activations:
    found: dict[int, int] = {}
    for organization, version, height in _notices(view):
        member = view.member(organization)
        if member is not None and not member.suspended:
            first = max(height, member.admitted_height + 1)
            found[version] = min(first, found.get(version, first))
    return ((1, 1), *_ascending(found))


def _ascending(found: dict[int, int]) -> Activations:
    """Leave out versions that would begin no earlier than a later one."""
    kept: list[tuple[int, int]] = []
    for version, first in sorted(found.items(), reverse=True):
        if version > 1 and (not kept or first < kept[-1][1]):
            kept.append((version, first))
    return tuple(reversed(kept))


def _notices(view: StateView) -> tuple[tuple[str, int, int], ...]:
    """Return the name, version and height of each notice, in the order of the names."""
    data = view.leaf(directory.DIRECTORY_KEY)
    return () if data is None else _notices_in(data)


@lru_cache(8)
def _notices_in(data: bytes) -> tuple[tuple[str, int, int], ...]:
    return tuple((name, *found) for name in directory.parse_organizations(data) if (found := read_notice(name)))


def _write(draft: Draft, entries: Activations) -> None:
    draft.put(RULES_KEY, ["rules", [list(entry) for entry in entries]])
