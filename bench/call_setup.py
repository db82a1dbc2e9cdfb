"""Call set-up (INVITE to 200) and memory with all protection, against plain calls, side by side in one run.

    python bench/call_setup.py [--calls 20] [--warm-up 2] [--codec pcmu]

Two testbeds run at once: one signs, verifies, asks the ledger and keys with MIKEY, the other is what
`voice-dpki call --plain` starts. Calls are placed in turn, one here, one there, so that whatever else the machine
does meets both alike. As with `voice-dpki call`, each call is placed by a caller that was just started, while
callees and services go on. Everything is a process of its own and everything writes its trace, which is where the
times come from; the first calls (`--warm-up`) do not count.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sip_testbed.events import RtpEvent
from sip_testbed.network import Testbed, user_agent_config
from sip_testbed.placing import CODECS, SRTP_PROFILES
from sip_testbed.provision import CALLEE, CALLER, OPERATORS, aor
from voice_dpki.errors import LocalError
from voice_dpki.media.pcm import SAMPLE_BYTES, Pcm
from voice_dpki.media.recording import read_wav, write_wav
from voice_dpki.names import Tn
from voice_dpki.shell.events import Event, NoteEvent, ResultEvent

SAY_S = 0.2
CALL_TIMEOUT_S = 30.0
AIM_RATIO = 2.0
AIM_MEMORY_MB = 600


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the set-up that an actor timed itself in a note: one with this step, or a text that begins so."""

    name: str
    actor: str
    step: str = ""
    text: str = ""
    depth: int = 0
    """0 for parts that add up to the whole; others are within the part above."""

    def of(self, note: NoteEvent) -> bool:
        """Whether a note is about this part."""
        return note.actor == self.actor and note.text.startswith(self.text) and self.step in ("", note.step)


PARTS = (
    Part("sign: proxy A asks its authentication server", "proxy-a", step="sign"),
    Part("in the server", "authn-a", step="sign", depth=1),
    Part("verify: proxy B asks its verification server", "proxy-b", text="Identity "),
    Part("in the server", "verify-b", text="Identity ", depth=1),
    Part("its question to the ledger", "verify-b", text="signer on the ledger", depth=2),
    Part("in the ledger node", "ledger-b", text="inquiry", depth=3),
    Part("MIKEY: the callee asks the ledger, verifies and answers", "callee", text="MIKEY DH-SIGN, TEK agreed"),
    Part("its question to the ledger", "callee", text="certificate of", depth=1),
)
"""In the order of a call."""

OUTSIDE = (
    Part("MIKEY: the caller makes its offer, before", "caller", text="MIKEY DH-SIGN offered"),
    Part("MIKEY: the caller's whole part, before and after", "caller", text="MIKEY DH-SIGN, TEK agreed"),
)
"""Not between INVITE and 200."""


