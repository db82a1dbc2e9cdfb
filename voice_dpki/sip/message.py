"""SIP messages from outside: parsed within bounds, and built as RFC 3261 §8 says.

sipmessage holds and prints the messages. What it leaves open is closed here: size, folded lines, doubled header
fields, Content-Length, characters that another parser could take for a line end. Header fields that an element
does not change stay the text that arrived; a rewritten parameter would be another one to its owner.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from sipmessage import URI, Address, CSeq, Message, Request, Response, Via

from voice_dpki.errors import MalformedError

MAX_MESSAGE_BYTES: Final = 65_536
"""A UDP datagram cannot hold more; over TCP the same bound is kept."""
MAX_HEADER_FIELDS: Final = 128
MAX_LINE_BYTES: Final = 8_192
"""Longest header field; an Identity header with a PASSporT has about 1 KiB."""
MAX_URI_CHARS: Final = 512
MAX_ADDRESS_CHARS: Final = 1_024
MAX_VIAS: Final = 70
"""Max-Forwards starts at 70 (RFC 3261 §8.1.1.6), so more hops than that cannot have been honest."""

MAGIC_COOKIE: Final = "z9hG4bK"
"""Begins every branch of an RFC 3261 element (§8.1.1.7)."""

PHRASES: Final = {
    100: "Trying",
    180: "Ringing",
    183: "Session Progress",
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
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
    503: "Service Unavailable",
    603: "Decline",
}
"""Default reason phrases (RFC 3261 §21, RFC 8224 §6.2.2)."""

_FOLD = re.compile(rb"\r\n[ \t]+")
_SPACE_BEFORE_COLON = re.compile(rb"(?m)^([^\s:]{1,64})[ \t]+:")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_CONTROL_TEXT = re.compile(r"[\x00-\x1f\x7f]")
_TOKEN = re.compile(r"[A-Za-z0-9.!%*_+`'~-]{1,64}\Z")
_STATUS_LINE = re.compile(rb"SIP/2\.0 [1-6][0-9][0-9] ")
_LONG_NUMBER = re.compile(r"(?ai)\btel:[^;>\s]{64}")
"""No telephone number is that long, and sipmessage takes quadratic time to find out."""
_DIGITS = re.compile(r"[0-9]{1,10}\Z")
_ONCE = ("From", "To", "Call-ID", "CSeq", "Content-Length", "Content-Type", "Max-Forwards", "Date", "Expires")
_RPORT = re.compile(r"(?ai);\s*rport\s*(?=;|$)")

_Parsed = TypeVar("_Parsed")


@dataclass(frozen=True, slots=True)
class Hop:
    """Where a message comes from or goes to: transport ("udp" or "tcp") and a numeric address."""

    transport: str
    host: str
    port: int
    flow: int | None = field(default=None, compare=False)
    """The flow that a message came on, or must go on (RFC 5626): a connection's number, and 0 for UDP.

    None lets the transport make a connection, or prefer TCP for a large request.
    """

    @classmethod
    def parse(cls, text: str) -> "Hop":
        """Parse "udp:127.0.0.3:5060"; raises MalformedError."""
        transport, _, rest = text.partition(":")
        host, _, port = rest.rpartition(":")
        if transport not in ("udp", "tcp") or not is_numeric_host(host) or not _DIGITS.match(port):
            raise MalformedError(f"{text!r} is no hop: write it like udp:127.0.0.3:5060")
        return cls(transport, host, int(port))

    @property
    def address(self) -> str:
        """The address as "host:port"."""
        return f"{self.host}:{self.port}"

    @property
    def reliable(self) -> bool:
        """Whether the transport retransmits by itself."""
        return self.transport == "tcp"

    def __str__(self) -> str:
        return f"{self.transport}:{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class TopVia:
    """The topmost Via of a message (RFC 3261 §20.42, RFC 3581)."""

    transport: str
    host: str
    port: int
    branch: str
    received: str | None
    rport: int | None

    @property
    def sent_by(self) -> str:
        """Host and port that the sender gave for itself."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Envelope:
    """What every element must understand of a message (RFC 3261 §8.1.1), in typed form."""

    via: TopVia
    call_id: str
    sequence: int
    method: str
    from_tag: str
    to_tag: str


