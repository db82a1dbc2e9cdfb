"""The report of a call: report.json for programs and a self-contained report.html for people.

`Report` holds the facts about a call; `to_json` follows report.schema.json, and `to_html` shows the same with the
ladder and the recordings. The page loads nothing from elsewhere: styles, drawings and sound are embedded.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from typing import Any

import jinja2
import numpy as np

from sip_testbed.conversation import SILENCE
from sip_testbed.events import SipEvent
from voice_dpki.media.recording import read_wav
from voice_dpki.stage.ladder import Ladder, Row
from voice_dpki.stage.report import Check, encode_report
from voice_dpki.stir.verdict import Verstat

VERSION = 1
"""Version of report.json's format."""

LEDGERS: Mapping[str, str] = {
    "embedded": "one engine with both operators' validators",
    "federation": "four operators' validators on CometBFT",
}
"""The engine that orders the ledger's transactions, by its name in report.json."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ends: as a scenario expects it, or as seen.

    `verstat` is the verdict in the callee's INVITE or the verifier's answer, `reasoncode` the code of the refusal
    (None if there was none), `refused_by` the step that refused, `sip_status` the status that the caller got.
    """

    verstat: str | None
    reasoncode: int | None
    refused_by: str | None
    sip_status: int | None
    sentence: str


@dataclass(frozen=True, slots=True)
class Direction:
    """One direction of the media, as its receiver counted it.

    `correlation` compares the heard speech with the spoken one (1 means the same), `mos` is the E-model's estimate
    (ITU-T G.107, 1 to 4.5). They are None if nothing was heard, or too little to tell.
    """

    packets: int
    lost: int
    correlation: float | None = None
    mos: float | None = None
    jitter_ms: float | None = None


@dataclass(frozen=True, slots=True)
class VideoDirection:
    """One direction of the video: `pictures` were sent, everything else is its receiver's count.

    `sync_ms` is the mean time by which a picture was shown before or after its speech, None if none was compared.
    """

    pictures: int
    shown: int
    missed: int
    asked: int
    """Number of requests for a whole picture after a loss."""
    sync_ms: float | None
    sync_worst_ms: float | None


@dataclass(frozen=True, slots=True)
class Connected:
    """The verdict that the caller got on the number that answered (RFC 9970), and who signed the answer.

    `signer` is None if the answer has no valid signature.
    """

    verstat: str
    signer: str | None


@dataclass(frozen=True, slots=True)
class TrustLink:
    """A station on the chain of trust from the caller to the callee.

    `state` is "ok", "refused", "attack" or "idle" (not reached).
    """

    name: str
    role: str
    facts: tuple[str, ...]
    state: str


@dataclass(frozen=True, slots=True)
class Process:
    """A process that took part and its proportional set size, in MB of 10^6 bytes."""

    name: str
    pss_mb: float


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file in the call's folder and its use; `bytes` is None for a report, which cannot know its own size."""

    name: str
    bytes: int | None
    what: str


@dataclass(frozen=True, slots=True)
class Report:
    """All facts in the report of one call."""

    scenario: str
    shows: str
    started_at: str
    held: bool
    expected: Outcome
    seen: Outcome
    setup_ms: float | None
    codec: str
    srtp: str | None
    keying: str | None
    ledger: str | None
    directions: Mapping[str, Direction]
    video: Mapping[str, VideoDirection] = field(default_factory=dict)
    """Empty in a call without video."""
    connected: Connected | None = None
    checks: tuple[Check, ...] = ()
    trust: tuple[TrustLink, ...] = ()
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    processes: tuple[Process, ...] = ()
    files: tuple[OutputFile, ...] = ()

    @property
    def memory_mb(self) -> float:
        """Memory of all processes together, in MB."""
        return round(sum(process.pss_mb for process in self.processes), 1)

    @property
    def refusal_expected(self) -> bool:
        """Whether the scenario is an attack, which must be refused."""
        return self.expected.refused_by is not None


def to_json(report: Report) -> bytes:
    """Return report.json: the members of `Report`, with those of `seen` at the top level."""
    members = asdict(report)
    seen = members.pop("seen")
    seen["reason"] = seen.pop("sentence")
    ordered: dict[str, Any] = {"version": VERSION, "memory_mb": report.memory_mb, **members}
    first = ("version", "scenario", "shows", "started_at", "held", "expected")
    merged = {name: ordered.pop(name) for name in first} | seen | ordered
    return encode_report(merged)


