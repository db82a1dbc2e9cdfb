"""Debian 13's strongSwan 6.0 with the plugin that `install-debian` builds there, beside Debian 12's 5.9."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.debians import bare_machine
from tests.machines import Machine
from voice_dpki.ledger.records import CertStatus

from .strongswan.charon import CHARON, ROOT, Charon, wait_until
from .strongswan.site import Site, make_site

pytestmark = [pytest.mark.netns, pytest.mark.long, pytest.mark.peer("debootstrap")]

CODE = "segw_agent/charon_plugin"
THERE = Path("/opt/voice-dpki")


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with make_site() as made:
        made.start_agents()
        yield made


@pytest.fixture(scope="module")
def trixie(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with Debian 13 on which the plugin has been installed; it shares the site's folder."""
    with bare_machine("trixie", tmp_path_factory.mktemp("trixie"), site.path) as made:
        made.copy(ROOT / CODE, THERE / CODE)
        installed = made.run(f"{THERE / CODE}/install-debian")
        assert installed.returncode == 0, installed.stdout + installed.stderr
        yield made


@dataclass
class Installed(Charon):
    """The charon that is installed on another machine, with the plugin that its package has put there."""

    machine: Machine | None = None

    def _command(self) -> tuple[list[str], dict[str, str]]:
        assert self.machine is not None
        configuration = str(self.folder / "strongswan.conf")
        return self.machine.command(f"exec {CHARON}", self.namespace, STRONGSWAN_CONF=configuration), dict(
            os.environ
        )

    def _terminate_process(self, process: "subprocess.Popen[bytes]") -> None:
        assert self.machine is not None
        self.machine.run("kill $(cat /run/charon.pid)")


def test_the_plugin_is_built_for_its_version(trixie: Machine) -> None:
    said = trixie.run("dpkg-query -W -f '${Status} ${Version} ${Depends}' strongswan-voice-dpki").stdout
    assert said.startswith("install ok installed 1:6.0.")
    assert "strongswan-libcharon (= 6.0." in said


@pytest.mark.parametrize("side", ["gateway", "device"])
def test_it_trusts_and_refuses_by_the_ledger(site: Site, trixie: Machine, side: str) -> None:
    """At either side, with Debian 12's at the other one."""
    before = site.charons[side]
    newer = Installed(before.namespace, site.path / f"newer-{side}", before.settings, machine=trixie)
    before.stop()
    site.charons[side] = newer
    with ExitStack() as stack:
        stack.callback(site.start, side)
        stack.callback(site.charons.__setitem__, side, before)
        stack.callback(newer.stop)
        site.start(side)
        assert "strongSwan 6.0." in newer.log()
        device, client = site.recorded(), site.charons["device"]
        with site.attached(device):
            assert client.ping(client.inner_address())
            assert f"'{device.name}' trusted: " in site.charons["gateway"].log()
            assert "'segw.a.example' trusted: " in client.log()
        site.refused(site.identity(), "not-recorded")
        site.ledger.change(device, CertStatus.REVOKED)
        wait_until(lambda: not site.attach(device), "the device is refused")
