"""All certificates on the ledger for one URI, so that its owner or a caller notices an unexpected one.

The lists of names on the ledger are proved, so a node can leave out no certificate (`voice_dpki.ledger.names`), and
no change of such a list (`voice_dpki.ledger.changes`).
"""

from dataclasses import dataclass

from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.ledger.answers import Resolution
from voice_dpki.ledger.header import Header
from voice_dpki.ledger.names import keys_of_uri, number_of_uri, uri_key
from voice_dpki.names import CertDigest
from voice_dpki.wire.ledger.client import LedgerClient
from voice_dpki.x509.profile import CertificateProfile
from voice_dpki.x509.recorded import CertificateRefused, profile_of

WAIT_S = 10.0
"""How long the node may delay its answer about changes; it answers at its next header, which heartbeats bring."""


@dataclass(frozen=True, slots=True)
class UriCertificate:
    """A certificate that the ledger lists for a URI, and what it proves of it."""

    found: Resolution
    profile: CertificateProfile | None
    """None if this release cannot parse the certificate, and then trusts it nowhere."""
    is_named: bool
    """Whether the certificate names the URI; otherwise it has authority over the URI's number (RFC 8226 §9)."""


class UriCertificates:
    """Reader of the certificates for one URI. It fetches each certificate once: they never change."""

    def __init__(self, client: LedgerClient, uri: str) -> None:
        """`uri` may be SIP, SIPS, tel or a URN; raises LocalError for other text."""
        try:
            self._keys = keys_of_uri(uri)
        except MalformedError as error:
            raise LocalError(f"{uri}: {error}") from None
        self.uri = uri
        self._number = number_of_uri(uri)
        self._client = client
        self._profiles: dict[CertDigest, CertificateProfile | None] = {}
        self._header: Header | None = None

    async def read(self) -> list[UriCertificate]:
        """Return what the ledger lists now, expired certificates included; raises InquiryError.

        The ledger bounds it: 256 certificates of an organisation in each of at most 16 lists.
        """
        listed = await self._client.listed(self._keys)
        held = self._profiles
        self._profiles = {
            found.digest: held[found.digest] if found.digest in held else await self._fetch(found.digest)
            for found in listed
        }
        given = (self._about(found) for found in listed)
        return [each for each in given if each is not None]

    async def read_changed(self) -> list[UriCertificate]:
        """Wait until the lists may have changed since they were read here, and do what `read` does.

        Raises InquiryError; the next call then returns the same change.
        """
        while True:
            header, keys = await self._client.changes(self._header, wait_s=WAIT_S)
            if keys is None or not keys.isdisjoint(self._keys):
                break
            self._header = header
        found = await self.read()
        self._header = header
        return found

    async def _fetch(self, digest: CertDigest) -> CertificateProfile | None:
        der = (await self._client.resolve(digest)).certificate
        if der is None:  # removed since the list was read, because it expired
            return None
        try:
            return profile_of(der)
        except CertificateRefused:
            return None

    def _about(self, found: Resolution) -> UriCertificate | None:
        """Return a listed certificate if it concerns the URI; a number's lists have more than its own."""
        profile = self._profiles[found.digest]
        if profile is None:
            return UriCertificate(found, None, False)
        if any(self._is_party(named) for named in profile.uris):
            return UriCertificate(found, profile, True)
        authority = profile.tn_auth_list
        has_authority = authority is not None and self._number is not None and authority.covers(self._number)
        return UriCertificate(found, profile, False) if has_authority else None

    def _is_party(self, named: str) -> bool:
        if self._number is not None and self._number == number_of_uri(named):
            return True
        return uri_key(named) == uri_key(self.uri)
