"""SIP over a byte stream: messages cut out of it by Content-Length (RFC 3261 §18.3), keep-alives answered."""

import re
from typing import Final

from voice_dpki.errors import MalformedError
from voice_dpki.sip.message import MAX_MESSAGE_BYTES

PING: Final = b"\r\n\r\n"
PONG: Final = b"\r\n"
"""Keep-alive of RFC 5626 §3.5.1: two line ends ask, one answers."""

_LINE_ENDS = re.compile(rb"(?:\r\n)+")
_LENGTH = re.compile(rb"(?im)^(?:content-length|l)[ \t]*:[ \t]*([0-9]{1,6})[ \t]*\r?$")


class FramingError(MalformedError):
    """A stream that cannot be followed any further; `head` is the header after which that is so."""

    def __init__(self, message: str, head: bytes) -> None:
        super().__init__(message)
        self.head = head


class StreamFramer:
    """Collects what a connection receives and gives whole messages.

    Never holds more than one message of MAX_MESSAGE_BYTES beyond what was just received.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._size: int | None = None
        """How long the message is whose header has come, so that its body may come byte by byte."""
        self.error: FramingError | None = None
        """Why the stream cannot be followed any further: a header without Content-Length, a message over the bound.

        Nothing is taken in any more; the connection must be closed.
        """
        self.pings = 0
        """Keep-alive requests seen and not yet answered; the owner sets it back."""

    @property
    def waiting(self) -> bool:
        """Whether part of a message has arrived."""
        return len(self._buffer) > len(PING) or bool(self._buffer.strip(b"\r\n"))

    def receive(self, data: bytes) -> list[bytes]:
        """Take in `data` and return the messages that are complete now; sets `error` where no more can come."""
        self.feed(data)
        messages: list[bytes] = []
        while (message := self.next()) is not None:
            messages.append(message)
        return messages

    def feed(self, data: bytes) -> None:
        """Take in `data`, from which `next` cuts messages."""
        if self.error is None:
            self._buffer += data

    def next(self) -> bytes | None:
        """Return the next message, or None where none is complete; sets `error` where no more can come."""
        if self.error is not None:
            return None
        try:
            return self._next()
        except FramingError as error:
            self.error = error.with_traceback(None)  # whose frames hold this framer, and with it all that came
            self._buffer.clear()
            return None

    def _next(self) -> bytes | None:
        if self._size is None:
            self._size = self._read_header()
        if self._size is None or len(self._buffer) < self._size:
            return None
        message = bytes(self._buffer[: self._size])
        del self._buffer[: self._size]
        self._searched, self._size = 0, None
        return message

    def _read_header(self) -> int | None:
        """Return how long the next message is, or None where its header has not come whole."""
        self._skip_line_ends()
        end = self._buffer.find(b"\r\n\r\n", max(0, self._searched - 3))
        if end < 0:
            self._searched = len(self._buffer)
            if len(self._buffer) > MAX_MESSAGE_BYTES:
                raise FramingError(
                    f"no end of the SIP header within {MAX_MESSAGE_BYTES} bytes", bytes(self._buffer)
                )
            return None
        size = end + 4 + self._content_length(end)
        if size > MAX_MESSAGE_BYTES:
            raise FramingError(f"a SIP message over {MAX_MESSAGE_BYTES} bytes", bytes(self._buffer[:end]))
        return size

    def _skip_line_ends(self) -> None:
        """Drop line ends between messages (RFC 3261 §7.5), counting those that ask for an answer."""
        found = _LINE_ENDS.match(self._buffer)
        size = found.end() if found else 0
        del found  # while it lives the buffer cannot shrink
        if not size:
            return
        pings, rest = divmod(size, len(PING))
        self.pings += pings
        is_half = rest and bytes(self._buffer[size : size + 1]) in (b"", b"\r")  # perhaps of a ping
        del self._buffer[: size - rest if is_half else size]
        self._searched = 0

    def _content_length(self, end: int) -> int:
        found = _LENGTH.findall(self._buffer, 0, end)
        if len(set(found)) != 1:
            head = bytes(self._buffer[:end])
            raise FramingError("a stream needs one Content-Length in each message (RFC 3261 §18.3)", head)
        return int(found[0])
