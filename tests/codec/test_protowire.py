"""Protobuf encoding against the wire format's documented examples, and against a reader written apart from it."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.codec.protowire import (
    Message,
    bytes_field,
    delimited,
    message_field,
    sfixed64_field,
    varint,
    varint_field,
)
from voice_dpki.errors import MalformedError


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


def test_fields_are_read_and_the_last_one_counts() -> None:
    inner = varint_field(1, -5) + varint_field(1, 7) + bytes_field(2, b"two")
    data = message_field(3, inner) + message_field(3, b"") + sfixed64_field(4, 1) + b"\x2d\x01\x00\x00\x00"
    message = Message(data, "test")
    assert [each.integer(1) for each in message.messages(3)] == [7, 0]
    assert message.messages(3)[0].octets(2) == b"two"
    assert (message.message(3).octets(2), message.integer(4), message.integer(5)) == (b"", 1, 1)
    assert (message.integer(9), message.octets(9), message.messages(9)) == (0, b"", [])


@given(st.integers(-(2**63), 2**63 - 1))
def test_signed_numbers_read_back(value: int) -> None:
    assert Message(varint_field(1, value), "test").integer(1) == value


@pytest.mark.parametrize(
    "data", ["08", "0880", "08" + "80" * 10 + "01", "08" + "ff" * 9 + "02", "1203aa", "0b", "0f"]
)
def test_broken_messages_are_malformed(data: str) -> None:
    with pytest.raises(MalformedError):
        Message(bytes.fromhex(data), "test")


def test_a_field_of_another_type_is_malformed() -> None:
    for read in (
        lambda: Message(varint_field(1, 1), "test").octets(1),
        lambda: Message(bytes_field(1, b"x"), "test").integer(1),
        lambda: Message(bytes_field(1, b"x"), "test").message(1),
    ):
        with pytest.raises(MalformedError):
            read()


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_raise(data: bytes) -> None:
    with suppress(MalformedError):
        assert Message(data, "test").integer(0) in range(-(2**63), 2**63)


def _read_varint(data: bytes) -> tuple[int, bytes]:
    end = next(place for place, octet in enumerate(data) if octet < 0x80) + 1
    value = sum((octet & 0x7F) << 7 * place for place, octet in enumerate(data[:end]))
    return value, data[end:]
