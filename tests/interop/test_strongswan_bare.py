"""docs/strongswan.md from a bare Debian 12 to an attached device, block by block as the page says.

systemd and AppArmor are left out, as the page's comments tell: the agent is started as the page's unit says, by its
user, and charon by hand.
"""

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.debians import bare_machine
from tests.guides import Reader
from tests.machines import TIMEOUT_S, Machine, machine
from voice_dpki.ledger.records import CertStatus

from .strongswan.charon import CHARON, ROOT, link, wait_until
from .strongswan.site import demand
from .strongswan.world import Identity, Ledger, folder, forwarded
from .test_strongswan_guide import AS_NOBODY, block, marked
from .test_strongswan_guide import Machine as Device

pytestmark = pytest.mark.netns

VERSION = "1"
BROUGHT = ("genesis.json", "segw.a.example.der", "segw.a.example.pem")
"""What the page says to bring to the gateway."""


LOGGED = "charon {\nfilelog {\nlog {\npath = /root/charon.log\nflush_line = yes\ndefault = 1\n}\n}\n}\n"
"""Where nothing takes what is logged to syslog."""


class Gateway:
    """The gateway's administrator, who does what the page says on a bare machine."""

    rights: tuple[str, ...] = ("--inh-caps=-all", "--bounding-set=-all")
    """Of the agent, beside those of its user."""
    done: tuple[str, ...] = ()
    """How commands begin that were carried out before."""

    def __init__(self, machine: Machine, namespace: str, ledger: Ledger) -> None:
        self.machine, self.namespace, self.port = machine, namespace, str(ledger.port)
        self._started: list[subprocess.Popen[str]] = []

    def write(self, path: str, text: str, *, added: bool = False) -> None:
        """Write a file of the page, or add to it; the ledger's node listens at another port here."""
        redirect = ">>" if added else ">"
        script = f'mkdir -p "$(dirname {path})" && cat {redirect}{path}'
        given = text.replace("26680", self.port)
        done = subprocess.run(self.machine.command(script), input=given, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr

    def run(self, line: str) -> None:
        """Run a command of the page, unless it has been."""
        if self.done and line.startswith(self.done):
            return
        done = self.machine.run(f"cd /root && {line}")
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"

    def start(self, script: str, log: str, sign: str) -> None:
        """Start a program in the gateway's network, and wait until its log has a sign that it is ready."""
        self._started.append(self.machine.start(f"exec {script} >>{log} 2>&1", self.namespace))
        wait_until(lambda: sign in self.log(log) or self._started[-1].poll() is not None, f"{script} is ready")
        assert sign in self.log(log), self.log(log)

    def log(self, path: str) -> str:
        return self.machine.run(f"cat {path}").stdout

    def stop(self) -> None:
        for each in self._started:
            each.kill()
            each.communicate()


@pytest.fixture
def world() -> Iterator[tuple[Path, dict[str, str], Ledger]]:
    demand()
    with folder() as path, link() as names, ExitStack() as stack:
        ledger = Ledger(path)
        stack.callback(ledger.end)
        stack.enter_context(forwarded(names["gateway"], ledger.port))
        yield path, names, ledger


class Installed(Gateway):
    """This machine, which has Python's part and strongSwan; what is done to it is gone with the test."""

    # The agent may read where Python lies here; a socket or a folder is its own only by user and group.
    rights = tuple(right for right in AS_NOBODY if "caps" in right or "bounding" in right)
    done = ("apt-get ", "python3 -m venv ", f"/opt/voice-dpki/{VERSION}/.venv/bin/pip ")


@pytest.fixture
def here(world: tuple[Path, dict[str, str], Ledger], tmp_path: Path) -> Iterator[Gateway]:
    """This machine, with its checkout of the project where the page has it."""
    with machine(Path("/"), tmp_path) as overlaid:
        made = Installed(overlaid, world[1]["gateway"], world[2])
        program = f"/opt/voice-dpki/{VERSION}/.venv/bin/segw-agent"
        made.run(f"mkdir -p /opt/voice-dpki && ln -s {ROOT} /opt/voice-dpki/{VERSION}")
        if made.machine.run(f"test -x {program}").returncode:
            pytest.skip(f"{ROOT} has no .venv")
        try:
            yield made
        finally:
            made.stop()


@pytest.fixture
def bare(world: tuple[Path, dict[str, str], Ledger], tmp_path: Path) -> Iterator[Gateway]:
    """A bare Debian 12 with a checkout of the project."""
    _, names, ledger = world
    tracked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True).stdout
    with bare_machine("bookworm", tmp_path) as bookworm:
        unpack = bookworm.command(f"mkdir -p /opt/voice-dpki/{VERSION} && tar -C /opt/voice-dpki/{VERSION} -xf -")
        with subprocess.Popen(["tar", "-C", ROOT, "-T", "-", "-cf", "-"], stdin=-1, stdout=-1) as packed:
            assert packed.stdin is not None
            packed.stdin.write(tracked)
            packed.stdin.close()
            subprocess.run(unpack, stdin=packed.stdout, check=True, timeout=TIMEOUT_S)
        made = Gateway(bookworm, names["gateway"], ledger)
        try:
            yield made
        finally:
            made.stop()


