"""HTTP/1.1, the server's side, without sockets: bytes in, heads and bodies of requests out (RFC 9110, RFC 9112).

All programs on the way must agree where a message ends; otherwise one takes for a request what another took for a
body (request smuggling). So a message with an ambiguous end is refused, and its connection is closed. RFC 9112 lets
servers repair some such messages; this one repairs none. Every part of a request is bounded before it is stored.
An offer of another protocol (Upgrade, HTTP2-Settings) is ignored, as RFC 9110 §7.8 allows: the request is handled
as HTTP/1.1.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec

from voice_dpki.errors import LocalError, PeerError

MAX_HEAD_BYTES: Final = 16 * 1024
"""Request line and field lines, with their line ends."""
MAX_FIELDS: Final = 64
MAX_REQUEST_LINE_BYTES: Final = 8 * 1024
"""RFC 9112 §3 recommends at least 8000."""
MAX_LENGTH_DIGITS: Final = 15
"""Most digits of a Content-Length: no bound on a body needs more, and int() is slow for thousands."""
MAX_CHUNKS: Final = 4096
"""Most chunks of one body: each costs about a microsecond, however short it is."""
MAX_CHUNK_LINE_BYTES: Final = 256
MAX_CHUNK_EXTENSION_BYTES: Final = 16 * 1024
"""Most bytes of all chunk extensions of one body together; they are ignored (RFC 9112 §7.1.1)."""
MAX_TRAILER_BYTES: Final = 4 * 1024
"""The trailer section; it is dropped (RFC 9110 §6.5.1)."""

_TEXT: Final = bytes([9, *range(0x20, 0x7F), *range(0x80, 0x100)])
"""Characters of a field line: HTAB, SP, VCHAR and obs-text (RFC 9110 §5.5)."""
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_REQUEST_LINE: Final = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ([!-~]+) HTTP/([0-9])\.([0-9])")
_ABSOLUTE: Final = re.compile(r"https?://([^/?#@]+)(/[^?#]*)?(?:\?([^#]*))?", re.IGNORECASE | re.ASCII)
_HOST: Final = re.compile(r"[-A-Za-z0-9._~!$&'()*+;=:%\[\]]*")
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")

_SINGLE: Final = frozenset(
    {
        *("authorization", "content-encoding", "content-length", "content-type", "date", "expect", "host"),
        *("max-forwards", "origin", "proxy-authorization", "range", "referer", "transfer-encoding", "user-agent"),
        "x-requestid",
    }
)
"""Fields whose value is not a list, so that a second line would contradict the first (RFC 9110 §5.3)."""

_MAX_NAMES: Final = 512
_names: dict[str, str] = {}
"""Cache of field names that are tokens, with their lower-case form; _MAX_NAMES bounds what strangers can add."""


class HttpFault(PeerError):
    """A request that is refused: answer with `status`, then close the connection."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class RequestHead(msgspec.Struct, frozen=True):
    """Request line and fields of one request."""

    method: str
    path: str
    """Percent-encoded, as it was sent; "*" means the server itself (RFC 9112 §3.2.4)."""
    query: str
    """The part behind the question mark, as it was sent."""
    headers: Mapping[str, str]
    """Values by lower-case name; several lines of one list are joined with commas (RFC 9110 §5.3)."""
    length: int | None
    """Octets of the body; None if it is chunked."""
    keep_alive: bool
    """Whether the client wants to send another request on this connection."""
    expects_continue: bool
    """Whether the client waits for a 100 response before it sends the body (RFC 9110 §10.1.1)."""
    notes: dict[str, Any] = {}
    """What the program works out from this head alone, for a client that sends the same one again."""


