"""The ledger's state machine: a pure function of the state before a block, and the block.

Every node computes the same results and the same AppHash from the same blocks: nothing here depends on a clock
other than the block's time, on the order of a set, on a float or on a node's configuration. Each transaction is
judged by the state after the transactions before it in the same block.
"""

from collections.abc import Sequence
from typing import Any

from voice_dpki.ledger import directory, expiry, governance, quotas, validators
from voice_dpki.ledger.draft import OK, Block, Draft, Outcome, TxResult
from voice_dpki.ledger.header import ValidatorSet
from voice_dpki.ledger.leaf import Leaf
from voice_dpki.ledger.members import Member
from voice_dpki.ledger.parameters import PARAMETERS_KEY, PARAMETERS_LEAF, Parameters
from voice_dpki.ledger.refusals import Refusal, Refused
from voice_dpki.ledger.transactions import KINDS, Transaction, certificates_in, kind_of
from voice_dpki.ledger.view import MemoryState, StateView
from voice_dpki.names import Height
from voice_dpki.x509.profile import digest_of

__all__ = [
    "LEAVES",
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

_WITHOUT_TRANSACTION = (PARAMETERS_LEAF, validators.VALIDATORS_LEAF, directory.DIRECTORY_LEAF, expiry.PRUNED_LEAF)
"""The kinds of leaves that the genesis or the mere course of blocks writes."""

LEAVES: tuple[Leaf[Any], ...] = tuple(
    dict.fromkeys((*_WITHOUT_TRANSACTION, *(leaf for kind in KINDS for leaf in kind.leaves)))
)
"""All kinds of leaves."""


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
            _authenticate(draft, transaction)
            quotas.enter(draft, transaction.body.by, len(certificates), time_s)
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
    sender = _authenticate(draft, transaction)
    kind_of(transaction.body).execute(draft, block, sender, transaction)


def _authenticate(draft: Draft, transaction: Transaction) -> Any:
    """Return who sends a transaction, which its handler takes; raises Refused, also if it is for another ledger."""
    if transaction.body.chain != draft.chain_id:
        raise Refused(Refusal.CHAIN)
    return kind_of(transaction.body).sender.authenticate(draft, transaction)
