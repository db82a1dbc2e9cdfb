"""base64 with padding has one text for each byte string."""

import pytest

from voice_dpki.codec import base64text
from voice_dpki.errors import MalformedError


@pytest.mark.parametrize(
    ("text", "data"), [("", b""), ("Zg==", b"f"), ("Zm8=", b"fo"), ("Zm9v", b"foo"), ("+/8=", b"\xfb\xff")]
)
def test_decodes(text: str, data: bytes) -> None:
    assert base64text.decode(text) == data


@pytest.mark.parametrize(
    "text", ["Zh==", "Zm9=", "Zg", "Zg=", "Zg===", "Zm9v\n", "Zm 9v", "-_8=", "Zm9v====", "=Zm9v", "\u00e4"]
)
def test_refuses_every_other_text(text: str) -> None:
    with pytest.raises(MalformedError):
        base64text.decode(text)
