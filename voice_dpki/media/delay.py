"""Transit times of packets, and the playout delay that just covers their variation.

A packet's transit is its arrival minus its timestamp, both in seconds: an unknown constant plus the delay in the
network. The smallest transits change only with the drift between both clocks, so playout follows a sender whose
clock is fast or slow. The largest transits show what the delay must cover. They count per interval, not per packet:
one stall delays dozens of packets, but is one event, which no acceptable delay would have covered.
"""

from bisect import bisect_left, insort
from collections import deque

INTERVAL_S = 0.1

MEMORY = 100
"""Most intervals that are kept: ten seconds of speech. An interval without packets is not counted."""

COVERED = 0.95
"""Share of the intervals whose slowest packet must be in time. Speech bears the loss in the rest."""

STALL_PROOF_S = 0.1
"""A later packet must be this much faster than the first one after a stall to show that the network delayed it."""

STALL_KNOWN_S = 2.0
"""Longest wait for such a packet, in seconds."""


class Transits:
    """Record of one stream's transits, and the offset from timestamp to playout that they require."""

    def __init__(self, transit_s: float, now_s: float, least_delay_s: float) -> None:
        """Begin with the first packet's transit. `least_delay_s` is the least playout delay of fast packets."""
        self._least_delay_s = least_delay_s
        self._fast, self._slow = _Newest(), _Newest()
        self.fastest_s = self._slowest = transit_s
        """Transit of the interval's fastest packet."""
        self._until_s = now_s + INTERVAL_S
        self.usual_s = transit_s
        """Transit of undelayed packets: the median of the intervals' fastest."""
        self.wanted_s = transit_s + least_delay_s
        """Seconds from a frame's timestamp until it should be played."""

    def add(self, transit_s: float, now_s: float) -> None:
        """Count a packet that arrived at `now_s`."""
        if now_s >= self._until_s:
            self._end_interval()
            self.fastest_s = self._slowest = transit_s
            self._until_s = now_s + INTERVAL_S
        elif transit_s < self.fastest_s:
            self.fastest_s = transit_s
        elif transit_s > self._slowest:
            self._slowest = transit_s

    def _end_interval(self) -> None:
        fast, slow = self._fast.add(self.fastest_s), self._slow.add(self._slowest)
        self.usual_s = fast[len(fast) // 2]
        self.wanted_s = max(self.usual_s + self._least_delay_s, slow[int(COVERED * (len(slow) - 1))])


class _Newest:
    """The newest MEMORY values, kept in order."""

    def __init__(self) -> None:
        self._values: deque[float] = deque()
        self._ordered: list[float] = []

    def add(self, value: float) -> list[float]:
        """Add a value, which replaces the oldest of MEMORY; returns all, the smallest first."""
        if len(self._values) == MEMORY:
            del self._ordered[bisect_left(self._ordered, self._values.popleft())]
        self._values.append(value)
        insort(self._ordered, value)
        return self._ordered


class Stall:
    """A packet later than any delay covers: either the network delayed it, or the sender's clock stood still.

    A sender may stop its clock on hold. Then the next packets take as long as this one, and nothing was missed.
    """

    def __init__(self, late_s: float, transit_s: float, now_s: float) -> None:
        self._late_s = late_s
        self._transit_s = transit_s
        self._until_s = now_s + STALL_KNOWN_S

    def paused_s(self, transit_s: float, now_s: float) -> float | None:
        """Return the pause in playout due to the stall, judged by a later packet's transit; None while unknown."""
        if now_s >= self._until_s:
            return 0.0
        return self._late_s if self._transit_s - transit_s > STALL_PROOF_S else None


class Jitter:
    """Interarrival jitter of one stream in ticks (RFC 3550 §6.4.1, appendix A.8)."""

    def __init__(self, clock_rate: int) -> None:
        self.ticks = 0.0
        self._rate = clock_rate
        self._last_s: float | None = None

    def add(self, transit_s: float) -> None:
        """Count a packet by its transit."""
        if self._last_s is not None:
            self.ticks += (self._rate * abs(transit_s - self._last_s) - self.ticks) / 16
        self._last_s = transit_s

    def forget(self) -> None:
        """Start anew with the next packet, whose timestamps are of another clock."""
        self._last_s = None
