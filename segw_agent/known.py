"""A cache of parsed certificates that the ledger vouched for: devices return, all at once after a power cut.

Parsing one takes longer than all the rest of a verdict from the cache, mostly for the self-signature. Its content
never changes. The ledger's answer does, so it is not cached here: each verdict looks it up.
"""

from voice_dpki.x509.profile import CertificateProfile
from voice_dpki.x509.recorded import profile_of

MAX_KNOWN = 20_000
"""Most certificates cached: more than the devices of a gateway, at about 3 kB each."""


class KnownCertificates:
    """The cache, least recently used first. Strangers' certificates are not cached, so they displace none."""

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
