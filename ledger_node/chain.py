"""The stored chain as the parts of a node share it: one writer, many readers, and word of every new block."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from prometheus_client import Gauge

from ledger_node.store import Store, StoreView
from ledger_node.waiters import HeightWaiters
from voice_dpki.ledger.genesis import Genesis
from voice_dpki.ledger.replica import Replica
from voice_dpki.ledger.state import TxResult
from voice_dpki.names import Height

HEIGHT = Gauge("ledger_height", "Number of the last block that this node executed")

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a transaction, and the height of the block that it is in; None if it is in none."""

    result: TxResult
    height: Height | None


class Chain:
    """The store of a running node. All writing happens in one thread of its own, so that reading goes on."""

    def __init__(self, store: Store, genesis: Genesis) -> None:
        self.genesis = genesis
        self.store = store
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="ledger-writer")
        self._changed = asyncio.Event()
        self._waiters = HeightWaiters()
        self._stopping = False

    @property
    def height(self) -> Height:
        """Number of the last stored block."""
        return self.store.height

    @property
    def changed(self) -> asyncio.Event:
        """An event that is set when next something is stored. Who takes it before looking misses nothing."""
        return self._changed

    def replica(self) -> Replica:
        """Make a replica that goes on where the store ends."""
        view = self.store.view
        last = view.block(view.height)
        if last is None:
            return Replica(view, None)
        return Replica(view, last.signed_header(), last.codes)

    @contextmanager
    def snapshot(self) -> Iterator[StoreView]:
        """Give the newest stored state, unchanging while the context lasts."""
        with self.store.snapshot() as view:
            yield view

    async def write(self, work: Callable[[], _T]) -> _T:
        """Run `work`, which may commit to the store, in the writer's thread; then tell who waits for blocks."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._writer, work)
        finally:
            HEIGHT.set(self.height)
            self._wake()

    async def wait_for(self, height: int, timeout_s: float) -> bool:
        """Wait until the block at `height` is stored; tell whether it is, within `timeout_s`."""
        if self.height < height and not self._stopping:
            await self._waiters.wait(height, timeout_s)
        return self.height >= height

    def stop_waiting(self) -> None:
        """Let nobody wait for blocks any more: requests under way shall end."""
        self._stopping = True
        self._waiters.release()
        self._wake()

    def _wake(self) -> None:
        self._waiters.reach(self.height)
        self._changed.set()
        self._changed = asyncio.Event()

    def close(self) -> None:
        """Finish what is being written and close the store."""
        self._writer.shutdown(wait=True)
        self.store.close()
