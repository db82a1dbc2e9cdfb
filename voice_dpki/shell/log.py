"""Logs: one JSON object per line on standard error.

`logging.getLogger(__name__).info("call refused", extra={"fields": {"step": "E17"}})` gives the event and its
fields. Fields hold no token, no key and no number of a subscriber.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

from voice_dpki.metrics import counter
from voice_dpki.shell.current import current_call
from voice_dpki.shortfalls import SHORTFALLS

LOST = counter("log_lines_lost", "Log lines that could not be written.")

_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode
"""Made once: `json.dumps` would make an encoder for each line."""


class JsonFormatter(logging.Formatter):
    """A formatter that makes one JSON object of a record.

    Its members are time, level, service, logger, event, the Call-ID as `call` where one is worked on, and the
    fields.
    """

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line of JSON."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "event": record.getMessage(),
        }
        if call := current_call():
            line["call"] = call
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return _encode(line)


class LogHandler(logging.StreamHandler[TextIO]):
    """A handler that writes to standard error; it counts records that cannot be written, and goes on."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self._lost = 0
        SHORTFALLS.watch(self)

    def shortfall(self) -> str:
        """Return what people should know if the last line could not be written; otherwise an empty string."""
        return "the log cannot be written, and its lines are lost" if self._lost else ""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; after lost ones, add a line that says how many were lost."""
        lost, self._lost = self._lost, 0
        super().emit(record)
        if lost and not self._lost:
            text = f"{lost} lines could not be written to this log"
            super().emit(logging.LogRecord(__name__, logging.ERROR, __file__, 0, text, None, None))
        elif lost:
            self._lost += lost

    def handleError(self, record: logging.LogRecord) -> None:
        """Count a line that could not be written; an error in the record itself is printed as usual."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)
            return
        self._lost += 1
        LOST.inc()


def setup_logging(service: str, level: str = "INFO") -> None:
    """Send all logging of this process to standard error as JSON lines.

    Request lines of the HTTP libraries are left out, for they would reveal subscribers' numbers.
    """
    handler = LogHandler()
    handler.setFormatter(JsonFormatter(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
