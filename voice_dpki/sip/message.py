"""SIP messages: received ones are parsed within bounds, own ones are built as RFC 3261 §8 says.

sipmessage holds and serialises the messages. This module adds the checks that it lacks: size, folded lines,
repeated header fields, Content-Length, characters that another parser could take for a line end. Header fields that
an element does not change stay as received, because their owner might not recognise a rewritten parameter.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sipmessage import URI, Address, Headers, Message, Request, Response

from voice_dpki.errors import MalformedError
from voice_dpki.sip.hop import Hop, check_quotes, is_numeric_host, plain_ipv6, read_number, uri_hop
from voice_dpki.sip.reading import read
from voice_dpki.sip.via import TopVia, parse_via, stamp_via

__all__ = ["Hop", "is_numeric_host", "uri_hop"]  # re-exported for users of this module

MAX_MESSAGE_BYTES: Final = 65_536
"""A UDP datagram cannot hold more; the same bound applies over TCP."""
MAX_HEADER_FIELDS: Final = 128
MAX_LINE_BYTES: Final = 8_192
"""Longest header field; an Identity header with a PASSporT has about 1 KiB."""
MAX_FIELD_CHARS: Final = 16_384
"""Most characters of all values of one header field together, except Identity, whose values are read one by one."""
MAX_URI_CHARS: Final = 512
MAX_ADDRESS_CHARS: Final = 1_024
MAX_VIAS: Final = 70
"""Max-Forwards starts at 70 (RFC 3261 §8.1.1.6), so an honest message has no more hops than that."""

MAGIC_COOKIE: Final = "z9hG4bK"
"""Begins every branch of an RFC 3261 element (§8.1.1.7)."""

PHRASES: Final = {
    100: "Trying",
    180: "Ringing",
    183: "Session Progress",
    200: "OK",
    202: "Accepted",
    300: "Multiple Choices",
    302: "Moved Temporarily",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    407: "Proxy Authentication Required",
    408: "Request Timeout",
    415: "Unsupported Media Type",
    416: "Unsupported URI Scheme",
    420: "Bad Extension",
    423: "Interval Too Brief",
    430: "Flow Failed",
    428: "Use Identity Header",
    436: "Bad Identity Info",
    437: "Unsupported Credential",
    438: "Invalid Identity Header",
    439: "First Hop Lacks Outbound Support",
    480: "Temporarily Unavailable",
    481: "Call/Transaction Does Not Exist",
    482: "Loop Detected",
    483: "Too Many Hops",
    486: "Busy Here",
    487: "Request Terminated",
    488: "Not Acceptable Here",
    500: "Server Internal Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    505: "Version Not Supported",
    489: "Bad Event",
    491: "Request Pending",
    603: "Decline",
}
"""Default reason phrases (RFC 3261 §21, RFC 8224 §6.2.2)."""

_FOLD = re.compile(rb"\r\n[ \t]+")
_SPACE_BEFORE_COLON = re.compile(rb"(?m)^([^\s:]{1,256})[ \t]+:")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_CONTROL_TEXT = re.compile(r"[\x00-\x1f\x7f]")
_TOKEN = re.compile(r"[A-Za-z0-9.!%*_+`'~-]{1,256}\Z")
_STATUS_LINE = re.compile(rb"SIP/2\.0 [1-6][0-9][0-9] ")
_LONG_NUMBER = re.compile(r"(?ai)\btel:[^;>\s]{64}")
"""A number longer than any telephone number; sipmessage takes quadratic time to reject it."""
_VERSION = re.compile(rb"(?i)SIP/[0-9]{1,4}\.[0-9]{1,4}\Z")
_SCHEME = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]{0,63}):[!-~]")
_CSEQ = re.compile(r"([0-9]{1,64})[ \t]+([^ \t]{1,64})\Z")
_ONCE = ("From", "To", "Call-ID", "CSeq", "Content-Length", "Content-Type", "Max-Forwards", "Date", "Expires")


METHODS: Final = frozenset(
    (
        *("ACK", "BYE", "CANCEL", "INFO", "INVITE", "MESSAGE", "NOTIFY", "OPTIONS"),
        *("PRACK", "PUBLISH", "REFER", "REGISTER", "SUBSCRIBE", "UPDATE"),
    )
)
"""The methods of the IANA registry; any other is unknown (RFC 3261 §21.5.2)."""
SCHEMES: Final = (b"sip", b"sips", b"tel")
"""Supported schemes of a Request-URI."""
MAX_CSEQ: Final = (1 << 32) - 1
"""Sequence numbers are below 2**32 here; RFC 3261 §8.1.1.5 wants those of new requests to be below 2**31."""


class UnsupportedError(MalformedError):
    """A request to be answered with a more specific status than 400: 416, 501 or 505 (RFC 4475)."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Envelope:
    """The header fields that every element must understand (RFC 3261 §8.1.1), in typed form."""

    via: TopVia
    call_id: str
    sequence: int
    method: str
    from_tag: str
    to_tag: str