def is_numeric_host(host: str) -> bool:
    """Whether `host` is an IPv4 address in dotted form; nothing here resolves names."""
    parts = host.split(".")
    return len(parts) == 4 and all(p.isascii() and p.isdigit() and len(p) <= 3 and int(p) < 256 for p in parts)


def parse_message(data: bytes) -> Request | Response:
    """Parse one whole message; its body is cut to Content-Length (RFC 3261 §18.3).

    Raises MalformedError on any bytes that are not one SIP message within the bounds above.
    """
    head, separator, body = data.partition(b"\r\n\r\n")
    if not separator or len(data) > MAX_MESSAGE_BYTES:
        raise MalformedError(f"no SIP message: no empty line within {MAX_MESSAGE_BYTES} bytes")
    message = _read(Message.parse, _tidy_head(head) + b"\r\n\r\n" + body, "a SIP message")
    for name in message.headers.keys():  # noqa: SIM118 - Headers is no mapping
        if not _TOKEN.match(name):
            raise MalformedError("the name of a header field is no token (RFC 3261 §25.1)")
    for name in _ONCE:
        if len(message.headers.getlist(name)) > 1:
            raise MalformedError(f"{name} is given twice: two readers could choose differently")
    message.body = _cut_body(message)
    return message


def _tidy_head(head: bytes) -> bytes:
    """Unfold header fields and check what a line may hold, before anything is taken apart."""
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
    return _SPACE_BEFORE_COLON.sub(rb"\1:", head) if b" :" in head or b"\t:" in head else head


def _cut_body(message: Request | Response) -> bytes:
    text = message.headers.get("Content-Length")
    if text is None:
        return message.body
    if not _DIGITS.match(text) or int(text) > len(message.body):
        raise MalformedError("Content-Length is no number, or more than there is (RFC 3261 §18.3)")
    return message.body[: int(text)]


def _read(parse: Callable[[str], _Parsed] | Callable[[bytes], _Parsed], value: str | bytes, what: str) -> _Parsed:
    """Call a parser of sipmessage; whatever it raises on odd input becomes MalformedError.

    TypeError is among it: a parameter named "self" breaks sipmessage's keyword arguments.
    """
    try:
        return parse(value)  # type: ignore[arg-type]
    except (ValueError, TypeError, KeyError, IndexError):
        raise MalformedError(f"not {what} (RFC 3261 §25.1)") from None


def parse_uri(text: str) -> URI:
    """Parse a SIP, SIPS or TEL URI of at most MAX_URI_CHARS; raises MalformedError."""
    if len(text) > MAX_URI_CHARS or _LONG_NUMBER.search(text):
        raise MalformedError(f"a URI is longer than {MAX_URI_CHARS} characters, or its number is none")
    return _read(URI.parse, text, "a SIP or TEL URI")


def parse_address(text: str) -> Address:
    """Parse one name-addr or addr-spec with its parameters; raises MalformedError."""
    if len(text) > MAX_ADDRESS_CHARS or _LONG_NUMBER.search(text):
        raise MalformedError(f"an address is longer than {MAX_ADDRESS_CHARS} characters, or its number is none")
    return _read(Address.parse, text, "an address")


