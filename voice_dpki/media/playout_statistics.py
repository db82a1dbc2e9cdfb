"""The counts of a receiver about one stream that it plays."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PlayoutStatistics:
    """A receiver's counts about its stream (RFC 3550 §6.4.1, appendix A.3 and A.8)."""

    received: int = 0
    """Different packets that arrived, late ones included."""
    expected: int = 0
    """Packets sent, according to the sequence numbers."""
    late: int = 0
    duplicate: int = 0
    overflow: int = 0
    concealed: int = 0
    jitter: float = 0.0
    """Interarrival jitter in ticks."""
    delay_s: float = 0.0
    """Mean time from a packet's arrival until it was played."""
    paused_s: float = 0.0
    """Time in which playout waited at an empty buffer, once it had begun."""
    highest_sequence: int = 0
    """Extended highest sequence number: cycles ‖ number."""

    @property
    def lost(self) -> int:
        """Packets that were sent and never arrived."""
        return max(0, self.expected - self.received)

    @property
    def missing(self) -> float:
        """Fraction of the packets that could not be played when they were due: lost, late or dropped."""
        return (self.lost + self.late + self.overflow) / self.expected if self.expected else 0.0

    def plus(self, later: "PlayoutStatistics") -> "PlayoutStatistics":
        """Return the counts of this stream and one that follows it; jitter and number are the later's."""
        if not later.received:
            return self
        received = self.received + later.received
        return PlayoutStatistics(
            received=received,
            expected=self.expected + later.expected,
            late=self.late + later.late,
            duplicate=self.duplicate + later.duplicate,
            overflow=self.overflow + later.overflow,
            concealed=self.concealed + later.concealed,
            jitter=later.jitter,
            delay_s=(self.delay_s * self.received + later.delay_s * later.received) / received,
            paused_s=self.paused_s + later.paused_s,
            highest_sequence=later.highest_sequence,
        )
