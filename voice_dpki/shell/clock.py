"""Detection of a wall clock that was set while a program runs. Only the ledger shows which time is right."""

import asyncio
import logging

from voice_dpki.effects import Clock, SystemClock
from voice_dpki.metrics import counter, refresh

log = logging.getLogger(__name__)

EVERY_S = 1.0
"""How often the two clocks are compared."""

SET_S = 10.0
"""A wall clock that moved by more than this against the monotonic clock was set."""

SET = counter("clock_set", "How often this machine's wall clock was set by more than 10 s.")


async def watch_clock(clock: Clock | None = None, every_s: float = EVERY_S) -> None:
    """Log whenever the wall clock was set, until cancelled; update the gauges that follow a value as often."""
    clock = clock or SystemClock()
    before_s = clock.now_s() - clock.steady_s()
    while True:
        await asyncio.sleep(every_s)
        refresh()
        offset_s = clock.now_s() - clock.steady_s()
        if abs(offset_s - before_s) > SET_S:
            SET.inc()
            log.warning("this machine's clock was set", extra={"fields": {"by_s": round(offset_s - before_s)}})
        before_s = offset_s
