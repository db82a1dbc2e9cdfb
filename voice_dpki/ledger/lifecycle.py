"""A certificate's life on the ledger: the steps of the transactions that record it or change its status.

docs/spec/state.md#life-of-a-certificate specifies it.
"""

from dataclasses import dataclass, replace
from typing import Final

from voice_dpki.ledger import compromise, expiry, names, owners, quotas
from voice_dpki.ledger.admission import check_certificate
from voice_dpki.ledger.draft import Block, Draft
from voice_dpki.ledger.kind import Body, Parser, digest, number, text
from voice_dpki.ledger.members import Member
from voice_dpki.ledger.records import CERTIFICATE_LEAF, REASONS, Authority, CertRecord, CertStatus
from voice_dpki.ledger.refusals import Refusal, Refused
from voice_dpki.ledger.signatures import key_id_of
from voice_dpki.names import CertDigest
from voice_dpki.x509.profile import digest_of

RECORD_LEAVES = (CERTIFICATE_LEAF, names.NAME_LEAF, owners.KEY_LEAF, quotas.USAGE_LEAF, expiry.EXPIRY_LEAF)
"""The kinds of leaves that `record` writes."""


@dataclass(frozen=True, slots=True)
class StatusChange(Body):
    """The change of the certificate `digest`, at `revision`, to `status`."""

    digest: CertDigest
    revision: int
    status: str
    reason: str


CHANGE_MEMBERS: Final[dict[str, Parser]] = {
    "digest": digest,
    "revision": number,
    "status": text,
    "reason": text,
}
"""A parser for each member of a StatusChange."""


def record(
    draft: Draft, block: Block, member: Member, *certificates: bytes, replaces: CertDigest | None = None
) -> None:
    """Record certificates (DER) that `member` endorses; raises Refused for the first that cannot be recorded."""
    quotas.check_room(draft, len(certificates))
    expiring = []
    for certificate in certificates:
        entry = _admit(draft, block, member, certificate)
        identity = digest_of(certificate)
        draft.certificates[identity] = certificate
        draft.put_record(identity, replace(entry, replaces=replaces))
        expiring.append((identity, entry.not_after_s))
    expiry.enqueue(draft, expiring)
    quotas.enter(draft, member.organization, len(certificates), block.time_s)


def _admit(draft: Draft, block: Block, member: Member, certificate: bytes) -> CertRecord:
    """Check a certificate against all rules, enter its key and names, and return its record."""
    if draft.leaf(digest_of(certificate)) is not None:
        raise Refused(Refusal.RECORDED)
    profile, allotment = check_certificate(draft, certificate, member, block.time_s, draft.rules)
    key_id = key_id_of(profile.public_key_der)
    owners.claim(draft, key_id, member.organization, profile.digest)
    names.enlist(draft, profile, member.organization)
    return CertRecord(
        status=CertStatus.VALID,
        organization=member.organization,
        not_before_s=profile.not_before_s,
        not_after_s=profile.not_after_s,
        recorded_height=block.height,
        changed_height=block.height,
        revision=0,
        reason=None,
        key_id=key_id,
        numbers=tuple(sorted(allotment.singles)),
    )


_TRANSITIONS = {
    CertStatus.VALID: frozenset({CertStatus.SUSPENDED, CertStatus.REVOKED}),
    CertStatus.SUSPENDED: frozenset({CertStatus.VALID, CertStatus.REVOKED}),
    CertStatus.REVOKED: frozenset[CertStatus](),
}
"""The changes allowed from each recorded status; `revoked` is final."""


def move(draft: Draft, block: Block, record: CertRecord, body: StatusChange, authority: Authority) -> None:
    """Change the status in a certificate's record as `authority`; raises Refused."""
    if body.revision != record.revision:
        raise Refused(Refusal.REVISION)
    _check_transition(draft, record, body)
    if body.status == CertStatus.VALID and authority < record.changed_by:
        raise Refused(Refusal.OUTRANKED)
    if body.reason not in REASONS:
        raise Refused(Refusal.REASON)
    changed = replace(
        record,
        status=CertStatus(body.status),
        changed_height=block.height,
        revision=record.revision + 1,
        reason=body.reason,
        changed_by=authority,
    )
    draft.put_record(body.digest, changed)
    quotas.take_room(draft, compromise.spread(draft, block, body.digest, changed))


def _check_transition(draft: Draft, record: CertRecord, body: StatusChange) -> None:
    """Check that the present status allows the change; raises Refused.

    A certificate that was revoked for another reason can be revoked once more because of a compromised key.
    """
    if compromise.is_due(draft, record.key_id, body.status, body.reason):
        return
    if body.status not in _TRANSITIONS[record.status]:
        raise Refused(Refusal.TRANSITION)
    if body.status == CertStatus.VALID and owners.is_compromised(draft, record.key_id):
        raise Refused(Refusal.COMPROMISED)
