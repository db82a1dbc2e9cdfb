"""Deterministic CBOR, the part that the ledger writes: one encoding for each value (RFC 8949 §4.2.1).

Values are integers of up to 64 bits, byte and text strings, lists, maps with text keys, booleans and null. The
codec is our own because the admission of a transaction must not change with the version of a library; the tests
compare it with cbor2.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from voice_dpki.codec.cursor import Cursor
from voice_dpki.errors import MalformedError

Cbor: TypeAlias = "None | bool | int | bytes | str | Sequence[Cbor] | Mapping[str, Cbor]"
"""What can be encoded."""

MAX_DEPTH = 8
"""Levels of lists and maps; the ledger's own structures have four."""

_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _LIST, _MAP = 0, 1, 2, 3, 4, 5
_SIMPLE = {0xF4: False, 0xF5: True, 0xF6: None}
_WIDTHS = {24: 1, 25: 2, 26: 4, 27: 8}


def encode(value: Cbor) -> bytes:
    """Encode `value`; raises ValueError for an integer of more than 64 bits."""
    if value is None:
        return b"\xf6"
    if isinstance(value, bool):
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return _head(_UNSIGNED, value) if value >= 0 else _head(_NEGATIVE, -1 - value)
    if isinstance(value, bytes):
        return _head(_BYTES, len(value)) + value
    if isinstance(value, str):
        text = value.encode("utf-8")
        return _head(_TEXT, len(text)) + text
    if isinstance(value, Mapping):
        pairs = sorted((encode(key), encode(item)) for key, item in value.items())
        return _head(_MAP, len(pairs)) + b"".join(key + item for key, item in pairs)
    return _head(_LIST, len(value)) + b"".join(encode(item) for item in value)


def decode(data: bytes, what: str) -> Cbor:
    """Decode exactly one value; `what` names it in errors.

    Raises MalformedError on anything that `encode` would not have written: other types and tags, indefinite or
    overlong lengths, unsorted or repeated keys, invalid UTF-8, bytes left over, more than MAX_DEPTH levels.
    """
    cursor = Cursor(data, what)
    value = _decode(cursor, what, MAX_DEPTH)
    cursor.finish()
    return value


def _head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes((major << 5 | argument,))
    for info, width in _WIDTHS.items():
        if argument < 1 << 8 * width:
            return bytes((major << 5 | info,)) + argument.to_bytes(width, "big")
    raise ValueError("an integer of more than 64 bits has no place in the ledger's CBOR")


def _decode(cursor: Cursor, what: str, depth: int) -> Cbor:
    initial = cursor.uint(1)
    if initial in _SIMPLE:
        return _SIMPLE[initial]
    major, argument = initial >> 5, _argument(cursor, what, initial & 0x1F)
    if major == _UNSIGNED:
        return argument
    if major == _NEGATIVE:
        return -1 - argument
    if major == _BYTES:
        return cursor.take(argument)
    if major == _TEXT:
        return _text(cursor.take(argument), what)
    if major in (_LIST, _MAP) and depth == 0:
        raise MalformedError(f"{what}: more than {MAX_DEPTH} levels of CBOR")
    if major == _LIST:
        return [_decode(cursor, what, depth - 1) for _ in range(_count(cursor, what, argument))]
    if major == _MAP:
        return _map(cursor, what, _count(cursor, what, argument), depth)
    raise MalformedError(f"{what}: CBOR tags, floats and other simple values are not allowed")


def _argument(cursor: Cursor, what: str, info: int) -> int:
    if info < 24:
        return info
    width = _WIDTHS.get(info)
    if width is None:
        raise MalformedError(f"{what}: CBOR of indefinite length is not allowed")
    value = cursor.uint(width)
    if value < 24 or (width > 1 and value < 1 << 4 * width):
        raise MalformedError(f"{what}: a CBOR number is not in its shortest form")
    return value


def _count(cursor: Cursor, what: str, argument: int) -> int:
    """Return `argument` as a count; refuse one that the remaining bytes cannot hold, before allocating anything."""
    if argument > cursor.remaining:
        raise MalformedError(f"{what}: a CBOR list or map is longer than the data")
    return argument


def _map(cursor: Cursor, what: str, count: int, depth: int) -> dict[str, Cbor]:
    result: dict[str, Cbor] = {}
    previous = b""
    for _ in range(count):
        key = _decode(cursor, what, 0)
        if not isinstance(key, str):
            raise MalformedError(f"{what}: a CBOR map key is not text")
        encoded = encode(key)
        if encoded <= previous:
            raise MalformedError(f"{what}: CBOR map keys are repeated or out of order")
        previous = encoded
        result[key] = _decode(cursor, what, depth - 1)
    return result


def _text(data: bytes, what: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedError(f"{what}: CBOR text is not UTF-8") from None
