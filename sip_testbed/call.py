"""The command `voice-dpki call`: two operators' networks, one call, and what it proved."""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path

from rich.console import Console
from rich.text import Text

from sip_testbed import report
from sip_testbed.call_files import FILES
from sip_testbed.network import Testbed, require_engine
from sip_testbed.network_config import MODERN
from sip_testbed.placing import (
    CHANGES,
    CODECS,
    MIKEY_MODES,
    SIGNED_MODES,
    SRTP_PROFILES,
    CallOptions,
    PlacedCall,
    Stages,
    place_call,
)
from sip_testbed.provision import LedgerKind
from sip_testbed.scenarios import DEFAULT, PINNED, PLAIN, SCENARIOS, SIGNED, Scenario
from sip_testbed.transfer import ATTENDED, TRANSFER
from sip_testbed.user_agent_config import MAX_DIALLED
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.media.telephone_events import DIGITS
from voice_dpki.shell.files import write_file
from voice_dpki.shell.hep import HepTarget
from voice_dpki.shell.interrupts import interruptible
from voice_dpki.shell.options import number, whole_number
from voice_dpki.shell.output import output_folder
from voice_dpki.shell.program import Parser
from voice_dpki.sip.hop import Hop
from voice_dpki.stage import ladder
from voice_dpki.stage.ladder import Mood
from voice_dpki.stage.show import EXIT_NOT_HELD, list_scenarios, scenario_named, show_checks, show_files

DEFAULT_OUT = Path("out/call")
REPEATED = "repeat.json"
WRITTEN = (*FILES, REPEATED, "logs/*.log")
"""Files that the command writes into its folder, and removes from it at its next start."""

LEDGERS_HELP = "; ".join(f"{name}, {what}" for name, what in report.LEDGERS.items())

HELP = """\
Starts two operators' networks on this machine, each program a process of its own: ledger nodes, authentication
server, verification server, proxies and telephones. Then it places a call from Operator A to Operator B, prints the
ladder, and writes captures, recordings and a report into one folder: a new one, an empty one, or that of an earlier
call.

  voice-dpki call                                         the good call: signed, verified, encrypted, heard
  voice-dpki call --codec opus --srtp AEAD_AES_128_GCM    with another codec and cipher
  voice-dpki call --change hold --change rekey            a hold and new keys while the call is up
  voice-dpki call --change attended-transfer              the callee is passed on to a third telephone
  voice-dpki call --early-media 2                         encrypted media before the call is answered
  voice-dpki call --video                                 pictures beside the speech, under keys of the same message
  voice-dpki call --dtmf 1234#                            digits as telephone events, in SRTP like the speech
  voice-dpki call --list-scenarios                        the attacks that can be tried on it
  voice-dpki call --scenario mikey-changed                one of them
  voice-dpki call --ledger federation                     on a ledger of four operators' validators; needs CometBFT

Exit status: 0 if everything expected held (an attack is expected to be refused), 1 if something did not, 2 if the
call could not be placed at all, 130 if it was interrupted.
"""


