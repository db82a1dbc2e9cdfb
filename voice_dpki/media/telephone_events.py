"""Telephone events: the digits of a keypad in packets of their own (RFC 4733 §2).

 0                   1                   2                   3
 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
|     event     |E|R| volume    |          duration             |

All packets of one event have the timestamp of its beginning, and each tells how long it has lasted so far. So any
one of them tells the digit, and what was lost of the others does no harm. Both sides are cores without clocks.
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
"""Longest duration of one report; a longer event goes on in a segment of its own (§2.5.1.3)."""

VOLUME = 10
"""Level of our tones in -dBm0 (§2.3.4)."""

TONE_FRAMES = 5
"""Length of a digit: 100 ms, where receivers need 40 (ITU-T Q.24)."""

PAUSE_FRAMES = 5
"""Time between two digits, in which the last report of the first is repeated."""

REPEATS = 2
"""How often the last report is sent again (§2.5.1.4)."""

MAX_EVENTS = 16
"""Most events that one packet may report (§2.5.1.5)."""

MAX_DIGITS = 256
"""Most digits that are kept of one call."""

MAX_KNOWN = 16
"""How many of the last events are known again when a packet of theirs comes late."""

_REPORT = struct.Struct("!BBH")


@dataclass(frozen=True, slots=True)
class TelephoneEvent:
    """The report of one event: its code, whether it is over, and its ticks so far."""

    code: int
    duration: int
    is_over: bool = False
    volume: int = VOLUME

    def serialize(self) -> bytes:
        """Write the report."""
        return _REPORT.pack(self.code, self.is_over << 7 | self.volume, self.duration)

    @classmethod
    def parse_all(cls, payload: bytes) -> "tuple[TelephoneEvent, ...]":
        """Read the reports of a payload, each event beginning where the one before ended; raises MalformedError."""
        if not payload or len(payload) % _REPORT.size or len(payload) > MAX_EVENTS * _REPORT.size:
            raise MalformedError(f"a telephone-event payload is not 1 to {MAX_EVENTS} reports of 4 bytes")
        reports = _REPORT.iter_unpack(payload)
        return tuple(cls(code, duration, bool(flags & 0x80), flags & 0x3F) for code, flags, duration in reports)


class Digits:
    """The digits that came in a call, the first MAX_DIGITS of them."""

    def __init__(self) -> None:
        self.text = ""

    def add(self, code: int) -> None:
        """Add a key by its event code; codes that are no key's are left out."""
        if code < len(DIGITS) and len(self.text) < MAX_DIGITS:
            self.text += DIGITS[code]


@dataclass(frozen=True, slots=True)
class AgreedEvents:
    """The payload types of events that we send and receive, None where there are none, and where digits go.

    Those of comfort noise (RFC 3389) are agreed beside them, in the same way.
    """

    sends: int | None = None
    receives: int | None = None
    digits: Digits = field(default_factory=Digits)
    noise_sends: int | None = None
    noise_receives: int | None = None


class EventReceiver:
    """Receiver of one stream's events; tells each digit once, with the first packet of it that comes."""

    def __init__(self, digits: Digits) -> None:
        self.late = 0
        """Events of which nothing had come before a packet of a later one; their order is lost, and so are they."""
        self._digits = digits
        self._known: deque[int] = deque(maxlen=MAX_KNOWN)
        """Timestamps of the last events' beginnings."""
        self._last: tuple[int, TelephoneEvent] | None = None
        """The newest event's beginning and newest report."""

    def receive(self, packet: RtpPacket, reports: Sequence[TelephoneEvent], *, is_newest: bool) -> None:
        """Take the `reports` of a packet; `is_newest` tells that none with a later sequence number has come."""
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
        """Return whether an event is the next segment of the one before (§2.5.1.3)."""
        if self._last is None:
            return False
        begin, before = self._last
        follows = timestamp == (begin + MAX_DURATION) & 0xFFFFFFFF
        return follows and report.code == before.code and not before.is_over


@dataclass(frozen=True, slots=True)
class Report:
    """A report to send: with the timestamp of its event, and the marker of a beginning."""

    timestamp: int
    event: TelephoneEvent
    begins: bool = False


class Dialler:
    """Sender of digits, one after the other; it is asked at each frame of the speech."""

    def __init__(self, digits: str = "", tone_frames: int = TONE_FRAMES) -> None:
        """`digits` are of DIGITS, and `tone_frames` is how long each sounds."""
        self._waiting = deque(DIGITS.index(digit) for digit in digits)
        self._tone_frames = tone_frames
        self._now: Report | None = None
        """The newest report of the event that sounds."""
        self._frames = 0
        """How many frames it has sounded, or the pause after it has lasted."""
        self._last: Report | None = None
        """The last report of the event before."""

    @property
    def is_busy(self) -> bool:
        """Whether anything is left to send."""
        return bool(self._waiting or self._now or self._last)

    @property
    def sounds(self) -> bool:
        """Whether the frame for which `reports` would be asked belongs to a digit, in place of speech."""
        return self._now is not None or (self._last is None and bool(self._waiting))

    def interrupt(self) -> None:
        """Leave the digit that sounds as it is: the stream has ended, or nothing may be sent."""
        self._now = self._last = None

    def reports(self, timestamp: int, ticks: int) -> list[Report]:
        """Return what to send at a frame with this `timestamp`, which lasts `ticks`."""
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
