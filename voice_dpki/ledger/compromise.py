"""Revocations that follow from that of a certificate with a compromised key (from version 4 of the rules on).

The key is barred for ever. All certificates that are listed with the key are revoked for the same reason. Their
successors, through any number of renewals, are revoked too, because an attacker with the key could have signed the
renewals. A successor with another key is revoked as `privilegeWithdrawn`, and its key is not barred, so that its
owner can have it recorded anew.

docs/spec/state.md#a-compromised-key specifies it.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from voice_dpki.ledger import owners
from voice_dpki.ledger.draft import Block, Draft
from voice_dpki.ledger.records import CertRecord, CertStatus
from voice_dpki.names import CertDigest

REASON = "keyCompromise"

MAX_FALLEN = 1000
"""Certificates that one revocation visits, the nearest first; only chains of renewals can have more."""


def is_due(draft: Draft, key_id: bytes, status: str, reason: str | None) -> bool:
    """Return whether a change to `status` bars the key: it must be the first that reports a compromise."""
    if not draft.rules.bars_keys or status != CertStatus.REVOKED or reason != REASON:
        return False
    return not owners.is_compromised(draft, key_id)


def spread(draft: Draft, block: Block, digest: CertDigest, revoked: CertRecord) -> int:
    """Bar a certificate's key if `revoked`, its new record, reports a compromise, and revoke what depends on it.

    Returns how many other certificates were revoked.
    """
    if not is_due(draft, revoked.key_id, revoked.status, revoked.reason):
        return 0
    listed = owners.bar(draft, revoked.key_id)
    fallen = 0
    for other, record in _falling(draft, [digest, *listed]):
        if other == digest or record.status is CertStatus.REVOKED:
            continue
        same = record.key_id == revoked.key_id
        changed = replace(
            record,
            status=CertStatus.REVOKED,
            changed_height=block.height,
            revision=record.revision + 1,
            reason=REASON if same else "privilegeWithdrawn",
            changed_by=revoked.changed_by,
        )
        draft.put_record(other, changed)
        fallen += 1
    return fallen


def _falling(draft: Draft, first: list[CertDigest]) -> Iterator[tuple[CertDigest, CertRecord]]:
    """Yield the given certificates and their successors that are still on the ledger, each with its record."""
    waiting, seen = deque(first), set[CertDigest]()
    while waiting and len(seen) < MAX_FALLEN:
        digest = waiting.popleft()
        record = None if digest in seen else draft.record(digest)
        if record is None:
            continue
        seen.add(digest)
        yield digest, record
        if record.replaced_by is not None:
            waiting.append(record.replaced_by)
