"""Shortfalls that a service can run with, such as a list that a full disk cannot hold: notes shown at /healthz."""

from typing import Protocol
from weakref import WeakSet


class ShortfallSource(Protocol):
    """An object that can keep running while it lacks something."""

    def shortfall(self) -> str:
        """Return in one sentence, without file names, what is lacking now; empty if nothing is."""
        ...


class Shortfalls:
    """The shortfalls of all sources that are still in use."""

    def __init__(self) -> None:
        self._sources: WeakSet[ShortfallSource] = WeakSet()

    def watch(self, source: ShortfallSource) -> None:
        """Include `source` until nothing else refers to it."""
        self._sources.add(source)

    def notes(self) -> list[str]:
        """Return the sources' sentences, sorted and without duplicates."""
        return sorted({source.shortfall() for source in list(self._sources)} - {""})


SHORTFALLS = Shortfalls()
"""The shortfalls of this process."""
