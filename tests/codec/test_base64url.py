"""base64url decodes exactly one spelling of each byte string."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.codec import base64url
from voice_dpki.errors import MalformedError


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (b"f", "Zg"),
        (b"fo", "Zm8"),
        (b"foo", "Zm9v"),
        (b"\xfb\xff", "-_8"),
        (bytes([3, 236, 255, 224, 193]), "A-z_4ME"),
    ],
)
def test_examples(data: bytes, text: str) -> None:
    """RFC 4648 §10 without padding, and RFC 7515 appendix C."""
    assert base64url.encode(data) == text
    assert base64url.decode(text) == base64url.decode(text.encode()) == data


@pytest.mark.parametrize(
    "text",
    ["Zg==", "Zg=", "Z", "Zm9vY", "Zm9+", "Zm9/", "Zm 9v", "Zm9v\n", "Zh", "Zm9", "Zm9vé", "\x00\x00"],
)
def test_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        base64url.decode(text)


@given(st.binary(max_size=200))
def test_agrees_with_the_standard_library(data: bytes) -> None:
    assert base64url.encode(data) == base64.urlsafe_b64encode(data).decode().rstrip("=")
    assert base64url.decode(base64url.encode(data)) == data


@given(st.one_of(st.text(max_size=20), st.binary(max_size=20), st.from_regex(r"[A-Za-z0-9_-]{0,9}=?\Z")))
def test_anything_decodes_to_what_encodes_to_it_or_is_refused(text: str | bytes) -> None:
    try:
        data = base64url.decode(text)
    except MalformedError:
        return
    assert base64url.encode(data) == (text if isinstance(text, str) else text.decode())
