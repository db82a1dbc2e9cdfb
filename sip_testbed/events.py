"""Trace events, read back: the other end of `voice_dpki.shell.trace`.

Each actor writes its own file; a call is what all files say, merged by time.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, cast

from voice_dpki.errors import MalformedError

MAX_LINE_BYTES = 1 << 20
"""One event; the longest are SIP messages over TCP, in base64."""


@dataclass(frozen=True, slots=True)
class SipEvent:
    """A SIP message, as its sender put it on the wire."""

    time_s: float
    actor: str
    transport: str
    src: str
    dst: str
    data: bytes


@dataclass(frozen=True, slots=True)
class RtpEvent:
    """An RTP or RTCP packet: `wire` as sent, `clear` as it was before encryption."""

    time_s: float
    actor: str
    src: str
    dst: str
    wire: bytes
    clear: bytes

    @property
    def is_control(self) -> bool:
        """Whether this is RTCP and not RTP (RFC 5761 §4)."""
        return len(self.clear) > 1 and 192 <= self.clear[1] <= 223


@dataclass(frozen=True, slots=True)
class NoteEvent:
    """Something an actor did that is not a message: signed, verified, asked, agreed."""

    time_s: float
    actor: str
    text: str
    data: Mapping[str, object] = field(default_factory=dict)

    @property
    def step(self) -> str | None:
        """The step that the note is about, such as "E17 certificate"."""
        value = self.data.get("step")
        return value if isinstance(value, str) else None

    @property
    def ok(self) -> bool | None:
        """False where something was refused, True where it was accepted, None where nothing was decided."""
        value = self.data.get("ok")
        return value if isinstance(value, bool) else None

    @property
    def ms(self) -> float | None:
        """How long it took, in milliseconds."""
        value = self.data.get("ms")
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


@dataclass(frozen=True, slots=True)
class ReadyEvent:
    """A server listens at `addresses` (name of the listener to "host:port")."""

    time_s: float
    actor: str
    addresses: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ResultEvent:
    """What a program reported at its end."""

    time_s: float
    actor: str
    data: Mapping[str, object]


Event: TypeAlias = SipEvent | RtpEvent | NoteEvent | ReadyEvent | ResultEvent


def parse_line(line: bytes) -> Event:
    """Parse one line of a trace file; raises MalformedError."""
    if len(line) > MAX_LINE_BYTES:
        raise MalformedError(f"trace: a line is longer than {MAX_LINE_BYTES} bytes")
    try:
        members = json.loads(line)
        kind = members.pop("kind")
        return _PARSERS[kind](float(members.pop("t")), str(members.pop("actor")), members)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error) as error:
        raise MalformedError(f"trace: not an event: {type(error).__name__} {error}") from None


def parse_lines(data: bytes) -> list[Event]:
    """Parse what a trace file holds; a last line that is still being written is left out."""
    complete, newline, _ = data.rpartition(b"\n")
    return [parse_line(line) for line in complete.split(b"\n")] if newline else []


def merge(traces: Iterable[Iterable[Event]]) -> list[Event]:
    """Return the events of all traces in the order of their time."""
    return sorted((event for trace in traces for event in trace), key=lambda event: event.time_s)


def host_port(address: str) -> tuple[str, int]:
    """Split "127.0.0.2:5060"; raises MalformedError."""
    host, colon, port = address.rpartition(":")
    if not (colon and port.isascii() and port.isdigit() and int(port) <= 0xFFFF):
        raise MalformedError(f"trace: {address!r} is not host:port")
    return host, int(port)


def _sip(time_s: float, actor: str, members: dict[str, object]) -> Event:
    transport = str(members["transport"]).lower()
    return SipEvent(time_s, actor, transport, *_ends(members), _bytes(members["data"]))


def _rtp(time_s: float, actor: str, members: dict[str, object]) -> Event:
    return RtpEvent(time_s, actor, *_ends(members), _bytes(members["wire"]), _bytes(members["clear"]))


def _note(time_s: float, actor: str, members: dict[str, object]) -> Event:
    return NoteEvent(time_s, actor, str(members.pop("text")), members)


def _ready(time_s: float, actor: str, members: dict[str, object]) -> Event:
    return ReadyEvent(time_s, actor, {name: str(address) for name, address in members.items()})


def _result(time_s: float, actor: str, members: dict[str, object]) -> Event:
    return ResultEvent(time_s, actor, members)


def _ends(members: dict[str, object]) -> tuple[str, str]:
    src, dst = str(members["src"]), str(members["dst"])
    host_port(src)
    host_port(dst)
    return src, dst


def _bytes(value: object) -> bytes:
    return base64.b64decode(cast("str", value), validate=True)


_PARSERS = {"sip": _sip, "rtp": _rtp, "note": _note, "ready": _ready, "result": _result}
