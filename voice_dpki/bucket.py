"""A token bucket: how much somebody can use at once, and how fast that comes back."""

import math


class Bucket:
    """Units that are used at some cost, and come back with time; a new bucket is full."""

    __slots__ = ("_at_s", "_left", "_most", "_per_s")

    def __init__(self, most: float, per_s: float) -> None:
        """Hold `most` units, of which `per_s` come back each second; both are above 0."""
        self._most = most
        self._per_s = per_s
        self._left = most
        self._at_s = -math.inf

    def take(self, now_s: float, cost: float = 1.0) -> float:
        """Use `cost` units and return 0, or use none and return the seconds until that many are there.

        `now_s` is a time of a monotonic clock. A cost above half of the bucket needs only half of it, and the rest
        becomes a debt. So everything can be had now and then, whatever it costs.
        """
        self._left = min(self._left + (now_s - self._at_s) * self._per_s, self._most)
        self._at_s = now_s
        if self._left < min(cost, self._most / 2):
            return (cost - self._left) / self._per_s
        self._left -= cost
        return 0.0
