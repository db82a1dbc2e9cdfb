"""How many validators must run after a change, and who is warned."""

import pytest

from ledger_node.command.weight import Weight, weigh
from tests.validator_keys import validator_key
from voice_dpki.ledger.members import Member, MemberKind
from voice_dpki.ledger.proposals import BeginRules, Change, RemoveMember, SetMember, SuspendMember
from voice_dpki.x509.keys import generate_es256

KEY = generate_es256().public_key_der


def member(name: str, *validators: int) -> Member:
    keys = tuple(validator_key(number) for number in validators)
    return Member(name, MemberKind.OPERATOR, validators=keys, endorsing_keys=(KEY,))


MEMBERS = [member("A", 1), member("B", 2), member("C", 3)]


@pytest.mark.parametrize(
    ("change", "weight"),
    [
        (SetMember(member("D", 4), None), Weight(3, 4, 1)),
        (SetMember(member("D", 4, 5), None), Weight(3, 5, 2)),
        (SetMember(member("A", 9), 0), Weight(3, 3, 1)),
        (SetMember(member("A"), 0), Weight(3, 2, 0)),
        (RemoveMember("C"), Weight(3, 2, 0)),
        (SetMember(member("A", 1), 0), None),
        (SetMember(member("D"), None), None),
        (RemoveMember("D"), None),
        (SuspendMember("C"), None),
        (BeginRules(2, 1), None),
    ],
)
def test_what_a_change_does_to_the_validators(change: Change, weight: Weight | None) -> None:
    assert weigh(MEMBERS, change) == weight


@pytest.mark.parametrize(
    ("weight", "sentence"),
    [
        (Weight(3, 4, 1), "3 of 4 validators must run then, 3 of 3 now"),
        (Weight(2, 1, 0), "1 of 1 validator must run then, 2 of 2 now"),
        (
            Weight(3, 5, 2),
            "4 of 5 validators must run then, 3 of 3 now. Warning: the 3 that sign today and stay are not enough. "
            "Unless 1 of 2 new ones run when it takes effect, the ledger stands still",
        ),
        (
            Weight(3, 3, 1),
            "3 of 3 validators must run then, 3 of 3 now. Warning: the 2 that sign today and stay are not enough. "
            "Unless 1 of 1 new ones run when it takes effect, the ledger stands still",
        ),
    ],
)
def test_voters_read_the_arithmetic(weight: Weight, sentence: str) -> None:
    assert weight.sentence() == sentence
