"""base64 with padding (RFC 4648 §4), of which each byte string has one text."""

import base64

from voice_dpki.errors import MalformedError


def decode(text: str) -> bytes:
    """Decode strictly: padded, no white space, no stray bits. Raises MalformedError for any other text."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:  # binascii.Error is one
        raise MalformedError("not base64 (RFC 4648 §4)") from None
    if base64.b64encode(data).decode("ascii") != text:
        raise MalformedError("not canonical base64 (RFC 4648 §3.5)")
    return data


def encode(data: bytes) -> str:
    """Encode with padding."""
    return base64.b64encode(data).decode("ascii")
