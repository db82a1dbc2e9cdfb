"""One client's connection to an HTTP server as a channel: what is written, how much is read, and how long for.

`voice_dpki.shell.http_connection` derives from it and knows what requests are.
"""
# ruff: noqa: TID251 - this is a shell: it serves sockets

import asyncio
import logging
from abc import abstractmethod
from time import time
from typing import Final
from wsgiref.handlers import format_date_time

from voice_dpki.codec.http1 import encode_response
from voice_dpki.errors import LocalError
from voice_dpki.shell.http_app import Response
from voice_dpki.shell.limits import UNREAD, Seldom

log = logging.getLogger(__name__)
_SAID = Seldom(log)

TICK_S = 10.0
"""How often a connection's deadline is looked at, at least."""
DRAIN_S = 10.0
MIN_DRAINED_BYTES = 64 * 1024
"""How much of its answers a client must take in DRAIN_S, or half of them; slower ones are cut off."""
LINGER_BYTES = 64 * 1024
"""How much of what a refused client goes on sending is taken and thrown away; then nothing more is read."""


class _Date:
    """The value of Date, made once a second."""

    def __init__(self) -> None:
        self._at_s = -1.0
        self._value = b""

    def value(self, loop_s: float) -> bytes:
        if loop_s >= self._at_s + 1:
            self._at_s, self._value = float(int(loop_s)), format_date_time(time()).encode("ascii")
        return self._value


_DATE: Final = _Date()


class Channel(asyncio.Protocol):
    """A transport with a deadline, and with bounds on what is read and on what stays unread."""

    _transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._deadline_s = 0.0
        self._paused = False
        self._takes_answers = True
        self._unread_bytes = 0
        self._lingered_bytes = 0
        self.since_s = 0.0
        """Since when it waits for what it waits for, by the loop's clock."""

    @abstractmethod
    def abort(self) -> None:
        """Close the connection, whatever is under way."""

    @abstractmethod
    def _time_out(self) -> None:
        """End what did not come about in time; `_expect` or close."""

    @property
    @abstractmethod
    def _is_timed(self) -> bool:
        """Whether the deadline counts now."""

    def _write(self, response: Response, *, close: bool, head_only: bool) -> None:
        """Write an answer at once; one that cannot be sent becomes an empty 500."""
        date = _DATE.value(self._loop.time())
        try:
            data = encode_response(
                response.status,
                response.content_type,
                response.body,
                response.headers,
                date,
                close=close,
                head_only=head_only,
            )
        except LocalError as error:
            _SAID.error("response cannot be sent", error)
            data = encode_response(500, "text/plain", b"", (), date, close=close, head_only=head_only)
        self._transport.write(data)

    def _hold(self) -> None:
        """Read no more for now."""
        if not (self._paused or self._transport.is_closing()):
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        """Go on reading."""
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    def _discard(self, size: int) -> None:
        """Throw away what a refused client goes on sending, up to a bound."""
        self._lingered_bytes += size
        if self._lingered_bytes > LINGER_BYTES:
            self._hold()

    def pause_writing(self) -> None:
        """Begin to watch a client that does not take its answers."""
        self._takes_answers = False
        self._unread_bytes = self._transport.get_write_buffer_size()
        self._expect(DRAIN_S)

    def _expect(self, within_s: float) -> None:
        """Set the deadline."""
        self.since_s = now_s = self._loop.time()
        self._deadline_s = now_s + within_s

    def _arm(self, tick_s: float) -> None:
        """Look at the deadline when it is reached, and after `tick_s`, for one that comes sooner."""
        if self._timer is not None:
            self._timer.cancel()
        left_s = self._deadline_s - self._loop.time()
        self._timer = self._loop.call_later(max(0.001, min(tick_s, left_s)), self._look, tick_s)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self, tick_s: float) -> None:
        self._timer = None
        if self._loop.time() >= self._deadline_s and (self._is_timed or not self._takes_answers):
            self._time_out()
        if self._timer is None:
            self._arm(tick_s)

    def _check_drained(self) -> None:
        """Cut off a client that took too little of its answers since the last look, or took the last of them."""
        left = self._transport.get_write_buffer_size()
        if left and left <= self._unread_bytes - min(MIN_DRAINED_BYTES, self._unread_bytes // 2):
            self._unread_bytes = left
            self._expect(DRAIN_S)
            return
        if left:
            UNREAD.inc()
        self.abort()
