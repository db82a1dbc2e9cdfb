"""The log of refused peers: any stranger can cause refusals, so each code is logged at most once a second."""

import logging

from voice_dpki.wire.seldom import Seldom

MAX_CODES = 64
"""Codes with a limit of their own, more than there are; any further ones share one."""


class Refusals:
    """The log of one program's refusals. One code cannot hide another; the metrics count all refusals."""

    def __init__(self, logger: logging.Logger, event: str) -> None:
        self._log, self._event = logger, event
        self._of_code: dict[str, Seldom] = {}
        self._others = Seldom(logger)

    def add(self, code: str, **fields: object) -> None:
        """Log a refusal, unless one with the same code was logged within the last second."""
        if code not in self._of_code and len(self._of_code) < MAX_CODES:
            self._of_code[code] = Seldom(self._log)
        self._of_code.get(code, self._others).warning(self._event, code=code, **fields)
