"""This machine's clock, checked against the ledger's headers and the monotonic clock.

Freshness needs two bounds. A header's age by the wall clock means nothing once that clock was set back: an hour-old
header looks new. So each verified header gives a lower bound for the time, which rises with the monotonic clock:

    floor = time of the header + monotonic time since it was received

The genesis, or a header stored before a restart, gives a lower bound that does not rise, because the time since it
was received is not known. If its time is in the future, the clock counts as wrong only until that time.

A wall clock more than MAX_CLOCK_DRIFT_S below the floor is wrong, and nothing can be judged by it. Otherwise the
later of wall clock and floor is the time. Verified answers therefore age even if the wall clock is set back. The
floor never comes from the wall clock, so a clock that was wrong for a time has no lasting effect (docs/adr/0024).

docs/spec/answers.md#freshness-and-clock specifies it.
"""

from voice_dpki.effects import Clock
from voice_dpki.errors import LocalError
from voice_dpki.ledger.light import MAX_CLOCK_DRIFT_S

FRESH_S = 60.0
"""Largest age of a received header, by the wall clock, at which the two count as agreeing."""

STEADY_RATE = 0.999
"""Seconds by which the floor rises in a monotonic second: less than 1, in case the monotonic clock is fast."""


REMEMBERED_S = 60.0
"""Time for which a refused header counts against our clock, which may be set right meanwhile."""


class ClockError(LocalError):
    """This machine's clock is wrong; the message says by how much."""


class LedgerClock:
    """The wall clock, as far as the ledger's headers agree with it."""

    def __init__(self, clock: Clock, known_s: float, *, agrees: bool = False) -> None:
        """`known_s` is the time of the newest known header, or of the genesis, in Unix seconds.

        With `agrees`, the wall clock counts as right now unless it is behind. An engine needs this, because its own
        clock sets the headers' times.
        """
        self._clock = clock
        self._known_s = known_s
        self._heard_s: float | None = None
        """When the last header was verified, by the monotonic clock; None before the first one."""
        self._offset_s = self._offset_now_s() if agrees and not self._is_behind() else None
        """Wall clock minus monotonic clock when the wall clock last agreed with the ledger."""
        self._refused, self._refused_s = "", 0.0

    def steady_s(self) -> float:
        """Return the seconds of the monotonic clock, for intervals."""
        return self._clock.steady_s()

    def checked_s(self) -> float:
        """Return the time in Unix seconds; raises ClockError if the wall clock is behind the ledger."""
        wall_s, floor_s = self._clock.now_s(), self._floor_s()
        if floor_s - wall_s > MAX_CLOCK_DRIFT_S:
            raise ClockError(_behind(floor_s - wall_s))
        return max(wall_s, floor_s)

    def agreed_s(self) -> float:
        """Return the wall clock's time, corrected if the clock was set since it last agreed with the ledger."""
        wall_s, offset_s = self._clock.now_s(), self._offset_s
        if offset_s is None or abs(self._offset_now_s() - offset_s) <= MAX_CLOCK_DRIFT_S:
            return wall_s
        return self._clock.steady_s() + offset_s

    def heard(self, time_s: float) -> None:
        """Note the time of a header that was verified just now."""
        self._known_s, self._heard_s = max(self._floor_s(), time_s), self._clock.steady_s()
        if -MAX_CLOCK_DRIFT_S <= self._clock.now_s() - self._known_s <= FRESH_S:
            self._offset_s = self._offset_now_s()
        self._refused = ""

    def refused(self, reason: str) -> None:
        """Note that a header which the validators signed was refused because our clock contradicts it."""
        self._refused, self._refused_s = reason, self._clock.steady_s()

    def set_forward_s(self) -> float:
        """Return the seconds by which the wall clock was set forward since it agreed with the ledger.

        Differences up to MAX_CLOCK_DRIFT_S count as 0.
        """
        if self._offset_s is None:
            return 0.0
        forward_s = self._offset_now_s() - self._offset_s
        return forward_s if forward_s > MAX_CLOCK_DRIFT_S else 0.0

    def problem(self) -> str:
        """Return what is wrong with the clock; empty if no problem is known."""
        behind_s = self._floor_s() - self._clock.now_s()
        if behind_s > MAX_CLOCK_DRIFT_S:
            return _behind(behind_s)
        forward_s = self.set_forward_s()
        if forward_s:
            return (
                f"this machine's clock was set forward by {forward_s:.0f} s since it agreed with the ledger: "
                "set it right"
            )
        return self._refused if self._clock.steady_s() - self._refused_s <= REMEMBERED_S else ""

    def _is_behind(self) -> bool:
        return self._floor_s() - self._clock.now_s() > MAX_CLOCK_DRIFT_S

    def _floor_s(self) -> float:
        if self._heard_s is None:
            return self._known_s
        return self._known_s + STEADY_RATE * (self._clock.steady_s() - self._heard_s)

    def _offset_now_s(self) -> float:
        return self._clock.now_s() - self._clock.steady_s()


def _behind(seconds: float) -> str:
    return f"this machine's clock is {seconds:.0f} s behind the ledger: set it right"
