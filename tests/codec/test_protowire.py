"""Protobuf encoding against the wire format's documented examples, and against a reader written apart from it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.codec.protowire import (
    bytes_field,
    delimited,
    message_field,
    sfixed64_field,
    varint,
    varint_field,
)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (1, "01"),
        (127, "7f"),
        (128, "8001"),
        (150, "9601"),
        (-1, "ffffffffffffffffff01"),
        (2**63 - 1, "f" * 16 + "7f"),
    ],
)
def test_varints_of_the_wire_format(value: int, encoded: str) -> None:
    assert varint(value).hex() == encoded


def test_examples_of_the_wire_format() -> None:
    assert varint_field(1, 150).hex() == "089601"
    assert bytes_field(2, b"testing").hex() == "120774657374696e67"
    assert message_field(3, varint_field(1, 150)).hex() == "1a03089601"
    assert sfixed64_field(2, -2).hex() == "11feffffffffffffff"


def test_default_values_are_left_out_but_empty_messages_are_not() -> None:
    assert varint_field(1, 0) == sfixed64_field(1, 0) == bytes_field(1, b"") == message_field(1, None) == b""
    assert message_field(4, b"").hex() == "2200"


def test_field_numbers_above_15_take_two_bytes() -> None:
    assert varint_field(16, 1).hex() == "800101"


@given(st.integers(-(2**63), 2**64 - 1))
def test_varint_reads_back(value: int) -> None:
    assert _read_varint(varint(value)) == (value % 2**64, b"")


@given(st.binary(max_size=300))
def test_delimited_reads_back(message: bytes) -> None:
    size, rest = _read_varint(delimited(message))
    assert (size, rest) == (len(message), message)


def _read_varint(data: bytes) -> tuple[int, bytes]:
    end = next(place for place, octet in enumerate(data) if octet < 0x80) + 1
    value = sum((octet & 0x7F) << 7 * place for place, octet in enumerate(data[:end]))
    return value, data[end:]
