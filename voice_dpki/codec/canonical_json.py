"""JSON as PASSporT requires it: keys in lexicographic order, no white space, integers only (RFC 8225 §9)."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from voice_dpki.errors import MalformedError

Json: TypeAlias = "None | bool | int | str | Sequence[Json] | Mapping[str, Json]"
"""What canonical JSON can hold; there are no floating-point numbers in it."""


MAX_CONTAINERS = 256
"""Most objects and arrays in one text, counted by their opening brackets; a PASSporT has a handful. This bounds the
depth too, so a decoded value can always be encoded again, however deep the caller's stack is."""

_EXACT = 1 << 53
"""From here on, a floating-point number does not hold every integer."""


_DECODER: Final = msgspec.json.Decoder()
_MAX_PLAIN: Final = 1 << 63
_NOT_PLAIN: Final = -(1 << 32)
"""Less than any number of quotation marks, whatever is added to it."""


def encode(value: Json) -> bytes:
    """Encode `value` canonically, as UTF-8; raises ValueError for what this JSON does not have."""
    if _quotes(value) < 0:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8")
    return msgspec.json.encode(value, order="sorted")


def decode_object(data: bytes, *, fractions: bool = False) -> dict[str, Json]:
    """Decode one JSON object.

    Raises MalformedError on anything else: other values at the top, a key given twice (two readers could choose
    differently), NaN, invalid UTF-8, half a surrogate pair, more than MAX_CONTAINERS objects and arrays. Fractions
    and exponents are refused too, unless `fractions` is set: then 1e3 is an integer, as JSON Schema has it, and the
    caller refuses other numbers itself and can name the member. The message quotes nothing from `data`: any value
    in it may be a subscriber's number.
    """
    if data.count(b"[") + data.count(b"{") > MAX_CONTAINERS:
        raise MalformedError(f"not a JSON object: more than {MAX_CONTAINERS} objects and arrays")
    value = _decode_plain(data)
    return value if isinstance(value, dict) else _decode_with_care(data, fractions=fractions)


def _decode_plain(data: bytes) -> object:
    """Decode JSON in ASCII without escapes and fractions, as almost all is; None for other data.

    msgspec does not tell whether a member was given twice: of two it keeps the last. But each member brings two
    quotation marks for its name, so their number tells.
    """
    if b"\\" in data or not data.isascii():
        return None
    try:
        value = _DECODER.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return value if _quotes(value) == data.count(b'"') else None


def _quotes(value: Any) -> int:
    """Return how many quotation marks a value takes in JSON without escapes; less than 0 if it is not plain."""
    kind = type(value)
    if kind is str:
        return 2
    if kind is dict:
        return 2 * len(value) + sum(map(_quotes, value.values()))
    if kind is list or kind is tuple:
        return sum(map(_quotes, value))
    if kind is int:
        return 0 if -_MAX_PLAIN <= value < _MAX_PLAIN else _NOT_PLAIN
    return 0 if value is None or kind is bool else _NOT_PLAIN


def _decode_with_care(data: bytes, *, fractions: bool) -> dict[str, Json]:
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_float=_maybe_integer if fractions else _no_fraction,
            parse_constant=_no_fraction,
        )
        if b"\\u" in data:
            encode(value)  # an escape can write half a surrogate pair, which UTF-8 cannot encode
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise MalformedError(f"not a JSON object: {error}") from None
    if not isinstance(value, dict):
        raise MalformedError("not a JSON object: another value stands at the top")
    return value


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member name is given twice")
    return members


def _maybe_integer(text: str) -> int | float:
    number = float(text)
    return int(number) if abs(number) < _EXACT and number.is_integer() else number


def _no_fraction(_text: str) -> Json:
    raise ValueError("numbers must be integers, and one has a fraction or an exponent, or is none")
