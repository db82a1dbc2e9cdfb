"""The playout buffer: packets in, in any order; frames out, in the order of their timestamps and at their time.

Only timestamps drive it. A frame is due at its timestamp plus an offset. If a frame is missing when it is due, but
later ones are buffered, its place is filled (concealed); if it arrives after that, it is late. If the buffer is
empty, playout waits, and the offset grows by the lateness of the next packet: a phone would play a pause, too.

From frame to frame the offset moves towards the one that the packets' transits ask for (`voice_dpki.media.delay`),
by at most a tenth of the frame. A phone plays such frames that much shorter or longer. A pause of the sender takes
any change at once.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import inf

from voice_dpki.media.delay import Transits
from voice_dpki.media.rtp import RtpPacket

DELAY_S = 0.060
"""Delay at the start, and least delay behind the fast packets: three frames of 20 ms may arrive out of order."""

MAX_PACKETS = 250
"""Most packets in the buffer: five seconds of frames of 20 ms."""

MAX_JUMP_S = 2.0
"""A timestamp further than this from its time, plus the delay, is a restart of the sender's clock.

RFC 3550 §6.3 gives no limit.
"""

MAX_CONCEALED_FRAMES = 5
"""Longest gap, in frames, that is filled; in a longer one playout waits in silence, for the sender may pause."""

MAX_CHANGE = 0.1
"""Largest part by which a frame is played shorter or longer. Speech changed by a tenth does not sound changed."""

MAX_SILENCES = 8
"""Most times of the sender's silence that are remembered until they are played."""

_SEQUENCE_WINDOW = 1024
"""How far back duplicates are recognised, in packets."""


