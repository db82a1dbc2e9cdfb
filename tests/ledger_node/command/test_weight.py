"""How many validators must run after a change, who is warned, and what is not sent."""

import pytest

from ledger_node.command.weight import Weight, weigh
from tests.validator_keys import validator_key
from voice_dpki.errors import LocalError
from voice_dpki.ledger.header import Validator, ValidatorSet
from voice_dpki.ledger.members import Member, MemberKind
from voice_dpki.ledger.proposals import BeginRules, Change, RemoveMember, SetMember, SuspendMember
from voice_dpki.x509.keys import generate_es256

KEY = generate_es256().public_key_der
ALL = (1, 2, 3)


def member(name: str, *validators: int) -> Member:
    keys = tuple(validator_key(number) for number in validators)
    return Member(name, MemberKind.OPERATOR, validators=keys, endorsing_keys=(KEY,))


MEMBERS = [member("A", 1), member("B", 2), member("C", 3)]


def weighed(change: Change, *signers: int, powers: tuple[int, ...] = (1, 1, 1)) -> Weight | None:
    """Weigh a change of three members; `signers` are the numbers of the validators that sign today."""
    present = ValidatorSet.of(Validator(validator_key(number), power) for number, power in enumerate(powers, 1))
    addresses = frozenset(Validator(validator_key(number), 1).address for number in signers)
    return weigh(MEMBERS, present, addresses, change)


@pytest.mark.parametrize(
    ("change", "signers", "weight"),
    [
        (SetMember(member("D", 4), None), ALL, Weight(3, 4, 1, 3, 3, 4, 3)),
        (SetMember(member("D", 4), None), (1, 2), Weight(3, 4, 1, 3, 3, 4, 2)),
        (SetMember(member("D", 4, 5), None), ALL, Weight(3, 5, 2, 3, 4, 5, 3)),
        (SetMember(member("A", 9), 0), ALL, Weight(3, 3, 1, 3, 3, 3, 2)),
        (SetMember(member("A"), 0), ALL, Weight(3, 2, 0, 3, 2, 2, 2)),
        (RemoveMember("C"), ALL, Weight(3, 2, 0, 3, 2, 2, 2)),
        (RemoveMember("C"), (1, 3), Weight(3, 2, 0, 3, 2, 2, 1)),
        (SetMember(member("A", 1), 0), ALL, None),
        (SetMember(member("D"), None), ALL, None),
        (RemoveMember("D"), ALL, None),
        (SuspendMember("C"), ALL, None),
        (BeginRules(2, 1), ALL, None),
    ],
)
def test_what_a_change_does_to_the_validators(
    change: Change, signers: tuple[int, ...], weight: Weight | None
) -> None:
    assert weighed(change, *signers) == weight


def test_a_new_validator_on_probation_is_not_needed() -> None:
    full = 100, 100, 100
    assert weighed(SetMember(member("D", 4), None), *ALL, powers=full) == Weight(3, 4, 1, 3, 3, 301, 300)
    assert weighed(SetMember(member("A", 9), 0), *ALL, powers=full) == Weight(3, 3, 1, 3, 2, 201, 200)
    assert weighed(SetMember(member("D", 4), None), 1, 2, powers=full) == Weight(3, 4, 1, 3, 3, 301, 200)


@pytest.mark.parametrize(
    ("weight", "sentence"),
    [
        (Weight(3, 4, 1, 3, 3, 4, 3), "3 of 4 validators must run then, 3 of 3 now"),
        (Weight(2, 1, 0, 2, 1, 1, 1), "1 of 1 validator must run then, 2 of 2 now"),
        (
            Weight(3, 5, 2, 3, 4, 5, 3),
            "4 of 5 validators must run then, 3 of 3 now. Warning: those that sign today and stay have 3 of 5 of "
            "the power then, and it takes more than two thirds. Unless others run when it takes effect, the ledger "
            "stands still",
        ),
    ],
)
def test_voters_read_the_arithmetic(weight: Weight, sentence: str) -> None:
    assert weight.sentence() == sentence


@pytest.mark.parametrize("running", [3, 4])
def test_nothing_is_sent_that_may_stop_the_ledger_unless_it_is_forced(running: int) -> None:
    weight = Weight(3, 5, 2, 3, 4, 5, running)
    weight.check(force=True)
    if running == 4:
        weight.check(force=False)
        return
    with pytest.raises(LocalError, match=r"^nothing was sent.* 3 of 5 of the power .* add --force$"):
        weight.check(force=False)
