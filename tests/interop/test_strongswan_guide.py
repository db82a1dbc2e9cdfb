"""docs/strongswan.md: the configurations on the page, as they stand there but for paths, set a tunnel up."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from voice_dpki.shell.http import OPEN_FILES

from .strongswan.charon import ROOT, Charon, link, wait_until
from .strongswan.site import demand
from .strongswan.world import Identity, Ledger, folder, policy, start_agent

pytestmark = pytest.mark.netns

GUIDE = (ROOT / "docs" / "strongswan.md").read_text()
DEFAULTS = (ROOT / "segw_agent/charon_plugin/voice-dpki.conf").read_text()


MARKED = re.compile(r"(?:^<!-- (?P<mark>[^\n]+) -->\n)?^```\w*\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
"""A block of the page, and the comment before it: who does this, where, and whether it is a file or to be run."""

MARKS = {
    "gateway: run",
    "device: run",
    "operator: run",
    "systemd: run",  # what a machine without systemd cannot do
    "AppArmor: run",  # and one whose kernel has no AppArmor
    "shown",
}


def marked() -> list[tuple[str, str]]:
    """Return all blocks of the page, in its order, with their marks."""
    return [(found["mark"] or "", found["text"]) for found in MARKED.finditer(GUIDE)]


def test_each_block_tells_who_does_it() -> None:
    """So that `test_strongswan_bare.py` leaves none out."""
    assert len(marked()) * 2 == GUIDE.count("\n```")
    a_file = re.compile(r"(gateway|device|operator|gateway without ESP): (added to )?/?[\w./@-]+")
    assert [mark for mark, _ in marked() if mark not in MARKS and not a_file.fullmatch(mark)] == []


def block(after: str, language: str = "") -> str:
    """Return the first block of code after some text on the page."""
    rest = GUIDE[GUIDE.index(after) :]
    found = re.search(rf"```{language}\n(.*?)```", rest, re.DOTALL)
    assert found is not None
    return found[1]


class Machine:
    """A machine as the page has it: /etc/swanctl, an agent and charon."""

    def __init__(self, path: Path, side: str, namespace: str, own: Identity, ledger: Ledger, agent: str) -> None:
        self.path, self.own = path / side, own
        self.charon = Charon(namespace, self.path, {"socket": self.path / "agent.sock"})
        for name in ("x509", "private"):
            (self.path / "swanctl" / name).mkdir(parents=True)
        stem = own.name.partition(".")[0]
        (self.path / "swanctl/x509" / f"{stem}.der").write_bytes(own.certificate)
        (self.path / "swanctl/private" / f"{stem}.pem").write_bytes(own.pem)
        (self.path / "swanctl/swanctl.conf").write_text(block(f"<!-- {side}: /etc/swanctl/swanctl.conf"))
        for there, here in (
            ("/run/segw-agent", self.path),
            ("/run/charon.vici", self.path / "vici.sock"),
            ("/var/lib/segw-agent", self.path),
            ("http://127.0.0.1:26680", ledger.url),
            ("/etc/voice-dpki", ledger.folder),
            ("/etc/swanctl", self.path / "swanctl"),
        ):
            assert there in agent
            agent = agent.replace(there, str(here))
        self.charon.start()
        self.agent = start_agent(self.path / "agent", {}, agent)

    @classmethod
    def of_page(cls, path: Path, namespace: str, own: Identity, ledger: Ledger) -> "Machine":
        """Make the page's device."""
        return cls(path, "device", namespace, own, ledger, device_agent())

    def swanctl(self, *arguments: str) -> str:
        """Run swanctl as the page says, with this machine's folders."""
        command = ["swanctl", *arguments, "--uri", f"unix://{self.path / 'vici.sock'}"]
        environment = os.environ | {"SWANCTL_DIR": str(self.path / "swanctl")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def stop(self) -> None:
        self.charon.stop()
        self.agent.stop()


def device_agent() -> str:
    """Return the configuration of a device's agent, as the page says it."""
    same = (
        block("## The agent", "toml")
        .replace("Vendor V", "Operator A")
        .replace("*.vendor.example", "*.a.example")
        .replace("segw.der", "enb1.der")
        .replace("segw.pem", "enb1.pem")
    )
    return same + block("On a device: the same", "toml")


@pytest.fixture
def machines() -> Iterator[tuple[Machine, Machine]]:
    demand()
    with folder() as path, link() as names:
        ledger = Ledger(path)
        gateway, device = Identity("segw.a.example", "Operator A"), Identity("enb1.vendor.example", "Vendor V")
        ledger.record(gateway, device)
        made = []
        try:
            for side, own, agent in (
                ("gateway", gateway, block("## The agent", "toml")),
                ("device", device, device_agent()),
            ):
                made.append(Machine(path, side, names[side], own, ledger, agent))
            yield made[0], made[1]
        finally:
            for machine in made:
                machine.stop()
            ledger.end()


def test_the_guide_sets_a_tunnel_up(machines: tuple[Machine, Machine]) -> None:
    gateway, device = machines
    for machine in machines:
        machine.swanctl("--load-all")
    assert "initiate completed successfully" in device.swanctl("--initiate", "--child", "net")
    assert device.charon.ping(device.charon.inner_address())
    for line in block("## What the log says").splitlines()[:1]:
        assert line.rpartition(" (")[0] in gateway.charon.log()
    assert "N((40970))" in gateway.charon.log()
    assert "N((40971))" in device.charon.log()


def test_three_attachments_with_the_guides_configuration_leave_one_sa(machines: tuple[Machine, Machine]) -> None:
    """The gateway, which has `unique = no`, deletes none by itself."""
    gateway, device = machines
    for machine in machines:
        machine.swanctl("--load-all")
    for _ in range(3):
        assert "initiate completed successfully" in device.swanctl("--initiate", "--child", "net")
    for machine in (device, gateway):
        wait_until(lambda charon=machine.charon: len(charon.sas()) == 1, "one SA stands")  # type: ignore[misc]
    log = gateway.charon.log()
    assert log.count("received DELETE for IKE_SA") == log.count("deleting IKE_SA") == 2
    assert "uniqueness policy" not in log


def test_the_guides_defaults_are_the_plugins() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", GUIDE, re.MULTILINE))
    assert len(rows) == 7
    assert f"voice-dpki! {{\n    load = {rows.pop('load')}\n}}" in DEFAULTS
    for name, value in rows.items():
        assert re.search(rf"^    (# )?{name} = {re.escape(value)}$", DEFAULTS, re.MULTILINE)
    code = (ROOT / "segw_agent/charon_plugin/settings.c").read_text()
    for value in ("40970", "40971", "2500", '"/run/charon.segw-agent"'):
        assert f" {value}\n" in code


class Modular(Charon):
    """A charon that loads what has a section, as Debian's does, with the plugin's file as it is installed."""

    def _write(self) -> None:
        names = ["random", "nonce", "x509", "pubkey", "openssl", "kdf", "hmac", "sha2", "aes", "socket-default"]
        loaded = "".join(f"{name} {{\nload = yes\n}}\n" for name in [*names, "kernel-netlink"])
        (self.folder / "strongswan.conf").write_text(
            f"charon {{\nload_modular = yes\nplugins {{\n{loaded}"
            f"vici {{\nload = yes\nsocket = unix://{self.folder}/vici.sock\n}}\n"
            f"include {ROOT}/segw_agent/charon_plugin/voice-dpki.conf\n}}\n"
            f"filelog {{\nlog {{\npath = {self.folder}/charon.log\ndefault = 1\n}}\n}}\n}}\n"
        )


def test_charon_does_not_start_once_the_plugin_is_removed(tmp_path: Path) -> None:
    """The package's configuration outlasts `apt-get remove`, and an upgrade without the plugin."""
    demand()
    with link() as names:
        with_plugin = Modular(names["gateway"], tmp_path / "with", {}).start()
        assert with_plugin.stop() == 0
        assert re.search(r"loaded plugins: .*voice-dpki", with_plugin.log())
        without = Modular(names["gateway"], tmp_path / "without", None)
        with pytest.raises(AssertionError):
            without.start()
        assert without.process is not None
        assert without.process.poll() not in (None, 0)
        assert "loading critical plugin 'voice-dpki' failed" in without.output() + without.log()


def test_debians_apparmor_profile_lets_charon_use_the_default_socket() -> None:
    demand()
    profile = Path("/etc/apparmor.d/usr.lib.ipsec.charon").read_text()
    assert re.search(r"^\s*/run/charon\.\*\s+rw,$", profile, re.MULTILINE)
    assert re.search(r"^\s*/etc/strongswan\.d/\*\*\s+r,$", profile, re.MULTILINE)
    assert "<abstractions/base>" in profile  # libraries
    assert "<local/usr.lib.ipsec.charon>" in profile


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing; install it: apt-get install systemd")
    path = tmp_path / "segw-agent@1.service"
    path.write_text(block("## systemd", "ini").replace("/opt/voice-dpki/%i/.venv/bin/segw-agent", sys.executable))
    return path


def test_the_guides_unit_is_one(unit: Path) -> None:
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True)
    assert "segw-agent" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr


