"""The cursor never reads past the end, whatever is asked of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.codec.cursor import Cursor
from voice_dpki.errors import MalformedError


def test_reads_from_left_to_right() -> None:
    cursor = Cursor(b"\x01\x02\x03payload", "example")
    assert (cursor.uint(1), cursor.uint(2)) == (1, 0x0203)
    assert (cursor.position, cursor.remaining) == (3, 7)
    assert (cursor.take(0), cursor.take(3), cursor.rest(), cursor.rest()) == (b"", b"pay", b"load", b"")
    cursor.finish()


def test_too_little_and_too_much_are_named() -> None:
    cursor = Cursor(b"abc", "example")
    with pytest.raises(MalformedError, match="example: 4 bytes expected at offset 0, 3 are left"):
        cursor.take(4)
    cursor.take(1)
    with pytest.raises(MalformedError, match="example: 2 bytes too many after offset 1"):
        cursor.finish()


def test_negative_sizes_are_refused() -> None:
    cursor = Cursor(b"abc", "example")
    cursor.take(2)
    with pytest.raises(MalformedError):
        cursor.take(-1)
    assert cursor.position == 2


@given(st.binary(max_size=20), st.lists(st.integers(-3, 12), max_size=6))
def test_a_refused_read_moves_nothing(data: bytes, sizes: list[int]) -> None:
    cursor = Cursor(data, "example")
    taken = b""
    for size in sizes:
        try:
            taken += cursor.take(size)
        except MalformedError:
            assert size < 0 or size > len(data) - len(taken)
        assert (cursor.position, cursor.remaining) == (len(taken), len(data) - len(taken))
    assert taken + cursor.rest() == data
