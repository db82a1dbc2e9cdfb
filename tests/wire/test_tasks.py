"""Work in the background, and the first of several."""

import asyncio
import logging

import pytest

from voice_dpki.wire.tasks import Background, first_of, running


class Work:
    """Work that runs until it is told to end, or is cancelled."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.go, self.cancelled = error, asyncio.Event(), False

    async def run(self) -> None:
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self.error is not None:
            raise self.error


async def test_an_error_in_the_background_is_logged_when_it_happens(caplog: pytest.LogCaptureFixture) -> None:
    background, broken, other = Background(logging.getLogger("owner")), Work(KeyError("k")), Work()
    for work in (broken, other):
        background.run(work.run())
    broken.go.set()
    while not caplog.records:
        await asyncio.sleep(0)
    (record,) = caplog.records
    assert (record.name, record.exc_info and record.exc_info[1]) == ("owner", broken.error)
    await background.close()
    assert other.cancelled
    assert len(caplog.records) == 1


async def test_what_has_ended_is_not_held(caplog: pytest.LogCaptureFixture) -> None:
    background, work = Background(logging.getLogger("owner")), Work()
    background.run(work.run())
    work.go.set()
    while len(background):
        await asyncio.sleep(0)
    await background.close()
    assert not caplog.records


async def test_the_first_ends_the_others() -> None:
    first, other = Work(), Work()
    first.go.set()
    await first_of(other.run(), first.run())
    assert other.cancelled


async def test_the_error_of_the_first_is_raised() -> None:
    first, other = Work(KeyError("k")), Work()
    first.go.set()
    with pytest.raises(KeyError):
        await first_of(other.run(), first.run())
    assert other.cancelled


async def test_who_waits_for_the_first_can_be_cancelled() -> None:
    works = Work(), Work()
    waiting = asyncio.create_task(first_of(*(work.run() for work in works)))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert all(work.cancelled for work in works)


async def test_what_runs_during_a_context_ends_with_it() -> None:
    work = Work()
    async with running(work.run()) as tasks:
        await asyncio.sleep(0)
        assert not tasks[0].done()
    assert work.cancelled


async def test_an_error_during_a_context_is_raised_at_its_end() -> None:
    broken, other = Work(KeyError("k")), Work()

    async def part() -> None:
        async with running(broken.run(), other.run()) as tasks:
            broken.go.set()
            await asyncio.wait(tasks[:1])

    with pytest.raises(KeyError):
        await part()
    assert other.cancelled
