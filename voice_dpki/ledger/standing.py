"""What a certificate is worth: its record, and the standing of the member that it is recorded under."""

from voice_dpki.ledger.members import Member
from voice_dpki.ledger.records import CertRecord, CertStatus

_LASTING = frozenset({CertStatus.REVOKED, CertStatus.EXPIRED})


def status_of(record: CertRecord | None, member: Member | None, now_s: float) -> CertStatus:
    """Tell the status of a certificate at `now_s`; `member` is the record's organisation, None if it is no member.

    With its member a certificate loses all trust, and does not regain it when a member of that name is admitted
    again: it counts as revoked. While the member is suspended, so are its certificates.
    """
    if record is None:
        return CertStatus.UNKNOWN
    status = record.status_at(now_s)
    if status in _LASTING:
        return status
    if member is None or record.recorded_height < member.admitted_height:
        return CertStatus.REVOKED
    return CertStatus.SUSPENDED if member.suspended else status
