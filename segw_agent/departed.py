"""SAs that ended lately: the daemon can report late that it had rekeyed one of them before."""

from typing import NamedTuple

from segw_agent.live_log import LiveSa
from voice_dpki.ikev2.events import SaName, Untrusted


class Departure(NamedTuple):
    """An SA that ended without a report of its end from the daemon."""

    sa: LiveSa
    why: Untrusted | None
    """Why it was ended; None if the daemon did not list it any more."""
    at_s: float


class Departed:
    """The ended SAs, oldest first."""

    def __init__(self, kept_s: float) -> None:
        """Remember each for `kept_s`, the longest time that the report of a rekeying may take."""
        self._kept_s = kept_s
        self._gone: dict[SaName, Departure] = {}

    def add(self, sa: LiveSa, why: Untrusted | None, now_s: float) -> None:
        """Remember an SA from `now_s` on, by a monotonic clock, and forget those that are too old."""
        self.forget_old(now_s)
        self._gone[sa.name] = Departure(sa, why, now_s)

    def numbered(self, unique_id: int) -> LiveSa | None:
        """Return the SA that had a number of the daemon's."""
        return next((gone.sa for gone in self._gone.values() if gone.sa.unique_id == unique_id), None)

    def take(self, name: SaName) -> Departure | None:
        """Remove and return an SA's departure, None if it is not remembered."""
        return self._gone.pop(name, None)

    def forget_old(self, now_s: float) -> None:
        """Forget SAs whose rekeying would have been reported by `now_s`."""
        while self._gone and self._gone[first := next(iter(self._gone))].at_s < now_s - self._kept_s:
            del self._gone[first]
