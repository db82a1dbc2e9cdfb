"""A memory of the tokens that were accepted, so that each is accepted once while it is fresh (RFC 8224 §12.1)."""

import hashlib

from voice_dpki.stir.passport import Passport


class ReplayCache:
    """Remembers keys for `retention_s`, at most `max_entries` of them; it never forgets early to make room.

    One verification server has one; it is kept in memory, so a restart forgets.
    """

    __slots__ = ("_expiry_s", "_max_entries", "_retention_s")

    def __init__(self, max_entries: int, retention_s: float) -> None:
        self._max_entries = max_entries
        self._retention_s = retention_s
        self._expiry_s: dict[bytes, float] = {}

    def __len__(self) -> int:
        return len(self._expiry_s)

    def seen(self, key: bytes, now_s: float) -> bool:
        """Tell whether `key` is remembered at `now_s`."""
        self._forget(now_s)
        return key in self._expiry_s

    def full(self, now_s: float) -> bool:
        """Tell whether there is room for no further key at `now_s`."""
        self._forget(now_s)
        return len(self._expiry_s) >= self._max_entries

    def add(self, key: bytes, now_s: float) -> None:
        """Remember `key` from `now_s` on; the caller has asked `full` before."""
        self._expiry_s[key] = now_s + self._retention_s

    def _forget(self, now_s: float) -> None:
        """Drop what has expired; all are kept equally long, so the oldest come first."""
        while self._expiry_s:
            oldest = next(iter(self._expiry_s))
            if self._expiry_s[oldest] >= now_s:
                return
            del self._expiry_s[oldest]


def replay_key(passport: Passport) -> bytes:
    """Name a token so that no other spelling of its signature gets another name.

    From an ECDSA signature (r, s) anyone can make (r, n - s), which verifies as well. So the key is the SHA-256 of
    what was signed and of r alone, not of the whole signature.
    """
    return hashlib.sha256(passport.signing_input + b"." + passport.signature[:32]).digest()
