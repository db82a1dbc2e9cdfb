"""The queue of timers: what is due comes in order, and what is over leaves room."""

import random

import pytest

from voice_dpki.sip.events import TransactionKey
from voice_dpki.sip.machines import Input
from voice_dpki.sip.timers import Due, TimerQueue, TimersOf


def timers_of(number: int) -> TimersOf:
    return TimersOf(TransactionKey(str(number)))


def test_timers_fire_in_order_and_not_before() -> None:
    queue, timers = TimerQueue(), timers_of(1)
    queue.arm(timers, Input.LINGER, 3.0)
    queue.arm(timers, Input.TIMEOUT, 2.0)
    assert queue.pop(1.9) is None
    assert queue.next_s() == 2.0
    assert queue.pop(2.0) == Due(timers.key, Input.TIMEOUT)
    assert Input.TIMEOUT not in timers
    assert Input.LINGER in timers
    assert queue.pop(2.9) is None
    assert queue.pop(99.0) == Due(timers.key, Input.LINGER)
    assert (queue.next_s(), queue.pop(99.0), len(queue)) == (None, None, 0)


@pytest.mark.parametrize("again_s", [1.0, 2.0, 3.0])
def test_a_timer_that_is_armed_again_fires_once_at_its_new_time(again_s: float) -> None:
    queue, timers = TimerQueue(), timers_of(1)
    queue.arm(timers, Input.TIMEOUT, 2.0)
    queue.arm(timers, Input.TIMEOUT, again_s)
    assert queue.next_s() == again_s
    assert queue.pop(again_s) == Due(timers.key, Input.TIMEOUT)
    assert queue.pop(99.0) is None
    queue.arm(timers, Input.TIMEOUT, 4.0)
    assert queue.next_s() == 4.0


def test_a_timer_that_is_postponed_again_and_again_has_one_entry() -> None:
    queue, timers = TimerQueue(), timers_of(1)
    for number in range(10):
        queue.arm(timers, Input.TIMEOUT, 1.0 + number)
    assert len(queue) == 1
    assert queue.next_s() == 10.0


def test_stopped_and_dropped_timers_do_not_fire() -> None:
    queue, stopped, dropped, left = TimerQueue(), timers_of(1), timers_of(2), timers_of(3)
    for timers in (stopped, dropped, left):
        queue.arm(timers, Input.TIMEOUT, 1.0)
    stopped.stop()
    queue.drop(dropped)
    assert queue.pop(1.0) == Due(left.key, Input.TIMEOUT)
    assert queue.pop(1.0) is None


def test_4096_entries_of_what_is_over_may_stay_and_the_next_removes_them_all() -> None:
    queue, chance = TimerQueue(), random.Random(7)
    live, over = ([timers_of(number) for number in range(size)] for size in (300, 4_097))
    for timers in chance.sample([*live, *over], 4_397):
        queue.arm(timers, Input.TIMEOUT, chance.random())
    for timers in over[:-1]:
        queue.drop(timers)
    assert len(queue) == 4_397
    queue.drop(over[-1])
    assert len(queue) == 300
    times_s = []
    while (at_s := queue.next_s()) is not None:
        times_s.append(at_s)
        queue.pop(at_s)
    assert times_s == sorted(times_s)
    assert len(times_s) == 300


def test_entries_that_have_come_up_count_no_more() -> None:
    queue, live = TimerQueue(), timers_of(-1)
    queue.arm(live, Input.TIMEOUT, 9.0)
    for number in range(5_000):
        over = timers_of(number)
        queue.arm(over, Input.TIMEOUT, 1.0)
        queue.drop(over)
        assert queue.next_s() == 9.0
    for number in range(4_096):
        over = timers_of(number)
        queue.arm(over, Input.TIMEOUT, 10.0)
        queue.drop(over)
    assert len(queue) == 1 + 4_096
    queue.arm(over := timers_of(0), Input.TIMEOUT, 10.0)
    queue.drop(over)
    assert len(queue) == 1
    queue.arm(over := timers_of(0), Input.TIMEOUT, 10.0)
    queue.drop(over)
    assert len(queue) == 2, "what was removed is not counted again"


def test_more_than_4096_may_stay_in_a_queue_of_twice_as_many() -> None:
    queue = TimerQueue()
    live, over = ([timers_of(number) for number in range(5_000)] for _ in range(2))
    for timers in (*live, *over):
        queue.arm(timers, Input.TIMEOUT, 1.0)
    for timers in over:
        queue.drop(timers)
    assert len(queue) == 10_000
    queue.drop(live[0])
    assert len(queue) == 4_999
