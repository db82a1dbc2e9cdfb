"""Fair queueing of received messages: senders take turns, so a flood delays only its own sender.

A core: it holds received messages, bounded in bytes, until there is time to process them. Known senders (next hops,
registered telephones) have room and turns of their own, which strangers cannot take, however many they are.
"""

from collections import deque
from typing import Final, Generic, TypeVar

from voice_dpki.sip.shares import Shares

ROOM_BYTES: Final = 4 * 1024 * 1024
"""Room for all strangers' datagrams, and as much again for all known senders'. One sender may take two thirds."""
OVERHEAD_BYTES: Final = 512
"""Memory that an item takes besides its own bytes."""
KNOWN_TURNS: Final = 4
"""Turns of known senders per turn of a stranger, while both have messages queued."""
MAX_DISPLACED: Final = 128
"""Most old items that one new item may displace: about as many of the smallest as the largest needs."""

T = TypeVar("T")


class _Ring(Generic[T]):
    """Senders that take turns, and their shared room."""

    def __init__(self, room_bytes: int) -> None:
        self.shares = Shares(room_bytes)
        self.senders: dict[str, deque[tuple[T, int]]] = {}
        """Each sender's queue of items and their costs, oldest first; senders are in the order of their turns."""

    def append(self, sender: str, item: T, cost: int) -> None:
        self.shares.take(sender, cost)
        waiting = self.senders.get(sender)
        if waiting is None:
            waiting = self.senders[sender] = deque()
        waiting.append((item, cost))

    def pop(self, *, keeps_its_turn: bool = False) -> T:
        """Remove and return the oldest item of the sender whose turn it is.

        That sender then goes to the end of the line, unless it keeps its turn.
        """
        sender = next(iter(self.senders))
        waiting = self.senders[sender]
        item, cost = waiting.popleft()
        self.shares.give_back(sender, cost)
        if not waiting:
            del self.senders[sender]
        elif not keeps_its_turn:
            self.senders[sender] = self.senders.pop(sender)
        return item


class Turns(Generic[T]):
    """A queue that serves one item of each sender in turn; the datagrams of one sender keep their order."""

    def __init__(self, room_bytes: int = ROOM_BYTES) -> None:
        self._known: _Ring[T] = _Ring(room_bytes)
        self._strangers: _Ring[T] = _Ring(room_bytes)
        self._streams: _Ring[T] = _Ring(room_bytes)
        """Strangers' connections, whose items may not be dropped."""
        self._known_in_a_row = 0
        self._stream_is_next = False

    def __bool__(self) -> bool:
        """Return whether anything is queued."""
        return bool(self._known.senders or self._strangers.senders or self._streams.senders)

    def put(self, sender: str, item: T, size: int, *, is_known: bool) -> int:
        """Queue a datagram of `size` bytes; return how many datagrams were dropped for lack of room.

        If the sender has used up its share, this datagram is dropped. If many strangers fill the room together and
        this sender is a stranger with nothing queued, the datagrams whose turn is next are dropped in its favour:
        they have waited longest, so their senders retransmit soonest.
        """
        ring, cost = self._ring(sender, is_known), size + OVERHEAD_BYTES
        dropped = 0
        if ring is self._strangers and sender not in ring.senders:
            while ring.senders and dropped < MAX_DISPLACED and not ring.shares.admits(sender, cost):
                ring.pop(keeps_its_turn=True)
                dropped += 1
        if not ring.shares.admits(sender, cost):
            return dropped + 1
        ring.append(sender, item, cost)
        return dropped

    def put_stream(self, sender: str, item: T, *, is_known: bool) -> None:
        """Queue the turn of a connection, which may have only one queued at a time."""
        (self._known if is_known else self._streams).append(sender, item, 0)

    def take(self) -> T:
        """Remove and return the item whose turn it is; raises IndexError if nothing is queued."""
        strangers = self._next_strangers()
        if self._known.senders and (not strangers.senders or self._known_in_a_row < KNOWN_TURNS):
            self._known_in_a_row += 1
            return self._known.pop()
        self._known_in_a_row = 0
        self._stream_is_next = strangers is self._strangers
        if not strangers.senders:
            raise IndexError("nothing waits")
        return strangers.pop()

    def _next_strangers(self) -> _Ring[T]:
        """Return the ring that serves the next stranger: datagrams and connections alternate."""
        is_stream = self._stream_is_next or not self._strangers.senders
        return self._streams if is_stream and self._streams.senders else self._strangers

    def _ring(self, sender: str, is_known: bool) -> _Ring[T]:
        """Return the ring that already holds datagrams of this sender, to keep their order, or else its own."""
        if is_known:
            return self._strangers if sender in self._strangers.senders else self._known
        return self._known if sender in self._known.senders else self._strangers
