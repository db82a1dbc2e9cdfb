"""The list of members, and the changes to it that keep the ledger consistent.

    SHA-256("voice-dpki/members/v1" ‖ 00) -> ["members", [* organization]]                     -- sorted

Every change of a member goes through `install` or `remove`. Both check the invariants of the new state, so that no
number, name or key ever has two owners.

docs/spec/encodings.md#leaves specifies it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from voice_dpki.codec import cbor
from voice_dpki.errors import LocalError
from voice_dpki.ledger import held_numbers, owners, validators
from voice_dpki.ledger.draft import Draft
from voice_dpki.ledger.header import Validator
from voice_dpki.ledger.leaf import Leaf
from voice_dpki.ledger.members import ConflictError, Member, check_apart, member_key
from voice_dpki.ledger.refusals import CONFLICT_REFUSALS, Refusal, Refused
from voice_dpki.ledger.view import StateView

DIRECTORY_KEY = hashlib.sha256(b"voice-dpki/members/v1\0").digest()

MAX_MEMBERS = 1000
MAX_VALIDATORS = 200
"""Validators of all members: each signs every block, and every answer carries the signatures."""


def organizations(view: StateView) -> tuple[str, ...]:
    """Return the names of all members, in order."""
    data = view.leaf(DIRECTORY_KEY)
    if data is None:
        return ()
    return parse_organizations(data)


def parse_organizations(data: bytes) -> tuple[str, ...]:
    """Parse the value of the leaf; raises LocalError if it is not a list of members."""
    match cbor.decode(data, "member list"):
        case ["members", list(names)]:
            return tuple(name for name in names if isinstance(name, str))
    raise LocalError("the ledger's state is damaged: the list of members is not one")


DIRECTORY_LEAF = Leaf(kind="members", key=lambda: DIRECTORY_KEY, parse=parse_organizations)


def members_of(view: StateView) -> list[Member]:
    """Return all members, in the order of their names."""
    return [_found(view, organization) for organization in organizations(view)]


def operators_of(view: StateView) -> frozenset[str]:
    """Return the names of the members that vote: operators that are not suspended."""
    return frozenset(member.organization for member in members_of(view) if member.votes)


def begin(draft: Draft, members: Sequence[Member]) -> None:
    """Write the first members of a ledger; the caller has checked that they share nothing."""
    for member in members:
        draft.put_member(member)
        for key_id in sorted(member.key_ids):
            owners.claim(draft, key_id, member.organization)
    _write(draft, sorted(member.organization for member in members))


def install(draft: Draft, member: Member) -> None:
    """Admit a member, or replace its record; raises Refused if the invariants would not hold.

    If the record has no room for a mark that it needs, the URL of its call placement service is dropped.
    """
    old = draft.member(member.organization)
    others = [other for other in members_of(draft) if other.organization != member.organization]
    was_marked = old is not None and old.by_number
    if was_marked or (member.ranges and any(other.by_number for other in others)):
        member = _marked(member)
    _check_together([*others, member])
    for key_id in sorted(old.key_ids - member.key_ids if old else ()):
        owners.release(draft, key_id)
    try:
        for key_id in sorted(member.key_ids - old.key_ids if old else member.key_ids):
            owners.claim(draft, key_id, member.organization)
    except Refused as refused:
        taken = refused.refusal is Refusal.KEY_IN_USE
        raise Refused(Refusal.ENDORSING_KEY_TAKEN if taken else refused.refusal) from None
    before = frozenset(old.validators) if old else frozenset[bytes]()
    after = frozenset(member.validators)
    validators.replace_keys(draft, before - after, after - before)
    draft.put_member(member)
    if old is None:
        _write(draft, sorted([*organizations(draft), member.organization]))
    _check_capable(draft)


def _marked(member: Member) -> Member:
    """Return the record with the mark `by_number`, and its URL only if there is room for both.

    Otherwise a member with a full record could not be suspended, and would keep a validator that signed twice.
    """
    try:
        return held_numbers.marked(member)
    except Refused:
        return held_numbers.marked(replace(member, cps=""))


def remove(draft: Draft, organization: str) -> None:
    """Remove a member; raises Refused if no validator or no operator would be left."""
    member = _found(draft, organization)
    for key_id in sorted(member.key_ids):
        owners.release(draft, key_id)
    validators.replace_keys(draft, frozenset(member.validators), frozenset())
    draft.put(member_key(organization), None)
    draft.members_changed = True
    _write(draft, [name for name in organizations(draft) if name != organization])
    _check_capable(draft)


def drop_validators(draft: Draft, addresses: frozenset[bytes]) -> None:
    """Remove validators, by address, from the members that run them, unless no validator would be left."""
    for member in members_of(draft):
        kept = tuple(key for key in member.validators if Validator(key, 1).address not in addresses)
        if kept != member.validators:
            own = draft.nested()
            try:
                install(own, replace(member, validators=kept, revision=member.revision + 1))
            except Refused:
                continue
            draft.take_over(own)


def _check_together(members: list[Member]) -> None:
    if len(members) > MAX_MEMBERS or sum(len(member.validators) for member in members) > MAX_VALIDATORS:
        raise Refused(Refusal.MEMBERS)
    try:
        check_apart(members)
    except ConflictError as error:
        raise Refused(CONFLICT_REFUSALS[error.what]) from None


def _check_capable(draft: Draft) -> None:
    if not validators.validator_keys(draft) or not operators_of(draft):
        raise Refused(Refusal.NO_VALIDATORS)


def _found(view: StateView, organization: str) -> Member:
    member = view.member(organization)
    if member is None:
        raise LocalError("the ledger's state is damaged: a member is missing")
    return member


def _write(draft: Draft, names: list[str]) -> None:
    draft.put(DIRECTORY_KEY, ["members", names])
