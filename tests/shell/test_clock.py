"""A wall clock that is set is told of; one that drifts is not."""

import asyncio

import pytest

from tests.clocks import STEPS_S, SettableClock
from voice_dpki.shell.clock import watch_clock


@pytest.mark.parametrize("step_s", [*STEPS_S, 5, -5])
async def test_setting_the_clock_is_said_once(step_s: float, caplog: pytest.LogCaptureFixture) -> None:
    clock = SettableClock(1_790_000_000)
    watching = asyncio.create_task(watch_clock(clock, every_s=0))
    for _ in range(3):
        await asyncio.sleep(0)
    clock.set(step_s)
    for _ in range(20):
        clock.elapse(1)
        await asyncio.sleep(0)
    watching.cancel()
    said = [record.fields for record in caplog.records]  # type: ignore[attr-defined]
    assert said == ([{"by_s": step_s}] if abs(step_s) > 10 else [])
