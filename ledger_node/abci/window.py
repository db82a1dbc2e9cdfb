"""A limit on the bytes that this node has in all nodes' mempools at a time.

CometBFT hands the application its whole mempool for each proposal, and most of it again after each block. With
megabytes in the mempool, that takes longer than a block should. So large transactions wait here instead.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

SMALL_BYTES = 4096
"""Transactions up to this size need not wait, so that batches do not hold up a revocation."""

WINDOW_BYTES = 256 * 1024
"""As much as one proposal holds (`application.MAX_PROPOSED_BYTES`)."""


class Window:
    """Admits at most `limit` bytes at a time, first come, first served; a transaction alone is always admitted."""

    def __init__(self, limit: int = WINDOW_BYTES) -> None:
        self._limit = limit
        self._used = 0
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def room(self, size: int) -> AsyncIterator[None]:
        """Wait until there is room for `size` bytes, and keep it until the context ends."""
        if size <= SMALL_BYTES:
            yield
            return
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((size, admitted))
        self._admit()
        try:
            await admitted
            yield
        finally:
            if admitted.done() and not admitted.cancelled():
                self._used -= size
            self._admit()

    def _admit(self) -> None:
        while self._queue:
            size, admitted = self._queue[0]
            if not admitted.cancelled():
                if self._used and self._used + size > self._limit:
                    return
                self._used += size
                admitted.set_result(None)
            self._queue.popleft()
