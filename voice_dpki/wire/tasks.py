"""Tasks: work in the background whose errors are logged, and waiting for the first of several."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

from voice_dpki.wire.seldom import Seldom


class Background:
    """The work of one owner that nobody awaits. An error ends the work that raised it, and is logged."""

    def __init__(self, logger: logging.Logger) -> None:
        self._failures = Seldom(logger)
        self._tasks: set[asyncio.Task[object]] = set()

    def __len__(self) -> int:
        """Return how many tasks run."""
        return len(self._tasks)

    def run(self, work: Coroutine[object, object, object]) -> asyncio.Task[object]:
        """Run `work` until it ends or the owner closes; the task that is returned need not be kept."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # the event loop itself holds tasks only weakly
        task.add_done_callback(self._ended)
        return task

    async def close(self) -> None:
        """Cancel the running tasks, and wait until they have ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._failures.error("work in the background failed", error)


@asynccontextmanager
async def running(*works: Coroutine[object, object, None]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run tasks while the context lasts; at its end, cancel them and raise the error of one, if any."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome


async def first_of(*works: Coroutine[object, object, object]) -> None:
    """Run `works` until one ends; cancel the rest, and raise the error of the one that ended, if any."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