def schema() -> dict[str, Any]:
    """Return the JSON Schema that the output of `to_json` follows."""
    loaded: dict[str, Any] = json.loads(files("sip_testbed").joinpath("report.schema.json").read_bytes())
    return loaded


def to_html(report: Report, ladder: Ladder, recordings: Mapping[str, bytes]) -> bytes:
    """Return report.html; `recordings` are by name: WAV (caller.said, callee.heard), WebM (caller.seen)."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sip_testbed"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = _figure
    page = environment.get_template("report.html.jinja").render(
        report=report,
        verdict=verdict_of(report),
        conversation=[_speech(report, recordings, *ends) for ends in (("caller", "callee"), ("callee", "caller"))],
        drawing=draw_ladder(ladder),
        timings=_bars(report.timings_ms),
        memory=_bars({process.name: process.pss_mb for process in report.processes}),
        ledger=LEDGERS[report.ledger] if report.ledger else "none",
    )
    return page.encode("utf-8")


def _figure(value: float | None, digits: int = 0, unit: str = "") -> str:
    """Format a number: fixed digits, narrow spaces before thousands and the unit, a dash for None."""
    if value is None:
        return "\u2013"
    number = f"{value:,.{digits}f}".replace(",", "\u202f")
    return f"{number}\u202f{unit}" if unit else number


@dataclass(frozen=True, slots=True)
class CallSummary:
    """Summary of a call: `kind` is "good", "refused" (as expected) or "broken"."""

    kind: str
    headline: str
    sentence: str


def verdict_of(report: Report) -> CallSummary:
    """Return the summary that a reader sees first."""
    if not report.held:
        failed = [check for check in report.checks if not check.held]
        detail = "; ".join(f"{check.name}: {check.detail}" for check in failed)
        return CallSummary("broken", "Not as expected", f"{report.seen.sentence} {detail}".strip())
    if report.refusal_expected:
        how = "Ended" if report.expected.refused_by == SILENCE else "Refused"
        return CallSummary("refused", f"{how}, as it must be", report.seen.sentence)
    words = ["Authenticated"] if report.seen.verstat == Verstat.PASSED else ["Connected"]
    words += ["encrypted"] if report.srtp else ["in clear"]
    return CallSummary("good", ", ".join([*words, "heard"]), report.seen.sentence)


# --- recordings -----------------------------------------------------------------------------------------------

_BUCKETS = 300
_WAVE_WIDTH = 900
_WAVE_HEIGHT = 60


@dataclass(frozen=True, slots=True)
class _Speech:
    speaker: str
    listener: str
    figures: Direction | None
    said: "_Sound | None"
    heard: "_Sound | None"
    video: VideoDirection | None
    seen: str | None
    """The pictures, as a URI."""


@dataclass(frozen=True, slots=True)
class _Sound:
    uri: str
    path: str
    seconds: float


def _speech(report: Report, recordings: Mapping[str, bytes], speaker: str, listener: str) -> _Speech:
    said, heard = recordings.get(f"{speaker}.said"), recordings.get(f"{listener}.heard")
    seen = recordings.get(f"{listener}.seen")
    return _Speech(
        speaker,
        listener,
        report.directions.get(f"{speaker}_to_{listener}"),
        _sound(said, up=True) if said else None,
        _sound(heard, up=False) if heard else None,
        report.video.get(f"{speaker}_to_{listener}"),
        _data("video/webm", seen) if seen else None,
    )


def _sound(data: bytes, *, up: bool) -> _Sound:
    pcm = read_wav(data)
    return _Sound(_data("audio/wav", data), outline(np.frombuffer(pcm.data, dtype="<i2"), up=up), pcm.duration_s)


def _data(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def outline(samples: "np.typing.NDArray[np.int16]", *, up: bool) -> str:
    """Return an SVG path of the loudness over time: the upper or lower half of a waveform.

    Said speech is drawn above the middle line and heard speech below it, so that equal ones are mirror images.
    """
    if not len(samples):
        return ""
    parts = np.array_split(np.abs(samples.astype(np.int32)), min(_BUCKETS, len(samples)))
    peaks = np.sqrt(np.array([part.max() for part in parts]) / 32768)
    step = _WAVE_WIDTH / len(peaks)
    heights = _WAVE_HEIGHT * (1 - peaks) if up else _WAVE_HEIGHT * (1 + peaks)
    points = " ".join(f"L{(i + 0.5) * step:.1f} {height:.1f}" for i, height in enumerate(heights))
    return f"M0 {_WAVE_HEIGHT} {points} L{_WAVE_WIDTH} {_WAVE_HEIGHT}Z"


# --- figures as bars ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Bar:
    name: str
    value: float
    percent: float


def _bars(values: Mapping[str, float]) -> list[_Bar]:
    largest = max(values.values(), default=0) or 1
    return [_Bar(name, value, round(100 * value / largest, 1)) for name, value in values.items()]


# --- the ladder as a drawing ----------------------------------------------------------------------------------

_DRAWING_WIDTH = 1080
_TIME_ROOM = 72
_ROW_HEIGHT = 30
_HEAD = 46
_CHARACTER = 6.7
"""Width of a character of the drawing's 12 px text, for estimating whether a label fits."""


