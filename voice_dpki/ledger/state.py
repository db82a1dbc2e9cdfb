"""The ledger's state machine: a pure function of the state before a block, and the block.

Every node computes the same results and the same AppHash from the same blocks: nothing here depends on a clock
other than the block's time, on the order of a set, on a float or on a node's configuration. Each transaction is
judged by the state after the transactions before it in the same block.
"""

from collections.abc import Callable, Sequence

from voice_dpki.ledger import directory, expiry, governance, lifecycle, quotas, validators
from voice_dpki.ledger.draft import OK, Block, Draft, Outcome, TxResult
from voice_dpki.ledger.header import ValidatorSet
from voice_dpki.ledger.members import Member
from voice_dpki.ledger.parameters import PARAMETERS_KEY, Parameters
from voice_dpki.ledger.refusals import Refusal, Refused
from voice_dpki.ledger.signatures import verify
from voice_dpki.ledger.transactions import (
    Batch,
    ChangeStatus,
    OwnerStatus,
    Propose,
    Renew,
    Submit,
    Transaction,
    Vote,
    certificates_in,
    signed_bytes,
)
from voice_dpki.ledger.view import MemoryState, StateView
from voice_dpki.names import Height
from voice_dpki.x509.profile import digest_of

__all__ = [
    "OK",
    "Block",
    "MemoryState",
    "Outcome",
    "StateView",
    "TxResult",
    "apply",
    "check",
    "check_sender",
    "found",
]


def apply(view: StateView, block: Block) -> Outcome:
    """Execute a block, without side effects. A refused transaction changes nothing; its result says why."""
    draft = Draft(view)
    _begin(draft, block)
    results = tuple(_result(draft, block, raw) for raw in block.transactions)
    return draft.outcome(results, validators.updates(view, draft))


def check(view: StateView, height: Height, time_s: int, raw: bytes) -> TxResult:
    """Return the result that a transaction would have as the first in the block at `height`; changes nothing."""
    return _result(Draft(view), Block(height, time_s, ()), raw)


def check_sender(view: StateView, height: Height, time_s: int, raw: bytes) -> TxResult:
    """Check the sender of a transaction, its quota, and that none of the certificates is recorded already.

    The certificates are not verified, which would take a hundred times as long. For a transaction without
    certificates, the result is that of `check`. Changes nothing.
    """
    draft = Draft(view)
    try:
        transaction = Transaction.parse(raw)
        certificates = certificates_in(transaction.body)
        if not certificates:
            _execute(draft, Block(height, time_s, ()), transaction)
        else:
            _check_chain(draft, transaction)
            member = _endorser(draft, transaction)
            quotas.enter(draft, member.organization, len(certificates), time_s)
            if any(draft.leaf(digest_of(certificate)) is not None for certificate in certificates):
                raise Refused(Refusal.RECORDED)
    except Refused as refused:
        return _refusal(refused)
    return OK


def found(members: Sequence[Member], validator_set: ValidatorSet, parameters: Parameters, time_s: int) -> Outcome:
    """Compute the initial state for a genesis at `time_s`; the members are known to share nothing."""
    draft = Draft(MemoryState(""))
    draft.leaves[PARAMETERS_KEY] = parameters.serialize()
    directory.begin(draft, members)
    validators.begin(draft, validator_set)
    expiry.begin(draft, time_s)
    return draft.outcome()


def _begin(draft: Draft, block: Block) -> None:
    """Make the changes that a block brings besides its transactions, and before them."""
    validators.advance(draft)
    if block.misbehaving:
        directory.drop_validators(draft, frozenset(block.misbehaving))
    governance.take_effect(draft, block)
    expiry.prune(draft, block.time_s)


def _result(draft: Draft, block: Block, raw: bytes) -> TxResult:
    own = Draft(draft)
    try:
        _execute(own, block, Transaction.parse(raw))
    except Refused as refused:
        return _refusal(refused)
    draft.take_over(own)
    return OK


def _refusal(refused: Refused) -> TxResult:
    refusal = refused.refusal
    return TxResult(refusal.code, refusal.kebab, refusal.sentence)


def _execute(draft: Draft, block: Block, transaction: Transaction) -> None:
    body = transaction.body
    _check_chain(draft, transaction)
    if isinstance(body, OwnerStatus):
        lifecycle.change_own_status(draft, block, body, transaction)
    else:
        _HANDLERS[type(body)](draft, block, _endorser(draft, transaction), body, transaction)


def _check_chain(draft: Draft, transaction: Transaction) -> None:
    if transaction.body.chain != draft.chain_id:
        raise Refused(Refusal.CHAIN)


def _endorser(draft: Draft, transaction: Transaction) -> Member:
    """Return the member in whose name the transaction is made, after verifying that all signatures are its own."""
    member = draft.member(transaction.body.by)
    if member is None:
        raise Refused(Refusal.MEMBER)
    if member.suspended:
        raise Refused(Refusal.SUSPENDED)
    for endorsement in transaction.endorsements:
        key = member.endorsing_key(endorsement.key_id)
        if key is None:
            raise Refused(Refusal.SIGNER)
        verify(key, signed_bytes(transaction.body_bytes), endorsement.signature)
    return member


_HANDLERS: dict[type, Callable[..., None]] = {
    Submit: lifecycle.submit,
    Batch: lifecycle.submit_batch,
    Renew: lifecycle.renew,
    ChangeStatus: lifecycle.change_status,
    Propose: governance.propose,
    Vote: governance.vote,
}
"""The handler of each kind of transaction that a member signs."""
