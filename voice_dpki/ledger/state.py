"""The ledger's state machine: a pure function of the state before a block, and the block.

Every node computes the same results and the same AppHash from the same blocks: nothing here depends on a clock
other than the block's time, on the order of a set, on a float or on a node's configuration. Each transaction is
judged by the state after the transactions before it in the same block. docs/spec/state.md specifies all this.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from voice_dpki.ledger import activation, directory, expiry, governance, probation, quotas, validators
from voice_dpki.ledger.activation import rules_at
from voice_dpki.ledger.admission import forget_judgements
from voice_dpki.ledger.draft import OK, Block, Draft, Outcome, TxResult
from voice_dpki.ledger.header import ValidatorSet
from voice_dpki.ledger.leaf import Leaf
from voice_dpki.ledger.members import Member
from voice_dpki.ledger.parameters import PARAMETERS_KEY, PARAMETERS_LEAF, Parameters
from voice_dpki.ledger.refusals import FIRST_CONTENT_CODE, Refusal, Refused
from voice_dpki.ledger.rules import V1, Rules
from voice_dpki.ledger.signatures import verify
from voice_dpki.ledger.transactions import KINDS, Transaction, certificates_in, check_one_signature, kind_of
from voice_dpki.ledger.view import MemoryState, StateView
from voice_dpki.names import Height
from voice_dpki.x509.profile import digest_of

__all__ = [
    "LEAVES",
    "OK",
    "Block",
    "Composed",
    "MemoryState",
    "Outcome",
    "StateView",
    "TxResult",
    "apply",
    "check",
    "check_sender",
    "compose",
    "forget_verdicts",
    "found",
    "may_enter",
]

_WITHOUT_TRANSACTION = (
    PARAMETERS_LEAF,
    validators.VALIDATORS_LEAF,
    directory.DIRECTORY_LEAF,
    expiry.PRUNED_LEAF,
    activation.RULES_LEAF,
    probation.PROBATION_LEAF,
)
"""The kinds of leaves that the genesis, or blocks without transactions, write."""

LEAVES: tuple[Leaf[Any], ...] = tuple(
    dict.fromkeys((*_WITHOUT_TRANSACTION, *(leaf for kind in KINDS for leaf in kind.leaves)))
)
"""All kinds of leaves."""


@dataclass(frozen=True, slots=True)
class Composed:
    """A block that can be proposed, and its outcome.

    `judged` has, for each candidate transaction, its result and whether it is in the block.
    """

    block: Block
    outcome: Outcome
    judged: tuple[tuple[TxResult, bool], ...]


def apply(view: StateView, block: Block) -> Outcome:
    """Execute a block, without side effects. A refused transaction changes nothing; its result says why.

    Raises MissingRulesError where this release lacks the version of the rules that the block follows.
    """
    draft = Draft(view, rules_at(view, block.height))
    _begin(draft, block)
    results = tuple(_result(draft, block, raw) for raw in block.transactions)
    return draft.outcome(results, validators.updates(view, draft))


def compose(rules: Rules, block: Block, outcome: Outcome) -> Composed:
    """Leave out the transactions that must not enter a block, which changed nothing; `outcome` is `apply`'s."""
    judged = tuple(zip(block.transactions, outcome.results, strict=True))
    entering = [(raw, result) for raw, result in judged if may_enter(rules, result)]
    return Composed(
        replace(block, transactions=tuple(raw for raw, _ in entering)),
        replace(outcome, results=tuple(result for _, result in entering)),
        tuple((result, may_enter(rules, result)) for result in outcome.results),
    )


def may_enter(rules: Rules, result: TxResult) -> bool:
    """Return whether a transaction with this result may take a place in a block."""
    return result.code == 0 or (rules.admits_refused and result.code >= FIRST_CONTENT_CODE)


def check(view: StateView, height: Height, time_s: int, raw: bytes) -> TxResult:
    """Return the result that a transaction would have as the first in the block at `height`; changes nothing."""
    return _result(Draft(view, rules_at(view, height)), Block(height, time_s, ()), raw)


def check_sender(view: StateView, height: Height, time_s: int, raw: bytes) -> TxResult:
    """Check the sender of a transaction, its quota, and that none of the certificates is recorded already.

    The certificates are not verified, which would take a hundred times as long. For a transaction without
    certificates, the result is that of `check`. Changes nothing.
    """
    draft = Draft(view, rules_at(view, height))
    try:
        transaction = Transaction.parse(raw, draft.rules)
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


def forget_verdicts() -> None:
    """Forget which certificates and signatures were verified; call this when no transaction is pending.

    The verdicts serve from a transaction's check to its block. Kept longer, they would take up to 45 MB.
    """
    forget_judgements()
    verify.cache_clear()


def found(members: Sequence[Member], validator_set: ValidatorSet, parameters: Parameters, time_s: int) -> Outcome:
    """Compute the initial state for a genesis at `time_s`; the caller checks that members share nothing."""
    draft = Draft(MemoryState(""), V1)
    draft.leaves[PARAMETERS_KEY] = parameters.serialize()
    directory.begin(draft, members)
    validators.begin(draft, validator_set)
    expiry.begin(draft, time_s)
    return draft.outcome()


def _begin(draft: Draft, block: Block) -> None:
    """Make the changes that a block brings besides its transactions, and before them."""
    validators.advance(draft)
    probation.advance(draft, block)
    if block.misbehaving:
        directory.drop_validators(draft, frozenset(block.misbehaving))
    activation.begin(draft)
    governance.take_effect(draft, block)
    expiry.prune(draft, block.time_s)


def _result(draft: Draft, block: Block, raw: bytes) -> TxResult:
    own = draft.nested()
    try:
        _execute(own, block, Transaction.parse(raw, own.rules))
    except Refused as refused:
        return _refusal(refused)
    draft.take_over(own)
    return OK


def _refusal(refused: Refused) -> TxResult:
    refusal = refused.refusal
    return TxResult(refusal.code, refusal.kebab, refusal.sentence)


def _execute(draft: Draft, block: Block, transaction: Transaction) -> None:
    sender = _authenticate(draft, transaction)
    body = transaction.body
    if draft.rules.counts_all and not certificates_in(body):
        quotas.enter_other(draft, body.by, block.time_s)
    kind_of(body).execute(draft, block, sender, transaction)


def _authenticate(draft: Draft, transaction: Transaction) -> Any:
    """Return the sender of a transaction, for its kind's `execute`; raises Refused, also for another ledger's."""
    if transaction.body.chain != draft.chain_id:
        raise Refused(Refusal.CHAIN)
    if draft.rules.one_signature:
        check_one_signature(transaction)
    return kind_of(transaction.body).sender.authenticate(draft, transaction)
