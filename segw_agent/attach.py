"""The command `voice-dpki device attach`: a device attaches to a gateway on the strength of the ledger alone."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.text import Text

from segw_agent.attachment import ladder, report
from segw_agent.attachment.network import Testbed
from segw_agent.attachment.scenarios import DEFAULT, SCENARIOS, Scenario
from voice_dpki.shell.files import write_file
from voice_dpki.shell.interrupts import interruptible
from voice_dpki.shell.output import output_folder
from voice_dpki.shell.program import Parser
from voice_dpki.stage.ladder import Ladder, render, render_text
from voice_dpki.stage.show import EXIT_NOT_HELD, list_scenarios, scenario_named, show_checks, show_files

DEFAULT_OUT = Path("out/attach")

FILES = {
    "ladder.txt": "the ladder",
    "attach.pcap": "IKE's datagrams, for Wireshark",
    "ikev2_decryption_table": "the keys: put it into Wireshark's profile folder, and it shows what was encrypted",
    "report.json": "the whole report, for programs",
    "logs": "each program's log",
}
"""What is written, and what it is for."""

WRITTEN = (*(name for name in FILES if name != "logs"), "logs/*.log")
"""Patterns of the files that are removed before a new run writes them."""

HELP = """\
Starts a ledger, an operator's security gateway (SeGW) and a vendor's device on this machine, each program a process
of its own. The device's certificate is recorded on the ledger, and so is the gateway's; then the device attaches by
IKEv2. Prints the ladder, and writes capture, ladder, report and logs into one folder: a new one, an empty one, or
that of an earlier run.

  voice-dpki device attach                       the good case
  voice-dpki device attach --list-scenarios      what must be refused
  voice-dpki device attach --scenario revoked    one of them

Exit status: 0 if everything expected held (who must be refused was), 1 if something did not, 2 if nothing could be
tried at all, 130 if it was interrupted.
"""


def command(argv: list[str]) -> int:
    """Attach a device to a gateway and report what that proved."""
    parser = Parser(prog="voice-dpki device attach", description=HELP)
    parser.add_argument("--scenario", metavar="NAME", default=DEFAULT, help=f"what is tried (default: {DEFAULT})")
    parser.add_argument("--list-scenarios", action="store_true", help="list them, one a line, and end")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, metavar="DIR", help=f"default: {DEFAULT_OUT}")
    parser.add_argument("--json", action="store_true", help="print report.json instead of the ladder")
    return run(parser.parse_args(argv))


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit status; raises VoiceDpkiError if the scenario cannot be played."""
    if arguments.list_scenarios:
        list_scenarios(SCENARIOS.values())
        return 0
    console = Console(stderr=arguments.json)
    with interruptible():
        described, drawn = play(scenario_named(SCENARIOS, arguments.scenario), arguments.out, console)
    if arguments.json:
        sys.stdout.write(described.to_json().decode("utf-8"))
    else:
        _show(described, drawn, arguments.out, console)
    return 0 if described.held else EXIT_NOT_HELD


def play(scenario: Scenario, out: Path, console: Console) -> tuple[report.Report, Ladder]:
    """Play one scenario, write its files into `out`, and return its report and its ladder."""
    with output_folder(out, "voice-dpki device attach", WRITTEN):
        return _play(scenario, out, console)


def _play(scenario: Scenario, out: Path, console: Console) -> tuple[report.Report, Ladder]:
    started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    with Testbed(out / "logs") as testbed:
        with _stage("start the ledger", console):
            testbed.start_ledger()
        with _stage(f"play {scenario.name}: {scenario.shows}", console):
            scenario.play(testbed)
        with _stage("stop the network", console):
            testbed.end(list(testbed.running))
        events = testbed.events()
    drawn = ladder.build(events)
    described = report.assess(scenario, events, started_at, FILES)
    write_file(out / "ladder.txt", render_text(drawn).encode("utf-8"))
    write_file(out / "attach.pcap", report.wire_capture(events))
    write_file(out / "ikev2_decryption_table", report.decryption_table(events))
    write_file(out / "report.json", described.to_json())
    return described, drawn


@contextmanager
def _stage(text: str, console: Console) -> Iterator[None]:
    """Show what is being done, with a spinner while it lasts."""
    mark, style = "x ", "bold red"
    try:
        with console.status(Text(f"{text} ...", style="dim")):
            yield
        mark, style = "+ ", "green"
    finally:
        console.print(Text(mark, style=style).append(text, style="not bold default"), highlight=False)


def _show(described: report.Report, drawn: Ladder, out: Path, console: Console) -> None:
    console.print()
    render(drawn, console)
    console.print()
    show_checks(console, described.checks, held="ok    ", failed="FAILED")
    times = [each.setup_ms for each in described.attachments if each.refused_by is None and each.setup_ms]
    figures = f" (set up in {min(times):.0f} ms)" if times else ""
    headline, style = ("As it must be", "bold green") if described.held else ("Not as expected", "bold red")
    console.print()
    console.print(
        Text(f"{headline}. ", style=style).append(f"{described.shows}{figures}", style="not bold default")
    )
    console.print()
    show_files(console, out, FILES)
