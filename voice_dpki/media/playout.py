"""The playout buffer: packets in, in any order; frames out, in the order of their timestamps and at their time.

Only timestamps drive it. A frame is due at its timestamp plus an offset. If a frame is missing when it is due, but
later ones are buffered, it is concealed; if it arrives after that, it is late. If the buffer is empty, playout
waits, and the offset grows by the lateness of the next packet: a phone would play a pause, too.

From frame to frame the offset moves towards the one that the packets' transits require (`voice_dpki.media.delay`),
by at most a tenth of the frame. A phone plays such frames that much shorter or longer. In a pause of the sender,
the offset changes at once.

If timestamps jump, because the sender's clock was set or another sender has replaced it, they continue the schedule
where it ends: buffered packets are played, and nothing is played twice. Packets that were delayed by a stall of the
network arrive in a burst, of which the newest are kept. So every packet that arrives is played, or counted as late
or as overflow.
"""

from enum import StrEnum
from math import inf
from typing import NamedTuple

from voice_dpki.media.buffered import BufferedPacket, BufferedPackets
from voice_dpki.media.delay import Jitter, Stall, Transits
from voice_dpki.media.playout_statistics import PlayoutStatistics
from voice_dpki.media.rtp import RtpPacket
from voice_dpki.media.sequence import SequenceCounter, unwrap

DELAY_S = 0.060
"""Initial delay, and least delay of fast packets, in seconds: three frames of 20 ms may arrive out of order."""

MAX_PACKETS = 250
"""Most packets in the buffer: five seconds of frames of 20 ms."""

MAX_JUMP_S = 2.0
"""A timestamp further from its time than this plus the delay, in seconds, begins a new schedule.

RFC 3550 §6.3 gives no limit.
"""

MAX_KEPT_S = 2.0
"""Most speech in the buffer, in seconds: after a longer stall, a larger delay would disturb the conversation."""

MAX_CONCEALED_FRAMES = 5
"""Longest gap, in frames, that is concealed; in a longer one playout waits, because the sender may have paused."""

MAX_CHANGE = 0.1
"""Largest fraction by which a frame is played shorter or longer; a change by a tenth is not heard."""

MAX_SILENCES = 8
"""Most silences of the sender that are kept until they are played."""


class Arrival(StrEnum):
    """What happened to a packet."""

    PLAYABLE = "playable"
    DUPLICATE = "duplicate"
    LATE = "late"
    OVERFLOW = "overflow"


class Frame(NamedTuple):
    """A frame to play at `position` (ticks from the first frame), `duration` ticks long.

    If `payload` is None, the frame is to be concealed; if it is empty, the sender wants silence. With `is_noise`,
    it describes comfort noise, which continues that of the previous frame if both payloads are the same.
    """

    position: int
    duration: int
    payload: bytes | None
    is_noise: bool = False


