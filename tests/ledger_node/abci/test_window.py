"""Who has to wait for room in the mempools."""

import asyncio

import pytest

from ledger_node.abci.window import SMALL_BYTES, Window

BATCH = 40_000


class Sender:
    """Stays in the window until it is told to go."""

    def __init__(self, window: Window, size: int) -> None:
        self.inside = False
        self.leave = asyncio.Event()
        self.task = asyncio.ensure_future(self._stay(window, size))

    async def _stay(self, window: Window, size: int) -> None:
        async with window.room(size):
            self.inside = True
            await self.leave.wait()
        self.inside = False


async def settled(*senders: Sender) -> list[bool]:
    for _ in range(10):
        await asyncio.sleep(0)
    return [sender.inside for sender in senders]


async def end(*senders: Sender) -> None:
    for sender in senders:
        sender.leave.set()
    await asyncio.gather(*(sender.task for sender in senders))


async def test_large_ones_wait_in_the_order_of_coming_and_small_ones_do_not() -> None:
    window = Window(2 * BATCH)
    senders = [Sender(window, BATCH) for _ in range(4)]
    small = Sender(window, SMALL_BYTES)
    assert await settled(*senders, small) == [True, True, False, False, True]
    senders[1].leave.set()
    assert await settled(*senders) == [True, False, True, False]
    await end(*senders, small)


async def test_one_alone_has_room_however_large_it_is() -> None:
    window = Window(BATCH)
    large, after = Sender(window, 10 * BATCH), Sender(window, BATCH)
    assert await settled(large, after) == [True, False]
    await end(large, after)


@pytest.mark.parametrize("victim", [0, 1])
async def test_who_gives_up_leaves_its_room_or_its_place_to_others(victim: int) -> None:
    window = Window(BATCH)
    senders = [Sender(window, BATCH) for _ in range(3)]
    await settled()
    senders[victim].task.cancel()
    survivors = [sender for sender in senders if sender is not senders[victim]]
    assert await settled(*survivors) == [True, False]
    survivors[0].leave.set()
    assert await settled(survivors[1]) == [True]
    await end(*survivors)
    with pytest.raises(asyncio.CancelledError):
        await senders[victim].task


async def test_who_is_let_in_and_gives_up_at_once_keeps_nothing() -> None:
    window = Window(BATCH)
    first, second, third = (Sender(window, BATCH) for _ in range(3))
    await settled()
    first.leave.set()
    while not first.task.done():
        await asyncio.sleep(0)
    second.task.cancel()
    assert await settled(third) == [True]
    await end(third)
