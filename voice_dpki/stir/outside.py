"""Signers outside the federation: what vouches for a signer whose certificate is not on the ledger.

The ledger is asked first. Only a signer whose certificate it proves to be absent is judged by the operator's list,
and only for numbers that no member holds.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from voice_dpki.codec.canonical_json import Json
from voice_dpki.names import CertDigest, Tn
from voice_dpki.stir.verdict import Step, VerificationFailed
from voice_dpki.x509.listed import Federation, ListedCertificate, ListedError, Refusal
from voice_dpki.x509.profile import CertificateProfile
from voice_dpki.x509.recorded import check_claims

_STEPS: Final = {
    Refusal.CHAIN: Step.CERTIFICATE,
    Refusal.MEMBER: Step.CERTIFICATE,
    Refusal.REVOKED: Step.CERTIFICATE,
    Refusal.LIST: Step.FETCH,
}


def refused_by_list(error: ListedError) -> VerificationFailed:
    """Return the failure for a signer that is not trusted by the list."""
    return VerificationFailed(_STEPS[error.code], str(error))


@dataclass(frozen=True, slots=True)
class OutsideSigner:
    """A signer's certificate with a chain to a listed authority, and what the federation's members hold."""

    listed: ListedCertificate
    federation: Federation

    @property
    def digest(self) -> CertDigest:
        """H(CERT) of the certificate."""
        return self.listed.profile.digest

    @property
    def organization(self) -> str:
        """The signer, as its authority names it. It may be the name of a member of the ledger."""
        return self.listed.organization

    @property
    def profile(self) -> CertificateProfile:
        """The certificate."""
        return self.listed.profile

    def check_standing(self, now_s: float) -> None:
        """Check that its chain is valid at `now_s`, and that the signer is no member; raises ListedError."""
        self.listed.check_time(now_s)
        self.federation.check_apart(self.listed)

    def check_number(self, number: Tn, whose: str) -> None:
        """Check that no member holds `number`, and that the certificate covers it.

        Raises ListedError and CertificateRefused that name `whose`.
        """
        self.federation.check_foreign(number, whose)
        self.listed.check_number(number, whose)

    def check_claims(self, read_claims: Callable[[], Mapping[str, Json]]) -> None:
        """Check that the certificate permits a PASSporT's claims, as `TrustedCertificate.check_claims` does."""
        check_claims(self.profile, read_claims)
