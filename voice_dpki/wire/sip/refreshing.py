"""The clock of a call's session timer (RFC 4028): one end refreshes the call, and without a refresh it ends."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final

from voice_dpki.sip.session_timer import SessionTimer

EXPIRED: Final = ("Reason", 'SIP;cause=408;text="the session was not refreshed (RFC 4028)"')
"""Header field of the BYE that ends a call without a refresh."""


class Refreshing:
    """The timers of one call; `run` starts a task, and `end` ends the call with the header fields given to it."""

    def __init__(
        self,
        timer: SessionTimer,
        ended: asyncio.Event,
        run: Callable[[Coroutine[object, object, object]], object],
        end: Callable[[list[tuple[str, str]]], Coroutine[object, object, object]],
    ) -> None:
        self.refresh: Callable[[], Awaitable[None]] | None = None
        """Sends a re-INVITE with an unchanged offer."""
        self._timer = timer
        self._ended = ended
        self._run = run
        self._end = end
        self._due: asyncio.TimerHandle | None = None

    def restart(self) -> None:
        """Restart after each 2xx to an INVITE, with the interval that it has set.

        If a refresh is ours and is not sent, the other side ends the call.
        """
        self.stop()
        interval = self._timer.interval
        if interval is None or self._ended.is_set() or (interval.is_ours and self.refresh is None):
            return
        loop = asyncio.get_running_loop()
        if interval.is_ours:
            self._due = loop.call_later(interval.refresh_after_s, self._refresh)
        else:
            self._due = loop.call_later(interval.end_after_s, self._expire)

    def stop(self) -> None:
        """Stop the timers, because the call has ended."""
        if self._due is not None:
            self._due.cancel()

    def _refresh(self) -> None:
        """Refresh; if no 2xx comes, which would restart the clock, the call ends when the session expires."""
        interval = self._timer.interval
        if self._ended.is_set() or self.refresh is None or interval is None:
            return
        loop = asyncio.get_running_loop()
        self._due = loop.call_later(interval.end_after_s - interval.refresh_after_s, self._expire)
        self._run(_awaited(self.refresh))

    def _expire(self) -> None:
        if not self._ended.is_set():
            self._run(self._end([EXPIRED]))


async def _awaited(work: Callable[[], Awaitable[None]]) -> None:
    await work()
