"""Trace events, read back: the counterpart of `voice_dpki.shell.trace`.

Each actor writes its own file; a run's events are those of all files, merged by time. Here are the kinds that every
service writes. A reader of other kinds combines their parsers with COMMON_KINDS.
"""

import base64
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from voice_dpki.errors import MalformedError

MAX_LINE_BYTES = 1 << 20
"""Longest event; the largest are SIP messages over TCP, in base64."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that `actor` did at `time_s`, in seconds since the Unix epoch."""

    time_s: float
    actor: str


@dataclass(frozen=True, slots=True)
class NoteEvent(Event):
    """Something an actor did other than send a message: it signed, verified, inquired, agreed."""

    text: str
    data: Mapping[str, object] = field(default_factory=dict)

    @property
    def step(self) -> str | None:
        """The step that the note is about, such as "E17 certificate"."""
        value = self.data.get("step")
        return value if isinstance(value, str) else None

    @property
    def ok(self) -> bool | None:
        """False if something was refused, True if it was accepted, None if nothing was decided."""
        value = self.data.get("ok")
        return value if isinstance(value, bool) else None

    @property
    def ms(self) -> float | None:
        """How long it took, in milliseconds."""
        value = self.data.get("ms")
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


@dataclass(frozen=True, slots=True)
class HttpEvent(Event):
    """Octets of an HTTP connection, as its server received or sent them."""

    src: str
    dst: str
    data: bytes


@dataclass(frozen=True, slots=True)
class ReadyEvent(Event):
    """A server listens at `addresses` (name of the listener to "host:port")."""

    addresses: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ResultEvent(Event):
    """The result that a program reported at its end."""

    data: Mapping[str, object]


Parser: TypeAlias = Callable[[float, str, dict[str, object]], Event]
"""Makes an event from its time, its actor and its other members; may raise ValueError, KeyError or TypeError."""

Kinds: TypeAlias = Mapping[str, Parser]
"""Kind of event to its parser."""


def parse_line(line: bytes, kinds: Kinds) -> Event:
    """Parse one line of a trace file; raises MalformedError, also for a kind that is not among `kinds`."""
    if len(line) > MAX_LINE_BYTES:
        raise MalformedError(f"trace: a line is longer than {MAX_LINE_BYTES} bytes")
    try:
        members = json.loads(line)
        kind = members.pop("kind")
        return kinds[kind](float(members.pop("t")), str(members.pop("actor")), members)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise MalformedError(f"trace: not an event: {type(error).__name__} {error}") from None


def parse_lines(data: bytes, kinds: Kinds) -> list[Event]:
    """Parse the content of a trace file, without a last line that is still being written; raises MalformedError."""
    complete, newline, _ = data.rpartition(b"\n")
    return [parse_line(line, kinds) for line in complete.split(b"\n")] if newline else []


def merge(traces: Iterable[Iterable[Event]]) -> list[Event]:
    """Return the events of all traces, sorted by time."""
    return sorted((event for trace in traces for event in trace), key=lambda event: event.time_s)


def host_port(address: str) -> tuple[str, int]:
    """Split "127.0.0.2:5060"; raises MalformedError."""
    host, colon, port = address.rpartition(":")
    if not (colon and port.isascii() and port.isdigit() and int(port) <= 0xFFFF):
        raise MalformedError(f"trace: {address!r} is not host:port")
    return host, int(port)


def ends(members: Mapping[str, object]) -> tuple[str, str]:
    """Return `src` and `dst` of a sent message, both "host:port"; raises KeyError or MalformedError."""
    src, dst = str(members["src"]), str(members["dst"])
    host_port(src)
    host_port(dst)
    return src, dst


def octets(value: object) -> bytes:
    """Decode octets that a trace holds in base64; raises ValueError or TypeError."""
    if not isinstance(value, str):
        raise TypeError("base64 is text")
    return base64.b64decode(value, validate=True)


def _note(time_s: float, actor: str, members: dict[str, object]) -> Event:
    return NoteEvent(time_s, actor, str(members.pop("text")), members)


def _http(time_s: float, actor: str, members: dict[str, object]) -> Event:
    return HttpEvent(time_s, actor, *ends(members), octets(members["data"]))


def _ready(time_s: float, actor: str, members: dict[str, object]) -> Event:
    return ReadyEvent(time_s, actor, {name: str(address) for name, address in members.items()})


def _result(time_s: float, actor: str, members: dict[str, object]) -> Event:
    return ResultEvent(time_s, actor, members)


COMMON_KINDS: Kinds = {"note": _note, "http": _http, "ready": _ready, "result": _result}
"""The kinds of events that every program may write."""
