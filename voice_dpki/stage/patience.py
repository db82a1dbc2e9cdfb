"""How long to wait for programs: as long as they make progress, and a little longer.

On a busy machine a program may take a minute to start, and with a fixed timeout it would fail because of other
programs' work. So only progress counts: the program uses the processor or queues for it, waits for the disk, or
writes something.
"""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

STALLED_S = 20.0
"""A program without progress for this long has stalled, and is no longer waited for."""

_AT_MOST = 15
"""Longest wait in all, in multiples of the stall timeout: a program that loops forever is given up."""

_LOOK_S = 0.5
_BUSY = 0.05
"""Share of the time that a program must run, or queue to run, to count as progress; an idle service has less."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A process, with its children, and the files that it writes."""

    pid: int
    files: tuple[Path, ...]

    def busy_s(self) -> float:
        """Seconds for which these processes have used a processor or queued for one."""
        return sum(_busy_s(pid) for pid in (self.pid, *children(self.pid)))

    def written(self) -> int:
        """Total size of the files, in bytes."""
        return sum(path.stat().st_size for path in self.files if path.exists())

    def waits_for_disk(self) -> bool:
        """Whether the process is in uninterruptible sleep."""
        return _stat(self.pid)[:1] == ["D"]


class Patience:
    """One wait, which goes on while some of `watched` make progress; make it when the wait begins."""

    def __init__(self, watched: Iterable[Watched], stalled_s: float = STALLED_S) -> None:
        """Begin the wait; `stalled_s` is how long none of them need make progress."""
        self._watched = tuple(watched)
        self._stalled_s = stalled_s
        self._began_s = self._looked_s = self._got_on_s = time.monotonic()
        self._look_s = min(_LOOK_S, stalled_s / 4)
        self._busy_s, self._written = self._state()

    def exhausted(self) -> str | None:
        """Return why it is useless to wait any longer, or None. Call this repeatedly during the wait."""
        now_s = time.monotonic()
        if now_s - self._looked_s >= self._look_s:
            self._look(now_s)
        if now_s - self._got_on_s > self._stalled_s:
            return f"nothing has happened for {self._stalled_s:g} s"
        if now_s - self._began_s > _AT_MOST * self._stalled_s:
            return f"it has been at work for {now_s - self._began_s:.0f} s"
        return None

    def _look(self, now_s: float) -> None:
        busy_s, written = self._state()
        worked = busy_s - self._busy_s > _BUSY * (now_s - self._looked_s)
        if worked or written != self._written or any(each.waits_for_disk() for each in self._watched):
            self._got_on_s = now_s
        self._looked_s, self._busy_s, self._written = now_s, busy_s, written

    def _state(self) -> tuple[float, int]:
        return sum(each.busy_s() for each in self._watched), sum(each.written() for each in self._watched)


def children(pid: int) -> tuple[int, ...]:
    """Return the children of a process; empty if it is gone."""
    try:
        return tuple(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()))
    except OSError:
        return ()


def _busy_s(pid: int) -> float:
    """Return the seconds for which a process's main thread ran or queued for a processor.

    If the kernel does not count queueing, return the running time of the whole process.
    """
    try:
        running, queueing, *_ = Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()
        return (int(running) + int(queueing)) / 1e9
    except (OSError, ValueError):
        fields = _stat(pid)
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """Return the fields of proc_pid_stat(5) from the third, the state; empty if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
