"""Packets that wait for playout, in the order of their timestamps."""

from bisect import bisect_left, insort
from typing import NamedTuple


class BufferedPacket(NamedTuple):
    """A packet that waits for playout; comfort noise has no duration of its own."""

    payload: bytes
    duration: int
    """In ticks of the RTP clock."""
    arrived_s: float
    is_noise: bool = False


class BufferedPackets:
    """Packets by their timestamps, one packet each."""

    def __init__(self) -> None:
        self._packets: dict[int, BufferedPacket] = {}
        self._order: list[int] = []
        self.first: int | None = None
        """The earliest timestamp; None without packets."""

    def __len__(self) -> int:
        return len(self._packets)

    def get(self, timestamp: int) -> BufferedPacket | None:
        """Return the packet with a timestamp, if there is one."""
        return self._packets.get(timestamp)

    def put(self, timestamp: int, packet: BufferedPacket) -> None:
        """Add a packet, or replace the one with the same timestamp."""
        if timestamp not in self._packets:
            insort(self._order, timestamp)
            self.first = self._order[0]
        self._packets[timestamp] = packet

    def pop(self, timestamp: int) -> BufferedPacket:
        """Take a packet out; raises KeyError if there is none."""
        packet = self._packets.pop(timestamp)
        del self._order[bisect_left(self._order, timestamp)]
        self.first = self._order[0] if self._order else None
        return packet

    def items(self) -> list[tuple[int, BufferedPacket]]:
        """Return timestamps and packets, the earliest first."""
        return [(timestamp, self._packets[timestamp]) for timestamp in self._order]
