"""The embedded engine: orders transactions in one process and signs blocks with the validators' keys that it holds.

The engine puts waiting transactions into one block at once, and stores that block in one step with the empty block
whose header proves its outcome. Heartbeat blocks show that the newest state is still the newest. A sender gets its
answer only when the block is stored durably.

The engine's clock is the ledger's clock. A block from the future could not be undone, and would stop the ledger
until that time. So the engine makes no block while its clock is behind the last block, or after the clock was set
forward (docs/adr/0024).

An empty block can change the state too: new validators join, expired certificates are removed. Such a block is
stored once a later header proves it, but its own signed header is stored earlier. After a restart the engine takes
up that same block, because another one at its height would be a fork.
"""

import asyncio
from collections.abc import Container, Iterable, Sequence
from functools import partial

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger_node.keep.chain import Chain, TxOutcome
from ledger_node.keep.store import parse_signed_header
from ledger_node.order.orderer import BusyError
from ledger_node.order.stall import Stall
from voice_dpki.clock_health import HEALTH
from voice_dpki.effects import Clock
from voice_dpki.errors import LocalError
from voice_dpki.ledger.activation import rules_at
from voice_dpki.ledger.block import NextBlock, SignFunction
from voice_dpki.ledger.clock import LedgerClock
from voice_dpki.ledger.header import Commit, Validator, ValidatorSet
from voice_dpki.ledger.probation import on_probation
from voice_dpki.ledger.replica import BlockError, SignedBlock, Step
from voice_dpki.ledger.state import Block, Composed, apply, check, compose, forget_verdicts
from voice_dpki.ledger.transactions import canonical
from voice_dpki.ledger.validators import validator_sets
from voice_dpki.names import Height
from voice_dpki.wire.tasks import first_of

MAX_WAITING = 2000
"""Most transactions that wait for a block; further senders are told to retry."""

MAX_BLOCK_TRANSACTIONS = 250
"""Most transactions that the engine puts into one block, so that executing it takes tens of milliseconds."""


MAX_BLOCK_BYTES = 1024 * 1024
"""A block ends with the transaction that passes this size: some 2500 certificates in batches, fewer than a block
may record."""


CLOCK_WAIT_S = 0.5
"""How often a wrong clock is checked again."""

_STOPPING = "the engine is stopping; repeat the request later"


_Waiting = tuple[bytes, "asyncio.Future[TxOutcome]"]


