"""Identities in canonical form: telephone numbers (RFC 8224 §8.3) and SIP URIs (RFC 8224 §8.5)."""

import re
import string

from voice_dpki.codec.telephone import (
    MAX_TN_LENGTH,
    MAX_URI_LENGTH,
    canonical_tn,
    is_canonical_tn,
    split_sip_uri,
)
from voice_dpki.errors import MalformedError
from voice_dpki.names import Tn, ascii_lower

__all__ = ["MAX_TN_LENGTH", "MAX_URI_LENGTH", "canonical_tn", "canonical_uri", "is_canonical_tn", "tn_in_uri"]

_USER_PHONE = re.compile(r";user=phone(?=[;?]|\Z)", re.IGNORECASE | re.ASCII)
_PHONE_CONTEXT = re.compile(r"(?:\A|;)phone-context(?=[=;]|\Z)", re.IGNORECASE | re.ASCII)
_TEL_URI = re.compile(r"tel:(\+?[0-9*#.()-]+)((?:;[a-z0-9-]+(?:=[^;?@\s<>\"]*)?)*)\Z", re.IGNORECASE | re.ASCII)
_SERVICE_URN = re.compile(r"urn:service:[a-z0-9-]{1,64}(?:\.[a-z0-9-]{1,64})*\Z", re.IGNORECASE | re.ASCII)
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset(string.ascii_letters + string.digits + "-._~")


def canonical_uri(text: str) -> str:
    """Reduce a SIP or SIPS URI to scheme, user and host, in lower case and without needless escapes.

    A service URN such as urn:service:sos (RFC 5031) is converted to lower case. Raises MalformedError for any other
    URI, and for one longer than 256 characters.
    """
    if len(text) <= MAX_URI_LENGTH and _SERVICE_URN.match(text):
        return ascii_lower(text)
    found = split_sip_uri(text)
    if found is None:
        raise MalformedError(
            f"not a SIP URI of user and host, nor a service URN, of at most {MAX_URI_LENGTH} characters"
        )
    return ascii_lower(f"{found.scheme}:{_ESCAPE.sub(_unescape, found.user)}@{found.host}")


def tn_in_uri(text: str) -> Tn | None:
    """Return the number in a tel URI, or in a SIP URI with user=phone; None if there is none (RFC 8224 §8.1).

    A user with a password is no number, and one with a phone-context is a number of that context only
    (RFC 3966 §5.1.5). Header fields behind the "?" are not parameters.
    """
    tel = _TEL_URI.match(text) if len(text) <= MAX_URI_LENGTH else None
    if tel is not None:
        return _tn_outside_contexts(tel[1], tel[2])
    found = split_sip_uri(text)
    if found is None or found.has_password or not _USER_PHONE.search(found.parameters.partition("?")[0]):
        return None
    number, _, parameters = found.user.partition(";")
    return _tn_outside_contexts(number, parameters)


def _tn_outside_contexts(number: str, parameters: str) -> Tn | None:
    if _PHONE_CONTEXT.search(_ESCAPE.sub(_unescape, parameters)):
        return None
    try:
        return canonical_tn(number)
    except MalformedError:
        return None


def _unescape(escape: re.Match[str]) -> str:
    character = chr(int(escape[1], 16))
    return character if character in _UNRESERVED else escape[0]
