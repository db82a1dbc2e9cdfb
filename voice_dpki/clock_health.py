"""Problems of this machine's clock, for the log, the metric and the health check of every service."""

import logging  # noqa: TID251 (what is wrong is logged wherever it is found)
from typing import Protocol
from weakref import WeakSet

from voice_dpki.metrics import follow, gauge  # noqa: TID251

log = logging.getLogger(__name__)

WRONG = gauge("clock_wrong", "1 while this machine's clock contradicts the ledger, or was set, else 0.")


class ClockSource(Protocol):
    """An object that can detect a wrong clock."""

    def problem(self) -> str:
        """Return what is wrong with the clock; empty if no problem is known."""
        ...


class ClockHealth:
    """The clock problems of all sources that are still in use. A problem is logged once, and so is its end."""

    def __init__(self) -> None:
        self._sources: WeakSet[ClockSource] = WeakSet()
        self._said = False

    def watch(self, source: ClockSource) -> None:
        """Include `source` until nothing else refers to it."""
        self._sources.add(source)

    def problem(self) -> str:
        """Return the first problem that a source reports, empty if none; log when problems begin and end."""
        problem = next(filter(None, (source.problem() for source in list(self._sources))), "")
        if problem and not self._said:
            log.error("clock is wrong", extra={"fields": {"reason": problem}})
        elif self._said and not problem:
            log.info("clock is right again")
        self._said = bool(problem)
        return problem


HEALTH = ClockHealth()
"""The clock health of this process."""

follow(WRONG, lambda: float(bool(HEALTH.problem())))
