"""Deterministic protobuf encoding, as far as hashes and signatures need it (proto3 wire format).

Encode only. Fields are written in the order of the calls, and scalars of the default value are left out, so the
same values give the same bytes everywhere. An embedded message is written even when it is empty, and left out
where it is None.
"""

_VARINT, _FIXED64, _DELIMITED = 0, 1, 2
_UINT64_MASK = (1 << 64) - 1


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
    """Field of type int32, int64, uint32, uint64 or enum; nothing for 0."""
    return _tag(number, _VARINT) + varint(value) if value else b""


def sfixed64_field(number: int, value: int) -> bytes:
    """Field of type sfixed64; nothing for 0."""
    return _tag(number, _FIXED64) + value.to_bytes(8, "little", signed=True) if value else b""


def bytes_field(number: int, value: bytes) -> bytes:
    """Field of type bytes, or string given as UTF-8; nothing where it is empty."""
    return message_field(number, value) if value else b""


def message_field(number: int, message: bytes | None) -> bytes:
    """Embedded message, or one element of a repeated field; nothing for None."""
    return b"" if message is None else _tag(number, _DELIMITED) + delimited(message)


def delimited(message: bytes) -> bytes:
    """Prefix `message` with its length."""
    return varint(len(message)) + message


def _tag(number: int, wire_type: int) -> bytes:
    return varint(number << 3 | wire_type)
