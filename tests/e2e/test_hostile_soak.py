"""A federation with calls going on, and a stranger who does all that strangers can do, for SOAK_S seconds: an hour.

Quiet time first, for the figures to compare with; then the attack; then it is over and must have left nothing. All
figures are printed, and what misses its aim is listed at the end.
"""

import asyncio
import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sip_testbed.provision import CALLEE, CALLER, LedgerKind
from voice_dpki.stir.forms import SIGNING_PATH, VERIFICATION_PATH

from .hostile.bystanders import Address, Figures, Untold, ask, every, options, signing_request, verification_request
from .hostile.federation import HTTP, SIP, AttackedTestbed, connections_of, lost
from .hostile.stranger import THIRD_PARTY
from .operators import require_cometbft

SOAK_S = float(os.environ.get("SOAK_S", "3600"))
QUIET_S = max(20.0, min(120.0, SOAK_S / 5))
GRACE_S = 5.0
"""How long after its end an attack may still be felt."""

AIM_P99_S = 0.5
AIM_SUBMISSION = 2.0
AIM_MEMORY = 1.5
SMALL_MB = 10.0
"""Growth that is not looked at: what a process takes for its first thousand of anything."""

SHARE = 0.5
"""Of one processor, for the stranger."""

SOURCES = [f"127.0.66.{number}" for number in range(1, 5)]
STRANGER = Path(__file__).parent / "hostile" / "stranger.py"
QUICK = ("sign", "verify", "status", "sip")

pytestmark = [pytest.mark.soak, pytest.mark.timeout(int(SOAK_S) + 1800)]


@dataclass
class Phase:
    """What was measured in one of the three."""

    name: str
    figures: dict[str, Figures] = field(default_factory=lambda: {name: Figures() for name in (*QUICK, "submit")})
    cpu_share: dict[str, float] = field(default_factory=dict)


@dataclass
class Soak:
    """The whole run."""

    testbed: AttackedTestbed
    phases: list[Phase] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    warm_mb: dict[str, float] = field(default_factory=dict)
    most_mb: dict[str, float] = field(default_factory=dict)
    stranger_s: float = 0.0
    stranger_cpu_s: float = 0.0
    done: dict[str, float] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @contextlib.asynccontextmanager
    async def phase(self, name: str) -> AsyncIterator[Phase]:
        """Have bystanders ask as long as the context lasts."""
        phase = Phase(name)
        self.phases.append(phase)
        before, began_s = self._cpu_s(), time.monotonic()
        tasks = [asyncio.create_task(work) for work in self._bystanders(phase.figures)]
        try:
            yield phase
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        took_s = time.monotonic() - began_s
        phase.cpu_share = {actor: (used_s - before[actor]) / took_s for actor, used_s in self._cpu_s().items()}

    def _bystanders(self, figures: dict[str, Figures]) -> list[Coroutine[object, object, None]]:
        testbed, site = self.testbed, self.testbed.site
        status = f"/ledger/v1/status/{site.signer.digest.hex()}"
        proxies = itertools.cycle(SIP)
        return [
            every(0.25, Figures(), lambda: self._call_by_hand(figures)),
            every(0.25, figures["status"], lambda: ask(testbed.address("ledger-b"), "GET", status)),
            every(0.25, figures["sip"], lambda: options(testbed.address(next(proxies)), next(self.numbers))),
            every(1.5, figures["submit"], self._submit),
        ]

    async def _call_by_hand(self, figures: dict[str, Figures]) -> None:
        """Have a call signed, and verified."""
        tokens, number = self.testbed.site.tokens, next(self.numbers)
        answer = b""
        with figures["sign"].timed():
            body = signing_request(CALLER, CALLEE, number)
            answer = await ask(self.testbed.address("authn-a"), "POST", SIGNING_PATH, body, tokens["sign-a"])
        if not answer:
            return
        identity = json.loads(answer)["signingResponse"]["identity"]
        with figures["verify"].timed():
            body = verification_request(CALLER, CALLEE, identity)
            told = await ask(self.testbed.address("verify-b"), "POST", VERIFICATION_PATH, body, tokens["verify-b"])
            if b"TN-Validation-Passed" not in told:
                raise ValueError(told[:120].decode())

    async def _submit(self) -> None:
        der = self.testbed.certificate(next(self.numbers))
        token = self.testbed.site.tokens["submit-a"]
        await ask(self.testbed.address("ledger-a"), "POST", "/ledger/v1/submissions", der, token)

    def _cpu_s(self) -> dict[str, float]:
        """Processor time that each program has used, and each validator's CometBFT."""
        used_s: dict[str, float] = {}
        for actor, running in self.testbed.running.items():
            used_s[actor] = cpu_s(running.pid)
            if actor.startswith("validator-"):
                used_s[actor.replace("validator-", "cometbft-")] = sum(map(cpu_s, children(running.pid)))
        return used_s

    async def watch(self, process: "asyncio.subprocess.Process") -> None:
        """Read what the stranger tells, and note the most memory that each program has."""
        assert process.stdout is not None
        measured_s = 0.0
        while line := await process.stdout.readline():
            told = json.loads(line)
            self.stranger_cpu_s, self.done, self.held = told["cpu_s"], told["done"], told["held"]
            if time.monotonic() - measured_s > 5:
                measured_s = time.monotonic()
                for actor, size in (await asyncio.to_thread(self.testbed.memory_mb)).items():
                    self.most_mb[actor] = max(size, self.most_mb.get(actor, 0.0))


