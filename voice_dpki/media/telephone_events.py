"""Telephone events: the digits of a keypad in their own packets (RFC 4733 §2).

 0                   1                   2                   3
 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
|     event     |E|R| volume    |          duration             |

All packets of one event have the timestamp of its beginning, and each states its duration so far. So one packet is
enough to receive the digit, and the loss of others does no harm. Sender and receiver are cores without clocks.
"""

import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from voice_dpki.errors import MalformedError
from voice_dpki.media.rtp import RtpPacket

DIGITS = "0123456789*#ABCD"
"""The keys by their event codes, 0 to 15 (§3.2, table 3)."""

MAX_DURATION = 0xFFFF
"""Longest duration of one report, in ticks; a longer event continues in a new segment (§2.5.1.3)."""

VOLUME = 10
"""Level of our tones in -dBm0 (§2.3.4)."""

TONE_FRAMES = 5
"""Length of a digit in frames: 100 ms, where receivers need 40 ms (ITU-T Q.24)."""

PAUSE_FRAMES = 5
"""Pause between two digits in frames, in which the last report of the first digit is repeated."""

REPEATS = 2
"""Number of retransmissions of the last report (§2.5.1.4)."""

MAX_EVENTS = 16
"""Most events that one packet may report (§2.5.1.5)."""

MAX_DIGITS = 256
"""Most digits that are kept of one call."""

MAX_KNOWN = 16
"""Number of recent events that are recognised if a packet of theirs arrives late."""

_REPORT = struct.Struct("!BBH")


@dataclass(frozen=True, slots=True)
class TelephoneEvent:
    """The report of one event: its code, whether it is over, and its duration so far in ticks."""

    code: int
    duration: int
    is_over: bool = False
    volume: int = VOLUME

    def serialize(self) -> bytes:
        """Write the report."""
        return _REPORT.pack(self.code, self.is_over << 7 | self.volume, self.duration)

    @classmethod
    def parse_all(cls, payload: bytes) -> "tuple[TelephoneEvent, ...]":
        """Read the reports of a payload; each event begins where the previous one ended. Raises MalformedError."""
        if not payload or len(payload) % _REPORT.size or len(payload) > MAX_EVENTS * _REPORT.size:
            raise MalformedError(f"a telephone-event payload is not 1 to {MAX_EVENTS} reports of 4 bytes")
        reports = _REPORT.iter_unpack(payload)
        return tuple(cls(code, duration, bool(flags & 0x80), flags & 0x3F) for code, flags, duration in reports)


class Digits:
    """The digits received in a call, the first MAX_DIGITS of them."""

    def __init__(self) -> None:
        self.text = ""

    def add(self, code: int) -> None:
        """Add a key by its event code; other codes are ignored."""
        if code < len(DIGITS) and len(self.text) < MAX_DIGITS:
            self.text += DIGITS[code]


@dataclass(frozen=True, slots=True)
class AgreedEvents:
    """The payload types of events that we send and receive, or None, and the received `digits`.

    Those of comfort noise (RFC 3389) are agreed in the same way.
    """

    sends: int | None = None
    receives: int | None = None
    digits: Digits = field(default_factory=Digits)
    noise_sends: int | None = None
    noise_receives: int | None = None


class EventReceiver:
    """Receiver of one stream's events; it adds each digit once, with the digit's first packet."""

    def __init__(self, digits: Digits) -> None:
        self.late = 0
        """Reports of events that arrived too late for the order of digits to be known; they are dropped."""
        self._digits = digits
        self._known: deque[int] = deque(maxlen=MAX_KNOWN)
        """Timestamps of the beginnings of recent events."""
        self._last: tuple[int, TelephoneEvent] | None = None
        """The newest event: the timestamp of its beginning, and its newest report."""

    def receive(self, packet: RtpPacket, reports: Sequence[TelephoneEvent], *, is_newest: bool) -> None:
        """Take the `reports` of a packet; `is_newest` if none with a later sequence number has arrived."""
        timestamp = packet.timestamp
        for report in reports:
            self._take(timestamp, report, is_newest)
            timestamp = (timestamp + report.duration) & 0xFFFFFFFF

    def _take(self, timestamp: int, report: TelephoneEvent, is_newest: bool) -> None:
        if timestamp in self._known:
            if self._last is not None and self._last[0] == timestamp and report.is_over:
                self._last = timestamp, report
            return
        if not is_newest:
            self.late += 1
            return
        if not self._continues(timestamp, report):
            self._digits.add(report.code)
        self._known.append(timestamp)
        self._last = timestamp, report

    def _continues(self, timestamp: int, report: TelephoneEvent) -> bool:
        """Return whether an event is the next segment of the previous one (§2.5.1.3)."""
        if self._last is None:
            return False
        begin, before = self._last
        follows = timestamp == (begin + MAX_DURATION) & 0xFFFFFFFF
        return follows and report.code == before.code and not before.is_over


@dataclass(frozen=True, slots=True)
class Report:
    """A report to send, with the timestamp of its event, and whether it `begins` one (the RTP marker)."""

    timestamp: int
    event: TelephoneEvent
    begins: bool = False


class Dialler:
    """Sender of digits, one after the other; call `reports` at each frame of speech."""

    def __init__(self, digits: str = "", tone_frames: int = TONE_FRAMES) -> None:
        """`digits` are characters of DIGITS; each lasts `tone_frames`."""
        self._waiting = deque(DIGITS.index(digit) for digit in digits)
        self._tone_frames = tone_frames
        self._now: Report | None = None
        """The newest report of the current event."""
        self._frames = 0
        """Length so far, in frames, of the current event or of the pause after it."""
        self._last: Report | None = None
        """The last report of the previous event, during the pause after it."""

    @property
    def is_busy(self) -> bool:
        """Whether anything is left to send."""
        return bool(self._waiting or self._now or self._last)

    @property
    def sounds(self) -> bool:
        """Whether the next frame belongs to a digit, which replaces speech."""
        return self._now is not None or (self._last is None and bool(self._waiting))

    def interrupt(self) -> None:
        """Abandon the current digit, because the stream has ended, or nothing may be sent."""
        self._now = self._last = None

    def reports(self, timestamp: int, ticks: int) -> list[Report]:
        """Return the reports to send at the frame with this `timestamp`, which lasts `ticks`."""
        if self._last is not None:
            return self._pause(self._last)
        if self._now is not None:
            return self._go_on(self._now, ticks)
        if not self._waiting:
            return []
        self._frames = 0
        begun = Report(timestamp, TelephoneEvent(self._waiting.popleft(), 0), begins=True)
        return [replace(report, begins=True) for report in self._go_on(begun, ticks)]

    def _pause(self, last: Report) -> list[Report]:
        self._frames += 1
        if self._frames >= PAUSE_FRAMES:
            self._last = None
        return [last] if self._frames <= REPEATS else []

    def _go_on(self, before: Report, ticks: int) -> list[Report]:
        self._frames += 1
        is_over = self._frames >= self._tone_frames
        duration, full = before.event.duration + ticks, []
        timestamp = before.timestamp
        if duration > MAX_DURATION:
            full = [replace(before, event=replace(before.event, duration=MAX_DURATION))]
            timestamp = (timestamp + MAX_DURATION) & 0xFFFFFFFF
            duration -= MAX_DURATION
        report = Report(timestamp, replace(before.event, duration=duration, is_over=is_over))
        self._now, self._last = (None, report) if is_over else (report, None)
        self._frames = 0 if is_over else self._frames
        return [*full, report]
