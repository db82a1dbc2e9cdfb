"""Session timers (RFC 4028): one end refreshes the call, so that both ends detect a call that is gone."""

from dataclasses import dataclass
from typing import Final

from sipmessage import Request, Response

from voice_dpki.errors import MalformedError
from voice_dpki.sip.hop import read_number
from voice_dpki.sip.message import header_values

Headers = tuple[tuple[str, str], ...]

OPTION: Final = "timer"
MIN_INTERVAL_S: Final = 90
"""Smallest session interval allowed (§5); a shorter one would have the ends send little but refreshes."""

_MAX_INTERVAL_S: Final = (1 << 31) - 1
_SPARE_S: Final = 32.0
"""The end that does not refresh hangs up at most this long before the session expires (§10)."""


@dataclass(frozen=True, slots=True)
class Interval:
    """The session interval that a 2xx has set, and whether this end refreshes."""

    seconds: int
    is_ours: bool

    @property
    def refresh_after_s(self) -> float:
        """Time from the 2xx to the refresh, for the end that sends it."""
        return self.seconds / 2

    @property
    def end_after_s(self) -> float:
        """Time from the 2xx after which a call without a refresh ends."""
        return self.seconds - min(_SPARE_S, self.seconds / 3)


class SessionTimer:
    """One end's state of a call's session timer; `wanted_s` is the interval that it asks for itself, if any."""

    def __init__(self, wanted_s: int | None = None) -> None:
        self.interval: Interval | None = None
        """That of the last 2xx; None if the session does not expire."""
        self._wanted_s = wanted_s
        self._least_s = 0
        """Largest Min-SE that was received."""

    def request_headers(self) -> Headers:
        """Return the header fields of our INVITE or re-INVITE (§7.1, §7.4)."""
        seconds, refresher = self._wanted_s, ""
        if self.interval is not None:
            seconds, refresher = self.interval.seconds, f";refresher={'uac' if self.interval.is_ours else 'uas'}"
        headers: Headers = (("Supported", OPTION),)
        if seconds is not None:
            headers += (("Session-Expires", f"{max(seconds, self._least_s, MIN_INTERVAL_S)}{refresher}"),)
        return (*headers, ("Min-SE", str(self._least_s))) if self._least_s else headers

    def answer_headers(self, request: Request) -> Headers:
        """Return the header fields of our 2xx to an INVITE that `check_interval` accepted, and store its interval.

        The end that sent the INVITE refreshes if it supports timers and has not chosen otherwise (§9, table 2).
        """
        self._hear(request)
        asked = _session_expires(request)
        if asked is None:
            self.interval = None
            return (("Supported", OPTION),)
        seconds, refresher = asked
        can = _supports(request)
        refresher = refresher or ("uac" if can else "uas")
        self.interval = Interval(max(seconds, MIN_INTERVAL_S), refresher == "uas")
        headers = (("Supported", OPTION), ("Session-Expires", f"{self.interval.seconds};refresher={refresher}"))
        return (*headers, ("Require", OPTION)) if can else headers

    def take_answer(self, response: Response) -> None:
        """Store the interval of the 2xx to our INVITE; a malformed one counts as none.

        If the other end does not support timers, we refresh alone, by the interval that we asked for (§7.2).
        """
        try:
            told = _session_expires(response)
        except MalformedError:
            self.interval = None
            return
        if told is not None:
            self.interval = Interval(max(told[0], MIN_INTERVAL_S), told[1] != "uas")
        elif self._wanted_s is not None and OPTION not in header_values(response, "Supported"):
            self.interval = Interval(max(self._wanted_s, self._least_s, MIN_INTERVAL_S), is_ours=True)
        else:
            self.interval = None

    def take_refusal(self, response: Response) -> bool:
        """Return whether a 422 names a longer least interval, with which the request may be sent again (§7.3)."""
        before = self._least_s
        self._hear(response)
        return response.code == 422 and self._least_s > before

    def _hear(self, message: Request | Response) -> None:
        values = header_values(message, "Min-SE")
        told = read_number(values[0].partition(";")[0].strip(), _MAX_INTERVAL_S) if values else None
        self._least_s = max(self._least_s, told or 0)


def check_interval(request: Request) -> bool:
    """Return whether the interval that an INVITE asks for is long enough; if not, 422 is due (§9).

    A sender without support for timers did not choose the interval, and would not understand 422, so any interval
    is accepted from it. Raises MalformedError.
    """
    asked = _session_expires(request)
    return asked is None or asked[0] >= MIN_INTERVAL_S or not _supports(request)


def _supports(request: Request) -> bool:
    return OPTION in header_values(request, "Supported")


def _session_expires(message: Request | Response) -> tuple[int, str] | None:
    """Return interval and refresher, "" for none, of Session-Expires or its short form; raises MalformedError."""
    values = header_values(message, "Session-Expires") or header_values(message, "x")
    if not values:
        return None
    number, *parameters = (part.strip() for part in values[0].split(";"))
    seconds = read_number(number, _MAX_INTERVAL_S)
    named = [part.partition("=")[2].strip() for part in parameters if part.partition("=")[0].strip() == "refresher"]
    refresher = named[0] if named else ""
    if seconds is None or refresher not in ("", "uac", "uas") or len(values) > 1:
        raise MalformedError("Session-Expires is no number of seconds with a refresher (RFC 4028 §4)")
    return seconds, refresher
