"""The memory of a call placement service: PASSporTs of calls that are being set up, for a minute at most.

It is in this process, and expires by the monotonic clock. A publisher can publish as long as it holds no more bytes
than are free. So a publisher that floods takes about half of the memory, and leaves the rest to the others.
"""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final

from voice_dpki.errors import PeerError
from voice_dpki.names import Tn

MAX_LIFETIME_S: Final = 60.0
"""Longest time for which a PASSporT is kept (ATIS-1000105, RFC 8816 §6)."""
MAX_PER_CALL: Final = 8
"""Publications that one publisher can have at a time for calls from one number to another."""
OVERHEAD_BYTES: Final = 1024
"""Bytes that a publication counts for besides its tokens, for its entries in the tables."""


class NoRoomError(PeerError):
    """There is no room for another publication of this publisher now."""


@dataclass(frozen=True, slots=True)
class Placement:
    """The PASSporTs of one call, as one publisher gave them."""

    orig: Tn
    dest: Tn
    publisher: str
    """The organisation, as on the ledger."""
    name: str
    """The publisher's name in the request: a service provider code, or the organisation."""
    tokens: tuple[str, ...]
    expiry_s: float
    """By the monotonic clock."""

    @property
    def cost(self) -> int:
        """Bytes that it counts for."""
        return OVERHEAD_BYTES + sum(map(len, self.tokens))


class Placements:
    """A memory of at most `max_bytes`; it never drops anything early to make room."""

    def __init__(self, max_bytes: int) -> None:
        self._free = max_bytes
        self._by_call: dict[tuple[Tn, Tn], deque[Placement]] = {}
        """The newest first."""
        self._ending: list[tuple[float, int, Placement]] = []
        """A heap: what expires next comes first."""
        self._held: Counter[str] = Counter()
        """Bytes of each publisher."""
        self._number = 0

    def __len__(self) -> int:
        return len(self._ending)

    @property
    def free_bytes(self) -> int:
        """Bytes that are free."""
        return self._free

    def put(self, placement: Placement, steady_s: float) -> None:
        """Keep a publication until it expires; raises NoRoomError. The same tokens are kept once."""
        self._forget(steady_s)
        own = [each for each in self.find(placement.orig, placement.dest, steady_s) if _is_same(each, placement)]
        if any(each.tokens == placement.tokens for each in own):
            return
        if len(own) >= MAX_PER_CALL:
            raise NoRoomError(f"{MAX_PER_CALL} calls between these two numbers are kept already")
        if placement.cost > self._free or self._held[placement.publisher] > self._free:
            raise NoRoomError("the publisher's share of the memory is full")
        self._free -= placement.cost
        self._held[placement.publisher] += placement.cost
        self._by_call.setdefault((placement.orig, placement.dest), deque()).appendleft(placement)
        self._number += 1
        heappush(self._ending, (placement.expiry_s, self._number, placement))

    def find(self, orig: Tn, dest: Tn, steady_s: float) -> Iterator[Placement]:
        """Yield the publications for calls from `orig` to `dest` that have not expired, the newest first."""
        for placement in self._by_call.get((orig, dest), ()):
            if placement.expiry_s > steady_s:
                yield placement

    def _forget(self, steady_s: float) -> None:
        while self._ending and self._ending[0][0] <= steady_s:
            _, _, placement = heappop(self._ending)
            call = (placement.orig, placement.dest)
            self._by_call[call].remove(placement)
            if not self._by_call[call]:
                del self._by_call[call]
            self._free += placement.cost
            self._held[placement.publisher] -= placement.cost
            if not self._held[placement.publisher]:
                del self._held[placement.publisher]


def _is_same(one: Placement, other: Placement) -> bool:
    return one.publisher == other.publisher
