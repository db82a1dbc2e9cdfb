"""base64url without padding, as JOSE uses it (RFC 7515 §2)."""

import binascii
import string
from typing import Final

from voice_dpki.errors import MalformedError

_ALPHABET: Final = (string.ascii_letters + string.digits + "-_").encode("ascii")
_TO_URL: Final = bytes.maketrans(b"+/", b"-_")
_FROM_URL: Final = bytes.maketrans(b"-_", b"+/")
_LAST: Final = {0: _ALPHABET, 2: b"AQgw", 3: b"AEIMQUYcgkosw048"}
"""Characters that can end a text, by its length modulo 4: no unused bit is set."""


def encode(data: bytes) -> str:
    """Encode `data` without padding."""
    return binascii.b2a_base64(data, newline=False).translate(_TO_URL).rstrip(b"=").decode("ascii")


def decode(text: str | bytes) -> bytes:
    """Decode strictly: no padding, no white space, no stray bits.

    Every byte string has exactly one accepted text, so a signature or a cache key over the text also covers the
    bytes. Raises MalformedError for any other text.
    """
    raw = text.encode("utf-8") if isinstance(text, str) else text
    last = _LAST.get(len(raw) % 4)
    if last is None or raw.translate(None, _ALPHABET):
        raise MalformedError("not base64url: only A-Z a-z 0-9 - _ may appear, unpadded (RFC 7515 §2)")
    if raw[-1:] not in last:
        raise MalformedError("not canonical base64url: unused trailing bits are set (RFC 4648 §3.5)")
    return binascii.a2b_base64(raw.translate(_FROM_URL) + b"=" * (-len(raw) % 4))
