"""Deterministic protobuf (proto3 wire format), written and read as far as hashes and signatures need it.

Fields are written in the order of the calls, and scalars with the default value are left out, so equal values give
equal bytes everywhere. An embedded message is written even if it is empty, and left out if it is None.
"""

from voice_dpki.codec.cursor import Cursor
from voice_dpki.errors import MalformedError

_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_UINT64_MASK = (1 << 64) - 1
_MAX_VARINT_BYTES = 10


def varint(value: int) -> bytes:
    """Encode `value` in base 128, least significant group first; a negative int64 takes ten bytes."""
    rest = value & _UINT64_MASK
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def varint_field(number: int, value: int) -> bytes:
    """Encode a field of type int32, int64, uint32, uint64 or enum; nothing for 0."""
    return _tag(number, _VARINT) + varint(value) if value else b""


def sfixed64_field(number: int, value: int) -> bytes:
    """Encode a field of type sfixed64; nothing for 0."""
    return _tag(number, _FIXED64) + value.to_bytes(8, "little", signed=True) if value else b""


def bytes_field(number: int, value: bytes) -> bytes:
    """Encode a field of type bytes, or of type string given as UTF-8; nothing for an empty value."""
    return message_field(number, value) if value else b""


def message_field(number: int, message: bytes | None) -> bytes:
    """Encode an embedded message, or one element of a repeated field; nothing for None."""
    return b"" if message is None else _tag(number, _DELIMITED) + delimited(message)


def delimited(message: bytes) -> bytes:
    """Prefix `message` with its length."""
    return varint(len(message)) + message


def _tag(number: int, wire_type: int) -> bytes:
    return varint(number << 3 | wire_type)


class Message:
    """The fields of an encoded message. If a field occurs several times, the last one counts, as in protobuf."""

    def __init__(self, data: bytes, what: str) -> None:
        """Parse `data`; `what` names it in errors. Raises MalformedError."""
        self._what = what
        self._fields: dict[int, list[int | bytes]] = {}
        cursor = Cursor(data, what)
        while cursor.remaining:
            number, wire_type = divmod(_read_varint(cursor, what), 8)
            self._fields.setdefault(number, []).append(_read_value(cursor, wire_type, what))

    def integer(self, number: int) -> int:
        """Return a field of type int32, int64 or enum, 0 if there is none; raises MalformedError."""
        value = self._last(number, 0)
        if not isinstance(value, int):
            raise MalformedError(f"{self._what}: field {number} is no number")
        return value - (1 << 64) if value >> 63 else value

    def octets(self, number: int) -> bytes:
        """Return a field of type bytes, empty if there is none; raises MalformedError."""
        value = self._last(number, b"")
        if not isinstance(value, bytes):
            raise MalformedError(f"{self._what}: field {number} is a number")
        return value

    def message(self, number: int) -> "Message":
        """Return an embedded message, an empty one if there is none; raises MalformedError."""
        return Message(self.octets(number), self._what)

    def messages(self, number: int) -> list["Message"]:
        """Return the messages of a repeated field; raises MalformedError."""
        values = self._fields.get(number, [])
        return [Message(value, self._what) for value in values if isinstance(value, bytes)]

    def _last(self, number: int, default: int | bytes) -> int | bytes:
        return self._fields.get(number, [default])[-1]


def _read_value(cursor: Cursor, wire_type: int, what: str) -> int | bytes:
    if wire_type == _VARINT:
        return _read_varint(cursor, what)
    if wire_type == _DELIMITED:
        return cursor.take(_read_varint(cursor, what))
    if wire_type in (_FIXED64, _FIXED32):
        return int.from_bytes(cursor.take(8 if wire_type == _FIXED64 else 4), "little")
    raise MalformedError(f"{what}: wire type {wire_type} is not one of protobuf's that are in use")


def _read_varint(cursor: Cursor, what: str) -> int:
    value = 0
    for place in range(_MAX_VARINT_BYTES):
        octet = cursor.uint(1)
        value |= (octet & 0x7F) << 7 * place
        if octet < 0x80:
            break
    if octet >= 0x80 or value > _UINT64_MASK:
        raise MalformedError(f"{what}: a number has more than 64 bits")
    return value
