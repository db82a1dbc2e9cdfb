"""Checks of the names in a certificate, kind by kind (from version 4 of the rules on); unknown forms are refused.

A name must have the one form in which it is listed; otherwise a lookup by name would miss certificates. The ledger
must also be able to compare it with the member's allotment. `voice_dpki.ledger.admission.check_authority` checks
afterwards that the member holds it.

docs/spec/state.md#names-in-a-certificate specifies it.
"""

import re
from collections.abc import Collection
from functools import lru_cache
from typing import NamedTuple

from voice_dpki.codec.telephone import MAX_URI_LENGTH, number_in_uri
from voice_dpki.errors import MalformedError
from voice_dpki.ledger.refusals import Refusal, Refused
from voice_dpki.names import Tn, ascii_lower
from voice_dpki.x509.allotment import Allotment
from voice_dpki.x509.prepared import ScriptsError, check_written
from voice_dpki.x509.profile import CertificateProfile

OTHER_KINDS = {
    "ip-address": Refusal.NAME_IP_ADDRESS,
    "email": Refusal.NAME_EMAIL,
    "directory": Refusal.NAME_DIRECTORY,
    "other": Refusal.NAME_OTHER,
    "registered-id": Refusal.NAME_REGISTERED_ID,
    "issuer": Refusal.NAME_ISSUER,
    "subject": Refusal.NAME_SUBJECT,
}
"""The refusal for each kind in `CertificateProfile.other_names`."""

_CACHED_NAMES = 8192
"""Cached checks: as many as `admission` caches judgements. A name is checked before its block, and in it."""

_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\Z", re.IGNORECASE | re.ASCII)
_DIGITS = re.compile(r"[0-9]+\Z")
_USER = r"\+[0-9]{1,15}|[a-z0-9._~!*'()=&$-]{1,64}"


class _Form(NamedTuple):
    """A form that no URI may have, and the refusal that names it."""

    refusal: Refusal
    found: re.Pattern[str]


_FORMS = (
    _Form(Refusal.URI_KIND, re.compile(r"(?!sips?:|tel:|urn:(?:uuid|dev|gsma):)", re.IGNORECASE | re.ASCII)),
    _Form(Refusal.URI_ESCAPE, re.compile(".*%", re.DOTALL)),
    _Form(Refusal.URI_PARAMETERS, re.compile(".*[;?#]", re.DOTALL)),
    _Form(Refusal.URI_PASSWORD, re.compile(r"sips?:[^@]*:[^@]*@", re.IGNORECASE | re.ASCII)),
    _Form(Refusal.URI_PORT, re.compile(r"sips?:(?:.*@)?[^@\[]*:[0-9]*\Z", re.IGNORECASE | re.ASCII | re.DOTALL)),
)

_URI = re.compile(
    rf"sips?:(?:(?:{_USER})@)?(?P<host>[^@]*)\Z|tel:\+[0-9]{{1,15}}\Z"
    r"|urn:uuid:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z|urn:(?:dev|gsma):[a-z0-9:._-]{1,200}\Z",
    re.IGNORECASE | re.ASCII,
)
_NUMBER = re.compile(r"sips?:\+", re.IGNORECASE | re.ASCII)

_NAMED_HOST = re.compile(rf"(?:.*[@/])?(?P<host>\*?(?:{_LABEL})?(?:\.{_LABEL})+\.?)\Z", re.IGNORECASE | re.ASCII)
_NAMED_URI = re.compile(r"(?:sips?|tel|urn|https?|mailto):", re.IGNORECASE | re.ASCII)
_NAMED_NUMBER = re.compile(r"\+(?P<number>[0-9]{1,15})\Z")


def check_names(profile: CertificateProfile, allotment: Allotment) -> None:
    """Check the kind and the form of each name in a certificate, the common name among them.

    Raises Refused; the refusal names the fault.
    """
    for kind in profile.other_names:
        raise Refused(OTHER_KINDS[kind])
    for name in profile.dns_names:
        check_host(name)
    for uri in profile.uris:
        _check_uri(uri)
    if profile.common_name is not None:
        _check_written(profile.common_name)
        _check_common_name(profile.common_name, allotment)


def check_common_number(profile: CertificateProfile, named: Collection[Tn]) -> None:
    """Check that a common name of `+` and digits is one of the numbers that a certificate names elsewhere, `named`.

    The ledger finds the certificate only under those when the number moves to another member. Raises Refused.
    """
    number = _NAMED_NUMBER.match(profile.common_name or "")
    if number and number["number"] not in named:
        raise Refused(Refusal.COMMON_NAME)


@lru_cache(_CACHED_NAMES)
def check_host(name: str) -> None:
    """Check that a name is a host name of letters, digits and hyphens, not an address; raises Refused."""
    if "*" in name:
        raise Refused(Refusal.NAME_WILDCARD)
    if not _HOST.match(name) or _DIGITS.match(name.rpartition(".")[2]):
        raise Refused(Refusal.NAME_HOST)
    if not all(_is_sound(label) for label in ascii_lower(name).split(".")):
        raise Refused(Refusal.NAME_LABEL)


def _is_sound(label: str) -> bool:
    """Return whether a label is not reserved, or an A-label that decodes and encodes to itself (RFC 5890)."""
    if label[2:4] != "--":
        return True
    try:
        text = label[4:].encode("ascii").decode("punycode")
        text.encode("utf-8")  # refuses surrogates
        again = text.encode("punycode").decode("ascii")
    except UnicodeError:
        return False
    return label.startswith("xn--") and not text.isascii() and again == label[4:]


@lru_cache(_CACHED_NAMES)
def _check_uri(uri: str) -> None:
    if len(uri) > MAX_URI_LENGTH:
        raise Refused(Refusal.URI_FORM)
    for form in _FORMS:
        if form.found.match(uri):
            raise Refused(form.refusal)
    found = _URI.match(uri)
    if found is None:
        raise Refused(Refusal.URI_FORM)
    if found["host"] is not None:
        check_host(found["host"])
    if number_in_uri(uri) is not None and not _NUMBER.match(uri):
        raise Refused(Refusal.URI_NUMBER)


def _check_written(name: str) -> None:
    try:
        check_written(name)
    except ScriptsError:
        raise Refused(Refusal.NAME_SCRIPTS) from None
    except MalformedError:
        raise Refused(Refusal.NAME_FORM) from None


def _check_common_name(name: str, allotment: Allotment) -> None:
    """Check a common name that looks like a host, an address or a number against what the member holds."""
    if _NAMED_URI.match(name):
        raise Refused(Refusal.COMMON_NAME)
    if found := _NAMED_HOST.match(name):
        host = ascii_lower(found["host"])
        if not _DIGITS.match(host.rpartition(".")[2]) and not allotment.holds_host(host):
            raise Refused(Refusal.COMMON_NAME)
    if (number := _NAMED_NUMBER.match(name)) and not allotment.holds_number(Tn(number["number"])):
        raise Refused(Refusal.COMMON_NAME)
