"""Deterministic CBOR against cbor2 as an independent implementation, and on any bytes."""

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.codec import cbor
from voice_dpki.errors import MalformedError

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 64), (1 << 64) - 1)
    | st.binary(max_size=300)
    | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=20), inner, max_size=5),
    max_leaves=20,
)


@given(VALUES)
def test_encodes_as_cbor2_does_and_decodes_again(value: cbor.Cbor) -> None:
    encoded = cbor.encode(value)
    assert cbor2.loads(encoded) == value
    if _depth(value) <= cbor.MAX_DEPTH:
        assert cbor.decode(encoded, "value") == value


@given(st.dictionaries(st.text("ab", max_size=30), st.integers(0, 9), max_size=8))
def test_map_keys_are_in_bytewise_order(value: dict[str, int]) -> None:
    assert cbor.encode(value) == cbor2.dumps(value, canonical=True)


@given(st.binary(max_size=60))
def test_any_bytes_decode_to_what_encodes_to_them_or_raise(data: bytes) -> None:
    try:
        value = cbor.decode(data, "value")
    except MalformedError:
        return
    assert cbor.encode(value) == data


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("", "0 are left"),
        ("1817", "shortest"),
        ("190017", "shortest"),
        ("1b00000000ffffffff", "shortest"),
        ("5f4101ff", "indefinite"),
        ("9fff", "indefinite"),
        ("a2616101616102", "repeated"),
        ("a2616201616102", "out of order"),
        ("a10102", "not text"),
        ("c249010000000000000000", "tags"),
        ("f97e00", "tags"),
        ("f820", "tags"),
        ("61ff", "UTF-8"),
        ("0000", "too many"),
        ("9a7fffffff00", "longer than"),
        ("bb7fffffffffffffff00", "longer than"),
        ("5a7fffffff00", "expected"),
        ("81" * 9 + "00", "levels"),
        ("81" * 5000, "levels"),
    ],
)
def test_refuses_what_is_not_deterministic(data: str, why: str) -> None:
    with pytest.raises(MalformedError, match=why):
        cbor.decode(bytes.fromhex(data), "value")


def test_refuses_to_encode_what_has_more_than_64_bits() -> None:
    with pytest.raises(ValueError, match="64 bits"):
        cbor.encode(1 << 64)


def _depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0
