"""The ledger's state machine behind ABCI 2.0's methods.

A block is executed once, when this node proposes it or judges another's proposal, and the outcome is kept until the
block is decided. A transaction that is refused for its content keeps its place in the block, with its code, so that
its sender learns the reason; from version 2 of the rules on it enters no block. A transaction without a valid
signature of a member or owner, or for which the block has no room (codes below 100), never does.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from ledger_node.abci.abci_pb2 import (
    CheckTx,
    Commit,
    CommitInfo,
    ConsensusParameters,
    ExtendedCommitInfo,
    FinalizeBlock,
    Info,
    InitChain,
    Misbehavior,
    PrepareProposal,
    ProcessProposal,
    ProofSteps,
    PublicKey,
    Query,
    TransactionResult,
    ValidatorPower,
)
from ledger_node.abci.pool import FULL, Pool
from ledger_node.abci.server import Handlers
from ledger_node.order import misbehaviour
from ledger_node.order.verifier import Verifier
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.ledger import tree
from voice_dpki.ledger.activation import rules_at, version_at
from voice_dpki.ledger.genesis import Genesis
from voice_dpki.ledger.header import BlockIdFlag
from voice_dpki.ledger.probation import on_probation
from voice_dpki.ledger.replica import MAX_TRANSACTIONS
from voice_dpki.ledger.rules import Rules
from voice_dpki.ledger.state import (
    LEAVES,
    OK,
    Block,
    Outcome,
    StateView,
    TxResult,
    apply,
    check,
    check_sender,
    compose,
    forget_verdicts,
    may_enter,
)
from voice_dpki.ledger.view import Layered
from voice_dpki.names import Height

CODESPACE = "voice-dpki"
MAX_PROPOSED = 500
"""Most transactions that this node proposes in one block. Other nodes accept up to MAX_TRANSACTIONS."""

MAX_PROPOSED_BYTES = 256 * 1024
"""Bytes after which a proposal takes no further transaction: some 600 certificates in batches. Other validators
judge them in 50 ms, or in 100 ms if they have not verified them before."""

MIN_PROPOSED_BYTES = 32 * 1024
"""Bytes that can always be proposed, however long the last blocks took."""

PROOF_TYPE = "voice-dpki/tree/v1"
"""Kind of the step in a query's proof: `voice_dpki.ledger.proof.Proof`."""

RECHECKED = 20
"""How many transactions at the front of the mempool are judged again after each block. Those that no block can
take any more would otherwise stay in the mempool until this node proposes."""

_KEPT_EXECUTIONS = 4
"""Most proposals of one height whose outcomes are kept; each further round brings another proposal."""


class Ledger(Protocol):
    """The part of the ledger's state that the application needs."""

    @property
    def height(self) -> Height:
        """Height of the last block whose effects are in the state, 0 before the first."""
        ...

    @property
    def time_s(self) -> int:
        """Time of that block, or of the genesis."""
        ...

    @property
    def view(self) -> StateView:
        """The state after that block."""
        ...

    @property
    def first(self) -> Height:
        """Height of the lowest block that the ledger keeps; 0 if CometBFT is to remove none."""
        ...

    def commit(self, block: Block, outcome: Outcome) -> None:
        """Add the next block's outcome to the state."""
        ...


