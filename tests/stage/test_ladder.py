import io
import re
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from voice_dpki.stage.events import Event, NoteEvent, ReadyEvent
from voice_dpki.stage.ladder import (
    LIST_BELOW,
    WIDTH,
    Ladder,
    Mood,
    Row,
    ladder_of,
    listeners,
    marks,
    note_row,
    render,
    render_text,
)

ROWS = (
    Row(0.0, "a", "b", "HELLO", Mood.REQUEST, ("+name", "+age")),
    Row(1.0, "b", None, "thinks", Mood.NOTE),
    Row(2.0, "b", "a", "200 Welcome", Mood.OK),
    Row(3.0, "a", "c", "speech", Mood.MEDIA),
    Row(4.0, "c", None, "does not listen", Mood.REFUSED),
    Row(12_000.0, "a", "a", "waits", Mood.NOTE),
)
LADDER = Ladder(("a", "b", "c"), ROWS, {"a": "Alice", "b": "Bob"}, attackers=frozenset({"c"}))


def printed(ladder: Ladder, **options: Any) -> str:
    file = io.StringIO()
    render(ladder, Console(file=file, **options))
    return file.getvalue()


@pytest.mark.parametrize("width", [WIDTH, 80, LIST_BELOW])
def test_every_row_is_drawn_and_fits(width: int) -> None:
    lines = render_text(LADDER, width).splitlines()
    assert max(map(len, lines)) <= width
    assert [re.sub(r"(.)\1*(?<=[ ─═])", r"\1", line).strip() for line in lines] == [
        "ms Alice Bob c",
        "│ │ │",
        "0.0 │─ HELLO +name +age ▶│ │" if width == LIST_BELOW else "0.0 │─ HELLO +name +age ─▶│ │",
        "1.0 │ ● thinks │",
        "2.0 │◀─ 200 Welcome ─│ │",
        "3.0 │═ speech ═▶│",
        "4.0 │ │ does not listen ✘",
        "12.00s ● waits │ │",
        "│ │ │",
    ]


def test_a_narrow_terminal_gets_a_list() -> None:
    lines = render_text(LADDER, LIST_BELOW - 1).splitlines()
    assert len(lines) == len(ROWS)
    assert lines[0].split() == ["0.0", "Alice", "─▶", "Bob", "HELLO", "+name", "+age"]


def test_lifelines_stand_where_they_are_put() -> None:
    heading = render_text(replace(LADDER, places={"a": 0.05, "b": 0.7})).splitlines()[1]
    assert [at for at, sign in enumerate(heading) if sign == "│"] == [12, 72, 84]


def test_long_decisions_are_wrapped_and_not_cut() -> None:
    words = [f"word{n}" for n in range(40)]
    text = render_text(Ladder(("a", "b"), (Row(0.0, "b", None, " ".join(words), Mood.REFUSED),)))
    assert all(word in text for word in words)
    assert max(map(len, text.splitlines())) <= WIDTH


def test_labels_without_room_are_shortened_and_a_status_keeps_its_number() -> None:
    rows = (Row(0.0, "a", "b", "x" * 99, Mood.REQUEST), Row(0.0, "b", "a", f"438 {'y' * 99}", Mood.REFUSED))
    lines = render_text(Ladder(("a", "b"), rows)).splitlines()
    assert "xx…▶" in lines[2]
    assert "─ 438 ─" in lines[3]


def test_without_a_terminal_there_are_no_escape_codes_and_with_one_there_are() -> None:
    assert "\x1b" not in printed(LADDER)
    coloured = printed(LADDER, force_terminal=True, width=120, color_system="standard")
    assert "\x1b[1;36m" in coloured
    assert "\x1b[1;31mc" in coloured  # the attacker's heading


def test_ascii_where_the_output_knows_nothing_else() -> None:
    render_text(LADDER, encoding="ascii").encode("ascii")
    assert marks("ascii") == {Mood.OK: "+", Mood.REFUSED: "x"}
    assert marks("utf-8") == {Mood.OK: "✔", Mood.REFUSED: "✘"}


def test_notes_say_how_long_it_took_and_whether_it_was_accepted() -> None:
    assert note_row(NoteEvent(1.0, "a", "signed", {"ms": 2}), 7.0) == Row(
        7.0, "a", None, "signed", Mood.NOTE, ("(2.0 ms)",)
    )
    moods = [note_row(NoteEvent(1.0, "a", "x", {"ok": ok}), 0.0).mood for ok in (True, False)]
    assert moods == [Mood.OK, Mood.REFUSED]
    assert note_row(NoteEvent(1.0, "a", "x", {"ms": 123.4}), 0.0).text == "x (123 ms)"


def test_columns_are_those_who_did_something_in_the_order_of_the_titles() -> None:
    rows = (Row(0.0, "b", "z", "INVITE", Mood.REQUEST), Row(1.0, "a", None, "signed", Mood.OK))
    made = ladder_of(iter(rows), {"a": "proxy A", "unused": "nobody", "b": "proxy B"}, attackers=frozenset({"z"}))
    assert (made.actors, made.rows, made.attackers) == (("a", "b", "z"), rows, frozenset({"z"}))
    assert [made.title(actor) for actor in made.actors] == ["proxy A", "proxy B", "z"]


def test_servers_are_known_by_all_their_addresses() -> None:
    events = [
        ReadyEvent(1.0, "a", {"sip": "127.0.0.2:5060", "http": "127.0.0.2:8080"}),
        Event(2.0, "b"),
        ReadyEvent(3.0, "c", {"http": "127.0.0.3:8080"}),
    ]
    assert listeners(events) == {"127.0.0.2:5060": "a", "127.0.0.2:8080": "a", "127.0.0.3:8080": "c"}


def test_nothing_happened_is_a_ladder_too() -> None:
    assert render_text(Ladder((), ())).strip() == "ms"
