"""Room that many sources share, divided so that no source can take all of it."""

from typing import Final

EAGERNESS: Final = 2
"""A source may hold this many times the free room: two thirds of all if it is alone, equal shares among many."""
PLACE_BYTES: Final = 2_048
"""Size of one place: enough for a transaction with a message of common size."""


def cost_of(size: int) -> int:
    """Return how many places a message of `size` bytes takes."""
    return 1 + size // PLACE_BYTES


class Shares:
    """Count of the places that each source holds, of `most` in total.

    Each source's bound depends on the free room (dynamic thresholds, as switches share their buffers), so there is
    always some room for a source that holds nothing. The source "" is this element itself, which may take all.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[str, int] = {}
        self.in_use = 0

    def admits(self, source: str, cost: int) -> bool:
        """Return whether `source` may take `cost` more places."""
        free = self._most - self.in_use
        return cost <= free and (not source or self._held.get(source, 0) < EAGERNESS * free)

    def take(self, source: str, cost: int) -> None:
        """Record that `source` takes `cost` places."""
        self.in_use += cost
        self._held[source] = self._held.get(source, 0) + cost

    def give_back(self, source: str, cost: int) -> None:
        """Record that `source` gives back `cost` places."""
        self.in_use -= cost
        left = self._held.get(source, 0) - cost
        if left > 0:
            self._held[source] = left
        else:
            self._held.pop(source, None)
