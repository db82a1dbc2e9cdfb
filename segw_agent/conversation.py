"""A connection to the agent's socket: frames of requests, each answered before the next one is parsed.

It is an asyncio protocol, not a pair of streams: devices reattach by the thousand, each with a connection of its
own, and the streams of one would cost as much time as its verdict from the cache.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import cast

from segw_agent.protocol import LENGTH_BYTES
from voice_dpki.wire.tasks import Background

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 256
"""Most open connections: more than one for each of the daemon's threads."""

MAX_FRAME_BYTES = LENGTH_BYTES + 2 ** (8 * LENGTH_BYTES) - 1
"""Largest frame. While a request is answered, no more than this and one read's worth of bytes is buffered."""

IDLE_S = 300.0
"""A connection without a request for this long is closed; the client opens another."""

FRAME_S = 5.0
"""How long the rest of a frame may take."""

AnswerTo = Callable[[bytes], Awaitable[tuple[bytes, bool]]]
"""Takes a frame's body; returns the answer's frame, and whether the client may ask again."""


class Conversations:
    """All connections to one socket."""

    def __init__(self, answer: AnswerTo) -> None:
        self.answer = answer
        self.work = Background(log)
        self.ending = False
        """Whether each connection is closed once its client has got an answer."""
        self._open: set[Conversation] = set()
        self._closed = asyncio.Event()

    @property
    def open(self) -> int:
        """How many connections are open."""
        return len(self._open)

    def begin(self) -> "Conversation":
        """Return the protocol of a new connection: the event loop's factory."""
        return Conversation(self)

    def add(self, conversation: "Conversation") -> bool:
        """Note an open connection; return False if there are too many."""
        self._open.add(conversation)
        return self.open <= MAX_CONNECTIONS

    def remove(self, conversation: "Conversation") -> None:
        """Note that a connection is closed."""
        self._open.discard(conversation)
        self._closed.set()

    async def finish(self) -> None:
        """Close all connections, and wait; those with a pending request, or none yet, first get an answer."""
        self.ending = True
        for each in list(self._open):
            each.close_if_idle()
        await self._all_closed()

    async def give_up(self) -> None:
        """Close all connections."""
        for each in list(self._open):
            each.abort()
        await self._all_closed()

    async def _all_closed(self) -> None:
        while self._open:
            self._closed.clear()
            await self._closed.wait()


class Conversation(asyncio.Protocol):
    """One connection."""

    def __init__(self, all_of_them: Conversations) -> None:
        self._all = all_of_them
        self._transport: asyncio.Transport
        self._received = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._in_frame = self._answering = self._ended = False
        """Whether a frame has begun, a request is being answered, and the client will send nothing more."""
        self._answered = False
        """Whether the client has got an answer."""
        self._unread = self._paused = False
        """Whether the client does not read what we send, and we do not read what it sends."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, or close the connection if there are too many."""
        self._transport = cast(asyncio.Transport, transport)
        if self._all.add(self):
            self._close_after(IDLE_S)
        else:
            self._transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        """End the connection. A request in progress is still judged, because the daemon may act on it."""
        self._all.remove(self)
        self._stop_timer()

    def close_if_idle(self) -> None:
        """Close the connection unless the client waits for an answer, or has sent no request yet."""
        if self._answered and not (self._answering or self._received):
            self._transport.close()

    def abort(self) -> None:
        """Close the connection, whatever the client waits for."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take part of a frame, or several."""
        self._received += data
        self._advance()

    def eof_received(self) -> bool:
        """Answer the received requests, and then close."""
        self._ended = True
        self._advance()
        return True

    def pause_writing(self) -> None:
        """Answer no more requests until the client has read the answers."""
        self._unread = True

    def resume_writing(self) -> None:
        """Go on."""
        self._unread = False
        self._advance()

    def _advance(self) -> None:
        """Answer the next request if it is complete and no other one is in progress."""
        if self._transport.is_closing():
            return
        may_answer = not (self._answering or self._unread)
        body = self._next_body() if may_answer else None
        if body is not None:
            self._stop_timer()
            self._answering, self._in_frame = True, False
            self._all.work.run(self._answer(body))
        elif self._ended and may_answer:
            self._transport.close()
        self._pause_if_full()

    def _next_body(self) -> bytes | None:
        """Take a complete frame's body; None if it is incomplete, and then start the timeout for its rest."""
        received = self._received
        size = LENGTH_BYTES + int.from_bytes(received[:LENGTH_BYTES], "big")
        if LENGTH_BYTES <= len(received) >= size:
            body = bytes(received[LENGTH_BYTES:size])
            del received[:size]
            return body
        if len(received) >= LENGTH_BYTES and not self._in_frame:
            self._in_frame = True
            self._close_after(FRAME_S)
        return None

    async def _answer(self, body: bytes) -> None:
        may_ask_again = False
        try:
            answer, may_ask_again = await self._all.answer(body)
            if not self._transport.is_closing():
                self._transport.write(answer)
        finally:
            self._answering, self._answered = False, True
            if may_ask_again:
                self._go_on()
            else:
                self._transport.close()

    def _go_on(self) -> None:
        if self._transport.is_closing():
            return
        self._close_after(IDLE_S)
        self._advance()
        if self._all.ending:
            self.close_if_idle()
        if self._paused and len(self._received) <= MAX_FRAME_BYTES:
            self._paused = False
            self._transport.resume_reading()

    def _pause_if_full(self) -> None:
        """Pause reading while the buffer is full; an incomplete frame always leaves room for its rest."""
        if len(self._received) > MAX_FRAME_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _close_after(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
