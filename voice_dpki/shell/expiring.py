"""Warnings of certificates that expire soon: when they begin, and their wording."""

from datetime import UTC, datetime
from typing import Final

from voice_dpki.effects import Clock
from voice_dpki.shell.readiness import Check, Finding, failed_if, warned_if
from voice_dpki.shell.reload import Live
from voice_dpki.shell.tls import ServerSide

DAY_S: Final = 86_400
WARN_DAYS: Final = 14.0
SHARE: Final = 4
"""Divisor: a warning begins when this part of the validity is left at most, so that short-lived certificates
are not always warned of."""


def expires_soon(not_before_s: float, not_after_s: float, now_s: float, warn_s: float = WARN_DAYS * DAY_S) -> bool:
    """Tell whether at most `warn_s` of a validity is left, and at most its last quarter; also once it has ended."""
    return not_after_s - now_s <= min(warn_s, (not_after_s - not_before_s) / SHARE)


def time_told(seconds: float) -> str:
    """Write a time in whole days, or in hours or minutes if it is shorter."""
    for unit_s, name in ((DAY_S, "days"), (3600, "hours")):
        if seconds >= 2 * unit_s:
            return f"{seconds // unit_s:.0f} {name}"
    return f"{seconds // 60:.0f} minutes"


def tls_checks(side: Live[ServerSide] | None, clock: Clock) -> dict[str, Check]:
    """Return the expiry check of a server's own TLS certificate, none without TLS."""
    return {} if side is None else {"tls": lambda: tls_finding(side.value, clock.now_s())}


def tls_finding(side: ServerSide, now_s: float) -> Finding:
    """Return a finding on the expiry. Peers list the exact certificate, so they need the next one early."""
    begin, end = (datetime.fromtimestamp(at_s, UTC) for at_s in (side.not_before_s, side.not_after_s))
    if now_s < side.not_before_s:
        return failed_if(f"{_OWN} is valid from {begin:{_TIME}} on, so nobody accepts it: is the clock right?")
    if now_s > side.not_after_s:
        return failed_if(f"{_OWN} expired {end:{_TIME}}, so nobody accepts it: {_NEXT_ONE}")
    soon = expires_soon(side.not_before_s, side.not_after_s, now_s)
    left = time_told(side.not_after_s - now_s)
    return warned_if(f"{_OWN} expires in {left}, {end:{_TIME}}: {_NEXT_ONE}" if soon else "")


_OWN: Final = "this server's own TLS certificate"
_TIME: Final = "%Y-%m-%d %H:%M UTC"
_NEXT_ONE: Final = "make another, have all peers list it beside this one, and only then configure it and reload"
