"""What a change of members means for the validators: how many must run after it, and whether today's suffice."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from voice_dpki.errors import LocalError
from voice_dpki.ledger.governance import is_quorum
from voice_dpki.ledger.header import Validator, ValidatorSet
from voice_dpki.ledger.members import Member
from voice_dpki.ledger.proposals import Change, RemoveMember, SetMember
from voice_dpki.ledger.validators import POWER


@dataclass(frozen=True, slots=True)
class Weight:
    """The validators before and after a change."""

    before: int
    after: int
    new: int
    """Validators of the change that do not sign blocks yet."""
    needed_before: int
    """Validators that must run now for blocks to be made: the fewest with more than two thirds of the power."""
    needed: int
    """The same after the change."""
    power: int
    """Total power after the change."""
    running: int
    """Power, of `power`, of the validators that sign blocks today and stay."""

    @property
    def suffices(self) -> bool:
        """Whether those that sign blocks today can make blocks after the change, without any others."""
        return is_quorum(self.running, self.power)

    def sentence(self) -> str:
        """Return the arithmetic for voters, with a warning where the ledger could stand still."""
        said = (
            f"{self.needed} of {_validators(self.after)} must run then, {self.needed_before} of {self.before} now"
        )
        if self.suffices:
            return said
        return (
            f"{said}. Warning: those that sign today and stay have {self.running} of {self.power} of the power "
            "then, and it takes more than two thirds. Unless others run when it takes effect, "
            "the ledger stands still"
        )

    def check(self, *, force: bool) -> None:
        """Raise LocalError if those that run are not enough after the change, unless this is wanted."""
        if not self.suffices and not force:
            raise LocalError(
                f"nothing was sent, for the ledger might stand still. {self.sentence()}. "
                "To do it even so, add --force"
            )


def weigh(
    members: Sequence[Member], present: ValidatorSet, signers: frozenset[bytes], change: Change
) -> Weight | None:
    """Return what a change of the present members does to the validators; None if it leaves them as they are.

    `signers` are the addresses of the validators that sign blocks today.
    """
    before = {member.organization: frozenset(member.validators) for member in members}
    after = dict(before)
    match change:
        case SetMember(member, _):
            after[member.organization] = frozenset(member.validators)
        case RemoveMember(organization):
            after.pop(organization, None)
    old, then = (frozenset[bytes]().union(*keys.values()) for keys in (before, after))
    if old == then:
        return None
    powers = {each.public_key: each.power for each in present.validators}
    later = {key: powers.get(key, POWER) if key in old else POWER for key in then}
    return Weight(
        before=len(old),
        after=len(then),
        new=len(then - old),
        needed_before=_fewest(powers.values()),
        needed=_fewest(later.values()),
        power=sum(later.values()),
        running=sum(power for key, power in later.items() if key in old and Validator(key, 1).address in signers),
    )


def _fewest(powers: Iterable[int]) -> int:
    """Return the least number of validators that have more than two thirds of the power."""
    falling = sorted(powers, reverse=True)
    return next(
        (number for number in range(1, len(falling) + 1) if is_quorum(sum(falling[:number]), sum(falling))), 0
    )


def _validators(number: int) -> str:
    return "1 validator" if number == 1 else f"{number} validators"
