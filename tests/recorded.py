"""What a ledger would say of a certificate, for tests without a ledger."""

from collections.abc import Collection
from typing import Any

from voice_dpki.names import CertDigest, Tn
from voice_dpki.x509.allotment import Allotment
from voice_dpki.x509.profile import read_profile
from voice_dpki.x509.recorded import CertStatus, RecordedCertificate


class RangesAlone:
    """A resolver's word on numbers, on a ledger where no member holds any one by one."""

    def with_numbers(self, recorded: RecordedCertificate, numbers: Collection[Tn]) -> RecordedCertificate | None:
        return recorded

    async def ask_numbers(self, recorded: RecordedCertificate, numbers: Collection[Tn]) -> RecordedCertificate:
        return recorded


def recorded(
    der: bytes, allotment: Allotment, organization: str = "Operator A", **changes: Any
) -> RecordedCertificate:
    """Say that `organization`, which holds `allotment`, recorded a certificate that is valid."""
    profile = read_profile(der)
    said: dict[str, Any] = {
        "digest": profile.digest,
        "status": CertStatus.VALID,
        "organization": organization,
        "not_before_s": profile.not_before_s,
        "not_after_s": profile.not_after_s,
        "allotment": allotment,
        "der": der,
    }
    return RecordedCertificate(**said | changes)


def absent(digest: CertDigest) -> RecordedCertificate:
    """Say that nobody recorded the certificate."""
    return RecordedCertificate(digest=digest, status=CertStatus.UNKNOWN)
