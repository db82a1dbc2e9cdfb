"""RTP numbers that wrap, and packet counts by sequence numbers (RFC 3550 §5.1, appendix A.1)."""

_WINDOW = 1024
"""Number of packets back in which duplicates are recognised."""

_ALL_SEEN = (1 << _WINDOW) - 1

MAX_DROPOUT = 3000
"""Smallest jump ahead that is not a loss of packets, but a restart of the sender's numbering (RFC 3550 A.1)."""


def unwrap(value: int, near: int, bits: int) -> int:
    """Return the number nearest to `near` whose lowest `bits` bits equal those of `value`."""
    half = 1 << (bits - 1)
    return near + (value - near + half) % (1 << bits) - half


class SequenceCounter:
    """Counter of one source's packets, by their sequence numbers."""

    def __init__(self, first: int) -> None:
        self.base = self.highest = first
        self.received = 1
        self.is_over = False
        """Whether the newest packet, which is not counted, shows that its sender has restarted the numbering.

        One packet far ahead shows this, or two consecutive packets that are too old.
        """
        self._seen = 1
        """One bit for each packet seen; bit 0 is the highest number's."""
        self._after_old: int | None = None
        """The number after the last packet's, if that was out of range and not counted; else None."""

    def count(self, sequence: int) -> int | None:
        """Count a packet and return how far it is ahead of the highest one before it.

        Returns None for a packet that is not counted: a duplicate, one that is too old to tell, or if `is_over`.
        """
        ahead = (sequence - self.highest + 0x8000 & 0xFFFF) - 0x8000
        if not -_WINDOW < ahead < MAX_DROPOUT:
            self._pass_over(sequence, ahead)
            return None
        self.is_over, self._after_old = False, None
        if ahead > 0:
            self._seen = (self._seen << ahead | 1) & _ALL_SEEN
            self.highest += ahead
        elif self._seen >> -ahead & 1:
            return None
        else:
            self._seen |= 1 << -ahead
            self.base = min(self.base, self.highest + ahead)
        self.received += 1
        return ahead

    def _pass_over(self, sequence: int, ahead: int) -> None:
        self.is_over = ahead > 0 or self._after_old == sequence
        self._after_old = sequence + 1 & 0xFFFF