class PlayoutBuffer:
    """The buffer of one stream: its clock ticks `clock_rate` times a second, its frames last `frame_ticks`."""

    def __init__(self, clock_rate: int, frame_ticks: int, delay_s: float = DELAY_S) -> None:
        self._rate = clock_rate
        self._frame_ticks = frame_ticks
        self._delay_s = delay_s
        self._waiting = BufferedPackets()
        """Packets by timestamp. In this class, all timestamps are those of the schedule unless said otherwise."""
        self._silences: dict[int, int] = {}
        """Ends of the sender's silences by their beginnings, both timestamps."""
        self._noise: bytes | None = None
        """Payload of the comfort noise that is played until speech arrives; None if none is."""
        self._noise_since = 0
        """Timestamp from which nothing but noise has been played, while there is `_noise`."""
        self._sequence: SequenceCounter | None = None
        self._received_before = self._expected_before = 0
        """Counts of earlier sources."""
        self._newest: int | None = None
        """Timestamp of the packet with the highest sequence number."""
        self._shift = 0
        """Ticks to add to the sender's timestamps to get those of the schedule."""
        self._zero = 0
        """Timestamp from which transits and offsets are counted."""
        self._transits = Transits(0.0, 0.0, delay_s)
        self._offset_s = 0.0
        """When a frame with timestamp `_zero` would be due now."""
        self._stall: Stall | None = None
        self._next: int | None = None
        """Timestamp to play next, once playout has begun."""
        self._origin = 0
        """Timestamp of position 0."""
        self._jitter = Jitter(clock_rate)
        self._late = self._duplicate = self._overflow = self._concealed = self._played = 0
        self._waited_s = self._paused_s = 0.0

    def receive(self, packet: RtpPacket, duration: int, now_s: float) -> Arrival:
        """Take a packet whose payload lasts `duration` ticks (more than 0)."""
        return self._receive(packet, BufferedPacket(packet.payload, duration, now_s))

    def receive_noise(self, packet: RtpPacket, now_s: float) -> Arrival:
        """Take a packet of comfort noise, played from its timestamp until speech arrives (RFC 3389 §4)."""
        return self._receive(packet, BufferedPacket(packet.payload, 0, now_s, is_noise=True))

    def _receive(self, packet: RtpPacket, waiting: BufferedPacket) -> Arrival:
        now_s = waiting.arrived_s
        ahead = self._count(packet.sequence, packet.timestamp, now_s)
        if ahead is None:
            return Arrival.DUPLICATE
        timestamp = self._scheduled(packet.timestamp)
        if ahead > 0:
            timestamp = self._newest = self._follow_clock(timestamp, now_s)
        elif self._is_far(self._due_s(timestamp) - now_s):
            self._late += 1  # from before a jump of the sender's clock
            return Arrival.LATE
        self._measure(now_s - self._seconds(timestamp), now_s)
        arrival = self._place(timestamp, waiting)
        if arrival is Arrival.PLAYABLE:
            self._shed(timestamp, now_s)
        return arrival

    def pass_by(self, packet: RtpPacket, duration: int, now_s: float) -> Arrival:
        """Take a packet that is not played: its sender is silent for `duration` ticks from its timestamp on.

        If speech for that time arrives all the same, it is played. Returns LATE for a packet that arrives after one
        with a later sequence number.
        """
        ahead = self._count(packet.sequence, packet.timestamp + duration & 0xFFFFFFFF, now_s)
        if ahead is None:
            return Arrival.DUPLICATE
        begin = self._scheduled(packet.timestamp)
        self._silences[begin] = max(begin + duration, self._silences.pop(begin, begin))
        if len(self._silences) > MAX_SILENCES:
            del self._silences[next(iter(self._silences))]
        return Arrival.PLAYABLE if ahead > 0 else Arrival.LATE

    def _count(self, sequence: int, timestamp: int, now_s: float) -> int | None:
        """Count a packet as `SequenceCounter.count` does; a source's first is scheduled by its `timestamp`."""
        if self._sequence is not None:
            ahead = self._sequence.count(sequence)
            if ahead is not None:
                return ahead
            if not self._sequence.is_over:
                self._duplicate += 1
                return None
            self.change_source()
        self._sequence = SequenceCounter(sequence)
        self._begin(timestamp, now_s)
        return 1

    def change_source(self) -> None:
        """Expect another source, whose sequence numbers and timestamps have nothing to do with those before."""
        if self._sequence is not None:
            self._received_before += self._sequence.received
            self._expected_before += self._sequence.highest - self._sequence.base + 1
            self._sequence = None

    def due(self, now_s: float) -> list[Frame]:
        """Return the frames whose time has come, in order."""
        frames: list[Frame] = []
        while frame := self._frame_due(now_s):
            frames.append(frame)
        return frames

    def flush(self) -> list[Frame]:
        """Return everything in the buffer, in order: for the end of a call, when no more packets are expected."""
        return self.due(inf)

    def due_s(self, timestamp: int) -> float | None:
        """Return when the sample with an RTP timestamp is played, by the clock of `receive`.

        Returns None before the first packet.
        """
        return None if self._sequence is None else self._due_s(self._scheduled(timestamp))

    @property
    def highest_sequence(self) -> int | None:
        """Highest extended sequence number so far, which does not wrap; None before the first packet."""
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
            jitter=self._jitter.ticks,
            delay_s=self._waited_s / self._played if self._played else 0.0,
            paused_s=self._paused_s,
            highest_sequence=sequence.highest & 0xFFFFFFFF,
        )

    # The schedule.

    def _scheduled(self, timestamp: int) -> int:
        """Convert a packet's timestamp to the schedule's: of those that fit, the one nearest to the newest."""
        assert self._newest is not None
        return unwrap(timestamp + self._shift, self._newest, 32)

    def _begin(self, timestamp: int, now_s: float) -> None:
        """Schedule the first packet of a source; `timestamp` is the packet's own."""
        if self._newest is None:
            self._newest = self._zero = timestamp
            self._restart(timestamp, now_s)
        else:
            self._newest = self._jump(self._scheduled(timestamp), now_s)

    def _jump(self, timestamp: int, now_s: float) -> int:
        """Continue the schedule at its end with a timestamp that has jumped; return its place in the schedule."""
        waiting_until = max((at + packet.duration for at, packet in self._waiting.items()), default=None)
        end = self._next if waiting_until is None else waiting_until
        end = timestamp if end is None else end
        self._shift += end - timestamp
        self._jitter.forget()
        self._restart(end, now_s)
        return end

    def _restart(self, timestamp: int, now_s: float) -> None:
        """Schedule `timestamp` one delay from now, but no buffered packet earlier than before; measure anew."""
        transit_s = now_s - self._seconds(timestamp)
        self._transits = Transits(transit_s, now_s, self._delay_s)
        wanted_s = transit_s + self._delay_s
        self._offset_s = max(self._offset_s, wanted_s) if self._waiting else wanted_s

    def _follow_clock(self, timestamp: int, now_s: float) -> int:
        """Adapt the schedule to the newest packet, and return its place there.

        A timestamp before the previous one, or far ahead of both that one and its time, is of another clock.
        """
        assert self._newest is not None
        ahead_s, step = self._due_s(timestamp) - now_s, timestamp - self._newest
        if step < 0 or (ahead_s > 0 and step > MAX_JUMP_S * self._rate and self._is_far(ahead_s)):
            return self._jump(timestamp, now_s)
        if ahead_s < 0 and self._is_far(ahead_s):
            self._stall = Stall(-ahead_s, now_s - self._seconds(timestamp), now_s)
            self._restart(timestamp, now_s)
        elif ahead_s < 0 and not self._waiting:
            self._offset_s -= ahead_s
            self._paused_s -= ahead_s if self._next is not None else 0.0
        return timestamp

    def _is_far(self, ahead_s: float) -> bool:
        """Return whether a timestamp is further from its time than MAX_JUMP_S plus the present delay."""
        far_s = abs(ahead_s) - MAX_JUMP_S
        return far_s > 0 and far_s > self._offset_s - min(self._transits.usual_s, self._transits.fastest_s)

    def _measure(self, transit_s: float, now_s: float) -> None:
        """Measure transit, jitter, and the pause due to a stall once it is known."""
        self._transits.add(transit_s, now_s)
        self._jitter.add(transit_s)
        if self._stall is not None and (paused_s := self._stall.paused_s(transit_s, now_s)) is not None:
            self._paused_s += paused_s
            self._stall = None

    def _place(self, timestamp: int, packet: BufferedPacket) -> Arrival:
        if self._next is not None and timestamp < self._next and not self._takes_back(timestamp):
            self._late += 1
            return Arrival.LATE
        if len(self._waiting) >= MAX_PACKETS:
            self._overflow += 1
            return Arrival.OVERFLOW
        other = self._waiting.get(timestamp)
        if other is not None and not other.is_noise:
            self._late += 1  # from a faulty sender, like frames that overlap
            return Arrival.LATE
        self._waiting.put(timestamp, packet)
        return Arrival.PLAYABLE

    def _takes_back(self, timestamp: int) -> bool:
        """Go back to an earlier timestamp if only noise was played since; the noise then counts as longer."""
        if self._noise is None or timestamp < self._noise_since:
            return False
        assert self._next is not None
        self._origin -= self._next - timestamp
        self._next = timestamp
        return True

    def _shed(self, timestamp: int, now_s: float) -> None:
        """Drop the oldest packets if there is more than MAX_KEPT_S to play up to the packet that arrived."""
        excess_s = self._due_s(timestamp) - now_s - MAX_KEPT_S
        if excess_s <= 0:
            return
        self._offset_s -= excess_s
        overdue = [at for at, packet in self._waiting.items() if self._due_s(at + packet.duration) < now_s]
        for timestamp in overdue:
            self._overflow += not self._waiting.pop(timestamp).is_noise
        if overdue and self._next is not None:
            self._next = self._next if self._waiting.first is None else self._waiting.first
            self._noise_since = self._next

    # The frames.

    def _frame_due(self, now_s: float) -> Frame | None:
        """Take the next frame, its concealment or comfort noise, if its time has come."""
        earliest = self._waiting.first
        if earliest is None:
            return self._sound_noise(self._frame_ticks, now_s) if now_s < inf else None
        if self._next is None:
            if self._due_s(earliest) > now_s:
                return None
            self._next = self._origin = earliest
        if gap := earliest - self._next:
            if self._noise is not None:
                return self._sound_noise(min(gap, self._frame_ticks), now_s)
            if gap <= self._frame_ticks * MAX_CONCEALED_FRAMES:
                return self._conceal(min(gap, self._frame_ticks), now_s)
            self._offset_s = self._wanted_s()
        if self._due_s(earliest) > now_s:
            return None
        return self._play(earliest, now_s)

    def _play(self, timestamp: int, now_s: float) -> Frame | None:
        packet = self._waiting.pop(timestamp)
        self._next = timestamp
        if now_s < inf:
            self._waited_s += now_s - packet.arrived_s
            self._played += 1
        if packet.is_noise:
            self._noise_since = timestamp if self._noise is None else self._noise_since
            self._noise = packet.payload
            following = self._waiting.first
            gap = self._frame_ticks if following is None else following - timestamp
            return self._sound_noise(min(gap, self._frame_ticks), now_s)
        self._noise = None
        self._next += packet.duration
        self._drop_overlapping()
        self._move_offset(packet.duration)
        return Frame(timestamp - self._origin, packet.duration, packet.payload)

    def _sound_noise(self, duration: int, now_s: float) -> Frame | None:
        if self._noise is None or self._next is None or self._due_s(self._next) > now_s:
            return None
        frame = Frame(self._next - self._origin, duration, self._noise, is_noise=True)
        self._next += duration
        self._move_offset(duration)
        return frame

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
        """Move the offset towards the wanted one, by the change that one frame of `duration` ticks allows."""
        change_s = self._wanted_s() - self._offset_s
        if change_s:
            most_s = MAX_CHANGE * duration / self._rate
            self._offset_s += min(most_s, max(-most_s, change_s))

    def _wanted_s(self) -> float:
        """Return the offset that the transits require, limited so that no packet waits longer than MAX_KEPT_S."""
        wanted_s = self._transits.wanted_s
        if wanted_s <= self._offset_s:
            return wanted_s
        transits_s = (packet.arrived_s - self._seconds(at) for at, packet in self._waiting.items())
        return min(wanted_s, min(transits_s, default=self._transits.fastest_s) + MAX_KEPT_S)

    def _drop_overlapping(self) -> None:
        """Drop packets that begin before the last frame's end, as from a faulty sender; they count as late."""
        assert self._next is not None
        while self._waiting.first is not None and self._waiting.first < self._next:
            self._late += not self._waiting.pop(self._waiting.first).is_noise

    def _due_s(self, timestamp: int) -> float:
        return self._offset_s + (timestamp - self._zero) / self._rate

    def _seconds(self, timestamp: int) -> float:
        return (timestamp - self._zero) / self._rate
