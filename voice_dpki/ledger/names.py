"""Lists of all certificates of a name: one leaf for each name that certificates carry.

    SHA-256("voice-dpki/name/v1" ‖ 00 ‖ CBOR of the name) -> ["name", [+ [organization, [+ H(CERT)]]]]

    name = ["subject", organization, common name]
         / ["uri", URI]                   -- alternative names other than telephone numbers
         / ["dns", host]                  -- in lower case
         / ["number", length, prefix]     -- numbers of `length` digits that begin with `prefix`
         / ["spc", code]

All lists are sorted. A name that moved from one organisation to another has a list for each of them. Each list has
its own limit, so that an organisation cannot fill up a number's list before it gives the number away. Because a
leaf lists every certificate of its name, its proof shows that none is left out. A number range is cut into as few
blocks of powers of ten as possible, with a leaf for each; a block holds no number outside the range. So all
certificates for a number are in the leaves for its prefixes, of which there are at most 15.

docs/spec/encodings.md#leaves specifies it.
"""

import hashlib
import re
from bisect import insort
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from voice_dpki.codec import cbor
from voice_dpki.codec.cbor import Cbor
from voice_dpki.codec.telephone import number_in_uri
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.ledger.draft import Draft
from voice_dpki.ledger.leaf import Leaf
from voice_dpki.ledger.refusals import Refusal, Refused
from voice_dpki.ledger.view import StateView
from voice_dpki.names import CertDigest, Tn
from voice_dpki.x509.profile import CertificateProfile
from voice_dpki.x509.tnauthlist import TnRange

MAX_NAMES = 128
"""Names of one certificate: recording it changes one leaf of the tree for each."""

MAX_LISTED = 256
"""Certificates of one name and organisation at a time, including expired ones that are not yet pruned."""

_DOMAIN = b"voice-dpki/name/v1\0"
_HOST_SCHEMES = frozenset({"sip", "sips"})
_LISTED_URI = re.compile(r"(?:sips?|tel|urn):[!-~]{1,250}\Z", re.IGNORECASE | re.ASCII)
_NUMBER_URI = re.compile(r"(?:tel:|sips?:)\+([0-9]{1,15})(?:@.*)?\Z", re.IGNORECASE)


def subject_key(organization: str, common_name: str) -> bytes:
    """Return the key of the leaf that lists the certificates of a subject."""
    return _key("subject", organization, common_name)


def uri_key(uri: str) -> bytes:
    """Return the key of the leaf for a URI in the subject alternative names.

    The scheme counts in lower case, and so does the host of a SIP or SIPS URI (RFC 3261 §19.1.4). URIs with a
    telephone number are listed under the number instead.
    """
    scheme, _, rest = uri.partition(":")
    user, at, host = rest.rpartition("@")
    scheme = scheme.lower()
    return _key("uri", f"{scheme}:{user}{at}{host.lower() if scheme in _HOST_SCHEMES else host}")


def number_of_uri(uri: str) -> Tn | None:
    """Return the E.164 number that a SIP, SIPS or tel URI names; None if it names none."""
    found = _NUMBER_URI.match(uri)
    return Tn(found[1]) if found else number_in_uri(uri)


def keys_of_uri(uri: str) -> list[bytes]:
    """Return the keys of the leaves that together list all certificates for a SIP, SIPS or tel URI, or a URN.

    Those for its number are among them. A number without `+` is listed as a name of its own before version 4 of the
    rules, which refuses it. Raises MalformedError for other text.
    """
    if not _LISTED_URI.match(uri):
        raise MalformedError("not a sip, sips or tel URI, or a URN")
    number = number_of_uri(uri)
    keys = [] if number is None else number_keys(number)
    return keys if _NUMBER_URI.match(uri) else [*keys, uri_key(uri)]


def dns_key(name: str) -> bytes:
    """Return the key of the leaf for a DNS name."""
    return _key("dns", name.lower())


def spc_key(code: str) -> bytes:
    """Return the key of the leaf for a service provider code."""
    return _key("spc", code)


def number_keys(tn: Tn) -> list[bytes]:
    """Return the keys of the leaves that together list all certificates for a number."""
    return [_number_key(len(tn), tn[:digits]) for digits in range(1, len(tn) + 1)]


