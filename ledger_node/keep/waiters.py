"""Requests that wait for a height of the chain."""

import asyncio


class HeightWaiters:
    """Wakes only the requests that wait for a height that is reached.

    A stranger can keep thousands of requests waiting. If each block woke them all, only for most to wait again, it
    would delay blocks and other clients' answers.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, set[asyncio.Future[None]]] = {}

    async def wait(self, height: int, timeout_s: float) -> None:
        """Return when `height` is reached, when `release` is called, or after `timeout_s` seconds."""
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(height, set()).add(reached)
        try:
            async with asyncio.timeout(timeout_s):
                await reached
        except TimeoutError:
            pass
        finally:
            self._forget(height, reached)

    def reach(self, height: int) -> None:
        """Wake the requests that wait for `height` or a lower one."""
        for waited_for in [each for each in self._waiting if each <= height]:
            self._wake(waited_for)

    def release(self) -> None:
        """Wake all requests."""
        for waited_for in list(self._waiting):
            self._wake(waited_for)

    def __len__(self) -> int:
        """Return the number of waiting requests."""
        return sum(map(len, self._waiting.values()))

    def _wake(self, height: int) -> None:
        for reached in self._waiting.pop(height):
            if not reached.done():
                reached.set_result(None)

    def _forget(self, height: int, reached: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(height, set())
        waiting.discard(reached)
        if not waiting:
            self._waiting.pop(height, None)
