"""Ladder diagrams: who sent what to whom and, between the messages, what each actor decided.

The caller provides the rows. This module lays them out for a terminal, in Unicode or ASCII, or as a list if the
terminal is too narrow.
"""

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from rich.console import Console
from rich.text import Text

from voice_dpki.stage.events import Event, NoteEvent, ReadyEvent

WIDTH = 100
"""Widest ladder, in columns."""

LIST_BELOW = 70
"""In a terminal with fewer columns the ladder is a list: the lifelines would be too close for any label."""

_TIME_WIDTH = 8


class Mood(StrEnum):
    """What kind of row it is; the renderers choose its colour."""

    REQUEST = "request"
    PROGRESS = "progress"
    OK = "ok"
    REFUSED = "refused"
    NOTE = "note"
    MEDIA = "media"


@dataclass(frozen=True, slots=True)
class Row:
    """One row: an arrow from `src` to `dst`, or what `src` did by itself if `dst` is None.

    `extras` follow the label if there is room; `event` is the source of the row, for readers who want all of it.
    """

    time_ms: float
    src: str
    dst: str | None
    label: str
    mood: Mood
    extras: tuple[str, ...] = ()
    event: Event | None = None

    @property
    def text(self) -> str:
        """Label and extras in one line."""
        return " ".join((self.label, *self.extras))


@dataclass(frozen=True, slots=True)
class Ladder:
    """Actors in the order of their columns, rows in the order of time, and the actors' titles.

    `places` puts lifelines at fractions of the width, for ladders with longer labels between some actors. The
    headings of `attackers` are highlighted.
    """

    actors: tuple[str, ...]
    rows: tuple[Row, ...]
    titles: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, float] = field(default_factory=dict)
    attackers: frozenset[str] = frozenset()

    def title(self, actor: str) -> str:
        """The heading of an actor's column."""
        return self.titles.get(actor, actor)


def ladder_of(
    rows: Iterable[Row],
    titles: Mapping[str, str],
    places: Mapping[str, float] | None = None,
    attackers: frozenset[str] = frozenset(),
) -> Ladder:
    """Make a ladder with a column for each actor in `rows`: in the order of `titles`, and others behind."""
    kept = tuple(rows)
    present = {row.src for row in kept} | {row.dst for row in kept if row.dst}
    known = [actor for actor in titles if actor in present]
    return Ladder((*known, *sorted(present - set(known))), kept, titles, places or {}, attackers)


def listeners(events: Iterable[Event]) -> dict[str, str]:
    """Map each address at which a server in `events` listens to the actor that it is."""
    ready = (event for event in events if isinstance(event, ReadyEvent))
    return {address: event.actor for event in ready for address in event.addresses.values()}


def note_row(event: NoteEvent, time_ms: float) -> Row:
    """Return the row of a note: its text, how long it took, and whether something was accepted."""
    mood = {True: Mood.OK, False: Mood.REFUSED, None: Mood.NOTE}[event.ok]
    extras = (f"({_duration(event.ms)})",) if event.ms is not None else ()
    return Row(time_ms, event.actor, None, event.text, mood, extras)


def _duration(ms: float) -> str:
    return f"{ms:.1f} ms" if ms < 100 else f"{ms:.0f} ms"


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
    """Return the ladder as plain text, drawn in ASCII if `encoding` lacks the characters."""
    return "\n".join(line.plain.rstrip() for line in _lines(ladder, width, _glyphs(encoding))) + "\n"


def marks(encoding: str) -> Mapping[Mood, str]:
    """Return the marks for "accepted" (Mood.OK) and "refused" (Mood.REFUSED) that `encoding` can write."""
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
        room = width - _TIME_WIDTH
        gap = room / max(len(ladder.actors), 1)
        self._at = {
            actor: _TIME_WIDTH + int(room * ladder.places[actor] if actor in ladder.places else gap * (i + 0.5))
            for i, actor in enumerate(ladder.actors)
        }
        self._gap = int(gap)

    def heading(self) -> Text:
        """Return the line of the actors' titles, each over its lifeline."""
        line = Text(" ms".rjust(_TIME_WIDTH - 1).ljust(self._width), style="dim")
        for actor, at in self._at.items():
            title = _fit(self._ladder.title(actor), self._gap - 1, self._glyphs)
            start = max(min(at - len(title) // 2, self._width - len(title)), self._left)
            style = "not dim bold red" if actor in self._ladder.attackers else "not dim bold"
            line = self._put(line, start, title, style)
        return line

    def blank(self) -> Text:
        """Return a line with lifelines only."""
        line = Text(" " * self._width)
        for at in self._at.values():
            line = self._put(line, at, self._glyphs.line, _LIFELINE)
        return line

    def row(self, row: Row) -> list[Text]:
        """Return the lines of a row; an actor's decision may need several."""
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
        if self._glyphs.more in label:  # without surrounding spaces the label may fit
            label = self._label(row, inner - 1)
        middle = max((inner - len(label)) // 2, 0) + (0 if rightward else 1)
        body = shaft[:middle] + label + shaft[middle + len(label) :]
        body = body[: inner - 1] + self._glyphs.right if rightward else self._glyphs.left + body[1:inner]
        return self._put(line, start + 1, body, _STYLES[row.mood])

    def _label(self, row: Row, room: int) -> str:
        """Return the label with as many extras as fit, or shortened; of a SIP status the number remains."""
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
