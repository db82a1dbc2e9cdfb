"""docs/strongswan-ocsp.md: its commands and configurations, as they stand there but for paths and addresses."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from segw_agent import main
from tests.ports import free_port
from voice_dpki.ledger.records import CertStatus

from .strongswan.charon import ROOT, link
from .strongswan.stock import StockCharon, demand
from .strongswan.world import Identity, Ledger, Process, folder, forwarded

pytestmark = [pytest.mark.netns, pytest.mark.peer("openssl"), pytest.mark.peer("swanctl")]

GUIDE = (ROOT / "docs" / "strongswan-ocsp.md").read_text()


def block(after: str, language: str = "") -> str:
    """Return the first block of code after some text on the page."""
    rest = GUIDE[GUIDE.index(after) :]
    found = re.search(rf"^ *```{language}\n(.*?)^ *```", rest, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def words(after: str) -> list[str]:
    """Return the words of the command after some text on the page."""
    return shlex.split(block(after))


class Bridge:
    """The machine of the bridge: its folder stands for /etc/voice-dpki."""

    def __init__(self, path: Path, ledger: Ledger, *identities: Identity) -> None:
        self.path, self.port = path / "etc", free_port()
        self.path.mkdir()
        (self.path / "genesis.json").write_bytes((ledger.folder / "genesis.json").read_bytes())
        for each in identities:
            (self.path / f"{each.name.partition('.')[0]}.der").write_bytes(each.certificate)
        config = self.local(block("`/etc/voice-dpki/bridge.toml`", "toml")).replace(
            "port = 26690", f"port = {self.port}"
        )
        (self.path / "bridge.toml").write_text(config.replace("http://127.0.0.1:26680", ledger.url))

    def local(self, text: str) -> str:
        for there, here in (
            ("/etc/voice-dpki", str(self.path)),
            ("192.0.2.1:26690", f"127.0.0.1:{self.port}"),
            ("192.0.2.1", "127.0.0.1"),
        ):
            text = text.replace(there, here)
        return text

    def run(self, after: str) -> None:
        program, *arguments = map(self.local, words(after))
        assert program == "segw-agent"
        assert main.main(arguments) == 0

    def start(self) -> Process:
        program, *arguments = map(self.local, words("Start the responder:"))
        assert program == "segw-agent"
        log = self.path / "bridge.log"
        log.unlink(missing_ok=True)
        process = Process(log, "segw_agent.main", *arguments)
        process.says('"ready"')
        return process


class Machine:
    """A gateway or a device: /etc/swanctl and charon."""

    def __init__(self, path: Path, side: str, namespace: str, own: Identity, bridge: Bridge) -> None:
        self.path = path / side
        self.charon = StockCharon(namespace, self.path, None)
        stem = own.name.partition(".")[0]
        for name, data in (
            (f"x509/{stem}.pem", (bridge.path / f"issued/{stem}.pem").read_bytes()),
            (f"private/{stem}.pem", own.pem),
            ("x509ca/bridge-ca.pem", (bridge.path / "bridge-ca.pem").read_bytes()),
            ("swanctl.conf", block(f"he {side}'s").encode()),
        ):
            file = self.path / "swanctl" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        self.charon.start()

    def swanctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["swanctl", *arguments, "--uri", f"unix://{self.path / 'vici.sock'}"]
        environment = os.environ | {"SWANCTL_DIR": str(self.path / "swanctl")}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    def load(self) -> None:
        done = self.swanctl("--load-all")
        assert done.returncode == 0, done.stdout + done.stderr

    def initiate(self) -> bool:
        done = self.swanctl("--initiate", "--child", "net")
        return "initiate completed successfully" in done.stdout


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def test_the_guide_from_the_ca_to_a_tunnel(stack: ExitStack) -> None:
    demand()
    path, names = stack.enter_context(folder()), stack.enter_context(link())
    ledger = Ledger(path)
    stack.callback(ledger.end)
    segw, enb = Identity("segw.a.example", "Operator A"), Identity("enb1.vendor.example", "Vendor V")
    ledger.record(segw, enb)
    bridge = Bridge(path, ledger, segw, enb)
    bridge.run("Make the CA and the responder's key")
    bridge.run("Issue certificates")
    started = bridge.start()
    ask = [bridge.local(word) for word in words("Ask it:")]
    asked = subprocess.run(ask, capture_output=True, text=True, timeout=60)
    assert "issued/enb1.pem: good" in asked.stdout
    assert "Response verify OK" in asked.stderr
    bridge.run("Renew it and restart")
    started.stop()
    stack.callback(bridge.start().stop)

    machines = {}
    for side, own in (("gateway", segw), ("device", enb)):
        stack.enter_context(forwarded(names[side], bridge.port))
        machines[side] = Machine(path, side, names[side], own, bridge)
        stack.callback(machines[side].charon.stop)
        machines[side].load()
    gateway, device = machines["gateway"], machines["device"]
    assert device.initiate(), gateway.charon.log()[-3000:]
    assert device.charon.ping(device.charon.inner_address())
    assert device.swanctl("--terminate", "--ike", "segw").returncode == 0
    ledger.change(enb, CertStatus.SUSPENDED)
    program, *flush = words("After a resumption")
    assert program == "swanctl"
    assert gateway.swanctl(*flush).returncode == 0
    assert not device.initiate()
    ledger.change(enb, CertStatus.VALID)
    assert gateway.swanctl(*flush).returncode == 0
    assert device.initiate()


def test_every_line_of_the_configuration_is_explained() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "segw_agent.main", "bridge", "--help"], capture_output=True, text=True
    )
    for line in block("`/etc/voice-dpki/bridge.toml`", "toml").splitlines():
        assert line.partition("=")[0].strip() in done.stdout
