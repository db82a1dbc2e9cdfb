"""Programs as processes: started with their own configuration, waited for, and stopped.

Each writes a trace file, which tells when it listens and what it did; its log (standard error) is kept beside.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from voice_dpki.errors import LocalError, MalformedError

START_TIMEOUT_S = 20.0
"""A program that does not listen by then has failed."""

STOP_TIMEOUT_S = 5.0
"""From SIGTERM to SIGKILL."""

_POLL_S = 0.01
_LOG_TAIL_BYTES = 2000

_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
"""One small process each: no arenas for threads that are not there."""

Event: TypeAlias = Mapping[str, Any]
"""A trace event: `t` (seconds since the Unix epoch), `actor`, `kind`, and what its kind has."""


class ProcessError(LocalError):
    """A program did not start, ended too early or did not finish in time."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to run: a module with its arguments, and the files that tell about it."""

    actor: str
    module: str
    arguments: tuple[str, ...]
    trace: Path
    log: Path


class Running:
    """A program that was started; stop it in any case."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.events: list[Event] = []
        self._position = 0
        for path in (program.trace, program.log):
            path.parent.mkdir(parents=True, exist_ok=True)
        with program.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-m", program.module, *program.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | _ENVIRONMENT,
            )

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Exit status, or None while it runs."""
        return self._process.poll()

    def poll(self) -> None:
        """Read what was traced since the last time."""
        try:
            with self.program.trace.open("rb") as file:
                file.seek(self._position)
                data = file.read()
        except FileNotFoundError:
            return
        complete = data[: data.rfind(b"\n") + 1]
        self._position += len(complete)
        self.events += [_parse(line) for line in complete.splitlines()]

    def wait_for(self, wanted: Callable[[Event], bool], what: str, timeout_s: float = START_TIMEOUT_S) -> Event:
        """Wait for a `wanted` event, also among those already read; raises ProcessError."""
        deadline, seen = time.monotonic() + timeout_s, 0
        while True:
            status = self.status  # before the trace is read: nothing can be written after the end
            self.poll()
            for event in self.events[seen:]:
                if wanted(event):
                    return event
            seen = len(self.events)
            if status is not None:
                raise self._failure(f"ended with status {status} before it could {what}")
            if time.monotonic() > deadline:
                raise self._failure(f"did not {what} within {timeout_s:g} s")
            time.sleep(_POLL_S)

    def wait_ready(self) -> Event:
        """Wait until the program listens."""
        return self.wait_for(lambda event: event["kind"] == "ready", "listen")

    def wait_end(self, timeout_s: float) -> int:
        """Wait until the program ends by itself; returns its exit status."""
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise self._failure(f"did not finish within {timeout_s:g} s") from None
        self.poll()
        return status

    def _failure(self, what: str) -> ProcessError:
        with self.program.log.open("rb") as log:
            log.seek(max(self.program.log.stat().st_size - _LOG_TAIL_BYTES, 0))
            tail = log.read().decode("utf-8", "replace").strip()
        return ProcessError(f"{self.program.actor} {what}; its log {self.program.log} ends with:\n{tail}")

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.status is None:
            self._process.send_signal(number)

    def ended_by(self, deadline: float) -> bool:
        """Wait for the end until a monotonic time."""
        try:
            self._process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            return False
        return True


def stop_all(running: Iterable[Running]) -> None:
    """End programs together: SIGTERM, and SIGKILL to those that do not listen."""
    processes = list(running)
    for process in processes:
        process.send(signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    for process in processes:
        if not process.ended_by(deadline):
            process.send(signal.SIGKILL)
            process.ended_by(time.monotonic() + STOP_TIMEOUT_S)
        process.poll()


def _parse(line: bytes) -> Event:
    try:
        event = dict(json.loads(line))
        float(event["t"])
    except (ValueError, KeyError, TypeError):
        raise MalformedError("trace: a line is not an event") from None
    if not isinstance(event.get("actor"), str) or not isinstance(event.get("kind"), str):
        raise MalformedError("trace: an event has no actor or no kind")
    return event
