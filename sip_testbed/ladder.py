"""The ladder of a call: who sent what to whom, and between the messages what each actor decided.

`build` makes one model from trace events; the terminal (`render`, `render_text`) and the report's drawing both
show that model. Times are relative to the first message of the call.
"""

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rich.console import Console
from rich.text import Text

from sip_testbed.events import Event, NoteEvent, ReadyEvent, RtpEvent, SipEvent

WIDTH = 100
"""Columns of the terminal that a ladder fits."""

LIST_BELOW = 70
"""In a terminal narrower than this the ladder is a list: lifelines would stand too close for any label."""

_TIME_WIDTH = 8

ACTORS: Mapping[str, str] = {
    "caller": "caller",
    "proxy-a": "proxy A",
    "authn-a": "sign A",
    "ledger-a": "ledger A",
    "path": "attacker",
    "proxy-b": "proxy B",
    "verify-b": "verify B",
    "ledger-b": "ledger B",
    "engine": "validators",
    **{f"validator-{letter}": f"validator {letter.upper()}" for letter in "abcd"},
    **{f"cometbft-{letter}": f"CometBFT {letter.upper()}" for letter in "abcd"},
    "callee": "callee",
}
"""Actors in the order of their columns, with their titles."""


class Mood(StrEnum):
    """How a row is to be taken; the renderers choose the colour."""

    REQUEST = "request"
    PROGRESS = "progress"
    OK = "ok"
    REFUSED = "refused"
    NOTE = "note"
    MEDIA = "media"


@dataclass(frozen=True, slots=True)
class Row:
    """One row: an arrow from `src` to `dst`, or what `src` did by itself where `dst` is None.

    `extras` follow the label where there is room; `event` is the message itself.
    """

    time_ms: float
    src: str
    dst: str | None
    label: str
    mood: Mood
    extras: tuple[str, ...] = ()
    event: SipEvent | None = None

    @property
    def text(self) -> str:
        """Label and extras in one line."""
        return " ".join((self.label, *self.extras))


@dataclass(frozen=True, slots=True)
class Ladder:
    """Actors that took part, in the order of their columns, and the rows in the order of time."""

    actors: tuple[str, ...]
    rows: tuple[Row, ...]

    def title(self, actor: str) -> str:
        """The heading of an actor's column."""
        return ACTORS.get(actor, actor)


def build(events: Sequence[Event], media: Mapping[str, str] | None = None) -> Ladder:
    """Make the ladder of one call from its events in the order of time.

    Registrations (they are in the capture) and what telephones ask the ledger before the call are left out. `media`
    adds figures to the media row of an actor that sends, for instance {"caller": "lost 0, MOS 4.4"}.
    """
    owners = _owners(events)
    shown = [event for event in events if not (isinstance(event, SipEvent) and _method(event.data) == "REGISTER")]
    first = next((event.time_s for event in shown if isinstance(event, SipEvent)), None)
    shown = [event for event in shown if first is None or event.time_s >= first or not _is_inquiry(event)]
    rows: list[Row] = []
    for event in shown:
        since_ms = (event.time_s - first) * 1000 if first is not None else 0.0
        if isinstance(event, SipEvent):
            rows.append(_message(event, since_ms, owners))
        elif isinstance(event, NoteEvent) and event.step != "media":  # the media rows have these figures
            rows.append(_note(event, since_ms))
    rows += _media_rows(events, first or 0.0, owners, media or {})
    rows.sort(key=lambda row: row.time_ms)
    present = {row.src for row in rows} | {row.dst for row in rows if row.dst}
    known = [actor for actor in ACTORS if actor in present]
    return Ladder((*known, *sorted(present - set(known))), tuple(rows))


def _owners(events: Iterable[Event]) -> dict[str, str]:
    """Address to actor: who listens there, or has sent from there; and host to actor where it has but one."""
    owners: dict[str, str] = {}
    for event in events:
        if isinstance(event, ReadyEvent):
            owners.update(dict.fromkeys(event.addresses.values(), event.actor))
        elif isinstance(event, SipEvent | RtpEvent):
            owners[event.src] = event.actor
    hosts: dict[str, set[str]] = {}
    for address, actor in owners.items():
        hosts.setdefault(address.rpartition(":")[0], set()).add(actor)
    return owners | {host: next(iter(actors)) for host, actors in hosts.items() if len(actors) == 1}


def _owner(address: str, owners: Mapping[str, str]) -> str:
    return owners.get(address) or owners.get(address.rpartition(":")[0], address)


