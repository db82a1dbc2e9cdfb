from typing import Any

from sip_testbed.events import RtpEvent, SipEvent
from sip_testbed.ladder import build
from voice_dpki.stage.events import Event, NoteEvent
from voice_dpki.stage.ladder import WIDTH, Mood, render_text

FIGURES = {"caller": "loss 0, MOS 4.41", "callee": "loss 0, MOS 4.40"}


def test_columns_are_the_actors_in_the_order_of_the_call(call_trace: Any) -> None:
    actors = build(call_trace().events()).actors
    assert actors == ("caller", "proxy-a", "authn-a", "proxy-b", "verify-b", "ledger-b", "callee")


def test_every_message_goes_between_actors_and_not_addresses(call_trace: Any) -> None:
    ladder = build(call_trace().events())
    assert {row.dst for row in ladder.rows if row.dst} <= set(ladder.actors)
    trunk = [row for row in ladder.rows if (row.src, row.dst) == ("proxy-b", "proxy-a")]
    assert [row.label for row in trunk] == ["180 Ringing", "200 OK", "200 OK"]


def test_rows_say_what_they_carry_and_how_to_take_them(call_trace: Any) -> None:
    rows = build(call_trace().events()).rows
    invite = next(row for row in rows if row.src == "proxy-a" and row.dst == "proxy-b")
    assert (invite.text, invite.mood) == ("INVITE +Identity +MIKEY", Mood.REQUEST)
    moods = {row.label: row.mood for row in rows}
    assert (moods["100 Trying"], moods["200 OK"]) == (Mood.PROGRESS, Mood.OK)


def test_refusals_and_challenges_are_told_apart() -> None:
    def status(text: str) -> SipEvent:
        return SipEvent(
            1.0, "proxy-b", "udp", "127.0.0.3:5060", "127.0.0.2:5060", f"SIP/2.0 {text}\r\n\r\n".encode()
        )

    refusal = NoteEvent(1.0, "verify-b", "E17: revoked", {"ok": False})
    events: list[Event] = [
        status("407 Proxy Authentication Required"),
        status("438 Invalid Identity Header"),
        refusal,
    ]
    assert [row.mood for row in build(events).rows] == [Mood.PROGRESS, Mood.REFUSED, Mood.REFUSED]


def test_registrations_are_left_out_and_time_begins_with_the_call(call_trace: Any) -> None:
    register = b"REGISTER sip:a.example SIP/2.0\r\nCSeq: 1 REGISTER\r\n\r\n"
    events = call_trace().events()
    events.insert(0, SipEvent(events[0].time_s, "caller", "udp", "127.0.0.10:5080", "127.0.0.2:5060", register))
    first = build(events).rows[0]
    assert (first.label, first.time_ms) == ("INVITE", 0.0)


def test_media_rows_count_packets_and_show_figures(call_trace: Any) -> None:
    rows = [row for row in build(call_trace().events(), FIGURES).rows if row.mood is Mood.MEDIA]
    assert [row.text for row in rows] == [
        "SRTP 25 packets (loss 0, MOS 4.41)",
        "SRTP 25 packets (loss 0, MOS 4.40)",
    ]


def test_rtcp_is_no_media_row() -> None:
    report = bytes([0x80, 200]) + bytes(26)
    assert build([RtpEvent(1.0, "caller", "127.0.0.6:4001", "127.0.0.7:4001", report, report)]).rows == ()


def test_text_fits_the_width_and_shows_all_rows(call_trace: Any) -> None:
    ladder = build(call_trace().events(), FIGURES)
    for width in (WIDTH, 80, 70):
        lines = render_text(ladder, width).splitlines()
        assert max(map(len, lines)) <= width
        assert len(lines) >= len(ladder.rows) + 3
    assert "── INVITE ─▶" in render_text(ladder)


def test_a_narrow_terminal_gets_a_list(call_trace: Any) -> None:
    ladder = build(call_trace().events())
    lines = render_text(ladder, 60).splitlines()
    assert len(lines) == len(ladder.rows)
    assert lines[0].split() == ["0.0", "caller", "─▶", "proxy", "A", "INVITE", "+MIKEY"]


def test_ascii_where_the_output_knows_nothing_else(call_trace: Any) -> None:
    render_text(build(call_trace().events(), FIGURES), encoding="ascii").encode("ascii")


def test_nothing_happened_is_a_ladder_too() -> None:
    assert render_text(build([])).strip() == "ms"


def test_pictures_have_a_row_of_their_own() -> None:
    events: list[Event] = [
        RtpEvent(
            1.0, "caller", f"127.0.0.6:{port}", f"127.0.0.7:{port}", b"w" * 30, bytes([0x80, kind]) + b"c" * 28
        )
        for port, kind in ((4000, 0), (4002, 100), (4002, 100 | 0x80))
    ]
    rows = build(events, {"caller": "lost 0", "caller video": "2 of 2 seen"}).rows
    assert [row.text for row in rows] == ["SRTP 1 packets (lost 0)", "SRTP video 2 packets (2 of 2 seen)"]
