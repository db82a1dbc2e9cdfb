"""The names of a peer, each in its own kind, and the patterns of the lists that cover them. Pure.

A certificate can have several names, and the peer chooses which one it shows in IKE. So the lists apply to all
of them: a pattern that denies one denies the peer, and a peer is allowed only if every name that it shows or could
show is allowed.

A pattern is of one kind: `*`, a DNS name or `*.` and a domain, a URI, or a distinguished name (RFC 4514). It never
covers a name of another kind that looks alike: `*.a.example` is not about `CN=enb1,O=x.a.example`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from voice_dpki.codec.telephone import host_in_uri
from voice_dpki.names import ascii_lower
from voice_dpki.x509.profile import CertificateProfile

EVERYTHING: Final = "*"

_DN = re.compile(r" *[A-Za-z0-9.]+ *=")
_SPACE = re.compile(r"(?<!\\)([,+]) +")
"""Spaces between attributes, which strongSwan writes and RFC 4514 does not have."""

_ATTRIBUTES = {
    "serialNumber": NameOID.SERIAL_NUMBER,
    "E": NameOID.EMAIL_ADDRESS,
    "emailAddress": NameOID.EMAIL_ADDRESS,
}
"""Attributes as strongSwan writes them, beside those of RFC 4514 §3."""


class Kind(Enum):
    """Kinds of names."""

    HOST = "DNS name"
    URI = "URI"
    SUBJECT = "distinguished name"


@dataclass(frozen=True, slots=True)
class PeerNames:
    """The names of a peer: the one that it shows in IKE, and those of its certificate."""

    shown: str = ""
    """IDi or IDr as text, a DNS name or a distinguished name; empty at the bridge, which sees no IKE."""
    dns_names: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    common_name: str = ""
    subject: str = ""
    """The subject in RFC 4514's form."""

    @classmethod
    def of(cls, profile: CertificateProfile, shown: str = "") -> "PeerNames":
        """Return the names of a certificate's holder, who shows `shown`."""
        return cls(shown, profile.dns_names, profile.uris, profile.common_name or "", subject_of(profile.der))

    def presentable(self) -> tuple[tuple[Kind, str], ...]:
        """Return the names that the peer shows, or could show to other gear by the same certificate."""
        kind = Kind.SUBJECT if is_distinguished(self.shown) else Kind.HOST
        return (
            *((Kind.HOST, name) for name in self.dns_names),
            *((Kind.URI, uri) for uri in self.uris),
            *(((kind, self.shown),) if self.shown else ()),
        )

    def every(self) -> tuple[tuple[Kind, str], ...]:
        """Return all names, including the merely descriptive ones: the subject, and a host's name within it."""
        return (*self.presentable(), (Kind.SUBJECT, self.subject), (Kind.HOST, self.common_name))


@lru_cache(maxsize=4096)
def subject_of(der: bytes) -> str:
    """Return the subject of a certificate that was read before, in RFC 4514's form."""
    return x509.load_der_x509_certificate(der).subject.rfc4514_string()


def check_pattern(pattern: str) -> None:
    """Check the form of a pattern; raises ValueError."""
    if "*" in pattern.removeprefix("*.") and pattern != EVERYTHING:
        raise ValueError(f"{pattern!r} is neither a name, nor *. and a domain, nor * alone")
    if _DN.match(pattern) and not _attributes(pattern):
        raise ValueError(f"{pattern!r} is no distinguished name in the form of RFC 4514")


def denied(patterns: Iterable[str], names: PeerNames) -> bool:
    """Tell whether a pattern covers any name of a peer."""
    return any(_covers(pattern, *name) for pattern in patterns for name in names.every())


def allowed(patterns: tuple[str, ...], names: PeerNames) -> bool:
    """Tell whether patterns cover all names that a peer shows or could show; one without any name is refused."""
    shown = names.presentable()
    return bool(shown) and all(any(_covers(pattern, *name) for pattern in patterns) for name in shown)


def is_distinguished(identity: str) -> bool:
    """Tell whether an identity in IKE is a distinguished name; otherwise it is a DNS name, which has no "="."""
    return "=" in identity


def _covers(pattern: str, kind: Kind, name: str) -> bool:
    if pattern == EVERYTHING:
        return True
    if kind is Kind.SUBJECT:
        wanted = _attributes(pattern)
        return bool(wanted) and wanted == _attributes(name)
    if kind is Kind.URI:
        host = host_in_uri(name)
        return ascii_lower(pattern) == ascii_lower(name) or (host is not None and _covers_host(pattern, host))
    return _covers_host(pattern, name)


def _covers_host(pattern: str, host: str) -> bool:
    pattern, host = ascii_lower(pattern), ascii_lower(host)
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


@lru_cache(maxsize=4096)
def _attributes(subject: str) -> frozenset[tuple[str, str]]:
    """Return the attributes of a distinguished name, whose order and case do not matter; empty if it is none."""
    try:
        name = x509.Name.from_rfc4514_string(_SPACE.sub(r"\1", subject.strip()), _ATTRIBUTES)
    except ValueError:
        return frozenset()
    return frozenset((each.oid.dotted_string, " ".join(ascii_lower(str(each.value)).split())) for each in name)