class Application:
    """Answers CometBFT. Calls `on_progress` with a block's height when it is decided, and again when committed."""

    def __init__(
        self,
        genesis: Genesis,
        ledger: Ledger,
        verifier: Verifier,
        *,
        on_progress: Callable[[Height], None] = lambda _: None,
    ) -> None:
        self._genesis = genesis
        self._ledger = ledger
        self._verifier = verifier
        self._on_progress = on_progress
        self._pool = Pool()
        self._executions: dict[Block, Outcome] = {}
        self._members_changed = True
        self._rechecked = 0
        self._next_rules: tuple[int, Rules] | None = None
        self._last_bytes = 0
        self._affordable_bytes = MIN_PROPOSED_BYTES
        self._decided: tuple[Block, Outcome] | None = None

    @property
    def handlers(self) -> Handlers:
        """The dispatch table for `serve_abci`."""
        return {
            "info": self.info,
            "init_chain": self.init_chain,
            "query": self.query,
            "check_tx": self.check_tx,
            "prepare_proposal": self.prepare_proposal,
            "process_proposal": self.process_proposal,
            "finalize_block": self.finalize_block,
            "commit": self.commit,
        }

    def info(self, _: Info.Request) -> Info.Response:
        """Return the height and AppHash of the state; CometBFT replays the blocks after it."""
        height = self._ledger.height
        return Info.Response(
            data=CODESPACE,
            app_version=version_at(self._ledger.view, height + 1),
            last_block_height=height,
            last_block_app_hash=tree.root(self._ledger.view) if height else b"",
        )

    def init_chain(self, request: InitChain.Request) -> InitChain.Response:
        """Begin the chain. Raises LocalError where CometBFT's genesis is not this node's."""
        theirs = {(item.public_key.ed25519, item.power) for item in request.validators}
        ours = {(item.public_key, item.power) for item in self._genesis.validators.validators}
        if request.chain_id != self._genesis.chain_id or theirs != ours or request.initial_height != 1:
            raise LocalError("CometBFT was started with another genesis than this ledger node")
        return InitChain.Response(app_hash=tree.root(self._ledger.view))

    def check_tx(self, request: CheckTx.Request) -> CheckTx.Response:
        """Judge a transaction for the mempool by its sender; the verifying process checks its certificates later.

        This must be fast: before each block CometBFT waits until every CheckTx is answered.
        """
        raw = request.transaction
        if request.occasion == CheckTx.RECHECK:
            return self._recheck(raw)
        result = self.judge(check_sender, raw)
        if not result.code and not self._pool.enter(raw):
            result = FULL
        if not result.code:
            self._verifier.schedule(raw)
        return _checked(result)

    def _recheck(self, raw: bytes) -> CheckTx.Response:
        """Keep a transaction unless its certificates are bad, or a change of the state has made it impossible."""
        self._rechecked += 1
        if self._verifier.has_refused(raw):
            return _checked(self.judge(check, raw))
        result = self._judge_again(raw)
        if not may_enter(self._rules, result):
            return _checked(result)
        self._pool.keep(raw)
        return CheckTx.Response()

    def _judge_again(self, raw: bytes) -> TxResult:
        """Judge a transaction in the mempool by what can have changed since it entered."""
        is_first = self._rechecked <= RECHECKED and not self._rules.admits_refused
        if is_first and not self._verifier.is_waiting(raw):
            return self.judge(check, raw)
        return self.judge(check_sender, raw) if self._members_changed else OK

    @property
    def _rules(self) -> Rules:
        """The rules of the next block; raises MissingRulesError."""
        height = self._ledger.height + 1
        if self._next_rules is None or self._next_rules[0] != height:
            self._next_rules = height, rules_at(self._ledger.view, height)
        return self._next_rules[1]

    def judge(self, check: Callable[[StateView, Height, int, bytes], TxResult], raw: bytes) -> TxResult:
        """Judge a transaction by one of `voice_dpki.ledger.state`'s checks, as if first in the next block."""
        return check(self._ledger.view, Height(self._ledger.height + 1), self._ledger.time_s, raw)

    def prepare_proposal(self, request: PrepareProposal.Request) -> PrepareProposal.Response:
        """Propose verified transactions that may enter a block, as many as the others can judge in time.

        If none is verified yet, propose the mempool's first: a slow verifying process must not stop the ledger.
        """
        sound = [raw for raw in request.transactions if not self._verifier.has_refused(raw)]
        ready = [raw for raw in sound if not self._verifier.is_waiting(raw)] or sound[:1]
        block = self._block(request, request.local_last_commit, _affordable(ready, self._affordable_bytes))
        proposed = compose(self._rules, block, self._execute(block))
        self._remember(proposed.block, proposed.outcome)
        return PrepareProposal.Response(transactions=proposed.block.transactions)

    def process_proposal(self, request: ProcessProposal.Request) -> ProcessProposal.Response:
        """Reject a proposal that has too many transactions, or one that must not enter a block."""
        if len(request.transactions) > MAX_TRANSACTIONS:
            return ProcessProposal.Response(verdict=ProcessProposal.REJECT)
        block = self._block(request, request.proposed_last_commit, request.transactions)
        accepted = all(may_enter(self._rules, result) for result in self._execute(block).results)
        return ProcessProposal.Response(verdict=ProcessProposal.ACCEPT if accepted else ProcessProposal.REJECT)

    def finalize_block(self, request: FinalizeBlock.Request) -> FinalizeBlock.Response:
        """Execute a decided block, without changing the state yet. Raises LocalError if it is not the next."""
        if request.height != self._ledger.height + 1:
            raise LocalError(f"block {request.height} came where {self._ledger.height + 1} is the next one")
        self._on_progress(Height(request.height))
        for misbehavior in request.misbehavior:
            kind = Misbehavior.Kind.Name(misbehavior.kind)
            misbehaviour.report(kind, misbehavior.validator.address, misbehavior.height)
        block = self._block(request, request.decided_last_commit, request.transactions)
        outcome = self._execute(block)
        self._verifier.forget(block.transactions)
        self._pace(block, request.decided_last_commit.round)
        self._decided = (block, outcome)
        return FinalizeBlock.Response(
            results=[_result(result) for result in outcome.results],
            validator_updates=validator_updates(outcome),
            consensus_parameter_updates=self._new_version(block, outcome),
            app_hash=outcome.app_hash,
        )

    def commit(self, _: Commit.Request) -> Commit.Response:
        """Add the decided block to the state, and let CometBFT remove the blocks that the ledger has removed.

        Raises LocalError where no block was decided.
        """
        if self._decided is None:
            raise LocalError("ABCI: a commit without a decided block")
        (block, outcome), self._decided = self._decided, None
        self._executions.clear()
        if not block.transactions and self._pool.is_empty and not self._verifier.backlog:
            forget_verdicts()  # not after every block: under load, verdicts for the next one are on their way
        self._pool.begin()
        self._ledger.commit(block, outcome)
        self._members_changed = outcome.members_changed
        self._rechecked = 0
        self._on_progress(block.height)
        return Commit.Response(retain_height=self._ledger.first)

    def query(self, request: Query.Request) -> Query.Response:
        """Answer about the state, with a proof against the AppHash in the header after the answer's `height`.

        Each kind of leaf that has a lookup has a path: at `/certificates`, data is H(CERT), and at `/members`, the
        organisation in UTF-8. The value is the leaf's, or empty with a proof of absence.
        """
        view = self._ledger.view
        try:
            key, value = _find(view, request.path, request.data)
        except (KeyError, MalformedError):
            return Query.Response(code=1, codespace=CODESPACE, log="no such path, or data that it does not take")
        step = ProofSteps.Step(type=PROOF_TYPE, key=key, data=tree.prove(view, key).serialize())
        return Query.Response(
            key=key, value=value or b"", proof=ProofSteps(steps=[step]), height=self._ledger.height
        )

    def _pace(self, block: Block, last_round: int) -> None:
        """Set the next proposal's size: twice this block's, or half the last block's if that took several rounds.

        `last_round` is the round in which the last block, the one before this, was decided. A burst of transactions
        that nobody has verified yet therefore starts with small blocks, and does not overrun slow validators: a
        proposal that they cannot judge in time costs all of them a round.
        """
        size = sum(map(len, block.transactions))
        affordable = self._last_bytes // 2 if last_round else 2 * size
        self._affordable_bytes = min(max(affordable, MIN_PROPOSED_BYTES), MAX_PROPOSED_BYTES)
        self._last_bytes = size

    def _new_version(self, block: Block, outcome: Outcome) -> ConsensusParameters | None:
        """Return the change of `version.app` if the block after this one follows other rules."""
        version = version_at(Layered(self._ledger.view, outcome), block.height + 1)
        if version == self._rules.version:
            return None
        return ConsensusParameters(version=ConsensusParameters.Version(app=version))

    def _block(
        self,
        request: PrepareProposal.Request | ProcessProposal.Request | FinalizeBlock.Request,
        last_commit: CommitInfo | ExtendedCommitInfo,
        transactions: Iterable[bytes],
    ) -> Block:
        """Return a request's block as the state machine takes it, with the last one's signers if they count."""
        misbehaving = tuple(misbehavior.validator.address for misbehavior in request.misbehavior)
        counts = bool(on_probation(self._ledger.view))
        voted = (vote.validator.address for vote in last_commit.votes if vote.block_id_flag == BlockIdFlag.COMMIT)
        signers = tuple(voted) if counts else ()
        return Block(Height(request.height), request.time.seconds, tuple(transactions), misbehaving, signers)

    def _execute(self, block: Block) -> Outcome:
        outcome = self._executions.get(block)
        return outcome if outcome is not None else self._remember(block, apply(self._ledger.view, block))

    def _remember(self, block: Block, outcome: Outcome) -> Outcome:
        self._executions.pop(block, None)
        while len(self._executions) >= _KEPT_EXECUTIONS:
            del self._executions[next(iter(self._executions))]
        self._executions[block] = outcome
        return outcome


