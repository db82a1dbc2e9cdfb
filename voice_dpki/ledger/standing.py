"""What the ledger says of a certificate, from its record and the member that it is recorded under.

docs/spec/answers.md, "The status of a certificate", has the rules in a table.
"""

from voice_dpki.ledger.members import Member
from voice_dpki.ledger.records import CertRecord, CertStatus
from voice_dpki.names import CertDigest, Height
from voice_dpki.x509.recorded import RecordedCertificate

_LASTING = frozenset({CertStatus.REVOKED, CertStatus.EXPIRED})


def status_of(record: CertRecord | None, member: Member | None, now_s: float) -> CertStatus:
    """Return a certificate's status at `now_s`; `member` is the record's organisation, None if it is no member.

    When its member is removed, a certificate counts as revoked unless it has expired. It stays so when a member of
    the same name is admitted again. While the member is suspended, so are its certificates.
    """
    if record is None:
        return CertStatus.UNKNOWN
    status = record.status_at(now_s)
    if status in _LASTING:
        return status
    if member is None or record.recorded_height < member.admitted_height:
        return CertStatus.REVOKED
    return CertStatus.SUSPENDED if member.suspended else status


def recorded_as(
    digest: CertDigest,
    status: CertStatus,
    record: CertRecord | None,
    member: Member | None,
    height: Height,
    certificate: bytes | None = None,
) -> RecordedCertificate:
    """Return what `x509.recorded.judge` takes; `status` is that of `status_of`, `certificate` the DER, if known."""
    return RecordedCertificate(
        digest=digest,
        status=status,
        height=height,
        organization=record.organization if record else "",
        not_before_s=record.not_before_s if record else 0,
        not_after_s=record.not_after_s if record else 0,
        allotment=member.allotment if member else None,
        der=certificate,
    )
