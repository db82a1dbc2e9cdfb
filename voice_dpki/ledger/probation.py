"""Probation of validators: a new one has hardly any power until it has signed enough blocks.

    SHA-256("voice-dpki/probation/v1" ‖ 00) -> ["probation", [* [Ed25519 key, signed]]]        -- sorted by key

`signed` has a bit for each of the last WINDOW blocks, the lowest bit for the newest: 1 if the commit for the block,
which the next block holds, has the validator's vote. A validator on probation that has signed none of them is not
listed, so one that never runs changes no state, and an idle ledger stays idle.

The operators cannot know whether a validator runs before it has power, because CometBFT takes no votes from others.
With a power of 1 beside others of FULL_POWER it votes, but hardly counts. A validator that stops later keeps its
power: if it lost any, an attacker who cuts operators off from the others could turn a few of them into the quorum.

The first block of version 4 of the rules gives all present validators FULL_POWER times their power, which leaves
their weight as it is, and writes the leaf. docs/spec/state.md#probation specifies it.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from voice_dpki.codec import cbor
from voice_dpki.errors import LocalError
from voice_dpki.ledger import directory, validators
from voice_dpki.ledger.draft import Block, Draft
from voice_dpki.ledger.header import Validator
from voice_dpki.ledger.leaf import Leaf
from voice_dpki.ledger.refusals import Refusal, Refused
from voice_dpki.ledger.view import StateView

PROBATION_KEY = hashlib.sha256(b"voice-dpki/probation/v1\0").digest()

FULL_POWER = 100
"""Power after probation; up to 49 new ones with a power of 1 cannot stop a ledger whose others all run."""

WINDOW = 25
"""Number of the latest blocks whose votes are counted."""

NEEDED = 20
"""Number of these that a new validator must have signed."""

_MASK = (1 << WINDOW) - 1

_Signed = Mapping[bytes, int]


def parse_probation(data: bytes) -> dict[bytes, int]:
    """Parse the value of the leaf to `signed` by key; raises LocalError."""
    match cbor.decode(data, "probation"):
        case ["probation", list(entries)]:
            return dict(entries)  # pairs of key and bits, written by this module alone
    raise LocalError("the ledger's state is damaged: the validators on probation are not such")


PROBATION_LEAF = Leaf(kind="probation", key=lambda: PROBATION_KEY, parse=parse_probation)


def on_probation(view: StateView) -> frozenset[bytes]:
    """Return the keys on probation in the set for the block after the next one; none before version 4."""
    if view.leaf(PROBATION_KEY) is None:
        return frozenset()
    return frozenset(key for key, power in validators.powers(view).items() if power < FULL_POWER)


def advance(draft: Draft, block: Block) -> None:
    """Begin a block: count the signers of the one before it, and end the probation of those with enough votes."""
    if not draft.rules.probation:
        return
    data = draft.leaf(PROBATION_KEY)
    if data is None:
        powers = {key: FULL_POWER * power for key, power in validators.powers(draft).items()}
        validators.set_powers(draft, powers)
        _write(draft, {})
        return
    before, waiting = parse_probation(data), on_probation(draft)
    if not before and not waiting:
        return
    signed = {key: _counted(before.get(key, 0), key, block) for key in waiting}
    passed = frozenset(key for key, bits in signed.items() if bits.bit_count() >= NEEDED)
    validators.set_powers(draft, dict.fromkeys(passed, FULL_POWER))
    _write(draft, {key: bits for key, bits in signed.items() if bits and key not in passed})


def _counted(bits: int, key: bytes, block: Block) -> int:
    return (bits << 1 | (Validator(key, 1).address in block.signers)) & _MASK


def _write(draft: Draft, signed: _Signed) -> None:
    draft.put(PROBATION_KEY, ["probation", [[key, bits] for key, bits in sorted(signed.items())]])


@dataclass(frozen=True, slots=True)
class Shares:
    """The number of validators of each member, and their power together, by organisation."""

    numbers: Mapping[str, int]
    powers: Mapping[str, int]

    @property
    def greatest(self) -> int:
        """The most power that one member has."""
        return max(self.powers.values(), default=0)

    @property
    def total(self) -> int:
        """The power of all."""
        return sum(self.powers.values())


def shares_of(view: StateView) -> Shares:
    """Return the members' shares of the set for the block after the next one."""
    powers = validators.powers(view)
    members = directory.members_of(view)
    return Shares(
        Counter({member.organization: len(member.validators) for member in members}),
        {member.organization: sum(powers.get(key, 0) for key in member.validators) for member in members},
    )


def check_shares(view: StateView, before: Shares) -> None:
    """Raise Refused for a change of a member that gives it, or leaves another, too large a share.

    A member can always have one validator; it can add more only if it then has fewer than a third of all. New keys
    begin with little power. Replacing those of several members at once must therefore not leave one member with
    more than two thirds of the power, unless it had half before, as one of two operators has.
    """
    after = shares_of(view)
    allowed = most_validators(sum(after.numbers.values()))
    added = (name for name, number in after.numbers.items() if number > before.numbers.get(name, 0))
    if any(after.numbers[name] > allowed for name in added):
        raise Refused(Refusal.SHARE)
    if 3 * after.greatest > 2 * after.total and 2 * before.greatest < before.total:
        raise Refused(Refusal.SHARE)


def most_validators(number: int) -> int:
    """Return how many of `number` validators one operator may have: fewer than a third of them, or one."""
    return max(1, (number - 1) // 3)
