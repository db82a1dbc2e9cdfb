"""Turns for messages that wait: a sender that floods waits behind itself, not in front of the others.

A core: it holds what the sockets brought until there is time to work on it, bounded in bytes. Known senders (next
hops, registered telephones) have room and turns of their own, which strangers cannot take, however many they are.
"""

from collections import deque
from typing import Final, Generic, TypeVar

from voice_dpki.sip.shares import Shares

ROOM_BYTES: Final = 4 * 1024 * 1024
"""What may wait of all strangers, and as much again of all known senders; one alone has two thirds (`Shares`)."""
OVERHEAD_BYTES: Final = 512
"""What an item takes besides its own bytes."""
KNOWN_TURNS: Final = 4
"""How many turns known senders have for each turn of a stranger, while both wait."""
MAX_DISPLACED: Final = 128
"""How many old items one new item may displace: as many as the largest needs of the smallest."""

T = TypeVar("T")


class _Ring(Generic[T]):
    """Senders that take turns, and the room that they share."""

    def __init__(self, room_bytes: int) -> None:
        self.shares = Shares(room_bytes)
        self.senders: dict[str, deque[tuple[T, int]]] = {}
        """What waits of each, oldest first, with its cost; senders are in the order of their turns."""

    def append(self, sender: str, item: T, cost: int) -> None:
        self.shares.take(sender, cost)
        waiting = self.senders.get(sender)
        if waiting is None:
            waiting = self.senders[sender] = deque()
        waiting.append((item, cost))

    def pop(self, *, keeps_its_turn: bool = False) -> T:
        """Take out the oldest item of the sender whose turn it is; that sender comes last next time."""
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
    """Gives back, one of each sender in turn, what was put in; the datagrams of one sender keep their order."""

    def __init__(self, room_bytes: int = ROOM_BYTES) -> None:
        self._known: _Ring[T] = _Ring(room_bytes)
        self._strangers: _Ring[T] = _Ring(room_bytes)
        self._streams: _Ring[T] = _Ring(room_bytes)
        """Strangers' connections, of which nothing may be dropped."""
        self._known_in_a_row = 0
        self._stream_is_next = False

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._known.senders or self._strangers.senders or self._streams.senders)

    def put(self, sender: str, item: T, size: int, *, is_known: bool) -> int:
        """Queue a datagram of `size` bytes; return how many were dropped for want of room.

        The newest datagram of a sender that holds more than its share is dropped, which is this one. Where many
        strangers fill the room together, those that have waited longest make way: they will ask again soonest.
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
        """Queue the turn of a connection, which has only one at a time."""
        (self._known if is_known else self._streams).append(sender, item, 0)

    def take(self) -> T:
        """Return the item whose turn it is; raises IndexError where nothing waits."""
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
        """Return the ring of strangers whose turn it is: datagrams and connections alternate."""
        is_stream = self._stream_is_next or not self._strangers.senders
        return self._streams if is_stream and self._streams.senders else self._strangers

    def _ring(self, sender: str, is_known: bool) -> _Ring[T]:
        """Return where the sender's datagrams wait already, or else where they belong."""
        if is_known:
            return self._strangers if sender in self._strangers.senders else self._known
        return self._known if sender in self._known.senders else self._strangers
