"""The memory of a call placement service: bounded, shared among publishers, and forgetful."""

import pytest

from voice_dpki.names import Tn
from voice_dpki.stir.placement import NoRoomError, Placement, Placements

DEST = Tn("442079460001")


def placement(number: int = 0, publisher: str = "A", until_s: float = 60, token: str = "") -> Placement:
    return Placement(Tn(f"49{number:010}"), DEST, publisher, publisher, (token or f"t{number}",), until_s)


def kept(placements: Placements, number: int = 0, now_s: float = 0) -> list[str]:
    return [each.tokens[0] for each in placements.find(Tn(f"49{number:010}"), DEST, now_s)]


def test_each_is_kept_until_its_own_end() -> None:
    placements = Placements(1 << 20)
    for until_s, token in ((30, "long"), (10, "short"), (20, "mean")):
        placements.put(placement(until_s=until_s, token=token), 0)
    assert kept(placements) == ["mean", "short", "long"]
    assert kept(placements, now_s=10) == ["mean", "long"]
    placements.put(placement(1, until_s=80), 25)
    assert (kept(placements, now_s=25), len(placements)) == (["long"], 2)
    placements.put(placement(2, until_s=80), 30)
    assert (kept(placements, now_s=30), len(placements)) == ([], 2)


def test_all_room_comes_back() -> None:
    placements = Placements(1 << 20)
    for number in range(50):
        placements.put(placement(number), 0)
    assert placements.free_bytes == (1 << 20) - 50 * 1024 - sum(len(f"t{n}") for n in range(50))
    placements.put(placement(99, until_s=200), 100)
    assert placements.free_bytes == (1 << 20) - 1024 - 3
    assert len(placements) == 1


def test_who_floods_gets_half_and_the_others_have_the_rest() -> None:
    placements = Placements(100 * (1024 + 10))
    for number in range(51):
        placements.put(placement(number), 0)
    with pytest.raises(NoRoomError, match="share"):
        placements.put(placement(51), 0)
    for number in range(20):
        placements.put(placement(number, "B"), 0)
    with pytest.raises(NoRoomError):
        placements.put(placement(2000), 0)


def test_nothing_larger_than_the_room_is_kept() -> None:
    placements = Placements(1024 + 10)
    with pytest.raises(NoRoomError):
        placements.put(placement(token="x" * 11), 0)
    placements.put(placement(token="x" * 10), 0)
    assert placements.free_bytes == 0


def test_one_call_has_so_many_and_the_same_tokens_once() -> None:
    placements = Placements(1 << 20)
    for number in range(8):
        for _ in range(2):
            placements.put(placement(token=f"t{number}"), 0)
    assert len(kept(placements)) == 8
    with pytest.raises(NoRoomError, match="calls between these two numbers"):
        placements.put(placement(token="one more"), 0)
    placements.put(placement(publisher="B", token="another's"), 0)
    assert kept(placements)[0] == "another's"


def test_a_publisher_is_the_same_by_its_name() -> None:
    placements = Placements(1 << 20)
    for name in ("Operator A", "Operator B"):
        for _ in range(2):
            placements.put(placement(publisher="".join(list(name))), 0)
    assert len(kept(placements)) == 2


def test_what_has_ended_does_not_count_among_the_calls_of_one_pair() -> None:
    placements = Placements(1 << 20)
    for number in range(8):
        placements.put(placement(token=f"t{number}"), 0)
    placements.put(placement(token="next", until_s=90), 60)
    assert kept(placements, now_s=60) == ["next"]


def test_a_share_is_what_is_kept_now() -> None:
    """Half of it ends, and the publisher gets that half again, not more."""
    placements = Placements(100 * (1024 + 10))
    for number in range(50):
        placements.put(placement(number, token="x" * 10, until_s=60 if number % 2 else 120), 0)
    placements.put(placement(50, token="x" * 10, until_s=120), 0)
    with pytest.raises(NoRoomError, match="share"):
        placements.put(placement(51, token="x" * 10), 0)
    for number in range(100, 125):
        placements.put(placement(number, token="x" * 10, until_s=150), 60)
    with pytest.raises(NoRoomError, match="share"):
        placements.put(placement(125, token="x" * 10), 60)


def test_nothing_is_left_of_calls_and_publishers_that_are_gone() -> None:
    """The names are of strangers' making, so a table of those that are gone would grow without end."""
    placements = Placements(1 << 20)
    for number in range(20):
        placements.put(placement(number, publisher=f"P{number}"), 0)
    placements.put(placement(99, until_s=200), 100)
    assert (list(placements._held), len(placements._by_call)) == (["A"], 1)


def test_what_a_publication_counts_for() -> None:
    assert placement(token="x" * 2000).cost == 3024
