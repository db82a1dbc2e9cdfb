"""Logs: one JSON object, or one line of text, per event on standard error.

`logging.getLogger(__name__).info("call refused", extra={"fields": {"step": "E17"}})` gives the event and its
fields. Fields hold no token, no key and no number of a subscriber.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Annotated, Literal, TextIO

from voice_dpki.metrics import counter
from voice_dpki.shell.config import Config
from voice_dpki.shell.current import current_call, current_request
from voice_dpki.shell.log_stream import ImpatientStream, log_stream
from voice_dpki.shell.reload import RELOADABLE
from voice_dpki.shortfalls import SHORTFALLS

LOST = counter("log_lines_lost", "Log lines that could not be written.")

_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode
"""Made once: `json.dumps` would make an encoder for each line."""


class LogConfig(Config, frozen=True, kw_only=True):
    """`[log]`: which lines are written to standard error, and how."""

    level: Annotated[Literal["debug", "info", "warning", "error"], RELOADABLE] = "info"
    form: Literal["json", "text"] = "json"
    """An object a line for programs, or text for people; both have the same members."""


class JsonFormatter(logging.Formatter):
    """A formatter that makes one JSON object of a record.

    Its members are time, level, service, logger, event, the Call-ID as `call` where one is worked on, the
    X-RequestID as `requestId` where a request is answered, and the fields.
    """

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line of JSON."""
        return _encode(self.members(record))

    def members(self, record: logging.LogRecord) -> dict[str, object]:
        """Return the members of the record's line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "event": record.getMessage(),
        }
        if call := current_call():
            line["call"] = call
        if request := current_request():
            line["requestId"] = request
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return line


class TextFormatter(JsonFormatter):
    """A formatter for people: time, level, service and event in one line, with the other members as key=value."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line; values are written as JSON, so that none of them can begin another line."""
        members = self.members(record)
        time, level, service, _, event = (str(members.pop(name)) for name in _FIRST)
        told = "".join(f" {name}={_encode(value)}" for name, value in members.items())
        return f"{time} {level.upper():7} {service}: {_encode(event)[1:-1]}{told}"


_FIRST = ("time", "level", "service", "logger", "event")


class LogHandler(logging.StreamHandler[TextIO | ImpatientStream]):
    """A handler that writes to standard error; it counts records that cannot be written in time, and goes on."""

    def __init__(self) -> None:
        super().__init__(log_stream())
        self._lost = 0
        SHORTFALLS.watch(self)

    def shortfall(self) -> str:
        """Return a warning if the last line could not be written; otherwise an empty string."""
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


def setup_logging(service: str, config: LogConfig = LogConfig()) -> None:  # noqa: B008 - it is frozen
    """Send all logging of this process to standard error, as configured.

    Request lines of the HTTP libraries are left out, because they would reveal subscribers' numbers.
    """
    handler = LogHandler()
    handler.setFormatter(TextFormatter(service) if config.form == "text" else JsonFormatter(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(config)
    for noisy in ("httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def set_level(config: LogConfig) -> None:
    """Have this process write the lines of the configured level and above from now on."""
    logging.getLogger().setLevel(config.level.upper())
