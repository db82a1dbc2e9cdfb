"""One client's connection to an HTTP server as a channel: writing, bounds on reading, and deadlines.

`voice_dpki.shell.http_connection` derives from it and handles requests.
"""

import asyncio
import logging
from abc import abstractmethod
from time import time
from typing import Final
from wsgiref.handlers import format_date_time

from voice_dpki.codec.http1 import encode_response
from voice_dpki.errors import LocalError
from voice_dpki.shell.http_app import Response
from voice_dpki.shell.limits import UNREAD
from voice_dpki.wire.seldom import Seldom

log = logging.getLogger(__name__)
_SAID = Seldom(log)

TICK_S = 10.0
"""Longest time between two checks of a connection's deadline."""
DRAIN_S = 10.0
MIN_DRAINED_BYTES = 64 * 1024
"""Bytes of its unread answers that a client must read in DRAIN_S, or half of them if that is less.

A slower client is cut off.
"""
LINGER_BYTES = 64 * 1024
"""Bytes of a refused client's further input that are read and discarded; then reading stops."""


class _Date:
    """The value of the Date header field, made once a second."""

    def __init__(self) -> None:
        self._at_s = -1.0
        self._value = b""

    def value(self, loop_s: float) -> bytes:
        if loop_s >= self._at_s + 1:
            self._at_s, self._value = float(int(loop_s)), format_date_time(time()).encode("ascii")
        return self._value


_DATE: Final = _Date()


class Channel(asyncio.Protocol):
    """A transport with a deadline, and with bounds on what is read and on unread answers."""

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
        """When the present wait began, by the loop's clock."""

    @abstractmethod
    def abort(self) -> None:
        """Close the connection at once, also during a request."""

    @abstractmethod
    def _time_out(self) -> None:
        """React to a missed deadline: set a new one with `_expect`, or close the connection."""

    @property
    @abstractmethod
    def _is_timed(self) -> bool:
        """Whether the deadline applies now."""

    def _write(self, response: Response, *, close: bool, head_only: bool) -> None:
        """Write a response at once; one that cannot be encoded becomes an empty 500."""
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
        self._send(data)

    def _send(self, data: bytes) -> None:
        """Send octets to the client."""
        self._transport.write(data)

    def _hold(self) -> None:
        """Pause reading."""
        if not (self._paused or self._transport.is_closing()):
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        """Resume reading."""
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    def _discard(self, size: int) -> None:
        """Discard what a refused client still sends; above a bound, pause reading."""
        self._lingered_bytes += size
        if self._lingered_bytes > LINGER_BYTES:
            self._hold()

    def pause_writing(self) -> None:
        """Set a deadline for a client that does not read its answers."""
        self._takes_answers = False
        self._unread_bytes = self._transport.get_write_buffer_size()
        self._expect(DRAIN_S)

    def _expect(self, within_s: float) -> None:
        """Set the deadline, `within_s` from now."""
        self.since_s = now_s = self._loop.time()
        self._deadline_s = now_s + within_s

    def _arm(self, tick_s: float) -> None:
        """Check the deadline when it is reached, and at least every `tick_s`, for an earlier one may be set.

        One that has passed does not count while a request is handled: it is checked every `tick_s`, too.
        """
        if self._timer is not None:
            self._timer.cancel()
        left_s = self._deadline_s - self._loop.time()
        wait_s = max(0.001, min(tick_s, left_s)) if left_s > 0 else tick_s
        self._timer = self._loop.call_later(wait_s, self._look, tick_s)

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
        """Close the connection if the client has read too little since the last check, or has read everything."""
        left = self._transport.get_write_buffer_size()
        if left and left <= self._unread_bytes - min(MIN_DRAINED_BYTES, self._unread_bytes // 2):
            self._unread_bytes = left
            self._expect(DRAIN_S)
            return
        if left:
            UNREAD.inc()
        self.abort()