def children(pid: int) -> list[int]:
    """The processes that a process has started, and that still run."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu_s(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def testbed(tmp_path: Path) -> Iterator[AttackedTestbed]:
    require_cometbft()
    with AttackedTestbed(tmp_path / "logs", ledger=LedgerKind.FEDERATION) as testbed:
        testbed.start()
        testbed.record_all()
        testbed.begin_calls()
        yield testbed


async def test_a_stranger_disturbs_nobody(
    testbed: AttackedTestbed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soak = Soak(testbed)
    async with soak.phase("quiet"):
        await asyncio.sleep(QUIET_S)
        soak.warm_mb = await asyncio.to_thread(testbed.memory_mb)
    soak.calls.append(len(testbed.results()))
    loop = asyncio.get_running_loop()
    transport, third = await loop.create_datagram_endpoint(Untold, local_addr=THIRD_PARTY)
    with contextlib.closing(transport):
        async with soak.phase("attack"):
            await attack(soak, tmp_path)
    soak.calls.append(len(testbed.results()))
    await asyncio.sleep(GRACE_S)
    soak.left = {testbed.actor_at(address): count for address, count in connections_of(SOURCES).items()}
    async with soak.phase("after"):
        await asyncio.sleep(QUIET_S)
        served = await asyncio.gather(*(is_served(testbed.address(actor)) for actor in HTTP))
    unserved = [actor for actor, ok in zip(HTTP, served, strict=True) if not ok]
    missed = missed_aims(soak)
    if third.count:
        missed.append(f"{third.count} datagrams went to a third party")
    missed += [f"{actor} does not answer the stranger's address" for actor in unserved]
    with capsys.disabled():
        report(soak, missed)
    assert not missed


async def attack(soak: Soak, folder: Path) -> None:
    """Let the stranger attack for the time, and kill it."""
    plan = folder / "targets.json"
    plan.write_text(json.dumps({**soak.testbed.targets(), "sources": SOURCES, "share": SHARE}))
    began_s = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(STRANGER), str(plan), stdout=subprocess.PIPE, limit=1 << 20
    )
    watching = asyncio.create_task(soak.watch(process))
    try:
        await asyncio.sleep(SOAK_S)
        assert process.returncode is None, "the stranger attacks to the end"
    finally:
        soak.stranger_s = time.monotonic() - began_s
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await watching


async def is_served(target: Address) -> bool:
    """Whether a server answers a question from one of the stranger's addresses at once."""
    figures = Figures()
    with figures.timed():
        await ask(target, "GET", "/healthz", source=SOURCES[0])
    return figures.at(1.0) < AIM_P99_S


