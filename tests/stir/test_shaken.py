"""What a signing request may ask for in a SHAKEN PASSporT (RFC 8588 §4, §5)."""

from collections.abc import Callable

import pytest

from voice_dpki.errors import MalformedError
from voice_dpki.stir.shaken import read_attest, read_origid

UUID = "5f4e3b1c-7d2a-4b8e-9c1d-2e3f4a5b6c7d"


@pytest.mark.parametrize("read", [read_attest, read_origid])
@pytest.mark.parametrize("value", [None, 7, ["A"], {"A": 1}, True])
def test_only_strings_are_read(read: Callable[[object], str], value: object) -> None:
    with pytest.raises(MalformedError, match="it is not a string"):
        read(value)


@pytest.mark.parametrize("value", ["", "a", "D", "AB"])
def test_attestations_are_a_b_and_c(value: str) -> None:
    assert [read_attest(each) for each in "ABC"] == ["A", "B", "C"]
    with pytest.raises(MalformedError, match="none of A, B and C"):
        read_attest(value)


@pytest.mark.parametrize("value", ["", UUID[:-1], UUID.replace("-", ""), f"{{{UUID}}}", f"urn:uuid:{UUID}"])
def test_an_origid_is_a_uuid_with_its_hyphens(value: str) -> None:
    assert [read_origid(each) for each in (UUID, UUID.upper())] == [UUID, UUID.upper()]
    with pytest.raises(MalformedError, match="not a UUID"):
        read_origid(value)
