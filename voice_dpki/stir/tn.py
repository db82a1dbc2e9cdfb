"""Identities in canonical form: telephone numbers (RFC 8224 §8.3) and SIP URIs (RFC 8224 §8.5)."""

import re
import string

from voice_dpki.errors import MalformedError
from voice_dpki.names import Tn

MAX_TN_LENGTH = 15
"""Digits of an international number (E.164), and what a TNAuthList can name (RFC 8226 §9)."""

MAX_URI_LENGTH = 256

_WRITTEN = re.compile(r"\+?[0-9*#.()-]{1,40}\Z")
_SEPARATORS = str.maketrans("", "", "+.-()")
_CANONICAL = re.compile(r"[0-9#*]{1,15}\Z")
_SIP_URI = re.compile(
    r"(?P<scheme>sips?):(?P<user>[^@:;?\s<>\"]+)(?::[^@\s]*)?@(?P<host>\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::[0-9]{1,5})?"
    r"(?:[;?].*)?\Z",
    re.IGNORECASE,
)
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset(string.ascii_letters + string.digits + "-._~")


def canonical_tn(text: str) -> Tn:
    """Drop a leading `+` and visual separators, so that digits, `#` and `*` are left.

    Local and national forms are not made international here: the proxy, which knows its dialling plan, does that.
    Raises MalformedError at any other character, and if not 1 to 15 characters are left.
    """
    if not _WRITTEN.match(text):
        raise MalformedError("a telephone number may hold 0-9 * # . - ( ) and one + in front")
    number = text.translate(_SEPARATORS)
    if not 1 <= len(number) <= MAX_TN_LENGTH:
        raise MalformedError(f"a telephone number has 1 to {MAX_TN_LENGTH} digits")
    return Tn(number)


def is_canonical_tn(text: str) -> bool:
    """Tell whether `text` is a telephone number as a PASSporT may hold it."""
    return _CANONICAL.match(text) is not None


def canonical_uri(text: str) -> str:
    """Reduce a SIP or SIPS URI to scheme, user and host, in lower case and without needless escapes.

    Raises MalformedError if it is no such URI, or longer than 256 characters.
    """
    found = _SIP_URI.match(text) if len(text) <= MAX_URI_LENGTH else None
    if found is None:
        raise MalformedError(f"not a SIP URI of user and host, of at most {MAX_URI_LENGTH} characters")
    scheme, user, host = found.group("scheme", "user", "host")
    return f"{scheme}:{_ESCAPE.sub(_unescape, user)}@{host}".lower()


def _unescape(escape: re.Match[str]) -> str:
    character = chr(int(escape[1], 16))
    return character if character in _UNRESERVED else escape[0]