def _message(event: SipEvent, since_ms: float, owners: Mapping[str, str]) -> Row:
    start = event.data.split(b"\r\n", 1)[0].decode("utf-8", "replace")
    dst = _owner(event.dst, owners)
    if not start.startswith("SIP/2.0 "):
        label, mood = start.split(" ", 1)[0], Mood.REQUEST
    else:
        label = start.removeprefix("SIP/2.0 ")
        mood = {"1": Mood.PROGRESS, "2": Mood.OK}.get(label[:1], Mood.REFUSED)
        # A challenge is how digest authentication works, not a refusal of the call.
        mood = Mood.PROGRESS if label[:3] in ("401", "407") else mood
    return Row(since_ms, event.actor, dst, label, mood, _extras(event.data), event)


def _extras(message: bytes) -> tuple[str, ...]:
    found = ((b"\r\nIdentity:", "Identity"), (b"\r\na=key-mgmt:mikey", "MIKEY"), (b"\r\nm=", "SDP"))
    names = [name for mark, name in found if mark in message]
    return tuple(f"+{name}" for name in names if not (name == "SDP" and "MIKEY" in names))


def _method(message: bytes) -> str:
    found = re.search(rb"^CSeq[ \t]*:[ \t]*\d+[ \t]+([A-Z]+)", message, re.IGNORECASE | re.MULTILINE)
    return found[1].decode("ascii") if found else ""


def _note(event: NoteEvent, since_ms: float) -> Row:
    mood = {True: Mood.OK, False: Mood.REFUSED, None: Mood.NOTE}[event.ok]
    extras = (f"({_duration(event.ms)})",) if event.ms is not None else ()
    return Row(since_ms, event.actor, None, event.text, mood, extras)


def _media_rows(
    events: Iterable[Event], first_s: float, owners: Mapping[str, str], figures: Mapping[str, str]
) -> list[Row]:
    streams: dict[tuple[str, str], list[RtpEvent]] = {}
    for event in events:
        if isinstance(event, RtpEvent) and not event.is_control:
            streams.setdefault((event.src, event.dst), []).append(event)
    rows = []
    for (_, dst), packets in streams.items():
        kind = "SRTP" if packets[0].wire != packets[0].clear else "RTP"
        label, actor = f"{kind} {len(packets)} packets", packets[0].actor
        extras = (f"({figures[actor]})",) if actor in figures else ()
        since_ms = (packets[0].time_s - first_s) * 1000
        rows.append(Row(since_ms, actor, _owner(dst, owners), label, Mood.MEDIA, extras))
    return rows


def _is_inquiry(event: Event) -> bool:
    return isinstance(event, NoteEvent) and event.actor.startswith("ledger-") and event.text.startswith("inquiry")


def _duration(ms: float) -> str:
    return f"{ms:.1f} ms" if ms < 100 else f"{ms:.0f} ms"


# --- the terminal ---------------------------------------------------------------------------------------------

_STYLES: Mapping[Mood, str] = {
    Mood.REQUEST: "bold cyan",
    Mood.PROGRESS: "blue",
    Mood.OK: "green",
    Mood.REFUSED: "bold red",
    Mood.NOTE: "yellow",
    Mood.MEDIA: "magenta",
}
_LIFELINE = "bright_black"


@dataclass(frozen=True, slots=True)
class _Glyphs:
    line: str
    shaft: str
    media: str
    right: str
    left: str
    marks: Mapping[Mood, str]
    mark: str
    more: str


_UNICODE = _Glyphs("│", "─", "═", "▶", "◀", {Mood.OK: "✔", Mood.REFUSED: "✘"}, "●", "…")
_ASCII = _Glyphs("|", "-", "=", ">", "<", {Mood.OK: "+", Mood.REFUSED: "x"}, "*", "~")


def render(ladder: Ladder, console: Console) -> None:
    """Print the ladder on `console`, at most WIDTH columns wide, or as a list where the terminal is too narrow."""
    width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    for line in _lines(ladder, width, _glyphs(console.encoding)):
        console.print(line, no_wrap=True, crop=False, highlight=False, soft_wrap=True)


def render_text(ladder: Ladder, width: int = WIDTH, encoding: str = "utf-8") -> str:
    """Return the ladder as plain text; characters that `encoding` lacks are replaced by ASCII drawing."""
    return "\n".join(line.plain.rstrip() for line in _lines(ladder, width, _glyphs(encoding))) + "\n"


def marks(encoding: str) -> Mapping[Mood, str]:
    """The marks for what was accepted (Mood.OK) and refused (Mood.REFUSED) that an output's `encoding` has."""
    return _glyphs(encoding).marks


def _glyphs(encoding: str) -> _Glyphs:
    try:
        "│▶✔●…".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return _ASCII
    return _UNICODE