class Arrival(StrEnum):
    """What became of a packet."""

    PLAYABLE = "playable"
    DUPLICATE = "duplicate"
    LATE = "late"
    OVERFLOW = "overflow"


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame to play at `position` (ticks from the first frame), `duration` ticks long.

    If `payload` is None, the frame is to be concealed; if it is empty, the sender wants silence.
    """

    position: int
    duration: int
    payload: bytes | None


@dataclass(frozen=True, slots=True)
class PlayoutStatistics:
    """What a receiver knows about its stream (RFC 3550 §6.4.1, appendix A.3 and A.8)."""

    received: int = 0
    """Different packets that arrived, late ones included."""
    expected: int = 0
    """Packets that the sequence numbers say were sent."""
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
        """Packets that were sent and never came."""
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

    def count(self, sequence: int) -> int | None:
        """Count a packet and return how far it is ahead of the highest one before it.

        Returns None for a packet that was seen before, or is too old to tell.
        """
        number = unwrap(sequence, self.highest, 16)
        ahead = number - self.highest
        if ahead > 0:
            self._seen = (self._seen << min(ahead, _SEQUENCE_WINDOW) | 1) & ((1 << _SEQUENCE_WINDOW) - 1)
            self.highest = number
        elif ahead <= -_SEQUENCE_WINDOW or self._seen >> -ahead & 1:
            return None
        else:
            self._seen |= 1 << -ahead
            self.base = min(self.base, number)
        self.received += 1
        return ahead


class PlayoutBuffer:
    """The buffer of one stream: its clock ticks `clock_rate` times a second, its frames last `frame_ticks`."""

    def __init__(self, clock_rate: int, frame_ticks: int, delay_s: float = DELAY_S) -> None:
        self._rate = clock_rate
        self._frame_ticks = frame_ticks
        self._delay_s = delay_s
        self._waiting: dict[int, tuple[bytes, int, float]] = {}
        """Payload, duration and time of arrival by timestamp."""
        self._silences: dict[int, int] = {}
        """Ends of the sender's silences by their beginnings, both timestamps."""
        self._sequence: SequenceCounter | None = None
        self._received_before = self._expected_before = 0
        """Counts of the sources before the one of now."""
        self._newest = 0
        self._zero = 0
        """Timestamp from which transits and offsets are counted."""
        self._transits = Transits(0.0, 0.0, delay_s)
        self._offset_s = 0.0
        """When a frame with timestamp `_zero` would be due now."""
        self._next: int | None = None
        """Timestamp to play next, once playout has begun."""
        self._origin = 0
        """Timestamp of position 0."""
        self._last_transit: float | None = None
        self._jitter = 0.0
        self._late = self._duplicate = self._overflow = self._concealed = self._played = 0
        self._waited_s = self._paused_s = 0.0

    def receive(self, packet: RtpPacket, duration: int, now_s: float) -> Arrival:
        """Take a packet whose payload lasts `duration` ticks (more than 0)."""
        ahead = self._count(packet.sequence, packet.timestamp, now_s)
        if ahead is None:
            return Arrival.DUPLICATE
        timestamp = unwrap(packet.timestamp, self._newest, 32)
        self._measure_jitter(timestamp, now_s)
        self._follow_clock(timestamp, now_s, newest=ahead > 0)
        return self._place(timestamp, packet.payload, duration, now_s)

    def pass_by(self, packet: RtpPacket, duration: int, now_s: float) -> Arrival:
        """Take a packet that plays nothing: its sender is silent for `duration` ticks from its timestamp on.

        Where speech comes for that time all the same, it is played. Returns LATE for a packet that others of later
        sequence numbers have overtaken.
        """
        ahead = self._count(packet.sequence, packet.timestamp + duration & 0xFFFFFFFF, now_s)
        if ahead is None:
            return Arrival.DUPLICATE
        begin = unwrap(packet.timestamp, self._newest, 32)
        self._silences[begin] = max(begin + duration, self._silences.pop(begin, begin))
        if len(self._silences) > MAX_SILENCES:
            del self._silences[next(iter(self._silences))]
        return Arrival.PLAYABLE if ahead > 0 else Arrival.LATE

    def _count(self, sequence: int, timestamp: int, now_s: float) -> int | None:
        """Count a packet as `SequenceCounter.count` does; the first begins the schedule at its `timestamp`."""
        if self._sequence is None:
            self._sequence = SequenceCounter(sequence)
            self._restart(timestamp, now_s)
            return 1
        ahead = self._sequence.count(sequence)
        self._duplicate += ahead is None
        return ahead

    def change_source(self) -> None:
        """Expect another source, whose sequence numbers and timestamps have nothing to do with those before."""
        if self._sequence is not None:
            self._received_before += self._sequence.received
            self._expected_before += self._sequence.highest - self._sequence.base + 1
            self._sequence = None

    def due(self, now_s: float) -> list[Frame]:
        """Return the frames whose time has come, in order."""
        frames: list[Frame] = []
        while self._waiting and (frame := self._frame_due(now_s)):
            frames.append(frame)
        return frames

    def flush(self) -> list[Frame]:
        """Return everything in the buffer, in order: for the end of a call, when no more packets are expected."""
        return self.due(float("inf"))

    def due_s(self, timestamp: int) -> float | None:
        """Return when what was sampled at an RTP timestamp is played, by the clock of `receive`.

        Returns None before the first packet.
        """
        return None if self._sequence is None else self._due_s(unwrap(timestamp, self._newest, 32))

    @property
    def highest_sequence(self) -> int | None:
        """Highest sequence number so far, counted on where the packets' numbers wrap; None before the first."""
        return None if self._sequence is None else self._sequence.highest

    def statistics(self) -> PlayoutStatistics:
        """Return the counts so far."""
        sequence = self._sequence
        if sequence is None:
            return PlayoutStatistics()
        return PlayoutStatistics(
            received=self._received_before + sequence.received,
            expected=self._expected_before + sequence.highest - sequence.base + 1,
            late=self._late,
            duplicate=self._duplicate,
            overflow=self._overflow,
            concealed=self._concealed,
            jitter=self._jitter,
            delay_s=self._waited_s / self._played if self._played else 0.0,
            paused_s=self._paused_s,
            highest_sequence=sequence.highest & 0xFFFFFFFF,
        )

    def _restart(self, timestamp: int, now_s: float) -> None:
        """Schedule `timestamp` one delay from now, at the position that playout has reached."""
        position = 0 if self._next is None else self._next - self._origin
        self._waiting.clear()
        self._silences.clear()
        self._newest = timestamp
        self._zero = timestamp
        self._transits = Transits(now_s, now_s, self._delay_s)
        self._offset_s = now_s + self._delay_s
        if self._next is not None:
            self._next = timestamp
        self._origin = timestamp - position

    def _follow_clock(self, timestamp: int, now_s: float, *, newest: bool) -> None:
        """Adapt to a sender whose clock jumps, and to packets that arrive late at an empty buffer."""
        ahead_s = self._due_s(timestamp) - now_s
        if newest and abs(ahead_s) > MAX_JUMP_S + self._offset_s - self._transits.usual_s:
            self._restart(timestamp, now_s)
            return
        self._transits.add(now_s - self._seconds(timestamp), now_s)
        if newest and ahead_s < 0 and not self._waiting:
            self._offset_s -= ahead_s
            self._paused_s -= ahead_s if self._next is not None else 0.0

    def _place(self, timestamp: int, payload: bytes, duration: int, now_s: float) -> Arrival:
        if self._next is not None and timestamp < self._next:
            self._late += 1
            return Arrival.LATE
        if len(self._waiting) >= MAX_PACKETS:
            self._overflow += 1
            return Arrival.OVERFLOW
        self._newest = max(self._newest, timestamp)
        self._waiting.setdefault(timestamp, (payload, duration, now_s))
        return Arrival.PLAYABLE

    def _frame_due(self, now_s: float) -> Frame | None:
        """Take the next frame, or its concealment, if its time has come."""
        earliest = min(self._waiting)
        if self._next is None:
            if self._due_s(earliest) > now_s:
                return None
            self._next = self._origin = earliest
        gap = earliest - self._next
        if 0 < gap <= self._frame_ticks * MAX_CONCEALED_FRAMES:
            return self._conceal(min(gap, self._frame_ticks), now_s)
        if gap:
            self._offset_s = self._transits.wanted_s
        if self._due_s(earliest) > now_s:
            return None
        return self._play(earliest, now_s)

    def _play(self, timestamp: int, now_s: float) -> Frame:
        payload, duration, arrived_s = self._waiting.pop(timestamp)
        self._next = timestamp + duration
        self._drop_overlapping()
        if now_s < inf:
            self._waited_s += now_s - arrived_s
            self._played += 1
        self._move_offset(duration)
        return Frame(timestamp - self._origin, duration, payload)

    def _conceal(self, duration: int, now_s: float) -> Frame | None:
        assert self._next is not None
        if self._due_s(self._next) > now_s:
            return None
        is_silence = any(begin <= self._next < end for begin, end in self._silences.items())
        frame = Frame(self._next - self._origin, duration, b"" if is_silence else None)
        self._next += duration
        self._concealed += not is_silence
        self._move_offset(duration)
        return frame

    def _move_offset(self, duration: int) -> None:
        """Move the offset towards the wanted one, by what one frame may be shorter or longer."""
        most_s = MAX_CHANGE * duration / self._rate
        self._offset_s += min(most_s, max(-most_s, self._transits.wanted_s - self._offset_s))

    def _drop_overlapping(self) -> None:
        """Drop packets that begin before the last frame's end, as a faulty sender's may; they count as late."""
        assert self._next is not None
        for timestamp in [timestamp for timestamp in self._waiting if timestamp < self._next]:
            del self._waiting[timestamp]
            self._late += 1

    def _due_s(self, timestamp: int) -> float:
        return self._offset_s + self._seconds(timestamp)

    def _seconds(self, timestamp: int) -> float:
        return (timestamp - self._zero) / self._rate

    def _measure_jitter(self, timestamp: int, now_s: float) -> None:
        """Estimate the jitter as RFC 3550 §6.4.1 and appendix A.8 do."""
        transit = now_s * self._rate - timestamp
        if self._last_transit is not None:
            self._jitter += (abs(transit - self._last_transit) - self._jitter) / 16
        self._last_transit = transit