class RequestReader:
    """Reader of one connection's requests: call `head`, then `body`, then `head` for the next request.

    The results do not depend on the pieces in which the bytes arrive. Read nothing more after an HttpFault.
    """

    __slots__ = ("_body", "_buffer", "_chunks", "_extensions", "_last", "_left", "_length", "_scanned", "_skipped")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._skipped = False
        self._length: int | None = 0
        self._last: tuple[bytes, RequestHead] | None = None
        """The previous head, as sent and as parsed: a program often sends the same head again."""
        self._begin_chunks()

    def _begin_chunks(self) -> None:
        self._body = bytearray()
        self._chunks = 0
        self._extensions = 0
        self._left = -1
        """Octets of the chunk still to read, with its line end; -1: its size comes next, -2: no chunk is left."""

    @property
    def buffered(self) -> int:
        """Octets that were fed and not yet returned."""
        return len(self._buffer) + len(self._body)

    def feed(self, data: bytes) -> None:
        """Add `data`, the connection's next bytes."""
        self._buffer += data

    def head(self) -> RequestHead | None:
        """Return the next request's head, None until it is complete; raises HttpFault."""
        buffer = self._buffer
        if not self._skipped and buffer[:2] == b"\r\n":  # an old client's line end after a body (RFC 9112 §2.2)
            del buffer[:2]
            self._skipped = True
        end = buffer.find(b"\r\n\r\n", self._scanned)
        _check_bounds(buffer, end, self._scanned)
        if end < 0:
            self._scanned = max(0, len(buffer) - 3)
            return None
        data = bytes(buffer[:end])
        del buffer[: end + 4]
        if self._last is None or self._last[0] != data:
            self._last = data, _parse_head(data)
        head = self._last[1]
        self._scanned, self._skipped, self._length = 0, False, head.length
        return head

    def body(self, max_bytes: int) -> bytes | None:
        """Return the body that belongs to the last head returned, None until it is complete; raises HttpFault."""
        if self._length is None:
            return self._read_chunks(max_bytes)
        if self._length > max_bytes:
            raise _too_large(max_bytes)
        if self._length == 0:
            return b""
        if len(self._buffer) < self._length:
            return None
        body = bytes(self._buffer[: self._length])
        del self._buffer[: self._length]
        return body

    def _read_chunks(self, max_bytes: int) -> bytes | None:
        while self._left != -2:
            if not (self._read_size(max_bytes) if self._left == -1 else self._read_data()):
                return None
        if not self._read_trailer():
            return None
        body = bytes(self._body)
        self._begin_chunks()
        return body

    def _read_size(self, max_bytes: int) -> bool:
        line = self._line(MAX_CHUNK_LINE_BYTES)
        if line is None:
            return False
        found = _CHUNK_LINE.fullmatch(line)
        if found is None:
            raise HttpFault(400, "a chunk does not begin with its size in hexadecimal digits")
        size = int(found[1], 16)
        self._chunks += 1
        self._extensions += len(line) - len(found[1])
        if self._chunks > MAX_CHUNKS or self._extensions > MAX_CHUNK_EXTENSION_BYTES:
            raise HttpFault(413, "the body has too many chunks, or too much besides them")
        if len(self._body) + size > max_bytes:
            raise _too_large(max_bytes)
        self._left = size + 2 if size else -2
        return True

    def _read_data(self) -> bool:
        if len(self._buffer) < self._left:
            return False
        size = self._left - 2
        if self._buffer[size : self._left] != b"\r\n":
            raise HttpFault(400, "a chunk is not as long as it says")
        self._body += self._buffer[:size]
        del self._buffer[: self._left]
        self._left = -1
        return True

    def _read_trailer(self) -> bool:
        """Skip the trailer section, whose lines must be fields; returns whether it was complete."""
        if self._buffer[:2] == b"\r\n":
            del self._buffer[:2]
            return True
        end = self._buffer.find(b"\r\n\r\n", 0, MAX_TRAILER_BYTES)
        if end < 0:
            if len(self._buffer) >= MAX_TRAILER_BYTES:
                raise HttpFault(431, f"the trailers have more than {MAX_TRAILER_BYTES} bytes")
            return False
        _parse_fields(_lines(bytes(self._buffer[:end])))
        del self._buffer[: end + 4]
        return True

    def _line(self, max_bytes: int) -> bytes | None:
        end = self._buffer.find(b"\r\n", 0, max_bytes)
        if end < 0:
            if len(self._buffer) >= max_bytes:
                raise HttpFault(400, f"a chunk's size has more than {max_bytes} bytes")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line


