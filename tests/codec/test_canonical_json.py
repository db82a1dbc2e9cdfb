"""Canonical JSON: one encoding a value, and a decoder that refuses what two readers could take differently."""

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.codec import canonical_json
from voice_dpki.codec.canonical_json import Json
from voice_dpki.errors import MalformedError

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_VALUES: st.SearchStrategy[Json] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), _TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_TEXT, inner, max_size=4)),
    max_leaves=12,
)


_NAMES = st.sampled_from(["a", "b", "tn", "\u00e9", ""])


@dataclass(frozen=True)
class Pairs:
    """An object's members, of which one may be there twice."""

    members: list[tuple[str, object]]

    @property
    def has_one_twice(self) -> bool:
        return len(dict(self.members)) < len(self.members)

    def text(self, ascii_only: bool) -> str:
        return "{" + ",".join(f"{_json(n, ascii_only)}:{_json(v, ascii_only)}" for n, v in self.members) + "}"


def _json(value: object, ascii_only: bool) -> str:
    if isinstance(value, Pairs):
        return value.text(ascii_only)
    if isinstance(value, list):
        return "[" + ",".join(_json(each, ascii_only) for each in value) + "]"
    return json.dumps(value, ensure_ascii=ascii_only)


def test_example_of_rfc_8225() -> None:
    """The payload of §9.1, given in another order and with white space."""
    given_order: Json = {
        "orig": {"tn": "12155551212"},
        "iat": 1471375418,
        "dest": {"uri": ["sip:alice@example.com"]},
    }
    expected = b'{"dest":{"uri":["sip:alice@example.com"]},"iat":1471375418,"orig":{"tn":"12155551212"}}'
    assert canonical_json.encode(given_order) == expected
    assert canonical_json.decode_object(json.dumps(given_order, indent=2).encode()) == given_order


def test_text_is_utf_8_and_not_escaped() -> None:
    assert canonical_json.encode({"é": "ü"}) == '{"é":"ü"}'.encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"1",
        b'"text"',
        b"{",
        b'{"a":1}x',
        b'{"a":1,"a":1}',
        b'{"b":{"a":1,"a":2}}',
        b'{"a":1.0}',
        b'{"a":1e3}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":"\xff"}',
        b"\xef\xbb\xbf{}",
        b'{"a":' + b"[" * 100_000,
        b'{"a":' + b"9" * 5000 + b"}",
    ],
)
def test_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        canonical_json.decode_object(data)


def test_what_was_decoded_can_be_encoded_from_a_deep_stack() -> None:
    nested = b'{"a":' + b"[" * 255 + b"]" * 255 + b"}"
    value = canonical_json.decode_object(nested)

    def encode_below(frames: int) -> bytes:
        return encode_below(frames - 1) if frames else canonical_json.encode(value)

    assert encode_below(400) == nested
    with pytest.raises(MalformedError):
        canonical_json.decode_object(b'{"a":' + b"[" * 256 + b"]" * 256 + b"}")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_a_number_is_never_written(value: float) -> None:
    with pytest.raises(ValueError):
        canonical_json.encode({"a": value})  # type: ignore[dict-item]


@given(st.dictionaries(_TEXT, _VALUES, max_size=4))
def test_round_trip_is_exact_and_stable(value: dict[str, Json]) -> None:
    encoded = canonical_json.encode(value)
    assert canonical_json.decode_object(encoded) == value
    assert canonical_json.encode(canonical_json.decode_object(encoded)) == encoded


@given(st.binary(max_size=40))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    with contextlib.suppress(MalformedError):
        canonical_json.encode(canonical_json.decode_object(data))


@pytest.mark.parametrize(
    "text", [r'{"a":"\ud800"}', r'{"a":["\udfff"]}', r'{"\ud83dx":1}', r'{"a":"\ude00\ud83d"}']
)
def test_half_a_surrogate_pair_is_no_text(text: str) -> None:
    with pytest.raises(MalformedError):
        canonical_json.decode_object(text.encode())


def test_a_whole_surrogate_pair_is_one_character() -> None:
    assert canonical_json.decode_object(rb'{"a":"\ud83d\ude00"}') == {"a": "😀"}


def test_integers_may_be_written_with_exponents_where_fractions_are_read() -> None:
    read = canonical_json.decode_object(b'{"a":1.79e9,"b":1.5,"c":1e30}', fractions=True)
    assert read == {"a": 1_790_000_000, "b": 1.5, "c": 1e30}
    assert [type(value) for value in read.values()] == [int, float, float]


_TEXTS: st.SearchStrategy[object] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(1 << 65), 1 << 65), st.sampled_from([1.5, 1e300]), _TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.lists(st.tuples(_NAMES, inner), max_size=3).map(Pairs)),
    max_leaves=8,
)


@given(st.lists(st.tuples(_NAMES, _TEXTS), max_size=4).map(Pairs), st.booleans(), st.booleans())
def test_plain_json_is_decoded_as_any_other(pairs: Pairs, ascii_only: bool, fractions: bool) -> None:
    """Members given twice at any place, escapes, fractions and large numbers, read both ways."""
    data = pairs.text(ascii_only).encode()

    def read(decode: Callable[..., object]) -> object:
        try:
            return decode(data, fractions=fractions)
        except MalformedError:
            return MalformedError

    found = read(canonical_json.decode_object)
    assert found == read(canonical_json._decode_with_care)
    if pairs.has_one_twice:
        assert found is MalformedError


@given(_VALUES)
def test_it_is_encoded_as_the_standard_library_does(value: Json) -> None:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert canonical_json.encode(value) == text.encode()
