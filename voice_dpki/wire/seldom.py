"""Log lines that strangers can cause, limited in rate."""

import logging
import math
from time import monotonic

SAY_AGAIN_S = 1.0
"""Least time between two such lines, so that nobody can fill the log; metrics count everything."""


class Seldom:
    """A logger that writes at most one line in SAY_AGAIN_S. The next line counts those left out in `unsaid`."""

    def __init__(self, logger: logging.Logger) -> None:
        self._log = logger
        self._said_s = -math.inf
        self._unsaid = 0

    def info(self, event: str, **fields: object) -> None:
        """Log a normal event, unless a line was written within SAY_AGAIN_S."""
        self._say(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Log a warning, unless a line was written within SAY_AGAIN_S."""
        self._say(logging.WARNING, event, fields)

    def error(self, event: str, error: BaseException, **fields: object) -> None:
        """Log an error with its traceback, unless a line was written within SAY_AGAIN_S."""
        self._say(logging.ERROR, event, fields, error)

    def _say(self, level: int, event: str, fields: dict[str, object], error: BaseException | None = None) -> None:
        now_s = monotonic()
        if now_s - self._said_s < SAY_AGAIN_S:
            self._unsaid += 1
            return
        self._said_s = now_s
        if self._unsaid:
            fields["unsaid"], self._unsaid = self._unsaid, 0
        self._log.log(level, event, exc_info=error, extra={"fields": fields})
