"""The ledger's state machine: a pure function of the state before a block, and the block.

Every node computes the same results and the same AppHash from the same blocks: nothing here depends on a clock
other than the block's time, on the order of a set, on a float or on a node's configuration. What a member may do is
decided from members, records and keys as they stand after the transactions before it in the same block.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

from voice_dpki.ledger.admission import check_certificate
from voice_dpki.ledger.draft import OK, Block, Draft, Outcome, TxResult
from voice_dpki.ledger.members import Member
from voice_dpki.ledger.owners import claim
from voice_dpki.ledger.records import REASONS, CertRecord, CertStatus
from voice_dpki.ledger.refusals import Refusal, Refused
from voice_dpki.ledger.transactions import ChangeStatus, Submit, Transaction, key_id_of, signed_bytes
from voice_dpki.ledger.view import MemoryState, StateView
from voice_dpki.names import Height
from voice_dpki.x509.keys import KeyKindError, SignatureError, verify_signature
from voice_dpki.x509.profile import digest_of

__all__ = ["OK", "Block", "MemoryState", "Outcome", "StateView", "TxResult", "apply", "check", "found"]

_CACHED_VERDICTS = 8192
"""Signatures whose verification is remembered between the check of a transaction and its block: a mempool's worth,
for with fewer, the first of those that wait are forgotten before their block comes, and all are verified twice."""


def apply(view: StateView, block: Block) -> Outcome:
    """Execute a block; pure. What a transaction is refused for is in its result, and it then changes nothing."""
    draft = Draft(view)
    results = tuple(_result(draft, block, raw) for raw in block.transactions)
    return draft.outcome(results)


def check(view: StateView, height: Height, time_s: int, raw: bytes) -> TxResult:
    """Tell what would become of a transaction if it came first in the block at `height`; changes nothing."""
    return _result(Draft(view), Block(height, time_s, ()), raw)


def found(members: Sequence[Member]) -> Outcome:
    """Compute the state that a genesis with these members begins with."""
    draft = Draft(MemoryState(""))
    for member in members:
        draft.put_member(member)
        for key_id in sorted(member.key_ids):
            claim(draft, key_id, member.organization)
    return draft.outcome()


def _result(draft: Draft, block: Block, raw: bytes) -> TxResult:
    own = Draft(draft)
    try:
        transaction = Transaction.parse(raw)
        member = _endorser(own, transaction)
        _HANDLERS[type(transaction.body)](own, block, member, transaction.body)
    except Refused as refused:
        refusal = refused.refusal
        return TxResult(refusal.code, refusal.kebab, refusal.sentence)
    draft.take_over(own)
    return OK


def _endorser(draft: Draft, transaction: Transaction) -> Member:
    """Return the member in whose name the transaction is made, after checking all signatures to be its own."""
    if transaction.body.chain != draft.chain_id:
        raise Refused(Refusal.CHAIN)
    member = draft.member(transaction.body.by)
    if member is None:
        raise Refused(Refusal.MEMBER)
    for endorsement in transaction.endorsements:
        key = member.endorsing_key(endorsement.key_id)
        if key is None:
            raise Refused(Refusal.SIGNER)
        _verify(key, signed_bytes(transaction.body_bytes), endorsement.signature)
    return member


@lru_cache(_CACHED_VERDICTS)
def _verify(key: bytes, signed: bytes, signature: bytes) -> None:
    try:
        verify_signature(key, "ES256", signed, signature)
    except (SignatureError, KeyKindError):
        raise Refused(Refusal.SIGNATURE) from None


def _submit(draft: Draft, block: Block, member: Member, body: Submit) -> None:
    digest = digest_of(body.certificate)
    if draft.record(digest) is not None:
        raise Refused(Refusal.RECORDED)
    profile = check_certificate(body.certificate, member, block.time_s)
    key_id = key_id_of(profile.public_key_der)
    claim(draft, key_id, member.organization)
    draft.certificates[digest] = body.certificate
    record = CertRecord(
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
    draft.put_record(digest, record)


_TRANSITIONS = {
    CertStatus.VALID: frozenset({CertStatus.SUSPENDED, CertStatus.REVOKED}),
    CertStatus.SUSPENDED: frozenset({CertStatus.VALID, CertStatus.REVOKED}),
    CertStatus.REVOKED: frozenset[CertStatus](),
}
"""From each recorded status, where a change may lead: nothing leaves `revoked`."""


def _change_status(draft: Draft, block: Block, member: Member, body: ChangeStatus) -> None:
    record = draft.record(body.digest)
    if record is None:
        raise Refused(Refusal.NOT_RECORDED)
    if record.organization != member.organization:
        raise Refused(Refusal.NOT_OWNER)
    if body.revision != record.revision:
        raise Refused(Refusal.REVISION)
    if body.status not in _TRANSITIONS[record.status]:
        raise Refused(Refusal.TRANSITION)
    if body.reason not in REASONS:
        raise Refused(Refusal.REASON)
    changed = replace(
        record,
        status=CertStatus(body.status),
        changed_height=block.height,
        revision=record.revision + 1,
        reason=body.reason,
    )
    draft.put_record(body.digest, changed)


_HANDLERS: dict[type, Callable[..., None]] = {Submit: _submit, ChangeStatus: _change_status}
