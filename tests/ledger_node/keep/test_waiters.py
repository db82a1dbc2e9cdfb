"""Requests that wait for a height: a block wakes those that it concerns, and one that has gone leaves nothing."""

import asyncio

from ledger_node.keep.waiters import HeightWaiters

LONG_S = 3600.0


async def waiting_for(waiters: HeightWaiters, *heights: int) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(waiters.wait(height, LONG_S)) for height in heights]
    await asyncio.sleep(0)
    assert len(waiters) == len(heights)
    return tasks


async def test_a_height_wakes_those_who_wait_for_it_or_a_lower_one() -> None:
    waiters = HeightWaiters()
    low, same, high = await waiting_for(waiters, 4, 5, 6)
    waiters.reach(5)
    await asyncio.gather(low, same)
    assert len(waiters) == 1
    assert not high.done()
    waiters.reach(900_000_000)
    await high
    assert len(waiters) == 0


async def test_a_block_does_nothing_for_a_thousand_who_wait_for_a_later_one() -> None:
    """Each would be a turn of the event loop, for every block, and strangers may let that many wait."""
    waiters = HeightWaiters()
    tasks = await waiting_for(waiters, *[900_000_000] * 1000)
    waiters.reach(1)
    for _ in range(3):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    assert len(waiters) == 1000
    waiters.release()
    await asyncio.gather(*tasks)
    assert len(waiters) == 0


async def test_nothing_is_left_of_one_that_was_late_or_has_gone() -> None:
    waiters = HeightWaiters()
    await waiters.wait(7, 0)
    assert len(waiters) == 0
    (gone,) = await waiting_for(waiters, 7)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert len(waiters) == 0
    waiters.reach(7)
