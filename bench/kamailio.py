"""SIPp - Kamailio A - Kamailio B - SIPp, with signing and verification by our servers and without.

    python bench/kamailio.py [--rate 200] [--seconds 60] [--rounds 3] [--asks SIP]

Both proxies run the configuration of docs/kamailio. Without delegation the file that asks the servers has them pass
each call on at once, and nothing else differs. Short turns with and without alternate, so that whatever else the
machine does meets both alike; the first of each does not count. Then come a long run, and one in which one of the
two servers of each domain is killed in the middle. The callee refuses an INVITE that lacks the verdict. Any call
that does not end well ends the benchmark with status 1. SIPp looks at its sockets once a millisecond, so set-up
delays are no finer than that.
"""

import argparse
import csv
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.interop.kamailio.operators import CALLEE, CALLER, FROM, ROOT, SCENARIOS, Operators

AIM_ADDED_P99_MS = 10.0
TURN_S = 5
HOLD_MS = 200
NOBODY_IS_ASKED = """\
route[STIR_ASK_SIGN] { route(STIR_GO_ON); }
route[STIR_ASK_VERIFY] { route(STIR_GO_ON); }
"""
VERDICT = "verstat=TN-Validation-Passed"


@dataclass(frozen=True)
class Load:
    """What one run of SIPp was and found."""

    calls: int
    failed: int
    retransmitted: int
    setup_ms: list[float]
    """INVITE to 200, of each call."""

    def quantile(self, share: float) -> float:
        """The set-up delay that so large a share of the calls do not exceed, in milliseconds."""
        ordered = sorted(self.setup_ms)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def __str__(self) -> str:
        figures = [f"{self.quantile(share):.2f}" for share in (0.5, 0.99)]
        lost = f"{self.failed} lost of {self.calls}, {self.retransmitted} retransmissions"
        return f"set-up p50 {figures[0]} ms, p99 {figures[1]} ms; {lost}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--asks", choices=["SIP", "HTTP", "HTTP_ASYNC"], default="SIP")
    options = parser.parse_args()
    missing = [program for program in ("kamailio", "sipp") if shutil.which(program) is None]
    if missing:
        print(f"bench/kamailio.py: needs {' and '.join(missing)} (on Debian: kamailio, sip-tester); left out")
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kamailio-")))
        lost = alternately(folder, options.rate, options.rounds, options.asks)
        lost += long_run(folder / "long", options.rate, options.seconds, options.asks)
        lost += servers_killed(folder / "killed", options.rate, options.seconds // 2, options.asks)
    sys.exit(1 if lost else 0)


def alternately(folder: Path, rate: int, rounds: int, asks: str) -> int:
    """Take turns with and without delegation; returns how many calls were lost."""
    with ExitStack() as stack:
        nothing = {"ask-sip.cfg": NOBODY_IS_ASKED}
        plain = operators(stack, folder / "plain", "SIP", files=nothing, verdict="INVITE")
        signed = operators(stack, folder / "signed", asks)
        sides = {"without": plain, "with": signed}
        runs: dict[str, list[Load]] = {name: [] for name in sides}
        for _ in range(rounds + 1):
            for name, side in sides.items():
                runs[name].append(call(side, rate, TURN_S * rate))
    for name, loads in runs.items():
        for load in loads[1:]:
            print(f"{name:8} {load}")
    for share, label in ((0.5, "p50"), (0.99, "p99")):
        medians = {name: statistics.median(load.quantile(share) for load in runs[name][1:]) for name in runs}
        aim = f" (aim {AIM_ADDED_P99_MS})" if label == "p99" else ""
        print(f"added by signing and verifying, {label}: {medians['with'] - medians['without']:.2f} ms{aim}")
    return sum(load.failed for loads in runs.values() for load in loads)


def long_run(folder: Path, rate: int, seconds: int, asks: str) -> int:
    """Call for a while; returns how many calls were lost."""
    with ExitStack() as stack:
        load = call(operators(stack, folder, asks), rate, rate * seconds)
    print(f"{rate} calls/s for {seconds} s: {load}")
    return load.failed


def servers_killed(folder: Path, rate: int, seconds: int, asks: str) -> int:
    """Kill one of the two servers of each domain in the middle; returns how many calls were lost."""
    with ExitStack() as stack:
        two = operators(stack, folder, asks, authn=("authn", "authn-2"), verify=("verify", "verify-2"))
        load = call(two, rate, rate * seconds, kill=("authn", "verify-2"))
        counted = {"A": two.a.statistics(), "B": two.b.statistics()}
    print(f"one of two servers of each domain killed in the middle: {load}")
    unsigned, unverified = counted["A"]["stir_unsigned"], counted["B"]["stir_unverified"]
    print(f"  of them unsigned {unsigned}, unverified {unverified}")
    return load.failed


def operators(
    stack: ExitStack,
    folder: Path,
    asks: str,
    *,
    files: Mapping[str, str] | None = None,
    verdict: str = VERDICT,
    authn: tuple[str, ...] = ("authn",),
    verify: tuple[str, ...] = ("verify",),
) -> Operators:
    """Start both operators; the callee demands that each INVITE holds `verdict`."""
    folder.mkdir()
    made = Operators(
        folder,
        asks=asks,
        authn=authn,
        verify=verify,
        files=files,
        callee=demanding(verdict),
    )
    stack.callback(made.stop)
    return made


def demanding(verdict: str) -> str:
    """Return the callee's scenario, in which an INVITE without `verdict` is refused."""
    text = (ROOT / "docs/kamailio/callee.xml").read_text()
    for there, here in (
        ('next="busy" test="busy"', 'next="told" test="told"'),
        (
            '"^INVITE sip:[+0-9]*486@" search_in="msg" assign_to="busy"',
            f'"{verdict}" search_in="msg" assign_to="told"',
        ),
        ("</recv>", '</recv>\n  <nop next="busy"/>\n  <label id="told"/>'),
    ):
        assert there in text, there
        text = text.replace(there, here, 1)
    return text


def call(side: Operators, rate: int, calls: int, kill: tuple[str, ...] = ()) -> Load:
    """Let SIPp call so often; after half of the calls, servers named `kill` die."""
    for old in side.folder.glob("load*"):
        old.unlink()
    text = (SCENARIOS / "kamailio_caller.xml").read_text()
    values = {"CALLEE": CALLEE, "DOMAIN": "b.example", "CALLER": CALLER, "HEADERS": FROM, "HOLD_MS": str(HOLD_MS)}
    values["CONTACT"] = "sip:caller@[local_ip]:[local_port];transport=[transport]"
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    (side.folder / "load.xml").write_text(text)
    command = ["sipp", f"{side.hosts['inner-a']}:5060", "-sf", "load.xml", "-i", side.hosts["caller"], "-p", "5061"]
    command += ["-t", "u1", "-nostdin", "-r", str(rate), "-m", str(calls), "-l", "10000", "-timer_resol", "1"]
    command += ["-trace_stat", "-stf", "load.csv", "-fd", "1"]
    command += ["-trace_shortmsg", "-shortmessage_file", "load.short"]
    command += ["-trace_err", "-error_file", "load.err", "-timeout", str(calls // rate + 60)]
    with (side.folder / "load.out").open("wb") as out:
        process = subprocess.Popen(command, cwd=side.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    if kill:
        time.sleep(calls / rate / 2)
        for name in kill:
            side.servers.running.pop(name).kill()
    process.wait(calls / rate + 120)
    return found(side, calls)


def found(side: Operators, calls: int) -> Load:
    """Read what SIPp has written."""
    with (side.folder / "load.csv").open() as file:
        last = list(csv.DictReader(file, delimiter=";"))[-1]
    lost = calls - int(last["SuccessfulCall(C)"])
    if lost:
        errors = side.folder / "load.err"
        print(errors.read_text()[:1500] if errors.exists() else "SIPp names no error")
    return Load(calls, lost, int(last["Retransmissions(C)"]), setups_ms(side.folder / "load.short"))


def setups_ms(path: Path) -> list[float]:
    """Read how long calls took from INVITE to 200; SIPp's own figures are multiples of 4 ms."""
    began_s: dict[str, float] = {}
    took_ms: dict[str, float] = {}
    for line in path.read_text().splitlines():
        _, _, at, way, call_id, cseq, first = line.split("\t")
        if cseq == "CSeq:1 INVITE" and way == "S":
            began_s.setdefault(call_id, float(at))
        elif cseq == "CSeq:1 INVITE" and first.startswith("SIP/2.0 200"):
            took_ms.setdefault(call_id, (float(at) - began_s[call_id]) * 1000)
    return list(took_ms.values())


if __name__ == "__main__":
    main()
