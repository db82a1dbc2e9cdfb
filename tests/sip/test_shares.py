"""Room that sources share: what each may take, and what is given back."""

import pytest

from voice_dpki.sip.shares import Shares, cost_of


@pytest.mark.parametrize(("size", "places"), [(0, 1), (2_047, 1), (2_048, 2), (4_096, 3)])
def test_long_messages_take_more_places(size: int, places: int) -> None:
    assert cost_of(size) == places


def fill(shares: Shares, source: str) -> int:
    """Take places for a source until it is refused one; returns how many it got."""
    taken = 0
    while shares.admits(source, 1):
        shares.take(source, 1)
        taken += 1
    return taken


def test_a_source_alone_takes_two_thirds_and_the_next_two_thirds_of_the_rest() -> None:
    shares = Shares(90)
    assert [fill(shares, source) for source in ("a", "b", "c", "")] == [60, 20, 7, 3]
    assert shares.in_use == 90


def test_nobody_takes_more_than_there_is() -> None:
    shares = Shares(3)
    assert shares.admits("a", 3)
    assert not shares.admits("a", 4)
    assert not shares.admits("", 4)


def test_what_is_given_back_is_free_again() -> None:
    shares = Shares(90)
    shares.take("a", 3)
    shares.give_back("a", 2)
    assert (shares.in_use, shares._held) == (1, {"a": 1})
    shares.give_back("a", 1)
    assert (shares.in_use, shares._held) == (0, {})
