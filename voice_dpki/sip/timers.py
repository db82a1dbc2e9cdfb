"""The timers of many transactions in one queue, which does not grow when timers are postponed or dropped."""

import heapq
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from voice_dpki.sip.events import TransactionKey
from voice_dpki.sip.machines import Input

_STALE: Final = 4_096
"""Most entries of ended transactions in the queue, or half of it if that is more; then they are removed."""


@dataclass(slots=True, eq=False)
class TimersOf:
    """The timers of one transaction: when each is due, by the input that it gives to the state machine."""

    key: TransactionKey
    due_s: dict[Input, float] = field(default_factory=dict)
    queued_s: dict[Input, float] = field(default_factory=dict)
    """Time of each timer's entry in the queue, which is never later than the timer is due."""
    is_over: bool = False

    def __contains__(self, name: object) -> bool:
        return name in self.due_s

    def stop(self) -> None:
        """Stop all timers."""
        self.due_s.clear()


@dataclass(frozen=True, slots=True)
class Due:
    """A timer that is due."""

    key: TransactionKey
    name: Input


class TimerQueue:
    """The queue of all timers; times are seconds of the transaction layer's clock."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, TimersOf, Input]] = []
        self._order = count()
        self._stale = 0

    def __len__(self) -> int:
        return len(self._entries)

    def arm(self, timers: TimersOf, name: Input, due_s: float) -> None:
        """Start or restart a timer. A postponed timer keeps its one entry, however often it is postponed."""
        timers.due_s[name] = due_s
        queued_s = timers.queued_s.get(name)
        if queued_s is None or queued_s > due_s:
            self._push(timers, name, due_s)

    def drop(self, timers: TimersOf) -> None:
        """Forget the timers of a transaction that is over."""
        timers.stop()
        timers.is_over = True
        self._stale += len(timers.queued_s)
        if self._stale > max(_STALE, len(self._entries) // 2):
            self._entries = [entry for entry in self._entries if not entry[2].is_over]
            heapq.heapify(self._entries)
            self._stale = 0

    def next_s(self) -> float | None:
        """Return when the next timer is due, or None."""
        while self._entries:
            at_s, _, timers, name = self._entries[0]
            wanted_s = timers.due_s.get(name) if timers.queued_s.get(name) == at_s else None
            if wanted_s == at_s:
                return at_s
            self._pop()
            if wanted_s is not None:
                self._push(timers, name, wanted_s)
        return None

    def pop(self, now_s: float) -> Due | None:
        """Remove and return a timer that is due at `now_s`, or return None."""
        due_s = self.next_s()
        if due_s is None or due_s > now_s:
            return None
        timers, name = self._pop()
        del timers.due_s[name]
        return Due(timers.key, name)

    def _push(self, timers: TimersOf, name: Input, at_s: float) -> None:
        timers.queued_s[name] = at_s
        heapq.heappush(self._entries, (at_s, next(self._order), timers, name))

    def _pop(self) -> tuple[TimersOf, Input]:
        at_s, _, timers, name = heapq.heappop(self._entries)
        if timers.is_over:
            self._stale = max(self._stale - 1, 0)
        if timers.queued_s.get(name) == at_s:
            del timers.queued_s[name]
        return timers, name
