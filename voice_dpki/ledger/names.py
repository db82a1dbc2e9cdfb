"""All certificates of a name: for each name that certificates bear, a leaf with the list of them.

    SHA-256("voice-dpki/name/v1" ‖ 00 ‖ CBOR of the name) -> ["name", [* H(CERT)]]        -- sorted, never empty

    name = ["subject", organization, common name]
         / ["uri", URI]                   -- alternative names other than telephone numbers
         / ["dns", host]                  -- in lower case
         / ["number", length, prefix]     -- numbers of `length` digits that begin with `prefix`
         / ["spc", code]

Because a leaf lists every certificate of its name, its proof shows that none is left out. A number range stands in
as few leaves as there are blocks of powers of ten in it, and none of these holds another's number; so all
certificates for a number are those in the leaves for its prefixes, of which there are at most 15.
"""

import hashlib
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator

from voice_dpki.codec import cbor
from voice_dpki.codec.cbor import Cbor
from voice_dpki.errors import MalformedError
from voice_dpki.ledger.draft import Draft
from voice_dpki.ledger.refusals import Refusal, Refused
from voice_dpki.names import CertDigest, Tn
from voice_dpki.x509.profile import CertificateProfile
from voice_dpki.x509.tnauthlist import TnRange

MAX_NAMES = 128
"""Names of one certificate: each is a leaf of the tree that recording it changes."""

MAX_LISTED = 256
"""Certificates of one name at a time."""

_DOMAIN = b"voice-dpki/name/v1\0"
_HOST_SCHEMES = frozenset({"sip", "sips"})
_NUMBER_URI = re.compile(r"(?:tel:|sips?:)\+([0-9]{1,15})(?:@.*)?\Z", re.IGNORECASE)


def subject_key(organization: str, common_name: str) -> bytes:
    """Key of the leaf that lists the certificates of a subject."""
    return _key("subject", organization, common_name)


def uri_key(uri: str) -> bytes:
    """Key of the leaf for a URI in the subject alternative names; those with a number are listed by that.

    Scheme and host count in lower case (RFC 3261 §19.1.4).
    """
    scheme, _, rest = uri.partition(":")
    user, at, host = rest.rpartition("@")
    scheme = scheme.lower()
    return _key("uri", f"{scheme}:{user}{at}{host.lower() if scheme in _HOST_SCHEMES else host}")


def dns_key(name: str) -> bytes:
    """Key of the leaf for a DNS name."""
    return _key("dns", name.lower())


def spc_key(code: str) -> bytes:
    """Key of the leaf for a service provider code."""
    return _key("spc", code)


def number_keys(tn: Tn) -> list[bytes]:
    """Keys of the leaves that, together, list all certificates for a number."""
    return [_number_key(len(tn), tn[:digits]) for digits in range(1, len(tn) + 1)]


def parse_listed(data: bytes) -> tuple[CertDigest, ...]:
    """Parse the value of such a leaf; raises MalformedError."""
    match cbor.decode(data, "name leaf"):
        case ["name", list(digests)]:
            found = tuple(
                CertDigest(digest) for digest in digests if isinstance(digest, bytes) and len(digest) == 32
            )
            if found and len(found) == len(digests) and list(found) == sorted(set(found)):
                return found
    raise MalformedError("name leaf: not a sorted list of digests")


def name_keys(profile: CertificateProfile) -> list[bytes]:
    """Keys of the leaves that list a certificate; raises Refused where it has too many names."""
    keys = list(dict.fromkeys(_keys(profile)))
    if len(keys) > MAX_NAMES:
        raise Refused(Refusal.TOO_MANY_NAMES)
    return keys


def enlist(draft: Draft, profile: CertificateProfile) -> None:
    """List a certificate under its names; raises Refused where a list is full."""
    for key in name_keys(profile):
        listed = _listed(draft, key)
        if len(listed) >= MAX_LISTED:
            raise Refused(Refusal.NAME_FULL)
        listed.insert(bisect_left(listed, profile.digest), profile.digest)
        draft.put(key, ["name", listed])


def strike(draft: Draft, profile: CertificateProfile) -> None:
    """Take a certificate off all lists."""
    for key in name_keys(profile):
        listed = [digest for digest in _listed(draft, key) if digest != profile.digest]
        draft.put(key, ["name", listed] if listed else None)


def decimal_blocks(entry: TnRange) -> Iterator[str]:
    """Cut a range into blocks of powers of ten; yields the prefixes of its numbers."""
    digits, at, end = len(entry.start), int(entry.start), int(entry.start) + entry.count
    while at < end:
        size = 1
        while at % (size * 10) == 0 and at + size * 10 <= end and size < 10 ** (digits - 1):
            size *= 10
        yield str(at).zfill(digits)[: digits - len(str(size)) + 1]
        at += size


def _listed(draft: Draft, key: bytes) -> list[CertDigest]:
    data = draft.leaf(key)
    return [] if data is None else list(parse_listed(data))


def _keys(profile: CertificateProfile) -> Iterator[bytes]:
    if profile.common_name is not None:
        yield subject_key(profile.organization or "", profile.common_name)
    for uri in profile.uris:
        number = _NUMBER_URI.match(uri)
        yield _number_key(len(number[1]), number[1]) if number else uri_key(uri)
    yield from map(dns_key, profile.dns_names)
    if profile.tn_auth_list is not None:
        yield from map(spc_key, profile.tn_auth_list.spcs)
        yield from (_number_key(len(tn), tn) for tn in profile.tn_auth_list.tns)
        yield from _range_keys(profile.tn_auth_list.ranges)


def _range_keys(ranges: Iterable[TnRange]) -> Iterator[bytes]:
    for entry in ranges:
        for count, prefix in enumerate(decimal_blocks(entry)):
            if count > MAX_NAMES:
                raise Refused(Refusal.TOO_MANY_NAMES)
            yield _number_key(len(entry.start), prefix)


def _number_key(length: int, prefix: str) -> bytes:
    return _key("number", length, prefix)


def _key(*name: Cbor) -> bytes:
    return hashlib.sha256(_DOMAIN + cbor.encode(name)).digest()
