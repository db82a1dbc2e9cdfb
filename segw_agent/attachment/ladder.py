"""The ladder of attachments: IKE's messages, the inquiry's steps 5.1 to 5.4, and what each actor decided."""

from collections.abc import Mapping, Sequence

from segw_agent.attachment.events import AnswerEvent, AskEvent, IkeEvent
from voice_dpki.stage.events import Event, NoteEvent
from voice_dpki.stage.ladder import Ladder, Mood, Row, ladder_of, listeners, note_row

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
"""Payloads that a label names first, in case there is no room for all."""

Asked = dict[str, list[str]]
"""H(CERT) to the texts of the inquiries about it that have no answer yet."""


def build(events: Sequence[Event]) -> Ladder:
    """Make the ladder of all attachments in `events`, which are sorted by time."""
    first_s = next((event.time_s for event in events if isinstance(event, IkeEvent)), None)
    if first_s is None:
        return Ladder((), ())
    owners, asked = listeners(events), Asked()
    shown = (event for event in events if event.time_s >= first_s and event.actor in TITLES)
    made = (_row(event, (event.time_s - first_s) * 1000, owners, asked) for event in shown)
    return ladder_of((row for row in made if row is not None), TITLES, PLACES)


def _row(event: Event, ms: float, owners: Mapping[str, str], asked: Asked) -> Row | None:
    match event:
        case IkeEvent():
            return _message(event, ms, owners)
        case AnswerEvent():
            asked[event.digest].pop()
            extras = (event.status, f"height {event.height}", f"({event.ms:.1f} ms)")
            mood = Mood.OK if event.status == "valid" else Mood.REFUSED
            return Row(ms, owners.get(event.peer, event.peer), event.actor, event.text, mood, extras, event)
        case AskEvent():
            asked.setdefault(event.digest, []).append(event.text)
            return Row(ms, event.actor, owners.get(event.peer), event.text, Mood.REQUEST, event=event)
        case NoteEvent(actor="ledger-a"):
            return _inquiry(event, ms, asked)
        case NoteEvent():
            return note_row(event, ms)
    return None


def _message(event: IkeEvent, ms: float, owners: Mapping[str, str]) -> Row:
    number, total = event.fragment
    part = f" {number}/{total}" if total > 1 else ""
    again = " again" if event.repeated else ""
    label = f"{_STEPS.get((event.exchange, event.is_response), '')}{event.exchange}{part}{again}"
    names = sorted(dict.fromkeys(event.payloads), key=lambda name: _FIRST.index(name) if name in _FIRST else 99)
    refused = "N(AUTHENTICATION_FAILED)" in names
    mood = Mood.REFUSED if refused else Mood.OK if event.is_response else Mood.REQUEST
    return Row(ms, event.actor, owners.get(event.dst), label, mood, tuple(names), event)


def _inquiry(event: NoteEvent, ms: float, asked: Asked) -> Row | None:
    """Show an inquiry node's note if a traced inquiry is open; fetches of a gateway's own answer are not traced."""
    questions = asked.get(str(event.data.get("digest")))
    if not event.text.startswith("inquiry") or not questions:
        return None
    row = note_row(event, ms)
    label = f"5.2 {row.label}" if questions[-1].startswith("5.1") else row.label
    return Row(ms, row.src, None, label, row.mood, row.extras, event)