def command(argv: list[str]) -> int:
    """Place a call between two operators and report what it proved."""
    parser = Parser(prog="voice-dpki call")
    add_arguments(parser)
    return run(parser.parse_args(argv))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command and its arguments."""
    parser.description = HELP
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    _add_scenarios(parser.add_argument_group("what happens"))
    how = parser.add_argument_group("how")
    _add_protection(how)
    _add_events(how)
    _add_course(how)
    _add_results(parser.add_argument_group("results"))


def _add_scenarios(what: argparse._ArgumentGroup) -> None:
    what.add_argument("--scenario", metavar="NAME", default=DEFAULT, help=f"what is tried (default: {DEFAULT})")
    what.add_argument("--list-scenarios", action="store_true", help="list them, one a line, and end")
    what.add_argument("--plain", action="store_true", help=f"no protection at all: short for --scenario {PLAIN}")


def _add_protection(how: argparse._ArgumentGroup) -> None:
    """Describe the arguments for codec, SRTP profile and key agreement."""
    how.add_argument("--codec", choices=CODECS, default="pcmu", help="speech codec (default: pcmu)")
    how.add_argument("--srtp", choices=SRTP_PROFILES, default=SRTP_PROFILES[0], help="protection of the media")
    how.add_argument(
        "--mikey",
        choices=MIKEY_MODES,
        default=MODERN,
        help=f"how keys are agreed (default: {MODERN}); hybrid keeps recorded calls from quantum computers, "
        "dh-sign, pke and rsa-r are for peers that speak the standards alone, "
        "dhhmac and psk use a key that both telephones share",
    )


def _add_events(how: argparse._ArgumentGroup) -> None:
    """Describe the arguments for changes, early media, video, digits and comfort noise."""
    how.add_argument(
        "--change",
        choices=CHANGES,
        action="append",
        default=[],
        help="what the caller changes in the middle of its speech: a hold, new keys, another codec; again for more "
        "than one, evenly spread. Or it passes the callee on to a third telephone, blindly or after a consultation",
    )
    how.add_argument(
        "--early-media",
        type=number(above=0, most=60, unit="seconds"),
        metavar="S",
        help="the callee plays the first S seconds of its speech before it answers, as announcements are played",
    )
    how.add_argument(
        "--video",
        action="store_true",
        help="send small pictures in VP8 beside the speech, both ways, and show them when their speech is played",
    )
    how.add_argument(
        "--dtmf",
        type=digits,
        metavar="DIGITS",
        help="the caller dials these during its speech (0 to 9, *, # and A to D), as telephone events",
    )
    how.add_argument(
        "--comfort-noise",
        action="store_true",
        help="send the pauses of the speech as comfort noise (RFC 3389), by PCMU and PCMA",
    )


def _add_course(how: argparse._ArgumentGroup) -> None:
    """Describe the arguments for length of speech, number of calls, and ledger."""
    how.add_argument(
        "--say-seconds",
        type=number(above=0, most=3600, unit="seconds"),
        metavar="S",
        help="say only the beginning of the speech",
    )
    how.add_argument(
        "--repeat",
        type=whole_number(1, 10_000),
        default=1,
        metavar="N",
        help="place N calls, and print the median set-up",
    )
    how.add_argument(
        "--ledger",
        choices=report.LEDGERS,
        default=LedgerKind.EMBEDDED.value,
        help="what orders transactions (default: embedded): " + LEDGERS_HELP,
    )


def _add_results(results: argparse._ArgumentGroup) -> None:
    results.add_argument("--out", type=Path, default=DEFAULT_OUT, metavar="DIR", help=f"default: {DEFAULT_OUT}")
    results.add_argument(
        "--hep",
        type=collector,
        metavar="HOST:PORT",
        help="tell a HEP collector on this machine (Homer, sngrep) of the messages and decisions",
    )
    results.add_argument("--json", action="store_true", help="print report.json instead of the ladder")


def digits(text: str) -> str:
    """Read the digits to dial; raises ArgumentTypeError."""
    if not 0 < len(text) <= MAX_DIALLED or set(text) - set(DIGITS):
        raise argparse.ArgumentTypeError(f"give 1 to {MAX_DIALLED} of {DIGITS}")
    return text


def collector(text: str) -> HepTarget:
    """Read the address of a HEP collector on this machine; raises ArgumentTypeError."""
    try:
        hop = Hop.parse(f"udp:{text}")
    except MalformedError:
        raise argparse.ArgumentTypeError("write it like 127.0.0.1:9060 or [::1]:9060") from None
    if not ip_address(hop.host).is_loopback:
        raise argparse.ArgumentTypeError("give a collector on this machine: it is told in clear")
    return HepTarget(hop.host, hop.port)


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit status; raises VoiceDpkiError if no call can be placed."""
    if arguments.list_scenarios:
        list_scenarios(SCENARIOS.values())
        return 0
    scenario = scenario_named(SCENARIOS, PLAIN if arguments.plain else arguments.scenario)
    if arguments.mikey not in SIGNED_MODES and scenario.expected.refused_by in (SIGNED, PINNED):
        raise LocalError(
            f"the scenario {scenario.name} is about signatures; the answers of --mikey {arguments.mikey} have none"
        )
    if arguments.early_media and arguments.change:
        raise LocalError("--early-media and --change: a report is about one of them at a time")
    if {TRANSFER, ATTENDED} & {*arguments.change} and (
        len(arguments.change) > 1 or scenario.attack or arguments.video
    ):
        raise LocalError("a transfer is the only change of its call, which has no video and nobody to attack it")
    progress = _Progress(Console(stderr=arguments.json))
    with interruptible():
        calls = _place_calls(scenario, arguments, progress)
    if arguments.json:
        sys.stdout.write(report.to_json(calls[-1].report).decode("utf-8"))
    else:
        _show(calls[-1], progress.console)
    if len(calls) > 1:
        _show_repeated(calls, arguments.out, progress.console)
    return 0 if all(call.report.held for call in calls) else EXIT_NOT_HELD


