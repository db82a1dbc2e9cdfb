"""The ladder of attachments: IKE's messages, the inquiry's steps 5.1 to 5.4, and what each actor decided."""

from collections.abc import Iterable, Mapping, Sequence

from segw_agent.attachment.drawing import Ladder, Mood, Row
from segw_agent.attachment.processes import Event

TITLES = {"device": "device", "gateway": "SeGW", "ledger-a": "ledger A"}
PLACES = {"device": 0.05, "gateway": 0.55, "ledger-a": 0.95}

_STEPS = {("IKE_AUTH", False): "4 ", ("IKE_AUTH", True): "7 "}
_FIRST = (
    "N(INTEGRITY_INFO)",
    "N(AUTHENTICATION_FAILED)",
    "N(LEDGER_ANSWER)",
    "N(COOKIE)",
    "D",
    "IDi",
    "IDr",
    "CERT",
)
"""Payloads that a label names first, should there be no room for all."""


def build(events: Sequence[Event]) -> Ladder:
    """Make the ladder of all attachments in `events`, which are in the order of time."""
    first = next((float(event["t"]) for event in events if event["kind"] == "ike"), None)
    owners = _owners(events)
    asked: dict[str, list[str]] = {}
    rows: list[Row] = []
    for event in events:
        if first is None or float(event["t"]) < first:
            continue
        row = _row(event, (float(event["t"]) - first) * 1000, owners, asked)
        if row is not None:
            rows.append(row)
    present = {row.src for row in rows} | {row.dst for row in rows if row.dst}
    return Ladder(tuple(actor for actor in TITLES if actor in present), tuple(rows), TITLES, PLACES)


def _row(event: Event, ms: float, owners: Mapping[str, str], asked: dict[str, list[str]]) -> Row | None:
    kind, actor = event["kind"], event["actor"]
    if actor not in TITLES:
        return None
    if kind == "ike":
        return _message(event, ms, owners)
    if kind == "ask":
        asked.setdefault(event["digest"], []).append(event["text"])
        return Row(ms, actor, owners.get(event["peer"]), event["text"], Mood.REQUEST)
    if kind == "answer":
        asked[event["digest"]].pop()
        extras = (event["status"], f"height {event['height']}", f"({event['ms']:.1f} ms)")
        mood = Mood.OK if event["status"] == "valid" else Mood.REFUSED
        return Row(ms, owners.get(event["peer"], ""), actor, event["text"], mood, extras)
    if kind == "note":
        return _note(event, ms, asked)
    return None


def _message(event: Event, ms: float, owners: Mapping[str, str]) -> Row:
    exchange, response, names = event["exchange"], event["response"], event["payloads"]
    number, total = event["fragment"]
    part = f" {number}/{total}" if total > 1 else ""
    label = f"{_STEPS.get((exchange, response), '')}{exchange}{part}"
    extras = tuple(sorted(dict.fromkeys(names), key=lambda name: _FIRST.index(name) if name in _FIRST else 99))
    refused = "N(AUTHENTICATION_FAILED)" in names
    mood = Mood.REFUSED if refused else Mood.OK if response else Mood.REQUEST
    if event["repeated"]:
        label += " again"
    return Row(ms, event["actor"], owners.get(event["dst"]), label, mood, extras)


def _note(event: Event, ms: float, asked: Mapping[str, Sequence[str]]) -> Row | None:
    text = str(event["text"])
    if event["actor"] == "ledger-a":
        # A gateway also asks about itself, for what it staples; the ladder shows what somebody was waiting for.
        questions = asked.get(event.get("digest", ""))
        if not text.startswith("inquiry") or not questions:
            return None
        text = f"5.2 {text}" if questions[-1].startswith("5.1") else text
    mood = {True: Mood.OK, False: Mood.REFUSED, None: Mood.NOTE}[event.get("ok")]
    extras = (f"({event['ms']:.1f} ms)",) if isinstance(event.get("ms"), int | float) else ()
    return Row(ms, event["actor"], None, text, mood, extras)


def _owners(events: Iterable[Event]) -> dict[str, str]:
    """Address to the actor that listens there."""
    return {
        str(address): event["actor"]
        for event in events
        if event["kind"] == "ready"
        for name, address in event.items()
        if name not in ("t", "actor", "kind")
    }
