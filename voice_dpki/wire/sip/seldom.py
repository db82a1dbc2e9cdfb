"""Log messages that strangers can cause, limited in rate."""

import logging
import math
from typing import Final

SAY_AGAIN_S: Final = 10.0


class Seldom:
    """A logger that writes at most one line in SAY_AGAIN_S, so that strangers cannot fill the log.

    The next line says how many lines were left out.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._log = logger
        self._said_s = -math.inf
        self._left_out = 0

    def warning(self, now_s: float, event: str, **fields: object) -> None:
        """Log a warning, unless a line was written less than SAY_AGAIN_S ago."""
        if self._is_due(now_s):
            self._log.warning(event, extra={"fields": self._and_left_out(fields)})

    def exception(self, now_s: float, event: str) -> None:
        """Log the exception that is being handled, unless a line was written less than SAY_AGAIN_S ago."""
        if self._is_due(now_s):
            self._log.exception(event, extra={"fields": self._and_left_out({})})

    def _is_due(self, now_s: float) -> bool:
        due = now_s - self._said_s >= SAY_AGAIN_S
        if due:
            self._said_s = now_s
        else:
            self._left_out += 1
        return due

    def _and_left_out(self, fields: dict[str, object]) -> dict[str, object]:
        left_out, self._left_out = self._left_out, 0
        return {**fields, "left_out": left_out} if left_out else fields
