"""Telephone numbers in canonical form (RFC 8224 §8.3), and the SIP URIs that hold them (RFC 3261 §19.1)."""

import re
from dataclasses import dataclass
from functools import lru_cache

from voice_dpki.errors import MalformedError
from voice_dpki.names import Tn, ascii_lower

MAX_TN_LENGTH = 32
"""Most digits of a number. RFC 8224 §8.3 sets no limit, and routing prefixes make numbers longer than E.164's 15.

Certificates give authority over at most 15 digits (RFC 8226 §9), so a longer number can be called but cannot call.
"""

MAX_URI_LENGTH = 256

_WRITTEN = re.compile(r"\+?[0-9*#.()-]{1,80}\Z")
_SEPARATORS = str.maketrans("", "", "+.-()")
_CANONICAL = re.compile(rf"[0-9#*]{{1,{MAX_TN_LENGTH}}}\Z")
_URIS_KEPT = 1024
"""Most URIs whose parts are cached: a call looks up the same few repeatedly."""

_E164 = re.compile(r"[0-9]{1,15}\Z")
_SIP_URI = re.compile(
    r"(?P<scheme>sips?):(?P<user>[^@:?\s<>\"]+)(?P<password>:[^@\s]*)?@(?P<host>\[[0-9a-f:.]+\]|[a-z0-9.-]+)"
    r"(?::[0-9]{1,5})?(?P<parameters>[;?].*)?\Z",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class SipUri:
    """The parts of a SIP or SIPS URI that identify its user, each as it was written."""

    scheme: str
    user: str
    """Includes the user's own parameters, if it has any (`;isub=...`)."""
    has_password: bool
    host: str
    parameters: str
    """Parameters and header fields behind host and port, with the leading ";" or "?"; "" if there are none."""

    @property
    def number(self) -> Tn | None:
        """The E.164 number that is the URI's user; None if the user is anything but a number alone.

        The `+` may be missing, since proxies route numbers in both forms. A user with a password or parameters has
        no number here: a `phone-context`, for example, would make it a different one (RFC 3966 §5.1.5).
        """
        if self.has_password:
            return None
        try:
            number = canonical_tn(self.user)
        except MalformedError:
            return None
        return number if _E164.match(number) else None


def split_sip_uri(text: str) -> SipUri | None:
    """Split a SIP or SIPS URI with a user; None for anything else, and for more than 256 characters.

    A URI is ASCII, and escapes other characters (RFC 3261 §25.1).
    """
    return _split(text) if len(text) <= MAX_URI_LENGTH and text.isascii() else None


@lru_cache(maxsize=_URIS_KEPT)
def _split(text: str) -> SipUri | None:
    found = _SIP_URI.match(text)
    if found is None:
        return None
    scheme, user, host, parameters = found.group("scheme", "user", "host", "parameters")
    return SipUri(scheme, user, found["password"] is not None, host, parameters or "")


def canonical_tn(text: str) -> Tn:
    """Drop a leading `+` and visual separators, which leaves digits, `#` and `*`.

    Local and national forms are not made international here: the proxy, which knows its dialling plan, does that.
    Raises MalformedError for any other character, and unless 1 to 32 characters are left.
    """
    if text.isdigit() and text.isascii() and len(text) <= MAX_TN_LENGTH:  # as almost all are
        return Tn(text)
    if not _WRITTEN.match(text):
        raise MalformedError("a telephone number may hold 0-9 * # . - ( ) and one + in front")
    number = text.translate(_SEPARATORS)
    if not 1 <= len(number) <= MAX_TN_LENGTH:
        raise MalformedError(f"a telephone number has 1 to {MAX_TN_LENGTH} digits")
    return Tn(number)


def is_canonical_tn(text: str) -> bool:
    """Tell whether `text` is a telephone number as a PASSporT may hold it."""
    return _CANONICAL.match(text) is not None


def number_in_uri(text: str) -> Tn | None:
    """Return the E.164 number that is the user of a SIP or SIPS URI, None for others (see `SipUri.number`)."""
    uri = split_sip_uri(text)
    return _number(uri) if uri is not None else None


@lru_cache(maxsize=_URIS_KEPT)
def _number(uri: SipUri) -> Tn | None:
    return uri.number


def host_in_uri(text: str) -> str | None:
    """Return the host of a SIP or SIPS URI with a user, in lower case, and None for other text."""
    uri = split_sip_uri(text)
    return ascii_lower(uri.host) if uri is not None else None


def is_same_party(one: str, other: str) -> bool:
    """Tell whether two URIs name the same party: they are equal, or have the same E.164 number.

    A call keeps its number while proxies forward it from one domain to the next. The number proves nothing by
    itself: code that relies on it must check who holds the number.
    """
    if one == other:
        return True
    number = number_in_uri(one)
    return number is not None and number == number_in_uri(other)
