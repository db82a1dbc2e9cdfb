"""How long to wait for programs: for as long as they get on, and a little beyond.

On a busy machine a program may take a minute to start, and a fixed limit would fail it for its neighbours' work. So
what counts is whether it gets on: it uses the processor or queues for it, waits for the disk, or writes something.
"""
# ruff: noqa: TID251 - this is a shell: it measures how long it waits

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

STALLED_S = 20.0
"""A program that does nothing for so long will not do it any more."""

_AT_MOST = 15
"""So many times longer than it may stand still, a program may take in all: one that runs in circles is given up."""

_LOOK_S = 0.5
_BUSY = 0.05
"""Share of the time that a program must be at work, or queue for it, to get on; an idle service is below."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A process with those that it started, and the files that it writes."""

    pid: int
    files: tuple[Path, ...]

    def busy_s(self) -> float:
        """Seconds that these processes have used a processor, or have queued for one."""
        return sum(_busy_s(pid) for pid in (self.pid, *children(self.pid)))

    def written(self) -> int:
        """Bytes in the files."""
        return sum(path.stat().st_size for path in self.files if path.exists())

    def waits_for_disk(self) -> bool:
        """Whether the process is in uninterruptible sleep."""
        return _stat(self.pid)[:1] == ["D"]


class Patience:
    """Waits for some of `watched` to get on; make one when the wait begins."""

    def __init__(self, watched: Iterable[Watched], stalled_s: float = STALLED_S) -> None:
        """`stalled_s`: for how long none of them need get on."""
        self._watched = tuple(watched)
        self._stalled_s = stalled_s
        self._began_s = self._looked_s = self._got_on_s = time.monotonic()
        self._look_s = min(_LOOK_S, stalled_s / 4)
        self._busy_s, self._written = self._state()

    def exhausted(self) -> str | None:
        """Say why it is no use to wait any longer, or None; to be asked again and again."""
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
    """Return the processes that a process has started, none if it is gone."""
    try:
        return tuple(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()))
    except OSError:
        return ()


def _busy_s(pid: int) -> float:
    """Of the process's main thread; where the kernel does not count queueing, of the whole process without it."""
    try:
        running, queueing, *_ = Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()
        return (int(running) + int(queueing)) / 1e9
    except (OSError, ValueError):
        fields = _stat(pid)
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """Return the fields of proc_pid_stat(5) from the third on, the state; none if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
