"""Suspending, resuming and revoking a certificate by its own key.

"owner-status"  "digest": H(CERT), "revision": uint, "status": text, "reason": text, "key": bytes

docs/spec/encodings.md#transactions specifies it.
"""

from dataclasses import dataclass

from voice_dpki.ledger.draft import Block, Draft
from voice_dpki.ledger.kind import Kind, Sender, SignedBody, key
from voice_dpki.ledger.lifecycle import CHANGE_MEMBERS, StatusChange, move
from voice_dpki.ledger.records import CERTIFICATE_LEAF, Authority, CertRecord
from voice_dpki.ledger.refusals import Refusal, Refused
from voice_dpki.ledger.signatures import key_id_of, signed_bytes, verify
from voice_dpki.ledger.view import StateView


@dataclass(frozen=True, slots=True)
class OwnerStatus(StatusChange):
    """Change a certificate's status by its own key (DER SubjectPublicKeyInfo); the member `by` endorsed it."""

    key: bytes


def _owner(view: StateView, signed: SignedBody[OwnerStatus]) -> CertRecord:
    """Return the certificate's record after verifying that its own key is the only signer."""
    body = signed.body
    record, key_id = view.record(body.digest), key_id_of(body.key)
    if record is None or record.key_id != key_id or record.organization != body.by:
        raise Refused(Refusal.OWNER)
    (*others, endorsement) = signed.endorsements
    if others or endorsement.key_id != key_id:
        raise Refused(Refusal.OWNER)
    verify(body.key, signed_bytes(signed.body_bytes), endorsement.signature)
    return record


def _execute(draft: Draft, block: Block, record: CertRecord, signed: SignedBody[OwnerStatus]) -> None:
    move(draft, block, record, signed.body, Authority.OWNER)


OWNER_STATUS = Kind(
    name="owner-status",
    since=1,
    body=OwnerStatus,
    members={**CHANGE_MEMBERS, "key": key},
    sender=Sender(_owner, is_member=False),
    execute=_execute,
    leaves=(CERTIFICATE_LEAF,),
)
