"""Validator sets in the state: what a block changes counts from the block after the next one."""

from typing import Any

import pytest

from tests.present import present
from voice_dpki.errors import LocalError
from voice_dpki.ledger import validators
from voice_dpki.ledger.draft import Draft
from voice_dpki.ledger.rules import V1
from voice_dpki.ledger.state import Block, MemoryState, apply
from voice_dpki.names import Height


def sizes(state: Any) -> tuple[int, int]:
    following, later = validators.validator_sets(state)
    return len(following.validators), len(later.validators)


def test_a_change_counts_from_the_block_after_the_next(federation: Any) -> None:
    state, new = federation.state(), bytes([7]) * 32
    assert validators.validator_sets(state) == (federation.genesis.validators,) * 2
    draft = Draft(state, V1)
    validators.replace_keys(draft, frozenset(), frozenset({new}))
    assert sizes(draft) == (2, 3)
    assert validators.updates(state, draft) == ((new, 1),)
    state.commit(draft.outcome())
    for after in ((3, 3), (3, 3)):
        outcome = apply(state, Block(Height(1), 1_790_000_000, ()))
        state.commit(outcome)
        assert sizes(state) == after
        assert outcome.validator_updates == ()
    assert outcome.leaves == {}, "an idle block changes nothing"


def test_the_leaf_holds_both_sets(federation: Any) -> None:
    draft = Draft(federation.state(), V1)
    validators.replace_keys(draft, frozenset(), frozenset({bytes([7]) * 32}))
    data = draft.leaf(validators.VALIDATORS_KEY)
    assert validators.parse_validators(present(data)) == validators.validator_sets(draft)
    assert sizes(draft) == (2, 3)


def test_a_key_that_goes_and_comes_in_one_block_is_no_change(federation: Any) -> None:
    state = federation.state()
    key = federation.genesis.validators.validators[0].public_key
    draft = Draft(state, V1)
    validators.replace_keys(draft, frozenset({key}), frozenset())
    assert validators.updates(state, draft) == ((key, 0),)
    validators.replace_keys(draft, frozenset(), frozenset({key}))
    assert validators.updates(state, draft) == ()


def test_a_state_without_validators_is_damaged() -> None:
    with pytest.raises(LocalError, match="damaged"):
        validators.validator_sets(MemoryState("test-1", leaves={validators.VALIDATORS_KEY: b"\x80"}))