def parse_message(data: bytes) -> Request | Response:
    """Parse one whole message; its body is truncated to Content-Length (RFC 3261 §18.3).

    Raises MalformedError unless the bytes are one SIP message within the bounds above.
    """
    head, separator, body = data.partition(b"\r\n\r\n")
    if not separator or len(data) > MAX_MESSAGE_BYTES:
        raise MalformedError(f"no SIP message: no empty line within {MAX_MESSAGE_BYTES} bytes")
    message = read(Message.parse, _tidy_head(head) + b"\r\n\r\n" + body, "a SIP message")
    for name in message.headers.keys():  # noqa: SIM118 - Headers is no mapping
        if not _TOKEN.match(name):
            raise MalformedError("the name of a header field is no token (RFC 3261 §25.1)")
        values = message.headers.getlist(name)
        if sum(map(len, values)) > MAX_FIELD_CHARS and name.lower() != "identity":
            raise MalformedError(
                f"one header field has more than {MAX_FIELD_CHARS} characters, all values together"
            )
    for name in _ONCE:
        if len(message.headers.getlist(name)) > 1:
            raise MalformedError(f"{name} is given twice: two readers could choose differently")
    message.body = _cut_body(message)
    return message


def _tidy_head(head: bytes) -> bytes:
    """Unfold header fields and check the lines' number, sizes and characters, before anything is parsed."""
    if b"\r\n " in head or b"\r\n\t" in head:
        head = _FOLD.sub(b" ", head)
    lines = head.split(b"\r\n")
    if len(lines) > MAX_HEADER_FIELDS + 1 or max(map(len, lines)) > MAX_LINE_BYTES:
        raise MalformedError(f"more than {MAX_HEADER_FIELDS} header fields, or one over {MAX_LINE_BYTES} bytes")
    if _CONTROL.search(b"".join(lines)):
        raise MalformedError("a control character stands in the header")
    if lines[0].startswith(b"SIP/2.0 ") and not _STATUS_LINE.match(lines[0]):
        raise MalformedError("no status from 100 to 699 in the status line (RFC 3261 §7.2)")
    if len(lines[0]) > MAX_URI_CHARS or _LONG_NUMBER.search(lines[0].decode("latin-1")):
        raise MalformedError(f"the first line is longer than {MAX_URI_CHARS} bytes, or its number is none")
    _check_request_line(lines[0])
    if b"[" in lines[0]:
        lines[0] = plain_ipv6(lines[0].decode("latin-1")).encode("latin-1")
        head = b"\r\n".join(lines)
    return _SPACE_BEFORE_COLON.sub(rb"\1:", head) if b" :" in head or b"\t:" in head else head