@dataclass(slots=True)
class Measured:
    """What the calls of one testbed gave, in milliseconds, and its processes' memory in MB."""

    setup_ms: list[float] = field(default_factory=list)
    parts_ms: dict[Part, list[float]] = field(default_factory=dict)
    memory_mb: dict[str, float] = field(default_factory=dict)

    def add(self, events: Sequence[Event]) -> None:
        """Take in the events of one call; raises LocalError if the call was not established."""
        results = [event for event in events if isinstance(event, ResultEvent) and event.actor == "caller"]
        if len(results) != 1 or not results[0].data.get("established"):
            raise LocalError(f"a call was not established: {results[-1].data if results else 'no result'}")
        setup_ms = results[0].data["setup_ms"]
        assert isinstance(setup_ms, float)
        self.setup_ms.append(setup_ms)
        notes = [event for event in events if isinstance(event, NoteEvent) and event.ms is not None]
        for part in PARTS + OUTSIDE:
            times = [note.ms for note in notes if part.of(note)]
            self.parts_ms.setdefault(part, []).extend(ms for ms in times[-1:] if ms is not None)

    @property
    def median_ms(self) -> float:
        """The middle of all set-up times."""
        return statistics.median(self.setup_ms)

    @property
    def p90_ms(self) -> float:
        """Nine of ten set-ups took no longer."""
        return sorted(self.setup_ms)[-(-len(self.setup_ms) * 9 // 10) - 1]


class Side:
    """One testbed with its callee, and what its calls gave."""

    def __init__(self, folder: Path, codec: str, *, protected: bool) -> None:
        self.measured = Measured()
        self._testbed = Testbed(folder / "logs", protected=protected)
        self._folder = folder
        self._codec = CODECS[codec]
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
        self._launch("callee", number=CALLEE)
        self._testbed.running["callee"].wait_ready()

    def call(self, *, counts: bool) -> None:
        """Place one call and wait until it is over; raises LocalError where that fails."""
        began_s = time.time()
        self._launch("caller", number=CALLER, target=aor(CALLEE, OPERATORS[1]))
        running = self._testbed.running
        running["caller"].wait_for(lambda event: isinstance(event, RtpEvent | ResultEvent), "talk", CALL_TIMEOUT_S)
        self.measured.memory_mb = self._testbed.memory_mb()
        running["caller"].wait_end(CALL_TIMEOUT_S)
        running["callee"].wait_for(lambda event: _ends_call(event, began_s), "end the call", CALL_TIMEOUT_S)
        self._testbed.new_events()
        events = [event for each in running.values() for event in each.trace.events if event.time_s >= began_s]
        self._testbed.end(("caller",))
        if counts:
            self.measured.add(events)

    def _launch(self, role: str, *, number: Tn, target: str | None = None) -> None:
        out, say = self._folder / "out", self._folder / f"{role}.wav"
        say.write_bytes(_beginning_of(role))
        config = user_agent_config(
            self._testbed.site,
            role,
            number=number,
            codec=self._codec,
            srtp=self._srtp,
            say=say,
            out=out,
            target=target,
        )
        self._testbed.launch(role, config)


def _beginning_of(role: str) -> bytes:
    """A little of what that side says, as a WAV file."""
    pcm = read_wav(files("sip_testbed").joinpath("speech", f"{role}.wav").read_bytes())
    return write_wav(Pcm(pcm.rate, pcm.data[: int(SAY_S * pcm.rate) * SAMPLE_BYTES]))


def _ends_call(event: Event, began_s: float) -> bool:
    return isinstance(event, ResultEvent) and event.time_s >= began_s


def measure(calls: int, warm_up: int, codec: str) -> tuple[Measured, Measured]:
    """Place the calls, protected and plain in turn; returns what each side gave."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="voice-dpki-bench-")))
        protected = stack.enter_context(Side(folder / "protected", codec, protected=True))
        plain = stack.enter_context(Side(folder / "plain", codec, protected=False))
        for side in (protected, plain):
            side.start()
        for number in range(-warm_up, calls):
            for side in (protected, plain):
                side.call(counts=number >= 0)
        return protected.measured, plain.measured


def setup_table(protected: Measured, plain: Measured) -> Table:
    """Both sides and their ratio, against the aims."""
    table = Table("", "protected", "plain", "ratio", "aim", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    ratio = protected.median_ms / plain.median_ms
    rows = [
        ("INVITE to 200, median ms", protected.median_ms, plain.median_ms, f"{ratio:.2f}", f"<= {AIM_RATIO:g}"),
        ("INVITE to 200, p90 ms", protected.p90_ms, plain.p90_ms, f"{protected.p90_ms / plain.p90_ms:.2f}", ""),
        ("INVITE to 200, least ms", min(protected.setup_ms), min(plain.setup_ms), "", ""),
        ("memory of all processes, MB", _sum(protected), _sum(plain), "", f"<= {AIM_MEMORY_MB}"),
        ("processes", len(protected.memory_mb), len(plain.memory_mb), "", ""),
    ]
    for name, ours, theirs, *rest in rows:
        table.add_row(name, _number(ours), _number(theirs), *rest)
    return table


def parts_table(protected: Measured) -> Table:
    """Where the protected set-up's time goes, as medians."""
    table = Table("of the protected set-up", "median ms", box=None)
    table.columns[1].justify = "right"
    medians = {part: statistics.median(times) for part, times in protected.parts_ms.items() if times}
    for part in PARTS:
        table.add_row(f"{'  ' * part.depth}{'of it, ' if part.depth else ''}{part.name}", _number(medians[part]))
    added = sum(medians[part] for part in PARTS if not part.depth)
    table.add_row("SIP, and all that is left", _number(protected.median_ms - added))
    table.add_row("not between INVITE and 200:", "")
    for part in OUTSIDE:
        table.add_row(part.name, _number(medians[part]))
    return table


def _sum(measured: Measured) -> float:
    return sum(measured.memory_mb.values())


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.1f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=20, help="of each kind (default: %(default)s)")
    parser.add_argument("--warm-up", type=int, default=2, help="calls before those (default: %(default)s)")
    parser.add_argument("--codec", choices=CODECS, default="pcmu", help="speech codec (default: %(default)s)")
    arguments = parser.parse_args()
    began_s = time.monotonic()
    protected, plain = measure(arguments.calls, arguments.warm_up, arguments.codec)
    console = Console()
    console.print(setup_table(protected, plain))
    console.print()
    console.print(parts_table(protected))
    took_s = time.monotonic() - began_s
    console.print(f"\n{arguments.calls} calls of each kind, in turn, after {arguments.warm_up}; {took_s:.0f} s")


if __name__ == "__main__":
    main()
