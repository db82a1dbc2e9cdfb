"""Call set-up (INVITE to 200) and memory with all protection, against plain calls, side by side in one run.

    python bench/call_setup.py [--rounds 10] [--calls 4] [--warm-up 1] [--codec pcmu] [--mikey modern]

Two testbeds run at once: one signs, verifies, asks the ledger and keys with MIKEY, the other is what
`voice-dpki call --plain` starts. They take turns, so that whatever else the machine does meets both alike. In its
turn a caller is started, places a few calls and ends, while the callee and the services go on. Its first call is
told apart from the later ones: a telephone that was just started executes everything for the first time, as the one
of `voice-dpki call` does. Everything is a process of its own and writes its trace, which is where the times come
from; the first turns (`--warm-up`) do not count.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import count
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sip_testbed.events import RtpEvent
from sip_testbed.network import Testbed
from sip_testbed.network_config import MODERN, user_agent_config
from sip_testbed.placing import CODECS, SIGNED_MODES, SRTP_PROFILES
from sip_testbed.provision import CALLEE, CALLER, OPERATORS, aor
from voice_dpki.errors import LocalError
from voice_dpki.media.pcm import SAMPLE_BYTES, Pcm
from voice_dpki.media.recording import read_wav, write_wav
from voice_dpki.names import Tn
from voice_dpki.stage.events import Event, NoteEvent, ResultEvent

SAY_S = 0.2
PAUSE_S = 0.5
CALL_TIMEOUT_S = 30.0
AIM_RATIO, AIM_FIRST_RATIO = 1.6, 2.0
AIM_MEMORY_MB = 600


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the set-up that an actor timed itself in a note: one with this step and these words."""

    name: str
    actor: str
    step: str = ""
    text: str = ""
    """How the note's text begins."""
    has: str = ""
    depth: int = 0
    """0 for parts that add up to the whole; others are within the part above."""

    def of(self, note: NoteEvent) -> bool:
        """Whether a note is about this part."""
        worded = note.text.startswith(self.text) and self.has in note.text
        return note.actor == self.actor and worded and self.step in ("", note.step)


PARTS = (
    Part("sign: proxy A asks its authentication server", "proxy-a", step="sign"),
    Part("in the server", "authn-a", step="sign", depth=1),
    Part("verify: proxy B asks its verification server", "proxy-b", text="Identity "),
    Part("in the server", "verify-b", text="Identity ", depth=1),
    Part("its question to the ledger", "verify-b", text="signer on the ledger", depth=2),
    Part("in the ledger node", "ledger-b", text="inquiry", depth=3),
    Part("MIKEY: the callee asks the ledger, verifies and answers", "callee", step="MIKEY", has="TEK agreed"),
    Part("its question to the ledger", "callee", text="certificate of", depth=1),
    Part("sign the answer: proxy B asks its authentication server", "proxy-b", step="sign answer"),
    Part("verify the answer: proxy A asks its verification server", "proxy-a", step="verify answer"),
)
"""In the order of a call."""

OUTSIDE = (
    Part("MIKEY: the caller makes its offer, before", "caller", step="MIKEY", has="offered"),
    Part("MIKEY: the caller's whole part, before and after", "caller", step="MIKEY", has="TEK agreed"),
)
"""Not between INVITE and 200."""


