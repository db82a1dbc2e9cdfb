"""Version 4 of the rules: a new validator has little power until it was seen to sign, and nobody gets too many."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.validator_keys import validator_key
from voice_dpki.errors import LocalError
from voice_dpki.ledger import tree
from voice_dpki.ledger.draft import Block, Draft
from voice_dpki.ledger.header import Validator
from voice_dpki.ledger.members import Member, MemberKind
from voice_dpki.ledger.probation import (
    FULL_POWER,
    NEEDED,
    PROBATION_KEY,
    WINDOW,
    Shares,
    advance,
    most_validators,
    on_probation,
    parse_probation,
    shares_of,
)
from voice_dpki.ledger.proposals import (
    BeginRules,
    Change,
    ProposalState,
    RemoveMember,
    SetMember,
)
from voice_dpki.ledger.rules import V4
from voice_dpki.ledger.validators import powers, replace_keys, validator_sets
from voice_dpki.names import Height

from .test_governance import MEMBERS, Ledger, member
from .test_rules import B, C, D, decided, judged, new_ledger, version_3, version_4

E = "Operator E"
DONE = ProposalState.DONE, None
NEW = validator_key(5)
ADDRESS = Validator(NEW, 1).address


def power_of(ledger: Ledger, number: int) -> int | None:
    return powers(ledger.state).get(validator_key(number))


def signed_by(ledger: Ledger, pattern: Sequence[bool]) -> list[int | None]:
    """Make a block for each of `pattern`, that tells whether the new validator signed; return its powers."""
    found = []
    for signs in pattern:
        ledger.block(signers=(ADDRESS,) if signs else ())
        found.append(power_of(ledger, 5))
    return found


def admitted() -> Ledger:
    """Return a ledger under version 4 that has just admitted Operator E."""
    ledger = version_4()
    assert decided(ledger, SetMember(member(E, 5), None), B, C) == DONE
    return ledger


def refused(ledger: Ledger, change: Change) -> str:
    return judged(ledger, ledger.propose(change, until_s=ledger.time_s + 10))


def with_validators(of: Member, *numbers: int) -> Member:
    return replace(of, validators=tuple(validator_key(number) for number in numbers))


def test_the_first_block_gives_all_present_validators_full_power() -> None:
    ledger = version_3()
    assert ledger.state.leaf(PROBATION_KEY) is None
    assert [power_of(ledger, number) for number in range(1, 5)] == [1] * 4
    decided(ledger, BeginRules(4, 1))
    ledger.block()
    assert [power_of(ledger, number) for number in range(1, 5)] == [FULL_POWER] * 4
    assert ledger.outcome.validator_updates == tuple(
        sorted((validator_key(number), FULL_POWER) for number in range(1, 5))
    )
    following, later = validator_sets(ledger.state)
    assert (following.total_power, later.total_power) == (4, 400), "it counts from the block after the next one"
    assert on_probation(ledger.state) == frozenset()
    ledger.block()
    assert ledger.outcome.validator_updates == ()
    ledger.block()
    assert ledger.outcome.leaves == {}, "an idle block changes nothing"


def test_up_to_version_3_a_new_validator_has_the_power_of_all_others() -> None:
    ledger = version_3()
    assert decided(ledger, SetMember(member(E, 5), None), B, C) == DONE
    assert signed_by(ledger, [True] * (WINDOW + 5)) == [1] * (WINDOW + 5)
    assert on_probation(ledger.state) == frozenset()


def test_a_new_validator_gets_full_power_when_it_has_signed_enough() -> None:
    ledger = admitted()
    assert power_of(ledger, 5) == 1
    assert on_probation(ledger.state) == {NEW}
    assert signed_by(ledger, [True] * NEEDED) == [1] * (NEEDED - 1) + [FULL_POWER]
    assert ledger.outcome.validator_updates == ((NEW, FULL_POWER),)
    assert parse_probation(ledger.state.leaf(PROBATION_KEY) or b"") == {}
    assert signed_by(ledger, [False] * (2 * WINDOW)) == [FULL_POWER] * (2 * WINDOW), "it keeps the power"


def test_only_the_last_blocks_count() -> None:
    ledger = admitted()
    missed = WINDOW - NEEDED + 1
    assert signed_by(ledger, [True] * (NEEDED - 1) + [False] * missed) == [1] * WINDOW
    assert signed_by(ledger, [True]) == [1], "the first one counts no more"
    ledger = admitted()
    assert signed_by(ledger, [True] * (NEEDED - 1) + [False] * (missed - 1) + [True])[-1] == FULL_POWER


def test_one_that_never_signs_changes_no_state() -> None:
    ledger = admitted()
    ledger.block()
    before = tree.root(ledger.state)
    signed_by(ledger, [False] * (2 * WINDOW))
    assert tree.root(ledger.state) == before
    assert power_of(ledger, 5) == 1
    signed_by(ledger, [True])
    assert tree.root(ledger.state) != before
    signed_by(ledger, [False] * WINDOW)
    assert tree.root(ledger.state) == before, "what it signed long ago is forgotten"


def test_one_that_is_removed_begins_anew() -> None:
    ledger = admitted()
    signed_by(ledger, [True] * (NEEDED - 3))
    assert decided(ledger, RemoveMember(E), B, C, D) == DONE
    ledger.block()
    assert parse_probation(ledger.state.leaf(PROBATION_KEY) or b"") == {}
    assert decided(ledger, SetMember(member(E, 5), None), B, C) == DONE
    assert signed_by(ledger, [True] * NEEDED) == [1] * (NEEDED - 1) + [FULL_POWER]


def test_a_replaced_key_is_on_probation_and_the_others_go_on() -> None:
    ledger = version_4()
    old = MEMBERS[0]
    assert decided(ledger, SetMember(with_validators(old, 5), 0), B, C) == DONE
    assert (power_of(ledger, 1), power_of(ledger, 5)) == (None, 1)
    assert 2 * validator_sets(ledger.state)[1].total_power < 3 * 300
    assert signed_by(ledger, [True] * NEEDED)[-1] == FULL_POWER


def test_no_two_of_three_keys_are_replaced_at_once() -> None:
    """A third one alone would have 100 of 102."""
    ledger = version_4()
    assert decided(ledger, RemoveMember(D), B, C) == DONE
    assert decided(ledger, SetMember(with_validators(MEMBERS[0], 5), 0), B, C) == DONE
    second = SetMember(with_validators(MEMBERS[1], 6), 0)
    assert refused(ledger, second) == "too-much-power"
    signed_by(ledger, [True] * NEEDED)
    assert decided(ledger, second, B, C) == DONE


def test_one_of_two_operators_replaces_its_key() -> None:
    ledger = version_4()
    assert decided(ledger, RemoveMember(D), B, C) == DONE
    assert decided(ledger, RemoveMember(C), B, C) == DONE
    assert decided(ledger, SetMember(with_validators(MEMBERS[0], 5), 0), B) == DONE
    assert (power_of(ledger, 2), power_of(ledger, 5)) == (FULL_POWER, 1)


@pytest.mark.parametrize(
    ("number", "allowed"), [(1, 1), (3, 1), (4, 1), (6, 1), (7, 2), (9, 2), (10, 3), (200, 66)]
)
def test_the_others_are_more_than_two_thirds_without_any_one(number: int, allowed: int) -> None:
    assert most_validators(number) == allowed
    assert allowed == 1 or 3 * (number - allowed) > 2 * number
    assert 3 * (number - allowed - 1) <= 2 * number


def test_an_operator_adds_no_more_validators_than_its_share() -> None:
    two = with_validators(member(E, 5), 5, 6)
    ledger = version_4()
    assert refused(ledger, SetMember(two, None)) == "too-much-power"
    assert refused(ledger, SetMember(with_validators(MEMBERS[0], 1, 6), 0)) == "too-much-power"
    assert refused(version_3(), SetMember(two, None)) == "ok"


def test_who_has_more_already_keeps_them() -> None:
    """From before version 4: it may replace and remove, and not add."""
    ledger = version_3()
    assert decided(ledger, SetMember(with_validators(MEMBERS[0], 1, 5, 6), 0), B, C) == DONE
    decided(ledger, BeginRules(4, 1), B, C, D)
    ledger.block()
    assert power_of(ledger, 5) == FULL_POWER
    assert refused(ledger, SetMember(with_validators(MEMBERS[0], 1, 5, 7), 1)) == "ok"
    assert refused(ledger, SetMember(with_validators(MEMBERS[0], 1), 1)) == "ok"
    assert refused(ledger, SetMember(with_validators(MEMBERS[0], 1, 5, 6, 7), 1)) == "too-much-power"


def test_members_without_validators_come_as_before() -> None:
    ledger = version_4()
    newcomer = replace(member(E, 5), validators=(), kind=MemberKind.SERVICE_PROVIDER)
    assert refused(ledger, SetMember(newcomer, None)) == "ok"


def test_a_leaf_of_another_form_is_damage() -> None:
    with pytest.raises(LocalError, match="damaged"):
        parse_probation(b"\x80")


def test_a_block_in_which_nobody_is_on_probation_writes_nothing_of_it() -> None:
    ledger = version_4()
    ledger.block()
    draft = Draft(ledger.state, V4)
    advance(draft, Block(Height(ledger.height), ledger.time_s, ()))
    assert not draft.leaves


def test_two_thirds_may_be_left_to_one_operator() -> None:
    """It has 200 of 401 before, and 200 of 302 after the change: less than two thirds."""
    ledger = version_3()
    assert decided(ledger, SetMember(with_validators(MEMBERS[0], 1, 5), 0), B, C) == DONE
    decided(ledger, BeginRules(4, 1), B, C, D)
    ledger.block()
    assert decided(ledger, SetMember(with_validators(MEMBERS[2], 7), 0), B, C) == DONE
    assert sum(powers(ledger.state).values()) == 401
    assert refused(ledger, SetMember(with_validators(MEMBERS[3], 8), 0)) == "ok"


def test_one_that_adds_fewer_than_its_share_may() -> None:
    """With seven validators each operator may have two."""
    ledger = version_3()
    assert decided(ledger, SetMember(with_validators(MEMBERS[0], 1, 6, 7), 0), B, C) == DONE
    decided(ledger, BeginRules(4, 1), B, C, D)
    ledger.block()
    assert most_validators(7) == 2
    for change, wanted in (
        (SetMember(member(E, 5), None), "ok"),
        (SetMember(with_validators(member(E, 5), 5, 8), None), "ok"),
        (SetMember(with_validators(member(E, 5), 5, 8, 9), None), "too-much-power"),
    ):
        assert refused(ledger, change) == wanted


def test_who_has_no_validator_in_the_set_has_no_share() -> None:
    assert (Shares({}, {}).greatest, Shares({}, {}).total) == (0, 0)
    ledger = new_ledger()
    shares = shares_of(ledger.state)
    assert (shares.greatest, shares.total) == (1, 4)
    draft = Draft(ledger.state, V4)
    replace_keys(draft, frozenset({validator_key(4)}), frozenset())
    shares = shares_of(draft)
    assert (shares.numbers[D], shares.powers[D], shares.total) == (1, 0, 3)
