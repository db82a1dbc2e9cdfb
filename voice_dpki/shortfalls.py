"""What a service goes on without, such as a list that a full disk does not take: notes for people at /healthz."""

from typing import Protocol
from weakref import WeakSet


class ShortfallSource(Protocol):
    """Somebody who can lack something and go on."""

    def shortfall(self) -> str:
        """Say in a sentence, without names of files, what is lacking now; empty where nothing is."""
        ...


class Shortfalls:
    """Asks all that can tell, as long as they are in use."""

    def __init__(self) -> None:
        self._sources: WeakSet[ShortfallSource] = WeakSet()

    def watch(self, source: ShortfallSource) -> None:
        """Ask `source` too from now on, until nobody else uses it."""
        self._sources.add(source)

    def notes(self) -> list[str]:
        """Return the sentences, each once."""
        return sorted({source.shortfall() for source in list(self._sources)} - {""})


SHORTFALLS = Shortfalls()
"""The process's."""
