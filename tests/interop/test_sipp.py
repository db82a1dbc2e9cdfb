"""SIPp (Debian's sip-tester) as caller and as callee, through two real proxy processes."""

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sip_testbed.events import KINDS, RtpEvent, SipEvent
from voice_dpki.media.pcm import Pcm
from voice_dpki.media.recording import write_wav
from voice_dpki.media.rtcp import Goodbye, parse_compound
from voice_dpki.stage.events import ResultEvent
from voice_dpki.stage.processes import Program, Running, stop_all

pytestmark = pytest.mark.peer("sipp")

SCENARIOS = Path(__file__).parent / "sipp"
TIMEOUT_S = 60
CALLER, CALLEE, OURS = "+493023125001", "+442079460123", "+442079460124"
"""Two users with SIPp, and one with the project's telephone, which takes no MD5."""

_BLOCKS = itertools.count(os.getpid() % 200 * 16)
_TELEPHONES = itertools.count()


@dataclass(frozen=True)
class World:
    """Two domains: the proxies' processes, the transport that everything uses, and everybody's address."""

    transport: str
    folder: Path
    proxies: dict[str, Running]
    hosts: dict[str, str]
    before: dict[str, int] = field(default_factory=dict)
    """How many events each proxy's trace had before the latest call."""

    def register(self) -> None:
        for role, number, letter in (("caller", CALLER, "a"), ("callee", CALLEE, "b")):
            assert self.sipp("register", role, number, letter).wait(TIMEOUT_S) == 0, self.errors("register", role)

    def sipp(
        self, scenario: str, role: str, number: str, letter: str, called: str = CALLEE
    ) -> "subprocess.Popen[bytes]":
        """Start SIPp as `number` of domain `letter`."""
        keys = {"number": number, "domain": f"{letter}.example", "callee_domain": "b.example"}
        command = [
            "sipp",
            f"{self.hosts[f'proxy-{letter}']}:5060",
            *("-sf", str(SCENARIOS / f"{scenario}.xml"), "-i", self.hosts[role], "-p", "5060"),
            *("-t", {"udp": "u1", "tcp": "t1"}[self.transport], "-m", "1", "-nostdin", "-nr"),
            *("-s", called, "-au", number, "-ap", f"password of {letter}"),
            *("-timeout", str(TIMEOUT_S - 3), "-timeout_error"),
            *("-trace_err", "-error_file", str(self.folder / f"{scenario}-{role}.err")),
            *itertools.chain(*(("-key", name, value) for name, value in keys.items())),
        ]
        with (self.folder / f"{scenario}-{role}.out").open("wb") as out:
            return subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=self.folder)

    def call(self, caller: str, callee: str) -> None:
        """Let the callee's SIPp listen and the caller's call; both scenarios must end well."""
        for letter, proxy in self.proxies.items():
            proxy.trace.poll()
            self.before[letter] = len(proxy.trace.events)
        called = self.sipp(callee, "callee", CALLEE, "b")
        wait_until_bound(self.hosts["callee"], self.transport)
        try:
            assert self.sipp(caller, "caller", CALLER, "a").wait(TIMEOUT_S) == 0, self.errors(caller, "caller")
            assert called.wait(TIMEOUT_S) == 0, self.errors(callee, "callee")
        finally:
            called.kill()
            called.wait()

    def errors(self, scenario: str, role: str) -> str:
        path = self.folder / f"{scenario}-{role}.err"
        return path.read_text() if path.exists() else "SIPp says nothing"

    def sent(self, letter: str, first_line: str) -> int:
        """How many messages that begin with `first_line` the proxy of domain `letter` sent in the latest call."""
        trace = self.proxies[letter].trace
        trace.poll()
        events = trace.events[self.before[letter] :]
        return sum(isinstance(e, SipEvent) and e.data.startswith(first_line.encode()) for e in events)


def wait_until_bound(host: str, transport: str) -> None:
    """Wait until a process listens at port 5060 of `host`, as the kernel's table says."""
    wanted = "".join(f"{int(part):02X}" for part in reversed(host.split("."))) + ":13C4"
    for _ in range(500):
        table = Path(f"/proc/net/{transport}").read_text().splitlines()
        if any(wanted == line.split()[1] for line in table):
            return
        subprocess.run(["sleep", "0.01"], check=True)
    raise AssertionError("SIPp does not listen")


