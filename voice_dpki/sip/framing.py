"""SIP over a byte stream: splitting it into messages by Content-Length (RFC 3261 §18.3), counting keep-alives."""

import re
from typing import Final

from voice_dpki.errors import MalformedError
from voice_dpki.sip.message import MAX_MESSAGE_BYTES

PING: Final = b"\r\n\r\n"
PONG: Final = b"\r\n"
"""Keep-alive of RFC 5626 §3.5.1: two line ends are the ping, one is the pong."""

_LINE_ENDS = re.compile(rb"(?:\r\n)+")
_LENGTH = re.compile(rb"(?im)^(?:content-length|l)[ \t]*:[ \t]*([0-9]{1,6})[ \t]*\r?$")


class FramingError(MalformedError):
    """The stream cannot be split any further; `head` is the header at which splitting failed."""

    def __init__(self, message: str, head: bytes) -> None:
        super().__init__(message)
        self.head = head


class StreamFramer:
    """Splits the bytes that a connection receives into whole messages.

    It never holds more than MAX_MESSAGE_BYTES beyond the bytes received last.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._size: int | None = None
        """Size of the message whose header has arrived, kept so that each piece of its body costs no new search."""
        self.error: FramingError | None = None
        """Why the stream cannot be split any further: a header without one Content-Length, or a message too large.

        Further bytes are ignored; the connection must be closed.
        """
        self.pings = 0
        """Pings that are not answered yet; the owner resets the count."""

    @property
    def waiting(self) -> bool:
        """Whether part of a message has arrived."""
        return len(self._buffer) > len(PING) or bool(self._buffer.strip(b"\r\n"))

    def receive(self, data: bytes) -> list[bytes]:
        """Add `data` and return the messages that are now complete; sets `error` if no more can follow."""
        self.feed(data)
        messages: list[bytes] = []
        while (message := self.next()) is not None:
            messages.append(message)
        return messages

    def feed(self, data: bytes) -> None:
        """Add `data` to the stream, from which `next` takes messages."""
        if self.error is None:
            self._buffer += data

    def next(self) -> bytes | None:
        """Return the next message, or None if none is complete; sets `error` if no more can follow."""
        if self.error is not None:
            return None
        try:
            return self._next()
        except FramingError as error:
            self.error = error.with_traceback(None)  # its frames would keep this framer and its data alive
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
        """Return the size of the next message in bytes, or None if its header is not complete."""
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
        """Drop line ends between messages (RFC 3261 §7.5), counting the pings among them."""
        found = _LINE_ENDS.match(self._buffer)
        size = found.end() if found else 0
        if not size:
            return
        pings, rest = divmod(size, len(PING))
        self.pings += pings
        is_half = rest and bytes(self._buffer[size : size + 1]) in (b"", b"\r")  # perhaps half of a ping
        del self._buffer[: size - rest if is_half else size]
        self._searched = 0

    def _content_length(self, end: int) -> int:
        found = _LENGTH.findall(self._buffer, 0, end)
        if len(set(found)) != 1:
            head = bytes(self._buffer[:end])
            raise FramingError("a stream needs one Content-Length in each message (RFC 3261 §18.3)", head)
        return int(found[0])
