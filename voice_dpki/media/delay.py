"""How long packets take, and from that the delay that playout needs: enough for what varies, and no more.

A packet's transit is its arrival minus its timestamp, both in seconds: an unknown constant plus what the network
added. Its smallest values move only with the difference of both clocks, so a sender whose clock runs fast or slow
is followed. Its largest values tell what the delay must cover. They are taken by interval and not by packet: one
stall delays dozens of packets, and is still one event, which no delay worth having would have covered.
"""

from collections import deque

INTERVAL_S = 0.1

MEMORY = 100
"""Most intervals that are remembered: ten seconds of speech. Pauses of the sender make it longer."""

COVERED = 0.95
"""Share of the intervals whose slowest packet must be in time. Speech bears the loss in the rest."""


class Transits:
    """Record of one stream's transits, and the offset from timestamp to playout that they ask for."""

    def __init__(self, transit_s: float, now_s: float, least_delay_s: float) -> None:
        """Begin with the first packet's transit; playout stays at least `least_delay_s` behind the fast packets."""
        self._least_delay_s = least_delay_s
        self._fast: deque[float] = deque(maxlen=MEMORY)
        self._slow: deque[float] = deque(maxlen=MEMORY)
        self._fastest = self._slowest = transit_s
        self._until_s = now_s + INTERVAL_S
        self.usual_s = transit_s
        """Transit of packets that nothing delayed: the median of the intervals' fastest."""
        self.wanted_s = transit_s + least_delay_s
        """Seconds from a frame's timestamp until it should be played."""

    def add(self, transit_s: float, now_s: float) -> None:
        """Count a packet that arrived at `now_s`."""
        if now_s >= self._until_s:
            self._end_interval()
            self._fastest = self._slowest = transit_s
            self._until_s = now_s + INTERVAL_S
        self._fastest = min(self._fastest, transit_s)
        self._slowest = max(self._slowest, transit_s)

    def _end_interval(self) -> None:
        self._fast.append(self._fastest)
        self._slow.append(self._slowest)
        self.usual_s = sorted(self._fast)[len(self._fast) // 2]
        slow = sorted(self._slow)[int(COVERED * (len(self._slow) - 1))]
        self.wanted_s = max(self.usual_s + self._least_delay_s, slow)
