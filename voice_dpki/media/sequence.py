"""Numbers that wrap in RTP, and the counts of packets by their sequence numbers (RFC 3550 §5.1, appendix A.1)."""

_WINDOW = 1024
"""How far back duplicates are recognised, in packets."""

MAX_DROPOUT = 3000
"""Fewest packets in a row that are no loss, but a sender that has begun to number anew (RFC 3550 A.1)."""


def unwrap(value: int, near: int, bits: int) -> int:
    """Return the number that ends in the `bits` of `value` and is nearest to `near`."""
    half = 1 << (bits - 1)
    return near + (value - near + half) % (1 << bits) - half


class SequenceCounter:
    """Counter of one source's packets, by their sequence numbers."""

    def __init__(self, first: int) -> None:
        self.base = self.highest = first
        self.received = 1
        self._seen = 1
        """One bit for each packet seen; bit 0 is the highest number's."""
        self._after_old: int | None = None
        """The number after that of the last packet, where it was too old to tell."""

    def count(self, sequence: int) -> int | None:
        """Count a packet and return how far it is ahead of the highest one before it.

        Returns None for a packet that was seen before, or is too old to tell.
        """
        number = unwrap(sequence, self.highest, 16)
        ahead = number - self.highest
        if ahead > 0:
            self._seen = (self._seen << min(ahead, _WINDOW) | 1) & ((1 << _WINDOW) - 1)
            self.highest = number
        elif ahead <= -_WINDOW or self._seen >> -ahead & 1:
            return None
        else:
            self._seen |= 1 << -ahead
            self.base = min(self.base, number)
        self.received += 1
        return ahead

    def begins_anew(self, sequence: int) -> bool:
        """Return whether a packet shows that its sender has begun to number anew; ask before it is counted.

        One packet far ahead shows it, and the second in a row that is too old.
        """
        ahead = unwrap(sequence, self.highest, 16) - self.highest
        if ahead > -_WINDOW:
            self._after_old = None
            return ahead >= MAX_DROPOUT
        second, self._after_old = self._after_old == sequence, (sequence + 1) & 0xFFFF
        return second