def _check_request_line(line: bytes) -> None:
    """Check the SIP version and URI scheme of a request line (RFC 3261 §7.1); raises UnsupportedError."""
    _, _, rest = line.partition(b" ")
    uri, _, version = rest.partition(b" ")
    if line.startswith(b"SIP/") or not _VERSION.match(version):
        return  # a status line, or neither kind of line, which the parser rejects
    if version.upper() != b"SIP/2.0":
        raise UnsupportedError("another version than SIP/2.0", 505)
    scheme = _SCHEME.match(uri)
    if scheme is not None and scheme[1].lower() not in SCHEMES:
        raise UnsupportedError("the scheme of the Request-URI is unknown", 416)


def _cut_body(message: Request | Response) -> bytes:
    text = message.headers.get("Content-Length")
    if text is None:
        return message.body
    length = read_number(text, len(message.body))
    if length is None:
        raise MalformedError("Content-Length is no number, or more than there is (RFC 3261 §18.3)")
    return message.body[:length]


def parse_uri(text: str) -> URI:
    """Parse a SIP, SIPS or TEL URI of at most MAX_URI_CHARS; raises MalformedError."""
    if len(text) > MAX_URI_CHARS or _LONG_NUMBER.search(text):
        raise MalformedError(f"a URI is longer than {MAX_URI_CHARS} characters, or its number is none")
    return read(URI.parse, plain_ipv6(text), "a SIP or TEL URI")


def parse_address(text: str) -> Address:
    """Parse one name-addr or addr-spec with its parameters; raises MalformedError."""
    if len(text) > MAX_ADDRESS_CHARS or _LONG_NUMBER.search(text):
        raise MalformedError(f"an address is longer than {MAX_ADDRESS_CHARS} characters, or its number is none")
    check_quotes(text, "an address")
    return read(Address.parse, plain_ipv6(text), "an address")


def split_values(values: Iterable[str]) -> list[str]:
    """Split the values of a list header field at commas, except in quotes or <>.

    Not for challenges and credentials, whose commas separate parameters (RFC 3261 §7.3.1).
    """
    items: list[str] = []
    for value in values:
        items += [value.strip()] if "," not in value else _split_commas(value)
    return items


def _split_commas(value: str) -> list[str]:
    items, start, quoted, depth, escaped = [], 0, False, 0, False
    for at, char in enumerate(value):
        if escaped:
            escaped = False
        elif quoted:
            quoted, escaped = char != '"', char == "\\"
        elif char == '"':
            quoted = True
        elif char in "<>":
            depth = 1 if char == "<" else 0
        elif char == "," and not depth:
            items.append(value[start:at].strip())
            start = at + 1
    items.append(value[start:].strip())
    return [item for item in items if item]


def header_values(message: Message, name: str) -> list[str]:
    """Return the values of the list header field `name`, in order."""
    return split_values(message.headers.getlist(name))


def set_header_values(message: Message, name: str, values: Sequence[str]) -> None:
    """Replace the values of the header field `name`; if there are none, remove it."""
    if values:
        message.headers.setlist(name, list(values))
    else:
        message.headers.remove(name)


def required_header(message: Message, name: str) -> str:
    """Return the header field `name`; raises MalformedError if it is missing or empty."""
    value = message.headers.get(name)
    if not value:
        raise MalformedError(f"no {name} header field (RFC 3261 §8.1.1)")
    return value


def read_envelope(message: Request | Response) -> Envelope:
    """Read the header fields that every message has; raises MalformedError.

    A request's method must be that of its CSeq (RFC 3261 §8.1.1.5).
    """
    vias = header_values(message, "Via")
    if not vias or len(vias) > MAX_VIAS:
        raise MalformedError(f"no Via, or more than {MAX_VIAS}")
    sequence, method = _read_cseq(message)
    return Envelope(
        via=parse_via(vias[0]),
        call_id=required_header(message, "Call-ID"),
        sequence=sequence,
        method=method,
        from_tag=tag_of(parse_address(required_header(message, "From"))),
        to_tag=tag_of(parse_address(required_header(message, "To"))),
    )


