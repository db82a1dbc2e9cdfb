"""Packets that arrive before a call's keys, and are held until then."""

from collections import Counter
from typing import Generic, TypeVar

Address = tuple[str, int]
Packet = TypeVar("Packet")


class EarlyPackets(Generic[Packet]):
    """At most `each` packets of each of `sources` sources.

    It is not known yet which source is the peer. When there is no place for a new source, one of the host with the
    most sources is dropped: of these the one with the fewest packets, and of equal ones the oldest. So a stranger
    with one address cannot displace a peer at another address, from however many ports. With the peer's address, or
    as many addresses as there are places, it must send more packets than the peer from each source.
    """

    def __init__(self, *, each: int, sources: int) -> None:
        self._each, self._sources = each, sources
        self._waiting: dict[Address, list[tuple[int, Packet]]] = {}
        """By source, each packet with its number in the order of arrival."""
        self._arrived = 0

    def hold(self, source: Address, packet: Packet) -> int:
        """Hold `packet`; return the number of packets dropped: this one, or those that it displaces."""
        dropped = 0
        if source not in self._waiting:
            dropped = self._make_room(source)
            self._waiting[source] = []
        waiting = self._waiting[source]
        if len(waiting) >= self._each:
            return 1
        self._arrived += 1
        waiting.append((self._arrived, packet))
        return dropped

    def release(self) -> list[tuple[Address, Packet]]:
        """Remove and return all held packets, in the order of arrival."""
        waiting, self._waiting = self._waiting, {}
        arrived = [(number, source, packet) for source, of_it in waiting.items() for number, packet in of_it]
        return [(source, packet) for _, source, packet in sorted(arrived, key=lambda each: each[0])]

    def _make_room(self, newcomer: Address) -> int:
        if len(self._waiting) < self._sources:
            return 0
        hosts = Counter(source[0] for source in (newcomer, *self._waiting))
        leaving = min(self._waiting, key=lambda source: (-hosts[source[0]], len(self._waiting[source])))
        return len(self._waiting.pop(leaving))
