"""Turns: a sender that floods waits behind itself, and room is shared."""

import pytest

from voice_dpki.sip.turns import Turns

SIZE = 512
COST = SIZE + 512
"""What an item of SIZE takes: its bytes, and as many again."""


def test_senders_take_turns_and_each_keeps_its_order() -> None:
    turns: Turns[str] = Turns()
    for number in range(100):
        turns.put("flood", f"flood {number}", SIZE, is_known=False)
    for item in ("a 1", "a 2", "b 1"):
        turns.put(item[0], item, SIZE, is_known=False)
    assert [turns.take() for _ in range(6)] == ["flood 0", "a 1", "b 1", "flood 1", "a 2", "flood 2"]
    assert [turns.take() for _ in range(97)] == [f"flood {number}" for number in range(3, 100)]
    assert not turns
    with pytest.raises(IndexError):
        turns.take()


@pytest.mark.parametrize("is_known", [False, True])
@pytest.mark.parametrize("is_stream", [False, True])
def test_whatever_waits_alone_is_told(is_known: bool, is_stream: bool) -> None:
    turns: Turns[str] = Turns()
    if is_stream:
        turns.put_stream("a", "item", is_known=is_known)
    else:
        turns.put("a", "item", SIZE, is_known=is_known)
    assert turns
    assert turns.take() == "item"
    assert not turns


def test_the_newest_of_the_largest_is_dropped_and_a_newcomer_has_room() -> None:
    turns: Turns[int] = Turns(300 * COST)
    dropped = sum(turns.put("flood", number, SIZE, is_known=False) for number in range(1_000))
    assert dropped == 800  # alone it has two thirds
    assert [turns.put("b", 2_000 + number, SIZE, is_known=False) for number in range(50)] == [0] * 50
    assert turns.put("flood", 0, SIZE, is_known=False) == 1
    taken = [turns.take() for _ in range(250)]
    assert [item for item in taken if item < 2_000] == list(range(200)), "the oldest were kept, in their order"
    assert turns.put("flood", 0, SIZE, is_known=False) == 0, "room comes back"


def test_one_sender_fills_two_thirds_of_4_mib() -> None:
    turns: Turns[int] = Turns()
    items = 4 * 1024 * 1024 // COST
    dropped = sum(turns.put("flood", number, SIZE, is_known=False) for number in range(items))
    assert dropped == items // 3


def test_of_a_crowd_of_strangers_the_oldest_make_way_and_known_senders_lose_nothing() -> None:
    turns: Turns[str] = Turns(100 * COST)
    for number in range(50):
        assert turns.put("known", f"known {number}", SIZE, is_known=True) == 0
    dropped = sum(turns.put(f"s{number}", f"s{number}", SIZE, is_known=False) for number in range(10_000))
    assert dropped == 9_900
    assert turns.put("large", "large", 64_000, is_known=False) == 63, "a large one displaces what it needs"
    taken = [turns.take() for _ in range(88)]
    assert [item for item in taken if item.startswith("known")] == [f"known {number}" for number in range(50)]
    assert [item for item in taken if item.startswith("s")] == [f"s{number}" for number in range(9_963, 10_000)]


def test_one_item_displaces_at_most_128() -> None:
    turns: Turns[str] = Turns(200 * COST)
    for number in range(200):
        turns.put(f"s{number}", f"s{number}", SIZE, is_known=False)
    assert turns.put("large", "large", 150 * COST, is_known=False) == 129, "and is dropped itself"
    assert turns.take() == "s128"


def test_an_item_larger_than_all_room_is_dropped_with_what_it_displaced() -> None:
    turns: Turns[str] = Turns(2 * COST)
    assert turns.put("a", "a", SIZE, is_known=False) == 0
    assert turns.put("large", "large", 2 * COST, is_known=False) == 2
    assert not turns


def test_a_sender_whose_oldest_was_displaced_keeps_its_turn() -> None:
    turns: Turns[str] = Turns(5 * COST)
    for item in ("a 1", "a 2", "b 1", "c 1", "d 1"):
        assert turns.put(item[0], item, SIZE, is_known=False) == 0
    assert turns.put("e", "e 1", SIZE, is_known=False) == 1
    assert [turns.take() for _ in range(5)] == ["a 2", "b 1", "c 1", "d 1", "e 1"]


@pytest.mark.parametrize("is_known", [False, True])
def test_connections_take_no_room(is_known: bool) -> None:
    turns: Turns[str] = Turns(COST)
    turns.put_stream("tcp", "t", is_known=is_known)
    assert turns.put("a", "a", SIZE, is_known=is_known) == 0
    assert [ring.shares.in_use for ring in (turns._known, turns._strangers, turns._streams)] == (
        [COST, 0, 0] if is_known else [0, COST, 0]
    )


def test_known_senders_have_more_turns_and_strangers_have_some() -> None:
    turns: Turns[str] = Turns()
    for number in range(40):
        turns.put("known", "k", SIZE, is_known=True)
        turns.put(f"s{number}", "s", SIZE, is_known=False)
        turns.put_stream(f"s{number}", "t", is_known=False)
    assert "".join(turns.take() for _ in range(20)) == "kkkkskkkktkkkkskkkkt"


@pytest.mark.parametrize("first", [False, True])
def test_a_sender_that_becomes_known_or_a_stranger_keeps_its_order(first: bool) -> None:
    turns: Turns[int] = Turns()
    for number in range(10):
        turns.put("a", number, SIZE, is_known=first if number < 5 else not first)
    assert [turns.take() for _ in range(10)] == list(range(10))
    turns.put("a", 10, SIZE, is_known=not first)
    assert bool(turns._known.senders) is not first, "with nothing waiting it is where it belongs"


def test_connections_are_never_dropped() -> None:
    turns: Turns[str] = Turns(10 * COST)
    for number in range(100):
        turns.put_stream("tcp", "t", is_known=False)
        turns.put(f"s{number}", "s", SIZE, is_known=False)
    taken = []
    while turns:
        taken.append(turns.take())
    assert (taken.count("t"), taken.count("s")) == (100, 10)