def _read_cseq(message: Request | Response) -> tuple[int, str]:
    match = _CSEQ.match(required_header(message, "CSeq"))
    sequence = read_number(match[1], MAX_CSEQ) if match else None
    if match is None or sequence is None:
        raise MalformedError(f"CSeq is no number up to {MAX_CSEQ} and a method (RFC 3261 §20.16)")
    if isinstance(message, Request) and match[2] != message.method:
        text = "CSeq is for another method than the request's (RFC 3261 §8.1.1.5)"
        raise MalformedError(text) if message.method in METHODS else UnsupportedError(text, 501)
    return sequence, match[2]


def tag_of(address: Address) -> str:
    """Return the tag parameter of a From or To, or "" if there is none."""
    return address.parameters.get("tag") or ""


def mark_received(request: Request, via: TopVia, source: Hop) -> None:
    """Write the request's real source into the topmost Via (RFC 3261 §18.2.1, RFC 3581 §4)."""
    vias = header_values(request, "Via")
    set_header_values(request, "Via", [stamp_via(vias[0], via.host, source), *vias[1:]])


def copy_request(request: Request, *, vias: Sequence[str] | None = None) -> Request:
    """Return a copy with header fields of its own; `vias`, if given, replace the Via values and come first.

    RFC 3261 §7.3.1 recommends Via at the top, and `quoted_key` needs it there to find our request in an ICMP
    message.
    """
    copy = Request(request.method, request.uri, request.body)
    copy.headers = headers = _CopiedHeaders(request.headers)
    if vias is not None:
        headers.put_first("Via", vias)
    return copy


def copy_response(response: Response) -> Response:
    """Return a copy with header fields of its own."""
    copy = Response(response.code, response.phrase, response.body)
    copy.headers = _CopiedHeaders(response.headers)
    return copy


class _CopiedHeaders(Headers):
    """A copy of header fields.

    It reads the private list of `Headers`: its methods would search the whole list twice for each name, and a proxy
    copies each message several times.
    """

    def __init__(self, source: Headers) -> None:
        self._list = [(name, list(values)) for name, values in source._list]

    def put_first(self, name: str, values: Sequence[str]) -> None:
        """Replace the values of a header field and put it before all others."""
        self.remove(name)
        self._list.insert(0, (name, list(values)))


def make_response(
    request: Request,
    status: int,
    phrase: str | None = None,
    *,
    to_tag: str = "",
    headers: Iterable[tuple[str, str]] = (),
) -> Response:
    """Build a response as RFC 3261 §8.2.6 says; `to_tag` is added if To has no tag, except to a 100."""
    response = Response(status, one_line(phrase or default_phrase(status)))
    for name in ("Via", "From", "To", "Call-ID", "CSeq"):
        set_header_values(response, name, request.headers.getlist(name))
    to = response.headers.get("To", "") or ""
    if to_tag and status != 100 and not tag_of(parse_address(to)):
        response.headers.set("To", f"{to};tag={to_tag}")
    for name, value in headers:  # unescaped text may contain line ends
        response.headers.add(name, one_line(value))
    return response


def default_phrase(status: int) -> str:
    """Return the default reason phrase of `status`."""
    return PHRASES.get(status, "Answer")


def one_line(text: str) -> str:
    """Return `text` without control characters, so that foreign text cannot end a line; cut to MAX_LINE_BYTES."""
    return _CONTROL_TEXT.sub(" ", text)[:MAX_LINE_BYTES]


def set_body(message: Message, body: bytes, content_type: str) -> None:
    """Set the body and Content-Type of `message`."""
    message.body = body
    message.headers.set("Content-Type", content_type)


def encode(message: Request | Response) -> bytes:
    """Serialise `message`, with the Content-Length of its body (RFC 3261 §20.14)."""
    message.headers.set("Content-Length", str(len(message.body)))
    return bytes(message)


def reason_value(protocol: str, cause: int, text: str) -> str:
    """Build a value of the Reason header field (RFC 3326 §2; protocol "STIR" by RFC 9410)."""
    quoted = one_line(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'{protocol};cause={cause};text="{quoted}"'