def _affordable(transactions: Sequence[bytes], affordable_bytes: int) -> Sequence[bytes]:
    """Return the leading transactions that fit into a proposal of `affordable_bytes`, at least the first."""
    sizes = itertools.accumulate(map(len, transactions), initial=0)
    count = sum(1 for _ in itertools.takewhile(lambda size: size < affordable_bytes, sizes))
    return transactions[: min(count, MAX_PROPOSED)]


def validator_updates(outcome: Outcome) -> list[ValidatorPower]:
    """Return CometBFT's form of the validator changes: new validators with their power, removed ones with 0."""
    return [
        ValidatorPower(public_key=PublicKey(ed25519=key), power=power) for key, power in outcome.validator_updates
    ]


def _result(result: TxResult) -> TransactionResult:
    return TransactionResult(code=result.code, log=result.detail, info=result.name, codespace=_codespace(result))


def _checked(result: TxResult) -> CheckTx.Response:
    return CheckTx.Response(code=result.code, log=result.detail, info=result.name, codespace=_codespace(result))


def _codespace(result: TxResult) -> str:
    return CODESPACE if result.code else ""


_LEAVES = {f"/{leaf.lookup.path}": (leaf, leaf.lookup.argument) for leaf in LEAVES if leaf.lookup is not None}
"""For each path of a query, the kind of leaf that it is about, and the argument that names one such leaf."""


def _find(view: StateView, path: str, data: bytes) -> tuple[bytes, bytes | None]:
    """Return the key of the leaf that a query is about, and its value; raises KeyError or MalformedError."""
    leaf, argument = _LEAVES[path]
    key = leaf.key(argument.of_bytes(data))
    value = view.leaf(key)
    if value is not None:
        leaf.parse(value)  # the key of one kind of leaf may be given as that of another
    return key, value