def operator(path: Path, ledger: Ledger) -> Reader:
    """The operator's administrator, who has the genesis and the endorsing key in a folder."""
    reader = Reader(path / "operator", {"http://127.0.0.1:26680": ledger.url})
    reader.folder.mkdir()
    for name in ("genesis.json", "keys/endorsing-operator-a.pem"):
        (reader.folder / Path(name).name).write_bytes((ledger.folder / name).read_bytes())
    return reader


def start_agent(gateway: Gateway) -> None:
    """Do what systemd does with the page's unit."""
    unit = dict(re.findall(r"^(\w+)=(.*)$", block("## systemd", "ini"), re.MULTILINE))
    user, group = unit["User"], unit["Group"]
    for base, name in (("/run", unit["RuntimeDirectory"]), ("/var/lib", unit["StateDirectory"])):
        gateway.run(f"install -d -o {user} -g {group} {base}/{name}")
    rights = f"--reuid={user} --regid={group} --clear-groups {' '.join(gateway.rights)} --no-new-privs"
    command = f"setpriv {rights} {unit['ExecStart'].replace('%i', VERSION)}"
    gateway.start(command, "/root/agent.log", '"ready"')


def follow(gateway: Gateway, administrator: Reader) -> list[str]:
    """Do what the page says, as gateway and operator; returns the device's blocks that are left."""
    for mark, text in marked():
        who, _, what = mark.partition(": ")
        if who == "operator" and what != "run":
            (administrator.folder / what).write_text(text)
        elif who == "operator":
            for line in text.splitlines():
                print(administrator.run(administrator.own(line)))
            bring(gateway, administrator.folder)
        elif mark == "gateway: run" and "swanctl --load-all" in text:
            # The page has systemd start both by now.
            start_agent(gateway)
            gateway.write("/etc/strongswan.d/zz-log.conf", LOGGED)
            gateway.start(str(CHARON), "/root/charon.log", "spawning 64 worker threads")
            gateway.run(text)
        elif mark == "gateway: run":
            for line in text.splitlines():
                gateway.run(line)
        elif who in ("gateway", "gateway without ESP"):
            gateway.write(what.removeprefix("added to "), text, added=what.startswith("added to "))
    return [text for mark, text in marked() if mark == "device: run"]


def bring(gateway: Gateway, folder: Path) -> None:
    """Bring to the gateway what the page says."""
    for name in BROUGHT:
        found = folder / name if name == "genesis.json" else folder / "gateways" / name
        gateway.machine.copy(found, Path("/root") / name)


def attach(world: tuple[Path, dict[str, str], Ledger], gateway: Gateway) -> None:
    """Do all that the page says, and look at both ends."""
    path, names, ledger = world
    (to_attach,) = follow(gateway, operator(path, ledger))
    own = Identity("enb1.vendor.example", "Vendor V")
    ledger.record(own)
    device = Device.of_page(path, names["device"], own, ledger)
    try:
        for line in to_attach.splitlines():
            device.swanctl(*line.split()[1:])
        assert device.charon.ping(device.charon.inner_address())
        assert "'enb1.vendor.example' trusted: it authenticated itself" in gateway.log("/root/charon.log")
        assert gateway.machine.run("stat -c %U /run/segw-agent/agent.sock").stdout == "segw-agent\n"
        ledger.change(own, CertStatus.REVOKED)
        wait_until(device.charon.idle, "the agent ends the tunnel over VICI, by its group's right")
    finally:
        device.stop()


def test_the_page_leads_to_an_attached_device(world: tuple[Path, dict[str, str], Ledger], here: Gateway) -> None:
    attach(world, here)


@pytest.mark.long
@pytest.mark.peer("debootstrap")
def test_the_page_leads_from_a_bare_machine_to_an_attached_device(
    world: tuple[Path, dict[str, str], Ledger], bare: Gateway
) -> None:
    attach(world, bare)