@dataclass(frozen=True, slots=True)
class DrawnRow:
    """A row of the ladder with its position in the drawing and, for a message, the text for the list below."""

    number: int
    row: Row
    y: float
    x1: float
    x2: float
    label: str
    label_x: float
    anchor: str
    src: str
    dst: str | None
    message: str | None


@dataclass(frozen=True, slots=True)
class Drawing:
    """The ladder's geometry, in units of the SVG's viewBox."""

    width: float
    height: float
    columns: tuple[tuple[str, str, float], ...]
    rows: tuple[DrawnRow, ...]


def draw_ladder(ladder: Ladder) -> Drawing:
    """Compute the positions of the ladder's columns and rows, which the template only writes out."""
    gap = (_DRAWING_WIDTH - _TIME_ROOM) / max(len(ladder.actors), 1)
    at = {actor: _TIME_ROOM + gap * (i + 0.5) for i, actor in enumerate(ladder.actors)}
    rows = tuple(_drawn(ladder, at, number, row) for number, row in enumerate(ladder.rows, start=1))
    columns = tuple((actor, ladder.title(actor), at[actor]) for actor in ladder.actors)
    return Drawing(_DRAWING_WIDTH, _HEAD + _ROW_HEIGHT * (len(rows) + 0.5), columns, rows)


def _drawn(ladder: Ladder, at: Mapping[str, float], number: int, row: Row) -> DrawnRow:
    x1 = at[row.src]
    x2 = at[row.dst] if row.dst else x1
    if row.dst is None:
        label, label_x, anchor = _beside(row, x1)
    else:
        label, label_x, anchor = _within(row, abs(x2 - x1)), (x1 + x2) / 2, "middle"
    return DrawnRow(
        number=number,
        row=row,
        y=_HEAD + _ROW_HEIGHT * number,
        x1=x1,
        x2=x2,
        label=label,
        label_x=label_x,
        anchor=anchor,
        src=ladder.title(row.src),
        dst=ladder.title(row.dst) if row.dst else None,
        message=row.event.data.decode("utf-8", "replace") if isinstance(row.event, SipEvent) else None,
    )


def _beside(row: Row, x: float) -> tuple[str, float, str]:
    """Place an actor's note to the right of its lifeline, or to the left if there is more room."""
    right, left = _DRAWING_WIDTH - x - 16, x - _TIME_ROOM - 16
    needed = len(row.text) * _CHARACTER
    if needed <= right or right >= left:
        return _shortened(row.text, right), x + 13, "start"
    return _shortened(row.text, left), x - 13, "end"


def _within(row: Row, width: float) -> str:
    for count in range(len(row.extras), -1, -1):
        label = " ".join((row.label, *row.extras[:count]))
        if len(label) * _CHARACTER <= width - 30:
            return label
    return _shortened(row.label, width - 24)


def _shortened(text: str, width: float) -> str:
    room = int(width / _CHARACTER)
    return text if len(text) <= room else text[: max(room - 1, 1)] + "…"
