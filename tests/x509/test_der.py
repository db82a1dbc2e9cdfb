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
