"""SIP over a byte stream: messages cut out of it by Content-Length (RFC 3261 §18.3), keep-alives answered."""

import re
from typing import Final

from voice_dpki.errors import MalformedError
from voice_dpki.sip.message import MAX_MESSAGE_BYTES

PING: Final = b"\r\n\r\n"
PONG: Final = b"\r\n"
"""Keep-alive of RFC 5626 §3.5.1: two line ends ask, one answers."""

_LENGTH = re.compile(rb"(?im)^(?:content-length|l)[ \t]*:[ \t]*([0-9]{1,6})[ \t]*\r?$")


class StreamFramer:
    """Collects what a connection receives and gives whole messages.

    Never holds more than one message of MAX_MESSAGE_BYTES beyond what was just received.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self.pings = 0
        """Keep-alive requests seen and not yet answered; the owner sets it back."""

    @property
    def waiting(self) -> bool:
        """Whether part of a message has arrived."""
        return bool(self._buffer.strip(b"\r\n"))

    def receive(self, data: bytes) -> list[bytes]:
        """Take in `data` and return the messages that are complete now.

        Raises MalformedError where the stream cannot be followed any further: a header without Content-Length or
        a message over the bound. The connection must then be closed.
        """
        self._buffer += data
        messages = []
        while (message := self._next()) is not None:
            messages.append(message)
        return messages

    def _next(self) -> bytes | None:
        self._skip_line_ends()
        end = self._buffer.find(b"\r\n\r\n", max(0, self._searched - 3))
        if end < 0:
            self._searched = len(self._buffer)
            if len(self._buffer) > MAX_MESSAGE_BYTES:
                raise MalformedError(f"no end of the SIP header within {MAX_MESSAGE_BYTES} bytes")
            return None
        size = end + 4 + self._content_length(end)
        if size > MAX_MESSAGE_BYTES:
            raise MalformedError(f"a SIP message over {MAX_MESSAGE_BYTES} bytes")
        if len(self._buffer) < size:
            self._searched = end
            return None
        message = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._searched = 0
        return message

    def _skip_line_ends(self) -> None:
        """Drop line ends between messages (RFC 3261 §7.5), counting those that ask for an answer."""
        while self._buffer.startswith(PONG):
            if self._buffer.startswith(PING):
                self.pings += 1
                del self._buffer[: len(PING)]
            elif bytes(self._buffer[2:3]) in (b"", b"\r"):
                return  # perhaps the first half of a ping
            else:
                del self._buffer[: len(PONG)]
            self._searched = 0

    def _content_length(self, end: int) -> int:
        found = _LENGTH.findall(self._buffer, 0, end)
        if len(set(found)) != 1:
            raise MalformedError("a stream needs one Content-Length in each message (RFC 3261 §18.3)")
        return int(found[0])
