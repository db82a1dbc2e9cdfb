"""Retries of requests to a node that is unreachable or busy; a busy node's Retry-After is honoured."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from voice_dpki.ledger.answers import InquiryCode, InquiryError
from voice_dpki.shell.ending import say
from voice_dpki.wire.ledger.client import BUSY, SubmissionError

T = TypeVar("T")

RETRY_S = (0.2, 0.5, 1.0, 2.0, 5.0, 5.0, 5.0)
"""Pauses before the retries of a request; if the node says it is busy, the last one is repeated until BUSY_S."""

MAX_RETRY_AFTER_S = 30.0
"""Longest Retry-After that is honoured; after this time, the request is repeated in any case."""

BUSY_S = 300.0
"""How long one request is retried at most."""

__all__ = ["BUSY", "Pauses", "SeldomTell", "Tell", "again", "retry_after_s"]

_TELL_S = 10.0

Tell = Callable[[str], None]
"""Prints a sentence for the person at the terminal."""


class SeldomTell:
    """A `Tell` that passes on at most one sentence in ten seconds, however many requests are repeated."""

    def __init__(self, tell: Tell = say) -> None:
        self._tell = tell
        self._next_s = 0.0

    def __call__(self, sentence: str) -> None:
        """Pass the sentence on, unless another one was in the last ten seconds."""
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._next_s = now_s + _TELL_S
            self._tell(sentence)


class Pauses:
    """The pauses between the retries of one request, and when to give up; make one for each request."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._away = iter(RETRY_S)
        self._last_s = RETRY_S[-1] if RETRY_S else 0.0
        self._give_up_s = time.monotonic() + BUSY_S

    async def pause(self, why: str, *, busy: bool, wished_s: float = 0.0) -> bool:
        """Wait until the request can be sent again; return False, without waiting, if it is time to give up.

        `busy` says that the node answered that it is busy; `wished_s` is then its Retry-After, or 0.
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
    """Return the result of `ask`, which is retried while the node is busy or unreachable.

    Raises InquiryError and SubmissionError: at once if the request was refused, or else after the last retry.
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