def missed_aims(soak: Soak) -> list[str]:
    """Compare everything with its aim."""
    quiet, attacked, after = soak.phases
    missed = [f"a call was lost: {why}" for why in lost(soak.testbed.results())]
    if soak.calls[1] - soak.calls[0] < SOAK_S / 60:
        missed.append(f"only {soak.calls[1] - soak.calls[0]} calls during the attack")
    for phase, name in itertools.product((attacked, after), QUICK):
        p99_s = phase.figures[name].at(0.99)
        if not p99_s <= AIM_P99_S:
            missed.append(f"{phase.name}: p99 of {name} is {p99_s * 1000:.0f} ms")
    for phase in (attacked, after):
        before_s, now_s = (each.figures["submit"].at(0.5) for each in (quiet, phase))
        if not now_s <= AIM_SUBMISSION * before_s:
            missed.append(f"{phase.name}: submission takes {now_s / before_s:.1f} times its quiet figure")
    for actor, warm_mb in soak.warm_mb.items():
        if soak.most_mb.get(actor, 0.0) > max(AIM_MEMORY * warm_mb, warm_mb + SMALL_MB):
            missed.append(f"{actor} grew from {warm_mb:.0f} to {soak.most_mb[actor]:.0f} MB")
    for actor, share in after.cpu_share.items():
        if share > 1.5 * quiet.cpu_share[actor] + 0.05:
            missed.append(f"{actor} is still busy: {share:.2f} of a processor, {quiet.cpu_share[actor]:.2f} before")
    missed += [f"{actor} still has {count} connections of the stranger" for actor, count in soak.left.items()]
    if not 0.5 * SHARE < used(soak) < 1.1 * SHARE:
        missed.append(f"the stranger took {used(soak):.2f} of a processor: this run says too little")
    return missed


def used(soak: Soak) -> float:
    """The stranger's part of one processor."""
    return soak.stranger_cpu_s / soak.stranger_s


def report(soak: Soak, missed: list[str]) -> None:
    """Print all figures."""
    print(f"\n{soak.stranger_s:.0f} s of attack with {used(soak):.2f} of a processor")
    heads = (f"{phase.name + ' p50':>11} {'p99':>8} {'failed':>7}" for phase in soak.phases)
    print("bystanders, ms".ljust(18), *heads)
    for name in (*QUICK, "submit"):
        cells = [phase.figures[name] for phase in soak.phases]
        texts = (f"{each.at(0.5) * 1000:11.1f} {each.at(0.99) * 1000:8.1f} {len(each.failed):7}" for each in cells)
        print(f"  {name:16}", *texts)
        for why in sorted({why for cell in cells for why in cell.failed})[:5]:
            print(f"      failed: {why}")
    results, during = soak.testbed.results(), soak.calls[1] - soak.calls[0]
    print(f"calls: {len(results)}, of them {during} during the attack, lost {len(lost(results))}")
    print("program".ljust(18), "warm MB    most   part of a processor: quiet, attack, after")
    for actor, warm_mb in sorted(soak.warm_mb.items()):
        shares = " ".join(f"{phase.cpu_share.get(actor, float('nan')):6.2f}" for phase in soak.phases)
        print(f"  {actor:16} {warm_mb:7.1f} {soak.most_mb.get(actor, 0.0):7.1f}   {shares}")
    report_stranger(soak)
    print(*(["all aims met"] if not missed else [f"MISSED: {each}" for each in missed]), sep="\n", flush=True)


def report_stranger(soak: Soak) -> None:
    """Print how often each attack was made."""
    print("attacks a second:")
    for name, count in sorted(soak.done.items()):
        held = f"   held at the end: {soak.held[name]}" if name in soak.held else ""
        print(f"  {name:18} {count / soak.stranger_s:9.1f}{held}")
