"""Leaves are held as long as nothing of them has changed, whichever header proved them."""

from collections.abc import Callable
from functools import partial

from voice_dpki.ledger.held_leaves import HeldLeaf, HeldLeaves
from voice_dpki.names import Height

KEY, OTHER, THIRD = (bytes([number]) * 32 for number in range(3))


def at(height: int, *, room: int = 9) -> HeldLeaves:
    leaves = HeldLeaves(room)
    leaves.advance(Height(height), None)
    return leaves


def test_presence_and_absence_are_held_until_they_change() -> None:
    leaves = at(5)
    leaves.put(KEY, b"value", Height(5))
    leaves.put(OTHER, None, Height(5))
    leaves.advance(Height(6), frozenset({THIRD}))
    assert (leaves.get(KEY), leaves.get(OTHER), leaves.get(THIRD)) == (HeldLeaf(b"value"), HeldLeaf(None), None)
    leaves.advance(Height(7), frozenset({KEY}))
    assert (leaves.get(KEY), leaves.get(OTHER)) == (None, HeldLeaf(None))


def test_what_an_older_header_proves_is_not_held() -> None:
    """What has changed since is not known."""
    leaves = at(5)
    leaves.put(KEY, b"old", Height(4))
    assert leaves.get(KEY) is None


def test_what_a_newer_header_proves_goes_with_a_change_that_may_be_later() -> None:
    leaves = at(5)
    leaves.put(KEY, b"newer", Height(7))
    assert leaves.get(KEY) == HeldLeaf(b"newer")
    leaves.advance(Height(8), frozenset({KEY}))
    assert leaves.get(KEY) is None


def test_nothing_is_held_before_the_first_header_nor_after_changes_that_are_not_known() -> None:
    leaves = HeldLeaves(9)
    leaves.put(KEY, b"value", Height(5))
    assert leaves.get(KEY) is None
    ways: tuple[Callable[[], None], ...] = (partial(leaves.advance, Height(6), None), leaves.clear)
    for forget in ways:
        leaves.advance(Height(5), None)
        leaves.put(KEY, b"value", Height(5))
        forget()
        assert leaves.get(KEY) is None


def test_the_one_used_longest_ago_goes() -> None:
    leaves = at(5, room=2)
    leaves.put(KEY, None, Height(5))
    leaves.put(OTHER, None, Height(5))
    assert leaves.get(KEY) is not None
    leaves.put(THIRD, None, Height(5))
    assert (leaves.get(OTHER), leaves.get(KEY), leaves.get(THIRD)) == (None, HeldLeaf(None), HeldLeaf(None))


def test_what_is_held_anew_goes_last() -> None:
    leaves = at(5, room=2)
    for key, value in ((KEY, b"old"), (OTHER, None), (KEY, b"new"), (THIRD, None)):
        leaves.put(key, value, Height(5))
    assert (leaves.get(OTHER), leaves.get(KEY), leaves.get(THIRD)) == (None, HeldLeaf(b"new"), HeldLeaf(None))


def test_after_all_is_forgotten_nothing_is_held_until_the_next_header() -> None:
    leaves = at(5)
    leaves.clear()
    leaves.put(KEY, b"value", Height(9))
    assert leaves.get(KEY) is None
    leaves.advance(Height(9), frozenset())
    leaves.put(KEY, b"value", Height(9))
    assert leaves.get(KEY) == HeldLeaf(b"value")
