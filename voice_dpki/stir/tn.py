"""Identities in canonical form: telephone numbers (RFC 8224 §8.3) and SIP URIs (RFC 8224 §8.5)."""

import re
import string

from voice_dpki.errors import MalformedError
from voice_dpki.names import Tn

MAX_TN_LENGTH = 32
"""Digits of a number. RFC 8224 §8.3 sets no limit, and routing prefixes make numbers longer than E.164's 15 digits.

Authority can be had over 15 digits at most (RFC 8226 §9), so a longer number can be called but cannot call.
"""

MAX_URI_LENGTH = 256

_WRITTEN = re.compile(r"\+?[0-9*#.()-]{1,80}\Z")
_SEPARATORS = str.maketrans("", "", "+.-()")
_CANONICAL = re.compile(rf"[0-9#*]{{1,{MAX_TN_LENGTH}}}\Z")
_SIP_URI = re.compile(
    r"(?P<scheme>sips?):(?P<user>[^@:?\s<>\"]+)(?::[^@\s]*)?@(?P<host>\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::[0-9]{1,5})?"
    r"(?P<parameters>[;?].*)?\Z",
    re.IGNORECASE | re.ASCII,
)
_USER_PHONE = re.compile(r";user=phone(?=[;?]|\Z)", re.IGNORECASE | re.ASCII)
_SERVICE_URN = re.compile(r"urn:service:[a-z0-9-]{1,64}(?:\.[a-z0-9-]{1,64})*\Z", re.IGNORECASE | re.ASCII)
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset(string.ascii_letters + string.digits + "-._~")


def canonical_tn(text: str) -> Tn:
    """Drop a leading `+` and visual separators, so that digits, `#` and `*` are left.

    Local and national forms are not made international here: the proxy, which knows its dialling plan, does that.
    Raises MalformedError at any other character, and if not 1 to 32 characters are left.
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

    A service URN such as urn:service:sos (RFC 5031) is put in lower case. Raises MalformedError if it is no such
    URI, or longer than 256 characters.
    """
    if len(text) <= MAX_URI_LENGTH and _SERVICE_URN.match(text):
        return text.lower()
    found = _sip_uri(text)
    if found is None:
        raise MalformedError(
            f"not a SIP URI of user and host, nor a service URN, of at most {MAX_URI_LENGTH} characters"
        )
    scheme, user, host = found.group("scheme", "user", "host")
    return f"{scheme}:{_ESCAPE.sub(_unescape, user)}@{host}".lower()


def tn_in_uri(text: str) -> Tn | None:
    """Return the telephone number that a SIP URI with user=phone is about, None for others (RFC 8224 §8.1)."""
    found = _sip_uri(text)
    if found is None or not _USER_PHONE.search(found["parameters"] or ""):
        return None
    try:
        return canonical_tn(found["user"].partition(";")[0])
    except MalformedError:
        return None


def _sip_uri(text: str) -> re.Match[str] | None:
    return _SIP_URI.match(text) if len(text) <= MAX_URI_LENGTH else None


def _unescape(escape: re.Match[str]) -> str:
    character = chr(int(escape[1], 16))
    return character if character in _UNRESERVED else escape[0]
