"""Room that many sources share, so that none of them can take it all."""

from typing import Final

EAGERNESS: Final = 2
"""A source may hold this many times what is free: alone two thirds, and of many each the same."""
PLACE_BYTES: Final = 2_048
"""What one place is for: a transaction with a message of common size."""


def cost_of(size: int) -> int:
    """Return how many places a message of `size` bytes takes while it is kept."""
    return 1 + size // PLACE_BYTES


class Shares:
    """Counts what each source holds of `most` places.

    The bound for each follows what is left (dynamic thresholds, as switches share their buffers): there is always
    some room for a source that holds nothing. The source "" is ourselves, who may take all.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[str, int] = {}
        self.in_use = 0

    def admits(self, source: str, cost: int) -> bool:
        """Tell whether `source` may take `cost` places more."""
        free = self._most - self.in_use
        return cost <= free and (not source or self._held.get(source, 0) < EAGERNESS * free)

    def take(self, source: str, cost: int) -> None:
        """Note that `source` takes places."""
        self.in_use += cost
        self._held[source] = self._held.get(source, 0) + cost

    def give_back(self, source: str, cost: int) -> None:
        """Note that `source` has so many places less."""
        self.in_use -= cost
        left = self._held.get(source, 0) - cost
        if left > 0:
            self._held[source] = left
        else:
            self._held.pop(source, None)