def _lines(ladder: Ladder, width: int, glyphs: _Glyphs) -> list[Text]:
    if width < LIST_BELOW:
        return [_listed(ladder, row, glyphs) for row in ladder.rows]
    canvas = _Canvas(ladder, width, glyphs)
    rows = (line for row in ladder.rows for line in canvas.row(row))
    return [canvas.heading(), canvas.blank(), *rows, canvas.blank()]


def _listed(ladder: Ladder, row: Row, glyphs: _Glyphs) -> Text:
    way = f" {glyphs.shaft}{glyphs.right} {ladder.title(row.dst)}" if row.dst else ""
    line = Text(_time(row.time_ms), style="dim")
    line.append(f" {ladder.title(row.src)}{way}  ", style="not dim")
    return line.append(row.text, style=f"not dim {_STYLES[row.mood]}")


def _time(ms: float) -> str:
    return (f"{ms:.1f}" if abs(ms) < 10_000 else f"{ms / 1000:.2f}s").rjust(_TIME_WIDTH - 1)


class _Canvas:
    """Draws lines of fixed width with a lifeline for each actor."""

    def __init__(self, ladder: Ladder, width: int, glyphs: _Glyphs) -> None:
        self._ladder = ladder
        self._glyphs = glyphs
        self._width = width
        self._left = _TIME_WIDTH
        gap = (width - _TIME_WIDTH) / max(len(ladder.actors), 1)
        self._at = {actor: _TIME_WIDTH + int(gap * (i + 0.5)) for i, actor in enumerate(ladder.actors)}
        self._gap = int(gap)

    def heading(self) -> Text:
        """The actors' titles, each over its lifeline."""
        line = Text(" ms".rjust(_TIME_WIDTH - 1).ljust(self._width), style="dim")
        for actor, at in self._at.items():
            title = _fit(self._ladder.title(actor), self._gap - 1, self._glyphs)
            start = max(min(at - len(title) // 2, self._width - len(title)), self._left)
            line = self._put(line, start, title, "not dim bold red" if actor == "path" else "not dim bold")
        return line

    def blank(self) -> Text:
        """Lifelines only."""
        line = Text(" " * self._width)
        for at in self._at.values():
            line = self._put(line, at, self._glyphs.line, _LIFELINE)
        return line

    def row(self, row: Row) -> list[Text]:
        """One row of the ladder; what an actor decided may need several lines."""
        if row.dst is not None and row.dst != row.src:
            return [self._arrow(self._start(row), row, row.dst)]
        return self._decision(row)

    def _start(self, row: Row) -> Text:
        return self._put(self.blank(), 0, _time(row.time_ms), "dim")

    def _arrow(self, line: Text, row: Row, dst: str) -> Text:
        start, end = sorted((self._at[row.src], self._at[dst]))
        rightward = self._at[dst] == end
        inner = end - start - 1
        shaft = (self._glyphs.media if row.mood is Mood.MEDIA else self._glyphs.shaft) * inner
        label = f" {self._label(row, inner - 3)} "
        if self._glyphs.more in label:  # without the spaces around it there may be room
            label = self._label(row, inner - 1)
        middle = max((inner - len(label)) // 2, 0) + (0 if rightward else 1)
        body = shaft[:middle] + label + shaft[middle + len(label) :]
        body = body[: inner - 1] + self._glyphs.right if rightward else self._glyphs.left + body[1:inner]
        return self._put(line, start + 1, body, _STYLES[row.mood])

    def _label(self, row: Row, room: int) -> str:
        """The label with as many extras as fit, or shortened: a status keeps its number."""
        for count in range(len(row.extras), -1, -1):
            label = " ".join((row.label, *row.extras[:count]))
            if len(label) <= room - (count > 0):
                return label
        return row.label[:3] if row.label[:3].isdigit() else _fit(row.label, room, self._glyphs)

    def _decision(self, row: Row) -> list[Text]:
        at, style = self._at[row.src], _STYLES[row.mood]
        to_right, to_left = self._width - at - 2, at - self._left - 2
        rightward = len(row.text) <= to_right or to_right >= to_left
        parts = textwrap.wrap(row.text, to_right if rightward else to_left) or [""]
        mark = self._glyphs.marks.get(row.mood, self._glyphs.mark)
        lines = [self._put(self._start(row), at, mark, style)] + [self.blank() for _ in parts[1:]]
        for i, part in enumerate(parts):
            text = f" {part} "[: self._width - at - 1] if rightward else f" {part} "
            lines[i] = self._put(lines[i], at + 1 if rightward else at - len(text), text, style)
        return lines

    @staticmethod
    def _put(line: Text, at: int, text: str, style: str) -> Text:
        before, _, after = line.divide((at, at + len(text)))
        return Text.assemble(before, (text, style), after)


def _fit(text: str, room: int, glyphs: _Glyphs) -> str:
    return text if len(text) <= room else text[: max(room - 1, 0)] + glyphs.more
