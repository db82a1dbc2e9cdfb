"""Recording a certificate as the successor of another, which stays valid.

    "renew"         "certificate": bytes, "replaces": H(CERT), "owner_key": bytes, "owner_signature": bytes

The owner of the old certificate signs "voice-dpki/renewal/v1", a zero byte and the encoding of
[chain, H(old), H(new)] with its key.

docs/spec/encodings.md#transactions specifies it.
"""

from dataclasses import dataclass, replace

from voice_dpki.codec import cbor
from voice_dpki.ledger import owners
from voice_dpki.ledger.admission import read_admitted
from voice_dpki.ledger.draft import Block, Draft
from voice_dpki.ledger.kind import BY_MEMBER, Body, Kind, SignedBody, digest, key, long_bytes, signature
from voice_dpki.ledger.lifecycle import RECORD_LEAVES, record
from voice_dpki.ledger.members import Member
from voice_dpki.ledger.records import CertRecord
from voice_dpki.ledger.refusals import Refusal, Refused
from voice_dpki.ledger.signatures import key_id_of, verify
from voice_dpki.ledger.standing import recorded_as, status_of
from voice_dpki.names import CertDigest
from voice_dpki.x509.profile import digest_of
from voice_dpki.x509.recorded import CertificateRefused, Use, judge

RENEWAL_DOMAIN = b"voice-dpki/renewal/v1\0"
"""Separates an owner's signature on a renewal from everything else that its key may sign."""


@dataclass(frozen=True, slots=True)
class Renew(Body):
    """Record `certificate` as the successor of `replaces`, whose owner's key signs `renewal_bytes`."""

    certificate: bytes
    replaces: CertDigest
    owner_key: bytes
    owner_signature: bytes


def renewal_bytes(chain: str, replaces: CertDigest, digest: CertDigest) -> bytes:
    """Return the bytes that a certificate's owner signs with its key to accept `digest` as the successor."""
    return RENEWAL_DOMAIN + cbor.encode([chain, replaces, digest])


def _execute(draft: Draft, block: Block, member: Member, signed: SignedBody[Renew]) -> None:
    body = signed.body
    new_digest = digest_of(body.certificate)
    old = draft.record(body.replaces)
    if old is None:
        raise Refused(Refusal.NOT_RECORDED)
    if old.organization != member.organization:
        raise Refused(Refusal.NOT_OWNER)
    _check_may_endorse(draft, block, old, member, body.replaces)
    if old.replaced_by is not None:
        raise Refused(Refusal.RENEWED)
    _check_owner(old, body, new_digest)
    record(draft, block, member, body.certificate, replaces=body.replaces)
    _check_follows(draft, body, old)
    draft.put_record(body.replaces, replace(old, replaced_by=new_digest))


def _check_may_endorse(draft: Draft, block: Block, old: CertRecord, member: Member, digest: CertDigest) -> None:
    """Check that the old certificate is trusted to endorse its successor; raises Refused."""
    if owners.is_compromised(draft, old.key_id):
        raise Refused(Refusal.NOT_VALID)
    status = status_of(old, member, block.time_s)
    recorded = recorded_as(digest, status, old, member, block.height)
    profile = read_admitted(draft.certificate(digest) or b"")
    try:
        judge(recorded, Use.ENDORSE, block.time_s, presented=profile)
    except CertificateRefused:
        raise Refused(Refusal.NOT_VALID) from None


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


RENEW = Kind(
    name="renew",
    since=1,
    body=Renew,
    members={"certificate": long_bytes, "replaces": digest, "owner_key": key, "owner_signature": signature},
    sender=BY_MEMBER,
    execute=_execute,
    certificates=lambda body: (body.certificate,),
    leaves=RECORD_LEAVES,
)
