"""The ledger's allotment to a member: domains, telephone numbers and service provider codes.

A certificate claims some of them by its names and its TNAuthList (RFC 8226 §9). Nodes compare the two when they
record it. Relying parties compare again, because an allotment may have moved to another member since.
"""

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

from voice_dpki.errors import MalformedError
from voice_dpki.names import Tn
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

_SIP_URI = re.compile(r"sips?:(?:(?P<user>[^@]*)@)?(?P<host>[a-z0-9.-]+)(?::[0-9]{1,5})?\Z", re.IGNORECASE)
"""SIP and SIPS URIs as certificates carry them: user and host, without parameters (RFC 5922 §7.1)."""

_TEL_URI = re.compile(r"tel:\+(?P<number>[0-9]{1,15})\Z", re.IGNORECASE)
_URN = re.compile(r"urn:[a-z0-9][a-z0-9-]{0,30}:[!-~]+\Z", re.IGNORECASE)
_URIS_KEPT = 1024
"""URIs whose claims are cached: in each judgement of a certificate, several rules need them."""


class Claims(Protocol):
    """What a certificate claims for its subject; a CertificateProfile has it."""

    @property
    def dns_names(self) -> tuple[str, ...]:
        """Subject alternative names of type DNS."""

    @property
    def uris(self) -> tuple[str, ...]:
        """Subject alternative names of type URI."""

    @property
    def tn_auth_list(self) -> TnAuthList | None:
        """Numbers and codes; None if it has no such extension."""


@dataclass(frozen=True, slots=True)
class UriClaim:
    """The claims of a URI in a certificate: a host in lower case, a number, both or, for a URN, neither.

    The number is the user without its leading `+`, otherwise as written; a user without `+` is no number.
    """

    host: str | None = None
    number: Tn | None = None

    @classmethod
    def of(cls, uri: str) -> "UriClaim":
        """Read a SIP, SIPS or tel URI, or a URN; raises MalformedError for another URI."""
        return _claimed(uri)


@lru_cache(maxsize=_URIS_KEPT)
def _claimed(uri: str) -> UriClaim:
    if found := _SIP_URI.match(uri):
        user = found["user"] or ""
        return UriClaim(found["host"].lower(), Tn(user[1:]) if user.startswith("+") else None)
    if found := _TEL_URI.match(uri):
        return UriClaim(number=Tn(found["number"]))
    if _URN.match(uri):
        return UriClaim()
    raise MalformedError("a certificate's URI is none of sip, sips, tel and urn, or has parameters")


@dataclass(frozen=True, slots=True)
class Allotment:
    """The allotment of one member."""

    domains: tuple[str, ...] = ()
    """Host names in lower case; their subdomains are the member's too."""
    ranges: tuple[TnRange, ...] = ()
    spcs: tuple[str, ...] = ()
    by_number: bool = False
    """Whether the ledger can allot single numbers apart from the ranges, so that it must be asked about each."""
    singles: frozenset[Tn] = frozenset()
    """Numbers that it is known to hold, whatever the ranges say."""
    gone: frozenset[Tn] = frozenset()
    """Numbers in its ranges that are known to be another member's."""
    asked: frozenset[Tn] = frozenset()
    """Numbers about which the ledger was asked; `with_number` keeps the three sets consistent."""

    def with_number(self, tn: Tn, *, holds: bool | None) -> "Allotment":
        """Return a copy with the ledger's answer about one number; `holds` is None if the ranges decide."""
        singles = self.singles | {tn} if holds else self.singles - {tn}
        gone = self.gone | {tn} if holds is False else self.gone - {tn}
        return replace(self, singles=singles, gone=gone, asked=self.asked | {tn})

    def is_settled(self, tn: Tn) -> bool:
        """Tell whether a number's holder is settled: the ranges alone decide, or the ledger was asked."""
        return not self.by_number or tn in self.asked

    def holds_number(self, tn: Tn) -> bool:
        """Tell whether it holds `tn`, by a range or singly, as far as is known."""
        if tn in self.singles:
            return True
        return tn not in self.gone and any(entry.covers(tn) for entry in self.ranges)

    def holds_host(self, host: str) -> bool:
        """Tell whether `host`, in lower case, is one of the domains or a subdomain of one."""
        return any(host == domain or host.endswith("." + domain) for domain in self.domains)

    def holds_hosts_of(self, claims: Claims) -> bool:
        """Tell whether the hosts of all names in a certificate are the member's; False for an unsupported URI."""
        try:
            hosts = [UriClaim.of(uri).host for uri in claims.uris]
        except MalformedError:
            return False
        hosts += [name.lower().removeprefix("*.") for name in claims.dns_names]
        return all(host is None or self.holds_host(host) for host in hosts)

    def holds_uri_numbers_of(self, claims: Claims) -> bool:
        """Tell whether the numbers of all URIs in a certificate are the member's; False for an unsupported URI."""
        try:
            numbers = [UriClaim.of(uri).number for uri in claims.uris]
        except MalformedError:
            return False
        return all(number is None or self.holds_number(number) for number in numbers)

    def holds_list_of(self, claims: Claims) -> bool:
        """Tell whether every number and code in a certificate's TNAuthList is the member's, if it has a list.

        A range in the list may contain single numbers that have gone to other members.
        """
        listed = claims.tn_auth_list
        if listed is None:
            return True
        return listed.is_within(self.ranges, self.spcs) and all(map(self.holds_number, listed.tns))
