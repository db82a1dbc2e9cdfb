"""Requests that are repeated: a node that is busy says so, and when to ask again, and commands then do."""
# ruff: noqa: TID251 - this is a shell: it waits

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from voice_dpki.ledger.answers import InquiryCode, InquiryError
from voice_dpki.ledger.client import BUSY, SubmissionError
from voice_dpki.shell.ending import say

T = TypeVar("T")

RETRY_S = (0.2, 0.5, 1.0, 2.0, 5.0, 5.0, 5.0)
"""Pauses before a request that nobody answered is sent again; a node that says it is busy is asked for longer."""

MAX_RETRY_AFTER_S = 30.0
"""A node that wants to be left alone for longer is asked again after this time."""

BUSY_S = 300.0
"""A node that has been busy for so long, without taking one request, is given up."""

__all__ = ["BUSY", "Pauses", "Seldom", "Tell", "again", "retry_after_s"]

_TELL_S = 10.0

Tell = Callable[[str], None]
"""Tells the person at the terminal something."""


class Seldom:
    """Tells of repeated requests, but not of each: once in ten seconds, however many wait."""

    def __init__(self, tell: Tell = say) -> None:
        self._tell = tell
        self._next_s = 0.0

    def __call__(self, sentence: str) -> None:
        """Tell, unless something was told just now."""
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._next_s = now_s + _TELL_S
            self._tell(sentence)


class Pauses:
    """When one request is repeated, and when it is given up; make one for each request."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._away = iter(RETRY_S)
        self._last_s = RETRY_S[-1] if RETRY_S else 0.0
        self._give_up_s = time.monotonic() + BUSY_S

    async def pause(self, why: str, *, busy: bool, wished_s: float = 0.0) -> bool:
        """Wait until the request can be sent again; False if that is no use any more.

        `busy`: the node says that it is, and may have said in `wished_s` for how long it wants to be left alone.
        """
        pause_s = next(self._away, self._last_s if busy else None)
        if pause_s is None or time.monotonic() > self._give_up_s:
            return False
        pause_s = max(pause_s, min(wished_s, MAX_RETRY_AFTER_S))
        if pause_s >= 1:
            self._tell(f"{why}; the request is repeated in {pause_s:.0f} s")
        await asyncio.sleep(pause_s)
        return True


async def again(ask: Callable[[], Awaitable[T]], tell: Tell) -> T:
    """Return what `ask` does, which is repeated while the node is busy or away.

    Raises InquiryError and SubmissionError: at once if the request was refused, else in the end.
    """
    pauses = Pauses(tell)
    while True:
        try:
            return await ask()
        except (InquiryError, SubmissionError) as error:
            away = error.code == InquiryCode.UNREACHABLE or getattr(error, "name", "") == "unavailable"
            busy, wished_s = error.retry_after is not None, retry_after_s(error.retry_after or "")
            if not (away or busy) or not await pauses.pause(str(error), busy=busy, wished_s=wished_s):
                raise


def retry_after_s(text: str) -> float:
    """Read a Retry-After header (RFC 9110 §10.2.3), at most MAX_RETRY_AFTER_S; 0 where it does not give seconds."""
    return min(float(text), MAX_RETRY_AFTER_S) if re.fullmatch("[0-9]{1,9}", text, re.ASCII) else 0.0
