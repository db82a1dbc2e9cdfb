"""The kinds of PASSporT that are signed and verified here; a new one is a module like `shaken`, and a row here."""

from collections.abc import Iterator
from typing import Any, Final

from voice_dpki.errors import MalformedError, PeerError
from voice_dpki.names import ascii_lower
from voice_dpki.stir.base import BASE
from voice_dpki.stir.div import DIV
from voice_dpki.stir.div_o import DIV_O
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.kind import Kind
from voice_dpki.stir.rcd import RCD
from voice_dpki.stir.rph import RPH
from voice_dpki.stir.rsp import RSP
from voice_dpki.stir.shaken import SHAKEN


class UnknownKindError(PeerError):
    """The kind is not supported; the message continues a sentence whose subject is "ppt"."""


class Kinds:
    """The supported kinds by ppt; `base` is the kind without a ppt, None if it is not supported."""

    __slots__ = ("_by_ppt", "base")

    def __init__(self, *kinds: Kind[Any], base: Kind[Any] | None = None) -> None:
        self._by_ppt = {kind.ppt: kind for kind in kinds}
        self.base = base

    def without_base(self) -> "Kinds":
        """Return the kinds that have a ppt."""
        return Kinds(*self)

    def of(self, ppt: str) -> Kind[Any]:
        """Return the kind of a ppt, for "" the base kind; raises UnknownKindError."""
        return self.base if self.base is not None and not ppt else self.named(ppt)

    def named(self, ppt: str) -> Kind[Any]:
        """Return the kind of a ppt, never the base kind; raises UnknownKindError."""
        if ppt not in self._by_ppt:
            raise UnknownKindError(f"is {self._no_other()} supported")
        return self._by_ppt[ppt]

    def __iter__(self) -> Iterator[Kind[Any]]:
        return iter(self._by_ppt.values())

    def __str__(self) -> str:
        *others, last = sorted(self._by_ppt)
        return f"{', '.join(others)} and {last}" if others else last

    def may_prove_caller(self, identity: str) -> bool:
        """Tell whether an Identity can be meant to prove the caller, as one that is malformed or has no ppt can."""
        try:
            ppt = IdentityHeader.parse(identity).ppt
            return ppt is None or self.named(ascii_lower(ppt)).proves_caller
        except MalformedError:
            return True
        except UnknownKindError:
            return False

    def _no_other(self) -> str:
        if len(self._by_ppt) == 1:
            return f"not {self}, which alone is"
        return f"none of {self}, which alone are"


KINDS: Final = Kinds(SHAKEN, DIV, DIV_O, RPH, RCD, RSP, base=BASE)
