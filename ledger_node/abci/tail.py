"""The blocks that CometBFT has decided but the store lacks: the state after them, and the steps that store them.

The AppHash after block H stands in header H+1, and the store takes a block together with the header that proves
its state. Until that header is there, the block's outcome is kept here, in memory. A crash loses nothing: CometBFT
keeps all blocks and replays those that the store lacks.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import MappingProxyType

from ledger_node.keep.store import Store, StoreView
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.ledger.evidence import Evidence, evidence_hash, misbehaving
from voice_dpki.ledger.genesis import Genesis
from voice_dpki.ledger.header import Commit, SignedHeader
from voice_dpki.ledger.replica import Executed, SignedBlock, Step
from voice_dpki.ledger.state import Block, Outcome, TxResult
from voice_dpki.ledger.view import Layered
from voice_dpki.names import Height

MAX_BLOCKS = 20_000
"""Most blocks that may wait to be stored: hours of heartbeats, and more than a crash ever leaves to replay."""


_NO_EVIDENCE: Mapping[int, tuple[Evidence, ...]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Settled:
    """A transaction whose block is stored."""

    transaction: bytes
    result: TxResult
    height: Height


class Tail:
    """Implements `ledger_node.abci.application.Ledger` over a store that lags behind."""

    def __init__(self, store: Store, genesis: Genesis) -> None:
        """Begin where the store ends."""
        self._store = store
        self._stored = ExitStack()
        self._base = self._open()
        self._blocks: list[tuple[Block, Outcome]] = []
        self._view = Layered(self._base)
        self._stored_time_s = _stored_time_s(self._base, genesis)

    @property
    def height(self) -> Height:
        """The last block that CometBFT has committed."""
        return self._blocks[-1][0].height if self._blocks else self._base.height

    @property
    def time_s(self) -> int:
        """Time of the last committed block, or of the genesis before the first; seconds since 1970."""
        return self._blocks[-1][0].time_s if self._blocks else self._stored_time_s

    @property
    def first(self) -> Height:
        """The lowest block in the store, which CometBFT must keep, too; 0 while the store removes none.

        The store lags behind CometBFT, so CometBFT keeps all that the store has yet to take.
        """
        return self._base.first if self._store.retention else Height(0)

    @property
    def view(self) -> Layered:
        """The state after the last committed block."""
        return self._view

    def commit(self, block: Block, outcome: Outcome) -> None:
        """Add the next block's outcome; raises LocalError when MAX_BLOCKS wait for their headers already."""
        if len(self._blocks) >= MAX_BLOCKS:
            raise LocalError(
                f"the ledger's store lags more than {MAX_BLOCKS} blocks behind CometBFT's: treat this "
                "as a lost disk (docs/backup.md): the node then fetches all from its peers, and signs nothing twice"
            )
        self._blocks.append((block, outcome))
        self._view.add(outcome)

    def wanted_headers(self, decided: Height) -> range:
        """Return the heights of the headers needed to store every block that can be stored now.

        `decided` is the height of the newest header.
        """
        if self._restored and decided > self._base.height:
            return range(self._base.height + 1, decided + 1)
        provable = (block.height for block, outcome in self._blocks if block.height < decided or _idle(outcome))
        first = next(provable, None)
        return range(0) if first is None else range(first, decided + 1)

    def wanted_commits(self, headers: Mapping[int, SignedHeader]) -> list[int]:
        """Return the heights whose commit in `headers` is not yet the one that the next block holds.

        CometBFT gives another commit for its newest block than the one that the next block will hold.
        """
        wanted = ((block, headers.get(block.height)) for block, _ in self._blocks if block.signers)
        return [block.height - 1 for block, own in wanted if own and _last_commit(own, headers) is None]

    def step(
        self,
        headers: Mapping[int, SignedHeader],
        evidence: Mapping[int, tuple[Evidence, ...]] = _NO_EVIDENCE,
    ) -> Step | None:
        """Return the step that stores all blocks whose state one of `headers` proves; None if there is none.

        `evidence` is the evidence in each block that has some, by height. Raises MalformedError where it is not the
        evidence that the header commits to, or does not convict the validators that CometBFT named.
        """
        executed: list[Executed] = []
        tip = headers.get(self._base.height + 1) if self._restored else None
        for block, outcome in self._blocks:
            own, following = headers.get(block.height), headers.get(block.height + 1)
            proof = next((header for header in (following, own) if header and _proves(header, outcome)), None)
            last_commit = _last_commit(own, headers) if own and block.signers else None
            if own is None or proof is None or bool(block.signers) != bool(last_commit):
                break
            executed.append(Executed(_signed(own, block, evidence.get(block.height, ()), last_commit), outcome))
            tip = proof
        return None if tip is None else Step(tuple(executed), tip)

    def stored(self) -> list[Settled]:
        """Drop the blocks that are in the store by now; returns their transactions."""
        self._stored.close()
        self._base = self._open()
        height = self._base.height
        done = [(block, outcome) for block, outcome in self._blocks if block.height <= height]
        self._blocks = self._blocks[len(done) :]
        self._view = Layered(self._base, *(outcome for _, outcome in self._blocks))
        if done:
            self._stored_time_s = done[-1][0].time_s
        return [
            Settled(transaction, result, block.height)
            for block, outcome in done
            for transaction, result in zip(block.transactions, outcome.results, strict=True)
        ]

    def close(self) -> None:
        """Release the store."""
        self._stored.close()

    @property
    def _restored(self) -> bool:
        """Whether the stored state came from a snapshot and no header proves it yet."""
        return self._base.height > 0 and self._base.tip_json is None

    def _open(self) -> StoreView:
        return self._stored.enter_context(self._store.snapshot())


def _idle(outcome: Outcome) -> bool:
    """Return whether a block left the state unchanged, so that its own header proves it."""
    return not outcome.update.nodes


def _proves(signed_header: SignedHeader, outcome: Outcome) -> bool:
    return signed_header.header.app_hash == outcome.app_hash


def _last_commit(header: SignedHeader, headers: Mapping[int, SignedHeader]) -> Commit | None:
    """Return the commit that the block of `header` holds, None if `headers` lacks it."""
    before = headers.get(header.header.height - 1)
    return before.commit if before and before.commit.hash() == header.header.last_commit_hash else None


def _signed(
    header: SignedHeader, block: Block, evidence: tuple[Evidence, ...], last_commit: Commit | None
) -> SignedBlock:
    signed = SignedBlock(header, block.transactions, evidence, last_commit)
    if last_commit is not None and last_commit.signers != block.signers:
        raise MalformedError(f"block {block.height} holds other votes than CometBFT told the application of")
    if header.header.evidence_hash != evidence_hash(evidence) or misbehaving(evidence) != block.misbehaving:
        raise MalformedError(f"the evidence of block {block.height} is not what CometBFT told the application of")
    return signed


def _stored_time_s(view: StoreView, genesis: Genesis) -> int:
    block = view.block(view.height)
    time_ns = block.signed_header().header.time_ns if block else genesis.time_ns
    return time_ns // 10**9
