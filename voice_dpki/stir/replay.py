"""A memory of the tokens that were accepted, so that each serves one call while it is fresh (RFC 8224 §12.1).

The Call-ID tells calls apart: forks, retransmissions and a proxy's further tries of one call have the same one (RFC
3261 §8.1.1.4, §16.6). The same token under another Call-ID is a replay. Requests that tell no Call-ID are judged as
the operator says (docs/adr/0035).
"""

import hashlib
import math
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final, TypeVar

from voice_dpki.stir.passport import Passport

MAX_TIMES: Final = 60
"""How often one call may present its token: to as many branches a request forks at most (RFC 5393 §5.3.3)."""

_T = TypeVar("_T")


class RepeatedToken(StrEnum):
    """What becomes of a token that was seen before, where no Call-ID tells whether it is the same call."""

    ACCEPT = "accept"
    NO_VALIDATION = "no-validation"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class TokenUse:
    """One use of a token, of which a memory is asked."""

    key: bytes
    """Of the token: 32 bytes, and the name of its kind."""
    call: bytes
    """Digest of the call's Call-ID; b"" where it is not told."""
    signer: str
    """Organisation that signed the token."""
    iat_s: int


class Sighting(Enum):
    """What a memory knows of the use of a token."""

    NEW = "new"
    """The token was not used before, and is remembered from now on."""
    SAME_CALL = "same call"
    OTHER_CALL = "other call"
    """Another call has used it."""
    REPEATED = "repeated"
    """It was used before, by this call or another."""
    TOO_OFTEN = "too often"
    """This call has used it MAX_TIMES before."""
    FULL = "full"
    """The signer's share of the memory is full."""
    UNKNOWN = "unknown"
    """The memory is not complete: it is younger than the token, or is not to be had."""


Uses = Generator[TokenUse, Sighting, _T]
"""A judgement under way: it gives the uses that a memory is to be asked about, and takes what the memory knows."""


class _Entry:
    """A token in the memory."""

    __slots__ = ("call", "expiry_s", "signer", "times")

    def __init__(self, use: TokenUse, expiry_s: float) -> None:
        self.call, self.signer, self.expiry_s, self.times = use.call, use.signer, expiry_s, 1


class ReplayCache:
    """A memory of at most `max_entries` tokens, each for `retention_s`; it never drops one early to make room.

    A signer may hold one token more than there are free places. So one signer that floods takes half of the memory,
    two take a third each, and the room left for all others is about as large as each flooder's share.

    A restart empties it. So tokens from before `since_s`, a time of the wall clock, are unknown to it.
    """

    __slots__ = ("_entries", "_held", "_max_entries", "_retention_s", "since_s")

    def __init__(self, max_entries: int, retention_s: float, since_s: float = -math.inf) -> None:
        self._max_entries = max_entries
        self._retention_s = retention_s
        self.since_s = since_s
        self._entries: dict[bytes, _Entry] = {}
        """By key, the oldest first."""
        self._held: Counter[str] = Counter()
        """How many tokens each signer holds."""

    def __len__(self) -> int:
        return len(self._entries)

    def claim(self, use: TokenUse, now_s: float) -> Sighting:
        """Tell what is known of a use at `now_s`, and remember a new one."""
        sighting = self.look(use, now_s)
        self.keep(use, sighting, now_s)
        return sighting

    def look(self, use: TokenUse, now_s: float) -> Sighting:
        """Tell what is known of a use at `now_s`, and remember nothing."""
        self._forget(now_s)
        entry = self._entries.get(use.key)
        if entry is not None:
            if not (use.call and entry.call):
                return Sighting.REPEATED
            if use.call != entry.call:
                return Sighting.OTHER_CALL
            return Sighting.SAME_CALL if entry.times < MAX_TIMES else Sighting.TOO_OFTEN
        if use.iat_s < self.since_s:
            return Sighting.UNKNOWN
        free = self._max_entries - len(self._entries)
        return Sighting.FULL if free <= 0 or self._held[use.signer] > free else Sighting.NEW

    def keep(self, use: TokenUse, sighting: Sighting, now_s: float) -> None:
        """Remember a use from `now_s` on by what `look` has told of it."""
        if sighting is Sighting.SAME_CALL:
            self._entries[use.key].times += 1
        elif sighting is Sighting.NEW:
            self._entries[use.key] = _Entry(use, now_s + self._retention_s)
            self._held[use.signer] += 1

    def _forget(self, now_s: float) -> None:
        """Drop what has expired; all are kept equally long, so the oldest come first."""
        while self._entries:
            oldest = next(iter(self._entries))
            entry = self._entries[oldest]
            if entry.expiry_s >= now_s:
                return
            del self._entries[oldest]
            self._held[entry.signer] -= 1
            if not self._held[entry.signer]:
                del self._held[entry.signer]


def settle(uses: Uses[_T], replays: ReplayCache, steady_s: float) -> _T:
    """Return what a judgement comes to by a memory in this process; `steady_s` is the monotonic clock."""
    try:
        use = next(uses)
        while True:
            use = uses.send(replays.claim(use, steady_s))
    except StopIteration as done:
        value: _T = done.value
        return value


def call_digest(call_id: str) -> bytes:
    """Return what is remembered of a Call-ID, 16 bytes; b"" where it is not told."""
    return hashlib.sha256(call_id.encode("utf-8", "surrogatepass")).digest()[:16] if call_id else b""


def replay_key(passport: Passport) -> bytes:
    """Return the key of a token in the cache; another spelling of its signature has the same key.

    From an ECDSA signature (r, s) anyone can make (r, n - s), which verifies as well. So the key is the SHA-256 of
    the signed bytes and of r alone, not of the whole signature.
    """
    return hashlib.sha256(passport.signing_input + b"." + passport.signature[:32]).digest()