@pytest.fixture(scope="module", params=["udp", "tcp"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    tmp_path = tmp_path_factory.mktemp(request.param)
    net = next(_BLOCKS)
    hosts = {
        name: f"127.{100 + net // 4096}.{net // 16 % 256}.{net % 16 * 8 + place}"
        for place, name in enumerate(("proxy-a", "proxy-b", "caller", "callee"), 1)
    }
    proxies = {}
    for letter, other, number in (("a", "b", CALLER), ("b", "a", CALLEE)):
        next_hop = f"{request.param}:{hosts[f'proxy-{other}']}:5060"
        (tmp_path / f"{letter}.users.toml").write_text(
            f'[[users]]\nnumber = "{number}"\npassword = "password of {letter}"\nmd5 = true\n'
            f'[[users]]\nnumber = "{OURS}"\npassword = "password of ours"\n'
        )
        (tmp_path / f"{letter}.toml").write_text(
            f'domain = "{letter}.example"\nusers = "{letter}.users.toml"\nallow_md5 = true\n'
            f'[listen]\nhost = "{hosts[f"proxy-{letter}"]}"\nport = 5060\n'
            f'[[routes]]\ndomain = "{other}.example"\nnext_hop = "{next_hop}"\n[trace]\nfile = "{letter}.jsonl"\n'
        )
        arguments = ("proxy", "--config", str(tmp_path / f"{letter}.toml"))
        program = Program(
            f"proxy-{letter}",
            "sip_testbed.main",
            arguments,
            tmp_path / f"{letter}.jsonl",
            tmp_path / f"{letter}.log",
        )
        proxies[letter] = Running(program, KINDS)
    try:
        for proxy in proxies.values():
            proxy.wait_ready()
        world = World(request.param, tmp_path, proxies, hosts)
        world.register()
        yield world
    finally:
        stop_all(proxies.values())


def test_a_plain_call_through_both_domains(world: World) -> None:
    world.call("caller", "callee")
    assert world.sent("a", "SIP/2.0 407") == 1
    assert world.sent("b", "ACK sip:") == world.sent("b", "BYE sip:") == 1


def test_a_call_that_is_cancelled(world: World) -> None:
    world.call("caller_cancels", "callee_cancelled")
    assert world.sent("a", "CANCEL") == world.sent("b", "CANCEL") == 1
    assert world.sent("a", "SIP/2.0 487") == 1


def test_a_callee_that_is_busy(world: World) -> None:
    world.call("caller_refused", "callee_busy")
    assert world.sent("a", "SIP/2.0 486") == 1


def test_a_retransmitted_invite_is_one_call(world: World) -> None:
    world.call("caller_repeats", "callee_slow")
    assert world.sent("a", "INVITE") == world.sent("b", "INVITE") == 1


def test_a_telephone_of_ours_takes_the_changes_of_a_caller(world: World) -> None:
    """Hold, another port, the old hold by 0.0.0.0, a change without an offer, and one that is refused."""
    with telephone(world) as (running, result):
        for letter, proxy in world.proxies.items():
            proxy.trace.poll()
            world.before[letter] = len(proxy.trace.events)
        caller = world.sipp("caller_changes", "caller", CALLER, "a", OURS)
        assert caller.wait(TIMEOUT_S) == 0, world.errors("caller_changes", "caller")
        running.wait_for(lambda event: isinstance(event, ResultEvent), "end", TIMEOUT_S)
    assert json.loads(result.read_text())["changes"] == [
        "hold",
        "other media",
        "resume",
        "hold",
        "resume",
    ]
    assert world.sent("a", "INVITE sip:") == 7


def test_a_telephone_of_ours_answers_before_the_answer(world: World) -> None:
    """SIPp requires 100rel: 180 and 183 are reliable, a wrong PRACK gets 481, and the 200 has no answer."""
    with telephone(world, early_s=0.2) as (running, result):
        caller = world.sipp("caller_early", "caller", CALLER, "a", OURS)
        assert caller.wait(TIMEOUT_S) == 0, world.errors("caller_early", "caller")
        running.wait_for(lambda event: isinstance(event, ResultEvent), "end", TIMEOUT_S)
    told = json.loads(result.read_text())
    assert (told["status"], told["early_s"]) == (200, 0.2)


def test_a_telephone_of_ours_acknowledges_what_sipp_answers_before_the_answer(world: World) -> None:
    """The answer is in SIPp's reliable 183; its 200 has none."""
    called = world.sipp("callee_early", "callee", CALLEE, "b")
    wait_until_bound(world.hosts["callee"], world.transport)
    try:
        with telephone(world, role="caller", call=f"sip:{CALLEE}@b.example") as (running, result):
            running.wait_for(lambda event: isinstance(event, ResultEvent), "end", TIMEOUT_S)
        assert called.wait(TIMEOUT_S) == 0, world.errors("callee_early", "callee")
    finally:
        called.kill()
        called.wait()
    told = json.loads(result.read_text())
    assert (told["status"], told["codec"]) == (200, "PCMU")


def test_a_telephone_of_ours_follows_the_video_of_sipps_answers(world: World) -> None:
    """Three re-INVITEs of ours: the first answer moves the video to another port, the third ends it."""
    called = world.sipp("callee_video", "callee", CALLEE, "b")
    wait_until_bound(world.hosts["callee"], world.transport)
    changes = ("hold", "resume", "hold")
    try:
        with telephone(
            world, role="caller", call=f"sip:{CALLEE}@b.example", changes=changes, video=True, spoken_s=4
        ) as (running, result):
            running.wait_for(lambda event: isinstance(event, ResultEvent), "end", TIMEOUT_S)
            sent = [event for event in running.trace.events if isinstance(event, RtpEvent)]
        assert called.wait(TIMEOUT_S) == 0, world.errors("callee_video", "callee")
    finally:
        called.kill()
        called.wait()
    assert json.loads(result.read_text())["changes"] == list(changes)
    assert list(dict.fromkeys(port_of(event) for event in sent if event.is_video)) == [6002, 6012]
    reports = [event for event in sent if port_of(event) in (6003, 6013)]
    assert port_of(reports[-1]) == 6013
    assert any(isinstance(part, Goodbye) for part in parse_compound(reports[-1].clear))
    ended = sent.index(reports[-1])
    assert {port_of(event) for event in sent[ended + 1 :]} <= {6000, 6001}, "speech, and reports on it, go on"


def port_of(event: RtpEvent) -> int:
    """Where a packet of media goes to."""
    return int(event.dst.rpartition(":")[2])


@contextmanager
def telephone(
    world: World,
    role: str = "callee",
    early_s: float = 0.0,
    call: str | None = None,
    changes: tuple[str, ...] = (),
    *,
    video: bool = False,
    spoken_s: int = 10,
) -> Iterator[tuple[Running, Path]]:
    """The project's telephone in that role's place, media in clear, and the file with how its call went."""
    name = f"{role}-{next(_TELEPHONES)}"  # a trace of its own, where no telephone of before is ready
    folder, result = world.folder, world.folder / f"{role}.json"
    letter = {"callee": "b", "caller": "a"}[role]
    (folder / "say.wav").write_bytes(write_wav(Pcm(8000, b"\1\0" * 8000 * spoken_s)))
    (folder / f"{role}.password").write_text("password of ours")
    (folder / f"{role}.toml").write_text(
        f'aor = "sip:{OURS}@{letter}.example"\npassword_file = "{role}.password"\nsrtp = "none"\nsilence_s = 60\n'
        f'proxy = "{world.transport}:{world.hosts[f"proxy-{letter}"]}:5060"\nsay = "say.wav"\n'
        f'result = "{role}.json"\nearly_s = {early_s}\nvideo = {json.dumps(video)}\n'
        f'[listen]\nhost = "{world.hosts[role]}"\nport = 5060\n[trace]\nfile = "{name}.jsonl"\n'
        + (f'[call]\ntarget = "{call}"\nchanges = {json.dumps(changes)}\n' if call else "")
    )
    arguments = ("user-agent", "--config", str(folder / f"{role}.toml"))
    program = Program(role, "sip_testbed.main", arguments, folder / f"{name}.jsonl", folder / f"{name}.log")
    running = Running(program, KINDS)
    try:
        if call is None:
            running.wait_ready()
        yield running, result
    finally:
        stop_all([running])
