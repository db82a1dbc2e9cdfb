"""A cache of leaves that the ledger's changes keep valid: the value of a leaf, or that there is none.

docs/spec/answers.md#changes specifies the changes.
"""

from typing import NamedTuple

from voice_dpki.names import Height


class HeldLeaf(NamedTuple):
    """What was proved of a leaf."""

    value: bytes | None
    """None if it was proved to be absent."""


class HeldLeaves:
    """Leaves by key that are valid at the newest known header. When it is full, the one used longest ago goes.

    The caller judges the header's age.
    """

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._held: dict[bytes, HeldLeaf] = {}
        self._height: Height | None = None

    def put(self, key: bytes, value: bytes | None, height: Height) -> None:
        """Hold what the header at `height` proves of a leaf, unless that is older than the newest known one.

        Which leaves have changed since an older header is not known.
        """
        if self._height is None or height < self._height:
            return
        self._held.pop(key, None)
        self._held[key] = HeldLeaf(value)
        if len(self._held) > self._max_entries:
            del self._held[next(iter(self._held))]

    def get(self, key: bytes) -> HeldLeaf | None:
        """Return what is held of a leaf, None if nothing is; it is then the last one to go."""
        held = self._held.pop(key, None)
        if held is not None:
            self._held[key] = held
        return held

    def advance(self, height: Height, changed: frozenset[bytes] | None) -> None:
        """Move to a newer header; `changed` are the verified keys of changed leaves, None if they are not known.

        A leaf that was proved by a header in between goes as well if it is among them.
        """
        self._height = height
        if changed is None:
            self._held.clear()
            return
        for key in changed & self._held.keys():
            del self._held[key]

    def clear(self) -> None:
        """Forget everything."""
        self._held.clear()
        self._height = None