class Engine:
    """Orders transactions; `run` makes the blocks."""

    def __init__(self, chain: Chain, keys: Sequence[Ed25519PrivateKey], clock: Clock, heartbeat_s: float) -> None:
        """Raise LocalError unless `keys` are those of validators with more than two thirds of the power."""
        self._chain = chain
        self._signers = signers_of(keys)
        self._clock = clock
        self._heartbeat_s = heartbeat_s
        self._replica = chain.replica()
        self._take_up()
        check_power(validator_sets(self._replica.state)[0], self._signers)
        last = self._replica.last
        known_s = (last.header.time_ns if last else chain.genesis.time_ns) / 1e9
        self._ledger_clock = LedgerClock(clock, known_s, agrees=True)
        HEALTH.watch(self._ledger_clock)
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(MAX_WAITING)
        self._ended = False
        self._stall = Stall(chain, heartbeat_s, self._waits_for)

    async def submit(self, raw: bytes) -> TxOutcome:
        """Put a transaction into a block and return once that is stored durably; or refuse it without a block.

        A signature in a non-canonical form is brought into the canonical one.
        Raises BusyError when too many transactions wait, while the clock is wrong, and when the engine stops.
        """
        raw = canonical(raw)
        if problem := self._ledger_clock.problem():
            raise BusyError(f"no blocks are made: {problem}")
        with self._chain.snapshot() as view:
            result = check(view, Height(view.height + 1), int(self._clock.now_s()), raw)
        if result.code:
            return TxOutcome(result, None)
        if self._ended:
            raise BusyError(_STOPPING)
        answer: asyncio.Future[TxOutcome] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait((raw, answer))
        except asyncio.QueueFull:
            raise BusyError("too many transactions are waiting for a block; repeat this one in a moment") from None
        return await answer

    async def run(self) -> None:
        """Make blocks until cancelled. An error in making one ends the engine; its senders get BusyError."""
        await first_of(self._make_blocks(), self._stall.run())

    async def _waits_for(self) -> str:
        """Return in a few words what an overdue block waits for: either clock or disk."""
        problem = self._ledger_clock.problem()
        return f"for {problem}" if problem else "waiting for the store's disk"

    async def _make_blocks(self) -> None:
        batch: list[_Waiting] = []
        try:
            while True:
                await self._clock_is_right(batch)
                transactions = tuple(raw for raw, _ in batch)
                outcomes = await self._chain.write(partial(self._make, transactions))
                for (_, answer), outcome in zip(batch, outcomes, strict=True):
                    if not answer.done():
                        answer.set_result(outcome)
                batch = await self._next_batch()
        finally:
            self._ended = True
            self._drain_into(batch)
            _send_away(batch, _STOPPING)

    async def _clock_is_right(self, batch: list[_Waiting]) -> None:
        """Wait until the clock is right; meanwhile fail all waiting transactions with BusyError."""
        while problem := self._ledger_clock.problem():
            HEALTH.problem()
            self._drain_into(batch)
            _send_away(batch, f"no blocks are made: {problem}")
            batch.clear()
            await asyncio.sleep(CLOCK_WAIT_S)

    def _drain_into(self, batch: list[_Waiting]) -> None:
        while not self._queue.empty():
            batch.append(self._queue.get_nowait())

    async def _next_batch(self) -> list[_Waiting]:
        """Wait for transactions and return a batch of them, or an empty one when a heartbeat is due."""
        try:
            async with asyncio.timeout(self._heartbeat_s):
                batch = [await self._queue.get()]
        except TimeoutError:
            return []
        size = len(batch[0][0])
        while len(batch) < MAX_BLOCK_TRANSACTIONS and size < MAX_BLOCK_BYTES and not self._queue.empty():
            batch.append(self._queue.get_nowait())
            size += len(batch[-1][0])
        return batch

    def _take_up(self) -> None:
        """Execute again the empty block of which only the header is stored.

        Raises LocalError if the block was not empty.
        """
        view = self._chain.store.view
        tip = parse_signed_header(view.tip_json) if view.tip_json else None
        if tip is None or tip.header.height <= view.height:
            return
        try:
            self._replica.take(SignedBlock(tip, (), last_commit=self._last_commit()))
        except BlockError:
            raise LocalError(
                f"block {tip.header.height} is signed, and this store has only its header: to make another one "
                "would be a fork. Start the engine on the data folder of a node that holds this block"
            ) from None

    def _make(self, transactions: Sequence[bytes]) -> list[TxOutcome]:
        """Make and store a block of the transactions that may enter it, and return the outcome of each.

        If the block changed the state, it is stored together with an empty block that proves it.

        First make empty blocks until the last one changes nothing and is stored. There can be hundreds of them when
        many certificates are due for removal on one day: each block removes at most 200 (`expiry.MAX_PRUNED`).
        """
        while self._replica.next_height > self._chain.height + 1:
            self._chain.store.commit(self._take_next(())[0])
        step, composed = self._take_next(transactions)
        if not step.executed:
            step = step.then(self._take_next(())[0])
        self._chain.store.commit(step)
        if self._queue.empty():
            forget_verdicts()
        height = composed.block.height
        return [TxOutcome(result, height if entered else None) for result, entered in composed.judged]

    def _last_commit(self) -> Commit | None:
        """Return the last block's commit if the next block must hold it, because validators are on probation."""
        replica = self._replica
        return replica.last.commit if replica.last and on_probation(replica.state) else None

    def _take_next(self, transactions: Sequence[bytes]) -> tuple[Step, Composed]:
        """Make the next block of the transactions that may enter it, and take it."""
        replica, genesis = self._replica, self._chain.genesis
        validators, next_validators = validator_sets(replica.state)
        check_power(validators, self._signers)
        earliest = replica.last.header.time_ns + 1 if replica.last else genesis.time_ns
        time_ns = max(int(self._ledger_clock.agreed_s() * 10**9), earliest)
        last_commit = self._last_commit()
        signers = last_commit.signers if last_commit else ()
        block = Block(replica.next_height, time_ns // 10**9, tuple(transactions), signers=signers)
        rules = rules_at(replica.state, block.height)
        composed = compose(rules, block, apply(replica.state, block))
        following = NextBlock(
            chain_id=genesis.chain_id,
            previous=replica.last,
            time_ns=time_ns,
            transactions=composed.block.transactions,
            app_hash=replica.app_hash,
            last_results=replica.last_results,
            validators=validators,
            next_validators=next_validators,
            consensus_hash=genesis.consensus_hash(),
            version_app=rules.version,
        )
        self._ledger_clock.heard(following.time_ns / 1e9)
        signed = SignedBlock(following.seal(self._signers), composed.block.transactions, last_commit=last_commit)
        return replica.take(signed, composed.outcome), composed


def _send_away(batch: Iterable[_Waiting], why: str) -> None:
    for _, answer in batch:
        if not answer.done():
            answer.set_exception(BusyError(why))


def signers_of(keys: Iterable[Ed25519PrivateKey]) -> dict[bytes, SignFunction]:
    """Return the signing function of each key by validator address."""
    return {Validator(key.public_key().public_bytes_raw(), 1).address: key.sign for key in keys}


def check_power(validators: ValidatorSet, signers: Container[bytes]) -> None:
    """Raise LocalError unless the signers have more than two thirds of the power, as a trusted header needs."""
    powers = [validator.power for validator in validators.validators if validator.address in signers]
    if 3 * sum(powers) <= 2 * sum(validator.power for validator in validators.validators):
        raise LocalError("the engine needs the keys of validators with more than two thirds of the power")
