"""Lengths in DER: the shortest form, of up to three octets (X.690 §10.1)."""

import pytest

from voice_dpki.codec.cursor import Cursor
from voice_dpki.errors import MalformedError
from voice_dpki.x509 import der

LENGTHS = [(0x7F, "047f"), (0x80, "048180"), (0xFF, "0481ff"), (0x100, "04820100"), (0x10000, "0483010000")]


@pytest.mark.parametrize(("size", "head"), LENGTHS)
def test_a_length_takes_as_many_octets_as_it_needs(size: int, head: str) -> None:
    encoded = bytes.fromhex(head) + bytes(size)
    assert der.encode(4, bytes(size)) == encoded
    assert der.read(Cursor(encoded, "test")) == (4, bytes(size))


def test_a_length_of_four_octets_is_refused_before_its_content_is_looked_for() -> None:
    with pytest.raises(MalformedError, match="indefinite or too large"):
        der.read(Cursor(bytes.fromhex("048401000000"), "test"))


@pytest.mark.parametrize(
    "octets",
    [
        "0480" + "00" * 128,  # §8.1.3.6: the indefinite form
        "04817f" + "00" * 127,  # §10.1: the short form has room for it
        "04820080" + "00" * 128,
        "048200ff" + "00" * 255,
        "0483000100" + "00" * 256,
        "0483004000" + "00" * 16_384,
        "04830000ff" + "00" * 255,
    ],
)
def test_a_length_that_is_not_in_its_shortest_form_is_refused(octets: str) -> None:
    with pytest.raises(MalformedError, match="DER: the length is"):
        der.read(Cursor(bytes.fromhex(octets), "test"))


@pytest.mark.parametrize("size", [127, 128, 255, 256, 65_535])
def test_a_length_says_how_much_is_there(size: int) -> None:
    encoded = der.encode(4, bytes(size))
    with pytest.raises(MalformedError, match=f"test: {size} bytes expected"):
        der.read(Cursor(encoded[:-1], "test"))
    cursor = Cursor(encoded + b"x", "test")
    assert (der.read(cursor), cursor.remaining) == ((4, bytes(size)), 1)


@pytest.mark.parametrize("tag", [0x1F, 0x3F, 0x5F, 0x9F, 0xBF, 0xFF])
def test_a_tag_of_several_octets_is_refused(tag: int) -> None:
    """§8.1.2.4: the five low bits are all set, in each class, of a primitive and of a constructed value."""
    with pytest.raises(MalformedError, match="multi-byte tags"):
        der.read(Cursor(bytes((tag, 0)), "test"))
    assert der.read(Cursor(bytes((tag - 1, 0)), "test")) == (tag - 1, b"")


NUMBERS = [(0, "00"), (1, "01"), (127, "7f"), (128, "0080"), (255, "00ff"), (256, "0100"), (32_768, "008000")]


@pytest.mark.parametrize(("number", "content"), NUMBERS)
def test_numbers(number: int, content: str) -> None:
    """§8.3: two's complement, so a number whose first bit is set begins with a zero."""
    octets = bytes.fromhex(content)
    assert der.encode_unsigned(number) == bytes((2, len(octets))) + octets
    assert der.unsigned(octets) == number


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "non-negative"),
        ("80", "non-negative"),
        ("ff", "non-negative"),
        ("8000", "non-negative"),
        ("0000", "shortest"),
        ("0001", "shortest"),
        ("007f", "shortest"),
        ("00007f", "shortest"),
    ],
)
def test_numbers_that_are_negative_or_too_long(content: str, match: str) -> None:
    with pytest.raises(MalformedError, match=match):
        der.unsigned(bytes.fromhex(content))


def test_another_tag_than_the_expected_one() -> None:
    assert der.read_as(Cursor(b"\x16\x01a", "test"), der.IA5_STRING, "a name") == b"a"
    with pytest.raises(MalformedError, match=r"^a name: tag 0x16 expected, 0x0c found$"):
        der.read_as(Cursor(b"\x0c\x01a", "test"), der.IA5_STRING, "a name")
