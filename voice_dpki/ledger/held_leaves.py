"""A cache of proved leaves, present or absent, which the ledger's changes keep valid.

docs/spec/answers.md#changes specifies the changes.
"""

from typing import NamedTuple

from voice_dpki.names import Height


class HeldLeaf(NamedTuple):
    """A leaf as it was proved."""

    value: bytes | None
    """None if it was proved to be absent."""


class HeldLeaves:
    """Leaves by key that are valid at the newest known header.

    When the cache is full, the least recently used leaf is dropped. The caller judges the header's age.
    """

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._held: dict[bytes, HeldLeaf] = {}
        self._height: Height | None = None

    def put(self, key: bytes, value: bytes | None, height: Height) -> None:
        """Hold a leaf as the header at `height` proves it (None = absent), unless a newer header is known.

        The changes since an older header are not known.
        """
        if self._height is None or height < self._height:
            return
        self._held.pop(key, None)
        self._held[key] = HeldLeaf(value)
        if len(self._held) > self._max_entries:
            del self._held[next(iter(self._held))]

    def get(self, key: bytes) -> HeldLeaf | None:
        """Return a held leaf, after making it the most recently used one; None if it is not held."""
        held = self._held.pop(key, None)
        if held is not None:
            self._held[key] = held
        return held

    def advance(self, height: Height, changed: frozenset[bytes] | None) -> None:
        """Move to a newer header; `changed` are the verified keys of changed leaves, None if they are not known.

        A changed leaf is dropped even if a header in between proved it, because it may have changed after that.
        """
        self._height = height
        if changed is None:
            self._held.clear()
            return
        for key in changed & self._held.keys():
            del self._held[key]

    def clear(self) -> None:
        """Forget all leaves, and the height."""
        self._held.clear()
        self._height = None
