"""Certificates that the ledger vouched for, already read: they come again, all at once after a power cut.

Reading one takes longer than all the rest of a verdict from the cache, most of it for the self-signature. What a
certificate says never changes, so it is not the ledger's answer that is kept here: each verdict asks for that.
"""

from voice_dpki.x509.profile import CertificateProfile
from voice_dpki.x509.recorded import profile_of

MAX_KNOWN = 20_000
"""More than the devices of a gateway, at about 3 kB each."""


class KnownCertificates:
    """The certificates, least recently used first. Strangers' are not kept, so they displace none."""

    def __init__(self, most: int = MAX_KNOWN) -> None:
        self._most = most
        self._profiles: dict[bytes, CertificateProfile] = {}

    def __len__(self) -> int:
        return len(self._profiles)

    def read(self, der: bytes) -> CertificateProfile:
        """Read a certificate that a peer gave; raises CertificateRefused if it breaks the profile."""
        return self._profiles.get(der) or profile_of(der)

    def keep(self, profile: CertificateProfile) -> None:
        """Keep a certificate that the ledger vouches for now."""
        self._profiles.pop(profile.der, None)
        self._profiles[profile.der] = profile
        if len(self._profiles) > self._most:
            del self._profiles[next(iter(self._profiles))]