def _check_bounds(buffer: bytearray, end: int, scanned: int) -> None:
    """Raise HttpFault for the first fault in a head, complete or not, that no further bytes can mend."""
    known = len(buffer) if end < 0 else end + 4
    bare, late = MAX_HEAD_BYTES, min(known, MAX_HEAD_BYTES)
    since = max(0, scanned - 1)
    if buffer.count(b"\n", since, late) != buffer.count(b"\r\n", since, late):
        found = _BARE_LF.search(buffer, scanned, late)
        bare = found.start() if found else bare
    may_be_long = known >= MAX_REQUEST_LINE_BYTES and bare >= MAX_REQUEST_LINE_BYTES
    if may_be_long and buffer.find(b"\r\n", 0, MAX_REQUEST_LINE_BYTES) < 0:
        raise HttpFault(414, f"the request line has more than {MAX_REQUEST_LINE_BYTES} bytes")
    if bare < MAX_HEAD_BYTES:
        raise HttpFault(400, "a line does not end with CR LF")
    if known > MAX_HEAD_BYTES:
        raise HttpFault(431, f"the head has more than {MAX_HEAD_BYTES} bytes")


def _parse_head(data: bytes) -> RequestHead:
    """Parse a head without the empty line at its end; raises HttpFault."""
    lines = _lines(data)
    found = _REQUEST_LINE.fullmatch(lines[0])
    if found is None:
        raise HttpFault(400, "this is not a request of HTTP/1.1")
    method, target, major, minor = found.groups()
    if major != "1":
        raise HttpFault(505, "this server speaks HTTP/1.1")
    headers = _parse_fields(lines[1:])
    path, query = _split_target(method, target)
    is_1_0 = minor == "0"
    _check_host(headers, is_1_0=is_1_0)
    length = _length_of(headers, is_1_0=is_1_0)
    return RequestHead(
        method,
        path,
        query,
        headers,
        length,
        not is_1_0 and not ("connection" in headers and _wants_close(headers["connection"])),
        "expect" in headers and _expects_continue(headers["expect"], is_1_0=is_1_0) and length != 0,
    )


def _lines(data: bytes) -> list[str]:
    """Cut bytes into lines; raises HttpFault for more than MAX_FIELDS, and for control characters."""
    ends = data.count(b"\r\n")
    if ends > MAX_FIELDS:
        raise HttpFault(431, f"there are more than {MAX_FIELDS} fields")
    if data.translate(None, _TEXT) != b"\r\n" * ends:
        raise HttpFault(400, "there is a control character in the head")
    return data.decode("latin-1").split("\r\n")


