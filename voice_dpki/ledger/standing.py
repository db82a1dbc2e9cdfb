"""A certificate's status and allotment, from its record and the member that it is recorded under.

docs/spec/answers.md, "The status of a certificate", has the rules in a table.
"""

from dataclasses import replace

from voice_dpki.ledger.held_numbers import NumberHolder
from voice_dpki.ledger.members import Member
from voice_dpki.ledger.records import CertRecord, CertStatus
from voice_dpki.names import CertDigest, Height, Tn
from voice_dpki.x509.allotment import Allotment
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
    """Return the argument of `x509.recorded.judge`; `status` is from `status_of`, `certificate` DER, if known."""
    return RecordedCertificate(
        digest=digest,
        status=status,
        height=height,
        organization=record.organization if record else "",
        not_before_s=record.not_before_s if record else 0,
        not_after_s=record.not_after_s if record else 0,
        allotment=_allotment_of(record, member),
        der=certificate,
        admitted_height=member.admitted_height if member else 0,
    )


def holding_of(member: Member) -> RecordedCertificate:
    """Return a member's allotment as `with_number` takes it, without a certificate."""
    return RecordedCertificate(
        digest=CertDigest(b""),
        status=CertStatus.UNKNOWN,
        organization=member.organization,
        allotment=member.allotment,
        admitted_height=member.admitted_height,
    )


def with_number(recorded: RecordedCertificate, tn: Tn, holder: NumberHolder | None) -> RecordedCertificate:
    """Return `recorded` with its allotment adjusted by the leaf of a number, which names `holder`.

    None stands for a number without a leaf. For relying parties, a leaf that names a former member gives authority
    to nobody: neither to a later member of that name, nor to the member whose range covers the number.
    """
    if recorded.allotment is None:
        return recorded
    own = NumberHolder(recorded.organization, recorded.admitted_height)
    holds = None if holder is None else holder == own
    return replace(recorded, allotment=recorded.allotment.with_number(tn, holds=holds))


def _allotment_of(record: CertRecord | None, member: Member | None) -> Allotment | None:
    """Return the member's allotment with the record's numbers; the certificate is revoked when one moves."""
    if member is None or record is None or not record.numbers:
        return member.allotment if member else None
    return replace(member.allotment, singles=frozenset(record.numbers))
