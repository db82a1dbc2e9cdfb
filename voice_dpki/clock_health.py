"""Whether this machine's clock is known to be wrong, for log, metric and health of every service."""

import logging
from typing import Protocol
from weakref import WeakSet

from prometheus_client import Gauge

log = logging.getLogger(__name__)

WRONG = Gauge("voice_dpki_clock_wrong", "1 while this machine's clock contradicts the ledger, or was set, else 0.")


class ClockSource(Protocol):
    """Somebody who can tell that the clock is wrong."""

    def problem(self) -> str:
        """Say what is wrong with the clock; empty where nothing is known to be."""
        ...


class ClockHealth:
    """Asks all that can tell, as long as they are in use; the log tells once, and again when all is well."""

    def __init__(self) -> None:
        self._sources: WeakSet[ClockSource] = WeakSet()
        self._said = False

    def watch(self, source: ClockSource) -> None:
        """Ask `source` too from now on, until nobody else uses it."""
        self._sources.add(source)

    def problem(self) -> str:
        """Say what is wrong; empty where nothing is known to be."""
        problem = next(filter(None, (source.problem() for source in list(self._sources))), "")
        if problem and not self._said:
            log.error("clock is wrong", extra={"fields": {"reason": problem}})
        elif self._said and not problem:
            log.info("clock is right again")
        self._said = bool(problem)
        return problem


HEALTH = ClockHealth()
"""The process's."""

WRONG.set_function(lambda: float(bool(HEALTH.problem())))