def test_the_guides_unit_is_sandboxed(unit: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


def test_the_guides_unit_kills_no_agent_by_its_filter() -> None:
    """Its limits on files are those that `serve` would else raise, by a call that the filter refuses."""
    told = dict(re.findall(r"^(\w+)=(.*)$", block("## systemd", "ini"), re.MULTILINE))
    assert told["SystemCallErrorNumber"] == "EPERM"
    assert int(told["LimitNOFILE"]) >= OPEN_FILES


AS_NOBODY = (
    "setpriv",
    *("--reuid=65534", "--regid=65534", "--clear-groups"),
    # It may read where Python lies here; a socket or a folder is its own only by user and group.
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--bounding-set=-all,+dac_read_search"),
)


def test_the_agent_needs_no_rights_of_the_administrator() -> None:
    """With `charon.group`, VICI is its, and with folders of its own, its socket and its list of SAs."""
    demand()
    with folder() as path, link() as names, ExitStack() as stack:
        path.chmod(0o755)
        ledger = Ledger(path)
        stack.callback(ledger.end)
        limits = "dos_protection = no\n    group = nogroup"
        charon = Charon(
            names["gateway"], path / "gateway", {"socket": path / "own/agent.sock"}, limits=limits
        ).start()
        stack.callback(charon.stop)
        (path / "own").mkdir()
        os.chown(path / "own", 65534, 65534)
        files = {"socket": "own/agent.sock", "vici": "gateway/vici.sock", "state": "own/live.jsonl"}
        top = "".join(f'{name} = "{path / file}"\n' for name, file in files.items())
        (path / "agent.toml").write_text(top + ledger.section() + policy("Vendor V", "*.vendor.example"))
        command = [
            *AS_NOBODY,
            sys.executable,
            "-m",
            "segw_agent.main",
            "start",
            "--config",
            str(path / "agent.toml"),
        ]
        with (path / "agent.log").open("wb") as log:
            agent = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            said = wait_until(
                lambda: agent.poll() is not None or '"ready"' in (path / "agent.log").read_text(), "it is ready"
            )
            assert said
            assert agent.poll() is None, (path / "agent.log").read_text()
            assert "cannot be listened to" not in (path / "agent.log").read_text()
            assert (path / "own/agent.sock").stat().st_uid == 65534
        finally:
            agent.terminate()
            agent.wait()
