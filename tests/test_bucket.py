"""A token bucket, which bounds what one client, stranger or side of a call can have."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.bucket import Bucket

COSTS = st.integers(1, 40)


def test_a_full_bucket_is_used_up_and_comes_back_at_its_rate() -> None:
    bucket = Bucket(4, 0.5)
    assert [bucket.take(100.0) for _ in range(5)] == [0, 0, 0, 0, 2.0]
    assert bucket.take(101.0) == 1.0
    assert bucket.take(102.0) == 0
    assert bucket.take(1e6, 4) == 0
    assert bucket.take(1e6) == 2.0


def test_a_refusal_uses_nothing() -> None:
    bucket = Bucket(4, 1)
    bucket.take(0.0, 3)
    assert [bucket.take(0.0, 2) for _ in range(3)] == [1.0] * 3
    assert bucket.take(0.0) == 0


@pytest.mark.parametrize("cost", [3, 4, 5, 1000])
def test_more_than_half_needs_half_and_the_rest_is_owed(cost: int) -> None:
    bucket = Bucket(4, 1)
    bucket.take(0.0)
    bucket.take(0.0)
    assert bucket.take(0.0, cost) == 0
    assert bucket.take(0.0) == cost - 1
    assert bucket.take(float(cost - 2)) == 1.0
    assert bucket.take(float(cost - 1)) == 0


@given(
    most=st.integers(2, 100),
    eighths=st.integers(1, 80),
    steps=st.lists(st.tuples(st.integers(0, 20), COSTS), min_size=1),
)
def test_nobody_gets_more_than_the_bucket_and_what_came_back(
    most: int, eighths: int, steps: list[tuple[int, int]]
) -> None:
    """And who waits as long as it is told gets what it asked for."""
    bucket, rate, now_s, got = Bucket(most, eighths / 8), Fraction(eighths, 8), 0, 0
    for quiet_s, cost in steps:
        now_s += quiet_s
        if not bucket.take(float(now_s), cost):
            got += cost
            assert got <= most + rate * now_s + cost - min(cost, most / 2)
    if wait_s := bucket.take(float(now_s), 1):
        assert bucket.take(now_s + wait_s, 1) == pytest.approx(0, abs=1e-9)
