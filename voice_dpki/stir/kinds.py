"""The kinds of PASSporT that are signed and verified here; a new one is a module like `shaken`, and a row here."""

from collections.abc import Iterator
from typing import Any, Final

from voice_dpki.errors import PeerError
from voice_dpki.stir.kind import Kind
from voice_dpki.stir.shaken import SHAKEN


class UnknownKindError(PeerError):
    """There is no such kind here; the message goes on after "ppt"."""


class Kinds:
    """A table of kinds by ppt."""

    __slots__ = ("_by_ppt",)

    def __init__(self, *kinds: Kind[Any]) -> None:
        self._by_ppt = {kind.ppt: kind for kind in kinds}

    def named(self, ppt: str) -> Kind[Any]:
        """Return the kind of this very name; raises UnknownKindError."""
        if ppt not in self._by_ppt:
            raise UnknownKindError(f"is {self._no_other()} supported")
        return self._by_ppt[ppt]

    def __iter__(self) -> Iterator[Kind[Any]]:
        return iter(self._by_ppt.values())

    def __str__(self) -> str:
        return " and ".join(sorted(self._by_ppt))

    def _no_other(self) -> str:
        if len(self._by_ppt) == 1:
            return f"not {self}, which alone is"
        return f"none of {self}, which alone are"


KINDS: Final = Kinds(SHAKEN)
