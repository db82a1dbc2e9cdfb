"""Detection of a ledger that makes no block: since when and why, in log, metric and health of each engine."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from ledger_node.keep.chain import Chain
from voice_dpki.metrics import gauge
from voice_dpki.shortfalls import SHORTFALLS

log = logging.getLogger(__name__)

STALLED = gauge("ledger_stalled_seconds", "Seconds since the last block while blocks are overdue, else 0.")

LOOK_S = 5.0
"""How often a node checks for a new block."""

LATE_BEATS = 6
SHORTEST_S = 30.0
"""A block is overdue after LATE_BEATS heartbeats, and not before SHORTEST_S."""


class Stall:
    """Watches a node once its ledger has blocks; `reason` returns in a few words what an overdue block lacks."""

    def __init__(self, chain: Chain, heartbeat_s: float, reason: Callable[[], Awaitable[str]]) -> None:
        self._chain = chain
        self._reason = reason
        self._late_s = max(SHORTEST_S, LATE_BEATS * heartbeat_s)
        self._height, self._since_s = chain.height, time.monotonic()
        self._waited_for = ""
        SHORTFALLS.watch(self)

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            while True:
                await asyncio.sleep(LOOK_S)
                await self._look()
        finally:
            STALLED.set(0)

    async def _look(self) -> None:
        """Note for how long no block has come, and log it if the reason has changed."""
        quiet_s = self._quiet_s()
        STALLED.set(quiet_s)
        waited_for = await self._reason() if quiet_s else ""
        if waited_for != self._waited_for:
            self._waited_for = waited_for
            fields = {"reason": self.shortfall(), "height": self._chain.height}
            log.warning("no block" if waited_for else "blocks again", extra={"fields": fields})

    def _quiet_s(self) -> float:
        """Return the seconds since the last block if the next one is overdue, else 0."""
        if self._chain.height != self._height or not self._height:
            self._height, self._since_s = self._chain.height, time.monotonic()
        quiet_s = time.monotonic() - self._since_s
        return quiet_s if self._height and quiet_s >= self._late_s else 0.0

    def shortfall(self) -> str:
        """Say for how long no block has come, and what is waited for; empty if blocks come."""
        if not self._waited_for or not (quiet_s := self._quiet_s()):
            return ""
        return f"no block for {quiet_s:.0f} s, {self._waited_for}"
