"""The ladder of a call: SIP messages between its actors, each actor's decisions, and one row of media a direction.

`voice_dpki.stage.ladder` draws it in the terminal, and the report draws the same model. Times are relative to the
first message of the call.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from sip_testbed.events import RtpEvent, SipEvent
from sip_testbed.report import Direction, VideoDirection
from voice_dpki.stage.events import Event, NoteEvent
from voice_dpki.stage.ladder import Ladder, Mood, Row, ladder_of, listeners, note_row

ACTORS: Mapping[str, str] = {
    "third": "third",
    "caller": "caller",
    "proxy-a": "proxy A",
    "authn-a": "sign A",
    "verify-a": "verify A",
    "ledger-a": "ledger A",
    "path": "attacker",
    "proxy-b": "proxy B",
    "verify-b": "verify B",
    "authn-b": "sign B",
    "ledger-b": "ledger B",
    "engine": "validators",
    **{f"validator-{letter}": f"validator {letter.upper()}" for letter in "abcd"},
    **{f"cometbft-{letter}": f"CometBFT {letter.upper()}" for letter in "abcd"},
    "callee": "callee",
}
"""Actors in the order of their columns, with their titles."""


def build(events: Sequence[Event], media: Mapping[str, str] | None = None) -> Ladder:
    """Build the ladder of one call from its events, which are ordered by time.

    Registrations (they are in the capture) and inquiries at the ledger before the call are left out. `media` adds
    figures to the media row of a sending actor, for instance {"caller": "lost 0, MOS 4.4"}.
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
        elif isinstance(event, NoteEvent) and event.step != "media":  # media rows already show these figures
            rows.append(note_row(event, since_ms))
    rows += _media_rows(events, first or 0.0, owners, media or {})
    rows.sort(key=lambda row: row.time_ms)
    return ladder_of(rows, ACTORS, attackers=frozenset({"path"}))


def _owners(events: Sequence[Event]) -> dict[str, str]:
    """Map each address to the actor that listens at it or sends from it, and each host with one actor to it."""
    owners = listeners(events)
    owners |= {event.src: event.actor for event in events if isinstance(event, SipEvent | RtpEvent)}
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
    found = (
        (b"\r\nIdentity:", "Identity"),
        (b"\r\na=key-mgmt:mikey", "MIKEY"),
        (b"\r\nm=", "SDP"),
        (b"\r\na=sendonly", "hold"),
    )
    names = [name for mark, name in found if mark in message]
    return tuple(f"+{name}" for name in names if not (name == "SDP" and "MIKEY" in names))


def _method(message: bytes) -> str:
    found = re.search(rb"^CSeq[ \t]*:[ \t]*\d+[ \t]+([A-Z]+)", message, re.IGNORECASE | re.MULTILINE)
    return found[1].decode("ascii") if found else ""


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
        actor, is_video = packets[0].actor, packets[0].is_video
        label = f"{kind} {'video ' if is_video else ''}{len(packets)} packets"
        told = figures.get(f"{actor} video" if is_video else actor)
        extras = (f"({told})",) if told else ()
        since_ms = (packets[0].time_s - first_s) * 1000
        rows.append(Row(since_ms, actor, _owner(dst, owners), label, Mood.MEDIA, extras))
    return rows


def _is_inquiry(event: Event) -> bool:
    return isinstance(event, NoteEvent) and event.actor.startswith("ledger-") and event.text.startswith("inquiry")


def figures(media: Mapping[str, Direction]) -> dict[str, str]:
    """Return the figures for the ladder's media rows, by speaker."""
    return {name.partition("_")[0]: _arrived(media[name]) for name in sorted(media, reverse=True)}


def video_figures(video: Mapping[str, VideoDirection]) -> dict[str, str]:
    """Return the figures for the ladder's rows of pictures, by speaker."""
    return {
        f"{name.partition('_')[0]} video": f"{seen.shown} of {seen.pictures} seen"
        + ("" if seen.sync_ms is None else f", {seen.sync_ms:g} ms from the speech")
        for name, seen in video.items()
    }


def _arrived(direction: Direction) -> str:
    if not direction.packets:
        return "no media arrived"
    lost = f"lost {direction.lost}"
    return lost if direction.mos is None else f"{lost}, MOS {direction.mos:.2f}"
