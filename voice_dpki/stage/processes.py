"""Programs as processes: started with their own configuration, waited for, measured, and stopped.

Every service of a testbed is a process that could also be started by hand. Its trace file tells when it listens and
what it did; standard output and error go to its log file.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from voice_dpki.errors import LocalError
from voice_dpki.shell.interrupts import uninterrupted
from voice_dpki.shell.tether import tied_module
from voice_dpki.stage.events import COMMON_KINDS, Event, Kinds, ReadyEvent, parse_lines
from voice_dpki.stage.patience import STALLED_S, Patience, Watched, children

STOP_TIMEOUT_S = 5.0
"""From SIGTERM to SIGKILL."""

_POLL_S = 0.01
_LOG_TAIL_BYTES = 2000

SMALL: Mapping[str, str] = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
"""Environment that keeps a process small: numpy needs no threads, and malloc no arenas for them."""


class ProcessError(LocalError):
    """A program did not start, ended too early or did not finish in time."""


class TraceReader:
    """A reader of a trace file that its program is still writing, if it writes one; the events are of `kinds`."""

    def __init__(self, path: Path | None, kinds: Kinds = COMMON_KINDS) -> None:
        self._path = path
        self._kinds = kinds
        self._position = 0
        self.events: list[Event] = []

    def poll(self) -> list[Event]:
        """Read the events since the last call, add them to `events` and return them; raises MalformedError."""
        if self._path is None:
            return []
        try:
            with self._path.open("rb") as file:
                file.seek(self._position)
                data = file.read()
        except FileNotFoundError:
            return []
        complete = data[: data.rfind(b"\n") + 1]
        self._position += len(complete)
        new = parse_lines(complete, self._kinds)
        self.events += new
        return new


@dataclass(frozen=True, slots=True)
class Program:
    """What to run: a module with its arguments, and the files for its trace and its log.

    The command begins with `within`, such as `ip netns exec NAME`. `writes` are more files whose growth shows that
    the program makes progress. `environment` is added to this process's own.
    """

    actor: str
    module: str
    arguments: tuple[str, ...]
    trace: Path | None
    log: Path
    within: tuple[str, ...] = ()
    writes: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=lambda: SMALL)

    @property
    def command(self) -> list[str]:
        """The command, which ends with this process (`voice_dpki.shell.tether`)."""
        return [*self.within, *tied_module(self.module, self.arguments)]


class Running:
    """A program that was started; use it as a context manager, or stop it. Its trace has events of `kinds`.

    It is killed when the thread that started it ends (`voice_dpki.shell.tether`).
    """

    def __init__(self, program: Program, kinds: Kinds = COMMON_KINDS) -> None:
        self.program = program
        self.trace = TraceReader(program.trace, kinds)
        for path in filter(None, (program.trace, program.log)):
            path.parent.mkdir(parents=True, exist_ok=True)
        with program.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                program.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | dict(program.environment),
                process_group=0,  # Ctrl-C at a terminal is for this process, which then stops its programs
            )

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Exit status, or None while the program is running."""
        return self._process.poll()

    @property
    def watched(self) -> Watched:
        """The process and the files that show whether the program makes progress."""
        program = self.program
        return Watched(self.pid, tuple(filter(None, (program.trace, program.log, *program.writes))))

    def check_running(self) -> None:
        """Raise ProcessError, with the end of the log, if the program has ended."""
        if (status := self.status) is not None:
            self.trace.poll()
            raise self._failure(f"ended with status {status}, and is still needed")

    def wait_ready(self, stalled_s: float = STALLED_S, beside: Iterable["Running"] = ()) -> ReadyEvent:
        """Wait until the program listens.

        Raises ProcessError if it ends first, or if it and those that start `beside` it make no progress for
        `stalled_s`.
        """
        ready = self.wait_for(lambda event: isinstance(event, ReadyEvent), "listen", stalled_s, beside)
        assert isinstance(ready, ReadyEvent)
        return ready

    def wait_for(
        self, wanted: Callable[[Event], bool], what: str, stalled_s: float, beside: Iterable["Running"] = ()
    ) -> Event:
        """Wait for a `wanted` event, which may have been read before; raises as `wait_ready` does."""
        patience = self._patience(stalled_s, beside)
        seen = 0
        while True:
            status = self.status  # before the trace is read: nothing can be written after the end
            self.trace.poll()
            for event in self.trace.events[seen:]:
                if wanted(event):
                    return event
            seen = len(self.trace.events)
            if status is not None:
                raise self._failure(f"ended with status {status} before it could {what}")
            if why := patience.exhausted():
                raise self._failure(f"did not {what}: {why}")
            time.sleep(_POLL_S)

    def wait_open(self, host: str, port: int, beside: Iterable["Running"] = ()) -> None:
        """Wait until the program accepts connections at an address, which may be before it is ready.

        Raises ProcessError as `wait_ready` does.
        """
        patience = self._patience(STALLED_S, beside)
        while not _is_open(host, port):
            if self.status is not None:
                raise self._failure(f"ended with status {self.status} before it could listen")
            if why := patience.exhausted():
                raise self._failure(f"did not listen: {why}")
            time.sleep(_POLL_S)

    def wait_end(self, stalled_s: float) -> int:
        """Wait until the program ends by itself, and return its exit status; raises ProcessError if it stalls."""
        patience = self._patience(stalled_s, ())
        while (status := self.status) is None:
            if why := patience.exhausted():
                raise self._failure(f"did not finish: {why}")
            time.sleep(_POLL_S)
        self.trace.poll()
        return status

    def _patience(self, stalled_s: float, beside: Iterable["Running"]) -> Patience:
        return Patience([self.watched, *(each.watched for each in beside)], stalled_s)

    def pss_mb(self) -> float:
        """Return the proportional set size in MB of 10^6 bytes: its own memory and its share of shared memory."""
        return memory_mb(self.pid)

    def children_pss_mb(self) -> float:
        """Return the proportional set size of the program's children together, in MB of 10^6 bytes."""
        return round(sum(map(memory_mb, children(self.pid))), 1)

    def send(self, number: signal.Signals) -> None:
        """Send the program a signal, unless it has ended."""
        if self.status is None:
            self._process.send_signal(number)

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of the program and its children; its own alone if it has ended."""
        return (self.pid, *children(self.pid))

    def stop(self) -> None:
        """End the program: SIGTERM, and SIGKILL if it does not end within STOP_TIMEOUT_S."""
        stop_all([self])

    def kill(self) -> None:
        """Kill the program and its children, and wait until the program has ended."""
        for pid in self.pids if self.status is None else ():
            with suppress(ProcessLookupError):  # the children end with the program
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def _failure(self, what: str) -> ProcessError:
        with self.program.log.open("rb") as log:
            log.seek(max(self.program.log.stat().st_size - _LOG_TAIL_BYTES, 0))
            tail = log.read().decode("utf-8", "replace").strip()
        logged = f"ends with:\n{tail}" if tail else "is empty"
        last = self.trace.events[-1] if self.trace.events else None
        traced = f"the last that it traced is {type(last).__name__}" if last else "it traced nothing"
        traced = traced if self.program.trace else ""
        used = f"it was at work for {self.watched.busy_s():.1f} s" if self.status is None else ""
        seen = ", ".join(filter(None, (used, traced)))
        known = f" ({seen})" if seen else ""
        return ProcessError(f"{self.program.actor} {what}{known}; its log {self.program.log} {logged}")

    def _ended_by(self, deadline: float) -> bool:
        try:
            self._process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            return False
        return True


def stop_all(running: Iterable[Running], timeout_s: float = STOP_TIMEOUT_S) -> None:
    """End programs at the same time, so that it takes as long as the slowest of them, and not their sum.

    Those that do not end within `timeout_s` of SIGTERM are killed. Ctrl-C is deferred until that is done.
    """
    with uninterrupted():
        _stop_all(list(running), timeout_s)


def _stop_all(processes: Sequence[Running], timeout_s: float) -> None:
    for process in processes:
        process.send(signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    for process in processes:
        if not process._ended_by(deadline):
            process.send(signal.SIGKILL)
            process._ended_by(time.monotonic() + STOP_TIMEOUT_S)
        process.trace.poll()


def _is_open(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        return probe.connect_ex((host, port)) == 0


def require(program: str, install: str) -> None:
    """Check that a program is beside this Python or on the PATH; raises LocalError with how to `install` it."""
    if not (Path(sys.executable).with_name(program).exists() or shutil.which(program)):
        raise LocalError(f"{program} is not installed; install it: {install}")


def memory_mb(pid: int, kind: str = "Pss") -> float:
    """Return one sum of a process's `smaps_rollup` (proc(5)), in MB of 10^6 bytes; 0 if the process has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0.0
    kib = next((int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{kind}:")), 0)
    return round(kib * 1024 / 1e6, 1)
