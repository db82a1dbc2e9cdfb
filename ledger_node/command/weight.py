"""What a change of members means for the validators: how many must run then, and whether today's are enough."""

from collections.abc import Sequence
from dataclasses import dataclass

from voice_dpki.ledger.governance import least_quorum
from voice_dpki.ledger.members import Member
from voice_dpki.ledger.proposals import Change, RemoveMember, SetMember


@dataclass(frozen=True, slots=True)
class Weight:
    """The validators before and after a change; each has the same power."""

    before: int
    after: int
    new: int
    """Validators of the change that do not sign blocks yet."""

    @property
    def needed(self) -> int:
        """How many must run after the change, so that blocks are made: more than two thirds."""
        return least_quorum(self.after)

    def sentence(self) -> str:
        """Return the arithmetic for voters, with a warning where the ledger could stand still."""
        staying = self.after - self.new
        now = least_quorum(self.before)
        said = f"{self.needed} of {_validators(self.after)} must run then, {now} of {self.before} now"
        if staying >= self.needed:
            return said
        return (
            f"{said}. Warning: the {staying} that sign today and stay are not enough. "
            f"Unless {self.needed - staying} of {self.new} new ones run when it takes effect, "
            "the ledger stands still"
        )


def weigh(members: Sequence[Member], change: Change) -> Weight | None:
    """Return what a change of the present members does to the validators; None if it leaves them as they are."""
    before = {member.organization: frozenset(member.validators) for member in members}
    after = dict(before)
    match change:
        case SetMember(member, _):
            after[member.organization] = frozenset(member.validators)
        case RemoveMember(organization):
            after.pop(organization, None)
    old, then = (frozenset[bytes]().union(*keys.values()) for keys in (before, after))
    return None if old == then else Weight(len(old), len(then), len(then - old))


def _validators(number: int) -> str:
    return "1 validator" if number == 1 else f"{number} validators"
