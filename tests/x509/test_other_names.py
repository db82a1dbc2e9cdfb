"""Attributes of a subject that name nobody but by the fields that are read."""

import warnings

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID, ObjectIdentifier

from voice_dpki.x509.other_names import other_names


def kinds(oid: ObjectIdentifier, value: str) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's, about the length
        attribute = x509.NameAttribute(oid, value, _validate=False)
    return list(other_names(x509.Name([attribute]), {}))


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("", ["subject"]),
        ("x", []),
        ("x" * 64, []),
        ("x" * 65, ["subject"]),
        ("a\nb", ["subject"]),
        ("a\0", ["subject"]),
    ],
)
def test_an_attribute_is_a_printable_text_of_1_to_64_characters(value: str, found: list[str]) -> None:
    assert kinds(NameOID.LOCALITY_NAME, value) == found


@pytest.mark.parametrize(
    "oid", [NameOID.EMAIL_ADDRESS, NameOID.USER_ID, NameOID.DOMAIN_COMPONENT, NameOID.SURNAME, NameOID.TITLE]
)
def test_an_attribute_that_may_name_somebody(oid: ObjectIdentifier) -> None:
    assert kinds(oid, "x") == ["subject"]
