"""The stored chain, shared by all parts of a node: one writer, many readers, and an event for each new block."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from ledger_node.keep.store import Store, StoreView
from ledger_node.keep.waiters import HeightWaiters
from voice_dpki.ledger.genesis import Genesis
from voice_dpki.ledger.replica import Replica
from voice_dpki.ledger.state import TxResult
from voice_dpki.metrics import gauge
from voice_dpki.names import Height

HEIGHT = gauge("ledger_height", "Number of the last block that this node executed")

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class TxOutcome:
    """The result of a transaction, and the height of its block; None if it is in no block."""

    result: TxResult
    height: Height | None


class Chain:
    """The store of a running node. One separate thread does all writing, so that reading never waits for it."""

    def __init__(self, store: Store, genesis: Genesis) -> None:
        self.genesis = genesis
        self.store = store
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="ledger-writer")
        self._changed = asyncio.Event()
        self._waiters = HeightWaiters()
        self._stopping = False
        self.closed = False
        """Whether `close` was called: there is no store to read any more."""

    @property
    def height(self) -> Height:
        """Number of the last stored block."""
        return self.store.height

    @property
    def changed(self) -> asyncio.Event:
        """An event that is set at the next write. Take it before reading the state, and no write is missed."""
        return self._changed

    def replica(self) -> Replica:
        """Return a replica that continues where the store ends."""
        view = self.store.view
        last = view.block(view.height)
        if last is None:
            return Replica(view, None)
        return Replica(view, last.signed_header(), last.codes)

    @contextmanager
    def snapshot(self) -> Iterator[StoreView]:
        """Yield the newest stored state, which does not change while the context lasts."""
        with self.store.snapshot() as view:
            yield view

    async def write(self, work: Callable[[], _T]) -> _T:
        """Run `work`, which may commit to the store, in the writer's thread; then wake the waiting requests."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._writer, work)
        finally:
            HEIGHT.set(self.height)
            self._wake()

    async def wait_for(self, height: int, timeout_s: float) -> bool:
        """Wait at most `timeout_s` for the block at `height`; return whether it is stored."""
        if self.height < height and not self._stopping:
            await self._waiters.wait(height, timeout_s)
        return self.height >= height

    def stop_waiting(self) -> None:
        """End all waiting for blocks, now and later, so that open requests end."""
        self._stopping = True
        self._waiters.release()
        self._wake()

    def _wake(self) -> None:
        self._waiters.reach(self.height)
        self._changed.set()
        self._changed = asyncio.Event()

    def close(self) -> None:
        """Finish the write in progress and close the store."""
        self.closed = True
        self._writer.shutdown(wait=True)
        self.store.close()
