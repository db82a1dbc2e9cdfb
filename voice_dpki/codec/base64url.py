"""base64url without padding, as JOSE uses it (RFC 7515 §2)."""

import base64
import re

from voice_dpki.errors import MalformedError

_ALPHABET = re.compile(rb"[A-Za-z0-9_-]*\Z")


def encode(data: bytes) -> str:
    """Encode `data` without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode(text: str | bytes) -> bytes:
    """Decode strictly: no padding, no white space, no stray bits.

    Every byte string has exactly one accepted text, so a signature or a cache key over the text also covers the
    bytes. Raises MalformedError for any other text.
    """
    raw = text.encode("utf-8") if isinstance(text, str) else text
    if not _ALPHABET.match(raw) or len(raw) % 4 == 1:
        raise MalformedError("not base64url: only A-Z a-z 0-9 - _ may appear, unpadded (RFC 7515 §2)")
    data = base64.urlsafe_b64decode(raw + b"=" * (-len(raw) % 4))
    if encode(data).encode("ascii") != raw:
        raise MalformedError("not canonical base64url: unused trailing bits are set (RFC 4648 §3.5)")
    return data