def _parse_fields(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        given, colon, value = line.partition(":")
        name = _names.get(given) or _field_name(given)
        if not colon:
            raise HttpFault(400, "a field has no colon")
        value = value.strip(" \t")
        if name in headers:
            if name in _SINGLE:
                raise HttpFault(400, f"there is more than one {name}")
            value = f"{headers[name]}, {value}"
        headers[name] = value
    return headers


def _field_name(given: str) -> str:
    if not _TOKEN.fullmatch(given):
        raise HttpFault(
            400, "a field's name is not a token; lines are not folded, and no space stands before a colon"
        )
    name = given.lower()
    if len(_names) < _MAX_NAMES and len(name) <= 64:
        _names[given] = name
    return name


def _split_target(method: str, target: str) -> tuple[str, str]:
    """Return path and query of a target (RFC 9112 §3.2); the rest of an absolute target is ignored."""
    if target[0] == "/":
        path, _, query = target.partition("?")
        if "#" not in target:
            return path, query
    elif method == "CONNECT":
        raise HttpFault(501, "this server makes no tunnels")
    elif target == "*" and method == "OPTIONS":
        return "*", ""
    elif found := _ABSOLUTE.fullmatch(target):
        return found[2] or "/", found[3] or ""
    raise HttpFault(400, "the request's target is neither a path nor a URL of http or https")


def _check_host(headers: Mapping[str, str], *, is_1_0: bool) -> None:
    """Raise HttpFault if Host is malformed, or missing from a request of HTTP/1.1 (RFC 9112 §3.2)."""
    host = headers.get("host", "" if is_1_0 else None)
    if host is None or not _HOST.fullmatch(host):
        raise HttpFault(400, "Host is missing, or cannot be the name of a host")


def _length_of(headers: Mapping[str, str], *, is_1_0: bool) -> int | None:
    """Return the length of the body, None for a chunked one (RFC 9112 §6); raises HttpFault."""
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        if length is not None or is_1_0:
            raise HttpFault(400, "Transfer-Encoding goes with HTTP/1.1 and without Content-Length")
        if coding.lower() != "chunked":
            raise HttpFault(501, "the only transfer coding that is known here is chunked")
        return None
    if length is None:
        return 0
    if not (length.isascii() and length.isdigit()):
        raise HttpFault(400, "Content-Length is not a number")
    if len(length) > MAX_LENGTH_DIGITS:
        raise HttpFault(413, "Content-Length is larger than any body that is taken")
    return int(length)


def _wants_close(connection: str) -> bool:
    return any(option.strip(" \t") == "close" for option in connection.lower().split(","))


def _expects_continue(expect: str, *, is_1_0: bool) -> bool:
    if is_1_0:
        return False
    if expect.lower() != "100-continue":
        raise HttpFault(417, "the only expectation that is known here is 100-continue")
    return True


def _too_large(max_bytes: int) -> HttpFault:
    return HttpFault(413, f"the body is longer than the {max_bytes} bytes allowed here")


CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_FIELD_VALUE: Final = re.compile(r"[\t -~\x80-\xff]*")
_PHRASES: Final = {int(status): status.phrase.encode("ascii") for status in HTTPStatus}
_MAX_BEGINS: Final = 128
_begins: dict[tuple[int, str], bytes] = {}
"""Cache of the first bytes of responses, by status and Content-Type; handlers use few combinations."""


def encode_response(
    status: int,
    content_type: str,
    body: bytes,
    headers: tuple[tuple[str, str], ...],
    date: bytes,
    *,
    close: bool,
    head_only: bool,
) -> bytes:
    """Encode a whole response; `date` is the value of Date, `head_only` leaves out the body (RFC 9110 §9.3.2).

    Raises LocalError for a field whose name is not a token, or whose value would not stay on one line.
    """
    begin = _begins.get((status, content_type)) or _begin(status, content_type)
    more = b"".join([_field(name, value) for name, value in headers]) if headers else b""
    end = b"connection: close\r\n\r\n" if close else b"\r\n"
    return b"%s%s\r\ncontent-length: %d\r\n%s%s%s" % (begin, date, len(body), more, end, b"" if head_only else body)


def _begin(status: int, content_type: str) -> bytes:
    kind = _field("content-type", content_type)
    begin = b"HTTP/1.1 %d %s\r\n%sdate: " % (status, _PHRASES.get(status, b""), kind)
    if len(_begins) < _MAX_BEGINS:
        _begins[status, content_type] = begin
    return begin


def _field(name: str, value: str) -> bytes:
    if not (_TOKEN.fullmatch(name) and _FIELD_VALUE.fullmatch(value)):
        raise LocalError(f"the value for the field {name[:40]!r} cannot be sent")
    return f"{name.lower()}: {value}\r\n".encode("latin-1")
