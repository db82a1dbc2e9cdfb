"""A memory of the tokens that were accepted, so that each serves one call while it is fresh (RFC 8224 §12.1).

The Call-ID identifies a call: forks, retransmissions and a proxy's retries of one call have the same one (RFC 3261
§8.1.1.4, §16.6). The same token under another Call-ID is a replay. Requests without a Call-ID are judged as the
operator configures (docs/adr/0035).
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
"""How often one call may present its token: once for each branch of a request at most (RFC 5393 §5.3.3)."""

_T = TypeVar("_T")


class RepeatedToken(StrEnum):
    """How a token that was seen before is judged if no Call-ID tells whether the call is the same."""

    ACCEPT = "accept"
    NO_VALIDATION = "no-validation"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class TokenUse:
    """One use of a token, to be looked up in the memory."""

    key: bytes
    """The token's key: the ppt of its kind, a dot and 32 bytes."""
    call: bytes
    """Digest of the Call-ID, 16 bytes; b"" if there is none or it does not count."""
    signer: str
    """Organisation that signed the token."""
    iat_s: int


class Sighting(Enum):
    """What the memory knows about a use of a token."""

    NEW = "new"
    """The token was not used before, and is remembered from now on."""
    SAME_CALL = "same call"
    OTHER_CALL = "other call"
    """Another call has used it."""
    REPEATED = "repeated"
    """It was used before, and no Call-ID tells whether by this call."""
    TOO_OFTEN = "too often"
    """This call has used it MAX_TIMES before."""
    FULL = "full"
    """The signer's share of the memory is full."""
    UNKNOWN = "unknown"
    """The memory cannot tell: it began after the token was signed, or it is not available."""


Uses = Generator[TokenUse, Sighting, _T]
"""A judgement as a generator: it yields each use to look up, and is sent what the memory knows of it."""


class _Entry:
    """A token in the memory."""

    __slots__ = ("call", "expiry_s", "signer", "times")

    def __init__(self, use: TokenUse, expiry_s: float) -> None:
        self.call, self.signer, self.expiry_s, self.times = use.call, use.signer, expiry_s, 1


class ReplayCache:
    """A memory of at most `max_entries` tokens, each for `retention_s`; it never drops one early to make room.

    A signer can add a token as long as it holds no more of them than there are free entries. So one signer that
    floods takes half of the memory, two take a third each, and the rest is about as large as each flooder's share.

    A restart empties it. So tokens that were signed before `since_s`, a wall-clock time, are unknown to it.
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
        """Record a use at `now_s` by the `sighting` that `look` returned for it."""
        if sighting is Sighting.SAME_CALL:
            self._entries[use.key].times += 1
        elif sighting is Sighting.NEW:
            self._entries[use.key] = _Entry(use, now_s + self._retention_s)
            self._held[use.signer] += 1

    def _forget(self, now_s: float) -> None:
        """Drop expired tokens; all are kept equally long, so the oldest expire first."""
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
    """Run a judgement with a memory in this process, and return its result; `steady_s` is the monotonic clock."""
    try:
        use = next(uses)
        while True:
            use = uses.send(replays.claim(use, steady_s))
    except StopIteration as done:
        value: _T = done.value
        return value


def call_digest(call_id: str) -> bytes:
    """Return a Call-ID's digest of 16 bytes, under which it is remembered; b"" for an empty one."""
    return hashlib.sha256(call_id.encode("utf-8", "surrogatepass")).digest()[:16] if call_id else b""


def replay_key(passport: Passport) -> bytes:
    """Return the key of a token in the cache; another spelling of its signature has the same key.

    From an ECDSA signature (r, s) anyone can make (r, n - s), which verifies as well. So the key is the SHA-256 of
    the signed bytes and of r alone, not of the whole signature.
    """
    return hashlib.sha256(passport.signing_input + b"." + passport.signature[:32]).digest()
