"""A memory of the tokens that were accepted, so that each is accepted once while it is fresh (RFC 8224 §12.1)."""

import hashlib
from collections import Counter

from voice_dpki.stir.passport import Passport


class ReplayCache:
    """A memory of at most `max_entries` keys, each for `retention_s`; it never drops one early to make room.

    A signer may hold one key more than there are free places. So one signer that floods takes half of the memory,
    two take a third each, and the room left for all others is about as large as each flooder's share. Each
    verification server has its own memory, which a restart empties.
    """

    __slots__ = ("_entries", "_held", "_max_entries", "_retention_s")

    def __init__(self, max_entries: int, retention_s: float) -> None:
        self._max_entries = max_entries
        self._retention_s = retention_s
        self._entries: dict[bytes, tuple[float, str]] = {}
        """Key to its expiry and its signer."""
        self._held: Counter[str] = Counter()
        """How many keys each signer holds."""

    def __len__(self) -> int:
        return len(self._entries)

    def seen(self, key: bytes, now_s: float) -> bool:
        """Tell whether `key` is remembered at `now_s`."""
        self._forget(now_s)
        return key in self._entries

    def full(self, now_s: float, signer: str = "") -> bool:
        """Tell whether there is room for no further key of `signer` at `now_s`."""
        self._forget(now_s)
        free = self._max_entries - len(self._entries)
        return free <= 0 or self._held[signer] > free

    def add(self, key: bytes, now_s: float, signer: str = "") -> None:
        """Remember a new `key` from `now_s` on; the caller must have checked `seen` and `full` first."""
        self._entries[key] = (now_s + self._retention_s, signer)
        self._held[signer] += 1

    def _forget(self, now_s: float) -> None:
        """Drop what has expired; all are kept equally long, so the oldest come first."""
        while self._entries:
            oldest = next(iter(self._entries))
            expiry_s, signer = self._entries[oldest]
            if expiry_s >= now_s:
                return
            del self._entries[oldest]
            self._held[signer] -= 1
            if not self._held[signer]:
                del self._held[signer]


def replay_key(passport: Passport) -> bytes:
    """Return the key of a token in the cache; another spelling of its signature has the same key.

    From an ECDSA signature (r, s) anyone can make (r, n - s), which verifies as well. So the key is the SHA-256 of
    the signed bytes and of r alone, not of the whole signature.
    """
    return hashlib.sha256(passport.signing_input + b"." + passport.signature[:32]).digest()
