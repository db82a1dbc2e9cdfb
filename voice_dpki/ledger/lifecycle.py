"""A certificate's life on the ledger: recorded, renewed, suspended, resumed, revoked."""

from dataclasses import replace

from voice_dpki.ledger import expiry, names, owners, quotas
from voice_dpki.ledger.admission import check_certificate, read_admitted
from voice_dpki.ledger.draft import Block, Draft
from voice_dpki.ledger.members import Member
from voice_dpki.ledger.records import REASONS, Authority, CertRecord, CertStatus
from voice_dpki.ledger.refusals import Refusal, Refused
from voice_dpki.ledger.signatures import verify
from voice_dpki.ledger.standing import status_of
from voice_dpki.ledger.transactions import (
    Batch,
    ChangeStatus,
    OwnerStatus,
    Renew,
    Submit,
    Transaction,
    key_id_of,
    renewal_bytes,
    signed_bytes,
)
from voice_dpki.names import CertDigest
from voice_dpki.x509.profile import digest_of


def submit(draft: Draft, block: Block, member: Member, body: Submit, _: Transaction) -> None:
    """Record a certificate; raises Refused."""
    _record(draft, block, member, body.certificate)


def submit_batch(draft: Draft, block: Block, member: Member, body: Batch, _: Transaction) -> None:
    """Record several certificates; raises Refused for the first that cannot be recorded."""
    _record(draft, block, member, *body.certificates)


def renew(draft: Draft, block: Block, member: Member, body: Renew, _: Transaction) -> None:
    """Record a certificate as the successor of another, which stays valid; raises Refused."""
    digest = digest_of(body.certificate)
    old = draft.record(body.replaces)
    if old is None:
        raise Refused(Refusal.NOT_RECORDED)
    if old.organization != member.organization:
        raise Refused(Refusal.NOT_OWNER)
    if status_of(old, member, block.time_s) is not CertStatus.VALID:
        raise Refused(Refusal.NOT_VALID)
    if old.replaced_by is not None:
        raise Refused(Refusal.RENEWED)
    _check_owner(old, body, digest)
    _record(draft, block, member, body.certificate, replaces=body.replaces)
    _check_follows(draft, body, old)
    draft.put_record(body.replaces, replace(old, replaced_by=digest))


def change_status(draft: Draft, block: Block, member: Member, body: ChangeStatus, _: Transaction) -> None:
    """Change a certificate's status on behalf of the member that endorsed it; raises Refused."""
    record = draft.record(body.digest)
    if record is None:
        raise Refused(Refusal.NOT_RECORDED)
    if record.organization != member.organization:
        raise Refused(Refusal.NOT_OWNER)
    _move(draft, block, record, body, Authority.ENDORSER)


def change_own_status(draft: Draft, block: Block, body: OwnerStatus, transaction: Transaction) -> None:
    """Change a certificate's status by its own key, which must be the only signer; raises Refused."""
    record, key_id = draft.record(body.digest), key_id_of(body.key)
    if record is None or record.key_id != key_id or record.organization != body.by:
        raise Refused(Refusal.OWNER)
    (*others, endorsement) = transaction.endorsements
    if others or endorsement.key_id != key_id:
        raise Refused(Refusal.OWNER)
    verify(body.key, signed_bytes(transaction.body_bytes), endorsement.signature)
    _move(draft, block, record, body, Authority.OWNER)


def _record(
    draft: Draft, block: Block, member: Member, *certificates: bytes, replaces: CertDigest | None = None
) -> None:
    quotas.check_room(draft, len(certificates))
    expiring = []
    for certificate in certificates:
        record = _admit(draft, block, member, certificate)
        digest = digest_of(certificate)
        draft.certificates[digest] = certificate
        draft.put_record(digest, replace(record, replaces=replaces))
        expiring.append((digest, record.not_after_s))
    expiry.enqueue(draft, expiring)
    quotas.enter(draft, member.organization, len(certificates), block.time_s)


def _admit(draft: Draft, block: Block, member: Member, certificate: bytes) -> CertRecord:
    """Check a certificate against all rules, enter its key and names, and return its record."""
    if draft.leaf(digest_of(certificate)) is not None:
        raise Refused(Refusal.RECORDED)
    profile = check_certificate(certificate, member, block.time_s)
    key_id = key_id_of(profile.public_key_der)
    owners.claim(draft, key_id, member.organization)
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
    )


def _check_owner(old: CertRecord, body: Renew, digest: CertDigest) -> None:
    try:
        if key_id_of(body.owner_key) != old.key_id:
            raise Refused(Refusal.SIGNATURE)
        verify(body.owner_key, renewal_bytes(body.chain, body.replaces, digest), body.owner_signature)
    except Refused:
        raise Refused(Refusal.OWNER_SIGNATURE) from None


def _check_follows(draft: Draft, body: Renew, record: CertRecord) -> None:
    """Check that the new certificate has the old one's subject, and that their validities overlap."""
    old, new = read_admitted(draft.certificate(body.replaces) or b""), read_admitted(body.certificate)
    if (old.organization, old.common_name) != (new.organization, new.common_name):
        raise Refused(Refusal.OTHER_SUBJECT)
    if new.not_before_s > record.not_after_s:
        raise Refused(Refusal.NO_OVERLAP)


_TRANSITIONS = {
    CertStatus.VALID: frozenset({CertStatus.SUSPENDED, CertStatus.REVOKED}),
    CertStatus.SUSPENDED: frozenset({CertStatus.VALID, CertStatus.REVOKED}),
    CertStatus.REVOKED: frozenset[CertStatus](),
}
"""The changes allowed from each recorded status; `revoked` is final."""


def _move(
    draft: Draft, block: Block, record: CertRecord, body: ChangeStatus | OwnerStatus, authority: Authority
) -> None:
    if body.revision != record.revision:
        raise Refused(Refusal.REVISION)
    if body.status not in _TRANSITIONS[record.status]:
        raise Refused(Refusal.TRANSITION)
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