def _keys_of_number(text: str) -> list[bytes]:
    digits = text.removeprefix("+")
    if not re.fullmatch("[0-9]{1,15}", digits):
        raise MalformedError("a telephone number has 1 to 15 digits")
    return number_keys(Tn(digits))


KINDS_OF_NAMES: dict[str, Callable[[str, str], list[bytes]]] = {
    "subject": lambda name, organization: [subject_key(organization, name)],
    "number": lambda number, _: _keys_of_number(number),
    "uri": lambda uri, _: [uri_key(uri)],
    "dns": lambda host, _: [dns_key(host)],
    "spc": lambda code, _: [spc_key(code)],
}
"""For each kind of name, a function from a name as people write it, and its organisation, to the keys of the lists.

It raises MalformedError.
"""


def parse_listed(data: bytes) -> tuple[CertDigest, ...]:
    """Parse the value of a name's leaf to all certificates in it, sorted; raises MalformedError."""
    match cbor.decode(data, "name leaf"):
        case ["name", list(entries)] if entries:
            listed = dict(map(_entry, entries))
            if len(listed) == len(entries) and list(listed) == sorted(listed):
                return tuple(sorted(digest for digests in listed.values() for digest in digests))
    raise MalformedError("name leaf: not sorted lists of digests")


def name_keys(profile: CertificateProfile) -> list[bytes]:
    """Return the keys of the leaves that list a certificate; raises Refused if it has too many names."""
    keys = list(dict.fromkeys(_keys(profile)))
    if len(keys) > MAX_NAMES:
        raise Refused(Refusal.TOO_MANY_NAMES)
    return keys


def enlist(draft: Draft, profile: CertificateProfile, organization: str) -> None:
    """List a certificate under its names; raises Refused if a list of the organisation is full."""
    for key in name_keys(profile):
        entries = _read(draft, key)
        listed = entries.setdefault(organization, [])
        if len(listed) >= MAX_LISTED:
            raise Refused(Refusal.NAME_FULL)
        insort(listed, profile.digest)
        _write(draft, key, entries)


def strike(draft: Draft, profile: CertificateProfile, organization: str) -> None:
    """Take a certificate off all lists."""
    for key in name_keys(profile):
        entries = _read(draft, key)
        entries[organization] = [digest for digest in entries[organization] if digest != profile.digest]
        _write(draft, key, entries)


def listed_for_number(view: StateView, tn: Tn, *, but: str) -> list[CertDigest]:
    """Return the certificates that are listed under a whole number, except those of the organisation `but`."""
    entries = _read(view, _number_key(len(tn), tn))
    return sorted(digest for name, digests in entries.items() if name != but for digest in digests)


def decimal_blocks(entry: TnRange) -> Iterator[str]:
    """Cut a range into blocks whose sizes are powers of ten; yield each block's prefix."""
    digits, at, end = len(entry.start), int(entry.start), int(entry.start) + entry.count
    while at < end:
        size = 1
        while at % (size * 10) == 0 and at + size * 10 <= end and size < 10 ** (digits - 1):
            size *= 10
        yield str(at).zfill(digits)[: digits - len(str(size)) + 1]
        at += size


_Entries: TypeAlias = dict[str, list[CertDigest]]


def _read(view: StateView, key: bytes) -> _Entries:
    data = view.leaf(key)
    if data is None:
        return {}
    match cbor.decode(data, "name leaf"):
        case ["name", list(entries)]:
            return dict(map(_entry, entries))
    raise LocalError("the ledger's state is damaged: a list of certificates is not one")


def _write(draft: Draft, key: bytes, entries: _Entries) -> None:
    listed: list[Cbor] = [[organization, digests] for organization, digests in sorted(entries.items()) if digests]
    draft.put(key, ["name", listed] if listed else None)


def _entry(item: Cbor) -> tuple[str, list[CertDigest]]:
    match item:
        case [str(organization), list(digests)] if digests:
            found = [CertDigest(digest) for digest in digests if isinstance(digest, bytes) and len(digest) == 32]
            if len(found) == len(digests) and found == sorted(set(found)):
                return organization, found
    raise MalformedError("name leaf: not an organisation and a sorted list of digests")


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


NAME_LEAF = Leaf(kind="name", key=_key, parse=parse_listed)