@dataclass(slots=True)
class Times:
    """Set-up times of one kind of calls, in milliseconds, and those of their parts."""

    setup_ms: list[float] = field(default_factory=list)
    parts_ms: dict[Part, list[float]] = field(default_factory=dict)

    def add(self, result: ResultEvent, notes: Sequence[NoteEvent]) -> None:
        """Take in a call by the caller's result and everybody's notes; raises LocalError if it did not succeed."""
        setup_ms = result.data.get("setup_ms")
        if not result.data.get("established") or not isinstance(setup_ms, float):
            raise LocalError(f"a call was not established: {result.data}")
        self.setup_ms.append(setup_ms)
        for part in PARTS + OUTSIDE:
            times = [note.ms for note in notes if note.ms is not None and part.of(note)]
            self.parts_ms.setdefault(part, []).extend(times[-1:])

    @property
    def median_ms(self) -> float:
        """The middle of all set-up times."""
        return statistics.median(self.setup_ms)

    @property
    def p90_ms(self) -> float:
        """Nine of ten set-ups took no longer."""
        return sorted(self.setup_ms)[-(-len(self.setup_ms) * 9 // 10) - 1]


@dataclass(slots=True)
class Measured:
    """What one testbed gave: times of callers' first calls and of their later ones, and memory in MB by process."""

    first: Times = field(default_factory=Times)
    later: Times = field(default_factory=Times)
    memory_mb: dict[str, float] = field(default_factory=dict)

    def add(self, events: Sequence[Event]) -> None:
        """Take in all that happened in one turn; the caller's results tell its calls apart."""
        began_s = 0.0
        for event in sorted(events, key=lambda event: event.time_s):
            if isinstance(event, ResultEvent) and event.actor == "caller":
                notes = [e for e in events if isinstance(e, NoteEvent) and began_s < e.time_s <= event.time_s]
                (self.later if began_s else self.first).add(event, notes)
                began_s = event.time_s


class Side:
    """One testbed with its callee, and what its calls gave."""

    def __init__(self, folder: Path, codec: str, mikey: str, *, protected: bool) -> None:
        self.measured = Measured()
        self._testbed = Testbed(folder / "logs", protected=protected)
        self._folder = folder
        self._codec = CODECS[codec]
        self._mikey = mikey
        self._srtp = SRTP_PROFILES[0] if protected else None

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *exc: object) -> None:
        self._testbed.stop()

    def start(self) -> None:
        """Start the services and the callee, and have the certificates recorded where there are any."""
        self._testbed.start()
        if self._srtp:
            self._testbed.record_all()
        self._launch("callee", CALLEE)
        self._testbed.running["callee"].wait_ready()

    def take_turn(self, calls: int, *, counts: bool) -> None:
        """Have a caller place calls and wait until they are over; raises LocalError where that fails."""
        began_s = time.time()
        self._launch("caller", CALLER, {"target": aor(CALLEE, OPERATORS[1]), "times": calls, "pause_s": PAUSE_S})
        running = self._testbed.running
        running["caller"].wait_for(lambda event: isinstance(event, RtpEvent | ResultEvent), "talk", CALL_TIMEOUT_S)
        self.measured.memory_mb = self._testbed.memory_mb()
        running["caller"].wait_end(calls * CALL_TIMEOUT_S)
        running["callee"].wait_for(_nth_result(calls, began_s), "end the calls", CALL_TIMEOUT_S)
        self._testbed.new_events()
        events = [event for each in running.values() for event in each.trace.events if event.time_s >= began_s]
        self._testbed.end(("caller",))
        if counts:
            self.measured.add(events)

    def _launch(self, role: str, number: Tn, call: Mapping[str, object] | None = None) -> None:
        out, say = self._folder / "out", self._folder / f"{role}.wav"
        say.write_bytes(_beginning_of(role))
        config = user_agent_config(
            self._testbed.site,
            role,
            number=number,
            codec=self._codec,
            srtp=self._srtp,
            mikey=self._mikey,
            say=say,
            out=out,
        )
        self._testbed.launch(role, {**config, **({"call": call} if call else {})})


def _beginning_of(role: str) -> bytes:
    """A little of what that side says, as a WAV file."""
    pcm = read_wav(files("sip_testbed").joinpath("speech", f"{role}.wav").read_bytes())
    return write_wav(Pcm(pcm.rate, pcm.data[: int(SAY_S * pcm.rate) * SAMPLE_BYTES]))


def _nth_result(number: int, began_s: float) -> Callable[[Event], bool]:
    """Recognise the result of the `number`th call since `began_s`, for who looks at events in turn."""
    seen = count(1)
    return lambda event: isinstance(event, ResultEvent) and event.time_s >= began_s and next(seen) >= number


def measure(rounds: int, calls: int, warm_up: int, codec: str, mikey: str) -> tuple[Measured, Measured]:
    """Place the calls, protected and plain in turn; returns what each side gave."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="voice-dpki-bench-")))
        protected = stack.enter_context(Side(folder / "protected", codec, mikey, protected=True))
        plain = stack.enter_context(Side(folder / "plain", codec, mikey, protected=False))
        for side in (protected, plain):
            side.start()
        for number in range(-warm_up, rounds):
            for side in (protected, plain):
                side.take_turn(calls, counts=number >= 0)
        return protected.measured, plain.measured


def setup_table(protected: Measured, plain: Measured) -> Table:
    """Both sides and their ratio, against the aims."""
    table = Table("", "protected", "plain", "ratio", "aim", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, ours, theirs, most in (
        ("a telephone that is up", protected.later, plain.later, AIM_RATIO),
        ("first call of one just started", protected.first, plain.first, AIM_FIRST_RATIO),
    ):
        table.add_row(f"INVITE to 200, {name}")
        for figure, one, other, aim in (
            ("median ms", ours.median_ms, theirs.median_ms, f"<= {most:g}"),
            ("p90 ms", ours.p90_ms, theirs.p90_ms, ""),
            ("least ms", min(ours.setup_ms), min(theirs.setup_ms), ""),
        ):
            table.add_row(f"  {figure}", f"{one:.1f}", f"{other:.1f}", f"{one / other:.2f}", aim)
    memory_mb = [f"{sum(side.memory_mb.values()):.0f}" for side in (protected, plain)]
    table.add_row("memory of all processes, MB", *memory_mb, "", f"<= {AIM_MEMORY_MB}")
    table.add_row("processes", *(str(len(side.memory_mb)) for side in (protected, plain)))
    return table


def parts_table(protected: Measured) -> Table:
    """Where the protected set-up's time goes, as medians."""
    table = Table("of the protected set-up, median ms", "up", "just started", box=None)
    kinds = (protected.later, protected.first)
    for column in table.columns[1:]:
        column.justify = "right"
    for part in PARTS:
        name = f"{'  ' * part.depth}{'of it, ' if part.depth else ''}{part.name}"
        table.add_row(name, *(_median(times, part) for times in kinds))
    added = [sum(float(_median(times, part)) for part in PARTS if not part.depth) for times in kinds]
    rest = [times.median_ms - sum_ms for times, sum_ms in zip(kinds, added, strict=True)]
    table.add_row("SIP, and all that is left", *(f"{ms:.1f}" for ms in rest))
    table.add_row("not between INVITE and 200:")
    for part in OUTSIDE:
        table.add_row(f"  {part.name}", *(_median(times, part) for times in kinds))
    return table


def _median(times: Times, part: Part) -> str:
    return f"{statistics.median(times.parts_ms[part] or [0.0]):.1f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="turns of each side (default: %(default)s)")
    parser.add_argument("--calls", type=int, default=4, help="calls in a turn, 2 or more (default: %(default)s)")
    parser.add_argument("--warm-up", type=int, default=1, help="turns before those (default: %(default)s)")
    parser.add_argument("--codec", choices=CODECS, default="pcmu", help="speech codec (default: %(default)s)")
    parser.add_argument(
        "--mikey", choices=SIGNED_MODES, default=MODERN, help="key agreement (default: %(default)s)"
    )
    arguments = parser.parse_args()
    began_s = time.monotonic()
    protected, plain = measure(
        arguments.rounds, arguments.calls, arguments.warm_up, arguments.codec, arguments.mikey
    )
    console = Console()
    console.print(setup_table(protected, plain))
    console.print()
    console.print(parts_table(protected))
    took_s = time.monotonic() - began_s
    each = f"{arguments.rounds} callers of each kind with {arguments.calls} calls each"
    console.print(f"\n{each}, in turn, after {arguments.warm_up} that did not count; {took_s:.0f} s")


if __name__ == "__main__":
    main()
