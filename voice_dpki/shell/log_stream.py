"""Standard error for logs, with a bounded wait for a reader that does not read.

A write to a full pipe blocks until the reader reads, and would block the whole event loop. So a line that cannot be
written in time is dropped. The flags of the descriptor, which other processes share, stay unchanged: a pipe is
reopened for a non-blocking flag of its own, and a socket gets MSG_DONTWAIT with each message.
"""

import os
import select
import socket
import stat
import sys
from collections.abc import Callable
from time import monotonic
from typing import Final, TextIO

WAIT_S: Final = 1.0
"""Longest time that one line waits for the reader."""

AGAIN_S: Final = 10.0
"""After a line waited in vain, no line waits for this long, or until another one was written."""

Write = Callable[[memoryview], int]
"""Writes what there is room for, and returns how many octets; raises BlockingIOError if there is no room."""


class ImpatientStream:
    """A stream of text for `logging.StreamHandler`; `descriptor` tells when `write` has room again."""

    def __init__(self, descriptor: int, write: Write) -> None:
        self._write = write
        self._room = select.poll()
        self._room.register(descriptor, select.POLLOUT)
        self._waits_from_s = 0.0
        self._is_stuck = False
        self._is_torn = False
        """Whether the line that was written last has no end."""

    def write(self, text: str) -> int:
        """Write a line; raises BlockingIOError if there was no room in time, another OSError without a reader."""
        data = ("\n" * self._is_torn + text).encode(errors="backslashreplace")
        began_s, left = monotonic(), memoryview(data)
        until_s = began_s if self._is_stuck or began_s < self._waits_from_s else began_s + WAIT_S
        while left:
            try:
                left = left[self._write(left) :]
            except BlockingIOError:
                wait_s = until_s - monotonic()
                if wait_s <= 0 or not self._room.poll(wait_s * 1000):
                    self._is_stuck, self._waits_from_s = True, monotonic() + AGAIN_S
                    self._is_torn = self._is_torn or len(left) < len(data)
                    raise
        self._is_stuck = self._is_torn = False
        return len(text)


def log_stream() -> TextIO | ImpatientStream:
    """Return a stream to standard error: an impatient one if that is a pipe or a socket that can be had so."""
    try:
        descriptor = sys.stderr.fileno()
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISFIFO(mode):
            own = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            return ImpatientStream(own, lambda data: os.write(own, data))
        if stat.S_ISSOCK(mode):
            sock = socket.socket(fileno=os.dup(descriptor))
            return ImpatientStream(sock.fileno(), lambda data: sock.send(data, socket.MSG_DONTWAIT))
    except (OSError, ValueError, AttributeError):  # no descriptor, no /proc, or a pipe of another user
        pass
    return sys.stderr
