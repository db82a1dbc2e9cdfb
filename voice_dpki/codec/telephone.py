"""Telephone numbers in canonical form (RFC 8224 §8.3), and the SIP URIs that hold them (RFC 3261 §19.1)."""

import re
from dataclasses import dataclass

from voice_dpki.errors import MalformedError
from voice_dpki.names import Tn, ascii_lower

MAX_TN_LENGTH = 32
"""Digits of a number. RFC 8224 §8.3 sets no limit, and routing prefixes make numbers longer than E.164's 15 digits.

Authority can be had over 15 digits at most (RFC 8226 §9), so a longer number can be called but cannot call.
"""

MAX_URI_LENGTH = 256

_WRITTEN = re.compile(r"\+?[0-9*#.()-]{1,80}\Z")
_SEPARATORS = str.maketrans("", "", "+.-()")
_CANONICAL = re.compile(rf"[0-9#*]{{1,{MAX_TN_LENGTH}}}\Z")
_E164 = re.compile(r"[0-9]{1,15}\Z")
_SIP_URI = re.compile(
    r"(?P<scheme>sips?):(?P<user>[^@:?\s<>\"]+)(?P<password>:[^@\s]*)?@(?P<host>\[[0-9a-f:.]+\]|[a-z0-9.-]+)"
    r"(?::[0-9]{1,5})?(?P<parameters>[;?].*)?\Z",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class SipUri:
    """A SIP or SIPS URI with a user, in the parts that say who it is; each as it was written."""

    scheme: str
    user: str
    """With parameters of its own, where it has any (`;isub=...`)."""
    has_password: bool
    host: str
    parameters: str
    """What follows host and port, parameters and header fields, with the sign that begins it; or ""."""

    @property
    def number(self) -> Tn | None:
        """The E.164 number that the URI is about; None where its user is anything but a number alone.

        It is one with `+` and without, as proxies route it. A user with a password or parameters is none: a
        `phone-context`, for one, makes another number of it (RFC 3966 §5.1.5).
        """
        if self.has_password:
            return None
        try:
            number = canonical_tn(self.user)
        except MalformedError:
            return None
        return number if _E164.match(number) else None


def split_sip_uri(text: str) -> SipUri | None:
    """Split a SIP or SIPS URI with a user; None for anything else, and for more than 256 characters."""
    found = _SIP_URI.match(text) if len(text) <= MAX_URI_LENGTH else None
    if found is None:
        return None
    scheme, user, host, parameters = found.group("scheme", "user", "host", "parameters")
    return SipUri(scheme, user, found["password"] is not None, host, parameters or "")


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


def number_in_uri(text: str) -> Tn | None:
    """Return the E.164 number that a SIP or SIPS URI is about, None for others (see `SipUri.number`)."""
    uri = split_sip_uri(text)
    return uri.number if uri is not None else None


def host_in_uri(text: str) -> str | None:
    """Return the host of a SIP or SIPS URI with a user, in lower case, and None for other text."""
    uri = split_sip_uri(text)
    return ascii_lower(uri.host) if uri is not None else None


def is_same_party(one: str, other: str) -> bool:
    """Tell whether two URIs name the same party: they are equal, or about the same E.164 number.

    The number of a call stays what it is while proxies send it on from one domain to the next. It proves nothing by
    itself: whoever goes by it must check who holds the number.
    """
    number = number_in_uri(one)
    return one == other or (number is not None and number == number_in_uri(other))