def split_values(values: Iterable[str]) -> list[str]:
    """Return the values of a list header field, one an item: commas in quotes or <> do not separate.

    Not for challenges and credentials, whose commas divide parameters (RFC 3261 §7.3.1).
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
    """Replace the header field `name`; no values remove it."""
    if values:
        message.headers.setlist(name, list(values))
    else:
        message.headers.remove(name)


def required_header(message: Message, name: str) -> str:
    """Return the header field `name`; raises MalformedError where it is missing or empty."""
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
    cseq = _read(CSeq.parse, required_header(message, "CSeq"), "a CSeq")
    if cseq.sequence >= 1 << 32:
        raise MalformedError("CSeq is 2**32 or more")
    if isinstance(message, Request) and cseq.method != message.method:
        raise MalformedError("CSeq is for another method than the request's (RFC 3261 §8.1.1.5)")
    return Envelope(
        via=parse_via(vias[0]),
        call_id=required_header(message, "Call-ID"),
        sequence=cseq.sequence,
        method=cseq.method,
        from_tag=tag_of(parse_address(required_header(message, "From"))),
        to_tag=tag_of(parse_address(required_header(message, "To"))),
    )


def tag_of(address: Address) -> str:
    """Return the tag parameter of a From or To, or "" where there is none."""
    return address.parameters.get("tag") or ""


def parse_via(text: str) -> TopVia:
    """Parse one Via value; raises MalformedError."""
    if len(text) > MAX_ADDRESS_CHARS:
        raise MalformedError(f"a Via is longer than {MAX_ADDRESS_CHARS} characters")
    via = _read(Via.parse, text, "a Via")
    parameters = {name.lower(): value for name, value in via.parameters.items()}
    rport = parameters.get("rport")
    return TopVia(
        transport=via.transport.lower(),
        host=via.host,
        port=_port(str(via.port or 5060)),
        branch=parameters.get("branch") or "",
        received=parameters.get("received"),
        rport=_port(rport) if rport else None,
    )


def _port(text: str) -> int:
    if not _DIGITS.match(text) or not 0 < int(text) < 65536:
        raise MalformedError("a port is not from 1 to 65535")
    return int(text)


def mark_received(request: Request, source: Hop) -> None:
    """Note in the topmost Via where the request really came from (RFC 3261 §18.2.1, RFC 3581 §4)."""
    vias = header_values(request, "Via")
    top = parse_via(vias[0])
    text, asked_for_port = _RPORT.subn(f";rport={source.port}", vias[0], count=1)
    if asked_for_port or top.host != source.host:
        text += f";received={source.host}"
    if text != vias[0]:
        set_header_values(request, "Via", [text, *vias[1:]])


def response_hop(via: TopVia, transport: str) -> Hop:
    """Return where a response goes when no connection leads back (RFC 3261 §18.2.2, RFC 3581 §4).

    Raises MalformedError where the Via names no numeric host.
    """
    host = via.received or via.host
    if not is_numeric_host(host):
        raise MalformedError("the Via names no numeric address")
    return Hop(transport, host, via.rport or via.port if transport == "udp" else via.port)


def uri_hop(uri: URI) -> Hop | None:
    """Return the hop that a SIP URI names directly, or None where it takes a route table (RFC 3263 §4)."""
    if uri.scheme != "sip" or not is_numeric_host(uri.host):
        return None
    transport = (uri.parameters.get("transport") or "udp").lower()
    if transport not in ("udp", "tcp") or not 0 <= (uri.port or 5060) < 65536:
        return None
    return Hop(transport, uri.host, uri.port or 5060)


def copy_request(request: Request) -> Request:
    """Return a copy whose header fields can be changed apart from the original's."""
    copy = Request(request.method, request.uri, request.body)
    _copy_headers(request, copy)
    return copy


def copy_response(response: Response) -> Response:
    """Return a copy whose header fields can be changed apart from the original's."""
    copy = Response(response.code, response.phrase, response.body)
    _copy_headers(response, copy)
    return copy


def _copy_headers(source: Message, copy: Message) -> None:
    for name in source.headers.keys():  # noqa: SIM118 - Headers is no mapping
        copy.headers.setlist(name, list(source.headers.getlist(name)))


def make_response(
    request: Request,
    status: int,
    phrase: str | None = None,
    *,
    to_tag: str = "",
    headers: Iterable[tuple[str, str]] = (),
) -> Response:
    """Build the response that RFC 3261 §8.2.6 asks for; `to_tag` is added where To has no tag yet."""
    response = Response(status, one_line(phrase or PHRASES.get(status, "Answer")))
    for name in ("Via", "From", "To", "Call-ID", "CSeq"):
        set_header_values(response, name, request.headers.getlist(name))
    to = response.headers.get("To", "") or ""
    if to_tag and status != 100 and not tag_of(parse_address(to)):
        response.headers.set("To", f"{to};tag={to_tag}")
    for name, value in headers:
        response.headers.add(name, value)
    return response


def one_line(text: str) -> str:
    """Return `text` fit for a header field: what another service wrote must not end the line."""
    return _CONTROL_TEXT.sub(" ", text)[:MAX_LINE_BYTES]


def set_body(message: Message, body: bytes, content_type: str) -> None:
    """Give `message` a body and say what it is."""
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
