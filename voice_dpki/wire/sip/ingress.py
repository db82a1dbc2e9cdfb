"""The queue of received messages of one element: senders take turns, and the work is done in short slices.

The kernel has one queue for the datagrams of all senders, and a flood fills it. The socket is therefore emptied
first, which is cheap, and the costly processing of each message waits for its sender's turn (`Turns`).
"""

import asyncio
from collections.abc import Callable
from functools import lru_cache
from typing import Final, TypeAlias

from voice_dpki.sip.hop import source_of
from voice_dpki.sip.senders import Senders
from voice_dpki.sip.turns import Turns

SLICE_S: Final = 0.002
"""Longest time that messages are processed before the event loop serves sockets, timers and tasks again."""
SLICE_MESSAGES: Final = 32
"""Most messages in one slice: each may start a task that costs as much again."""

Work: TypeAlias = Callable[[], None]

_source_of = lru_cache(4_096)(source_of)


class Ingress:
    """Queues messages by sender and processes them on the running event loop.

    `on_datagram(data, host, port)` gets each datagram; `on_dropped(source, count)` learns that `count` datagrams
    were dropped because `source` sent one.
    """

    def __init__(
        self,
        senders: Senders,
        on_datagram: Callable[[bytes, str, int], None],
        on_dropped: Callable[[str, int], None],
    ) -> None:
        self._senders = senders
        self._on_datagram = on_datagram
        self._on_dropped = on_dropped
        self._turns: Turns[tuple[bytes, str, int] | Work] = Turns()
        self._loop = asyncio.get_running_loop()
        self._next: asyncio.Handle | None = None
        self._closed = False
        self._emptied = asyncio.Event()

    def datagram(self, data: bytes, host: str, port: int) -> None:
        """Queue a datagram; drop it if its sender has used up its share of the room, or a stranger its rate."""
        source = host if ":" not in host else _source_of(host)
        now_s = self._loop.time()
        is_known = self._senders.is_known(source, now_s)
        if not is_known and not self._senders.admits(source, now_s):
            self._on_dropped(source, 1)
            return
        dropped = self._turns.put(source, (data, host, port), len(data), is_known=is_known)
        if dropped:
            self._on_dropped(source, dropped)
        self._wake()

    def stream(self, source: str, work: Work) -> None:
        """Queue a connection's next piece of work; a connection may have one queued at a time."""
        self._turns.put_stream(source, work, is_known=self._senders.is_known(source, self._loop.time()))
        self._wake()

    async def emptied(self) -> None:
        """Wait until all that is queued has been processed, or dropped by `close`."""
        self._emptied.clear()
        if self._turns and not self._closed:
            await self._emptied.wait()

    def close(self) -> None:
        """Stop processing; queued messages are dropped."""
        self._closed = True
        self._emptied.set()
        if self._next is not None:
            self._next.cancel()

    def _wake(self) -> None:
        if self._next is None and not self._closed:
            self._next = self._loop.call_soon(self._work)

    def _work(self) -> None:
        self._next = None
        try:
            self._work_for_a_slice()
        finally:  # an error ends the processing of its own message only
            if self._turns:
                self._wake()
            else:
                self._emptied.set()

    def _work_for_a_slice(self) -> None:
        until_s = self._loop.time() + SLICE_S
        for _ in range(SLICE_MESSAGES):
            if not self._turns or self._closed:
                return
            item = self._turns.take()
            if isinstance(item, tuple):
                self._on_datagram(*item)
            else:
                item()
            if self._loop.time() >= until_s:
                return