def _place_calls(scenario: Scenario, arguments: argparse.Namespace, progress: "_Progress") -> list[PlacedCall]:
    options = CallOptions(
        arguments.codec,
        arguments.srtp,
        arguments.say_seconds,
        arguments.mikey,
        tuple(arguments.change),
        arguments.early_media or 0.0,
        arguments.video,
        arguments.dtmf or "",
        arguments.comfort_noise,
    )
    out, ledger = arguments.out, LedgerKind(arguments.ledger)
    stages = Stages(progress.begin)
    if scenario.protected:
        require_engine(ledger)
    with ExitStack() as stack:
        stack.enter_context(output_folder(out, "voice-dpki call", WRITTEN))
        stack.enter_context(progress)
        with stages.stage("start the network"):
            testbed = stack.enter_context(
                Testbed(out / "logs", protected=scenario.protected, ledger=ledger, hep=arguments.hep)
            )
            testbed.start()
        if scenario.protected:
            with stages.stage("record the certificates"):
                testbed.record_all()
        calls = [place_call(testbed, scenario, options, out, stages) for _ in range(arguments.repeat)]
        progress.begin("stop the network")
    return calls


class _Progress:
    """Prints a line for each stage; at a terminal with a spinner while it runs."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._status = console.status("")
        self._stage: str | None = None
        self._began_s = 0.0

    def __enter__(self) -> "_Progress":
        self._status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._status.stop()
        self._finish(failed=kind is not None)

    def begin(self, stage: str) -> None:
        """Show that `stage` begins, and that the one before it is done."""
        self._finish()
        self._stage, self._began_s = stage, time.monotonic()
        self._status.update(Text(f"{stage} ...", style="dim"))

    def _finish(self, *, failed: bool = False) -> None:
        if self._stage is not None:
            marks = ladder.marks(self.console.encoding)
            mark, style = (marks[Mood.REFUSED], "bold red") if failed else (marks[Mood.OK], "green")
            line = Text(f"{mark} ", style=style).append(f"{self._stage:<24}", style="not bold default")
            took = f"{time.monotonic() - self._began_s:5.1f} s"
            self.console.print(line.append(took, style="not bold dim"), highlight=False)
        self._stage = None


def _show(call: PlacedCall, console: Console) -> None:
    console.print()
    ladder.render(call.ladder, console)
    console.print()
    marks = ladder.marks(console.encoding)
    show_checks(console, call.report.checks, marks[Mood.OK], marks[Mood.REFUSED])
    console.print()
    console.print(_headline(call.report), highlight=False, soft_wrap=True)
    console.print()
    show_files(console, call.folder, FILES)


def _headline(described: report.Report) -> Text:
    verdict = report.verdict_of(described)
    style = {"good": "bold green", "refused": "bold blue", "broken": "bold red"}[verdict.kind]
    text = Text(f"{verdict.headline}. ", style=style).append(verdict.sentence, style="not bold default")
    figures = [f"set up in {described.setup_ms:.0f} ms"] if described.setup_ms is not None else []
    figures += [f"{described.memory_mb:.0f} MB in {len(described.processes)} processes"]
    figures += [f"ledger: {report.LEDGERS[described.ledger]}"] if described.ledger else []
    return text.append(f" ({', '.join(figures)})", style="not bold dim")


def _show_repeated(calls: list[PlacedCall], out: Path, console: Console) -> None:
    times = [call.report.setup_ms for call in calls if call.report.setup_ms is not None]
    held = sum(call.report.held for call in calls)
    result: Mapping[str, object] = {
        "scenario": calls[0].report.scenario,
        "calls": len(calls),
        "held": held,
        "setup_ms": times,
        "median_setup_ms": round(statistics.median(times), 1) if times else None,
        "memory_mb": max(call.report.memory_mb for call in calls),
    }
    write_file(out / REPEATED, (json.dumps(result, indent=2) + "\n").encode("utf-8"))
    median = f", median set-up {result['median_setup_ms']} ms" if times else ""
    console.print(f"{held} of {len(calls)} calls held{median}; repeat.json has each", highlight=False)
