"""`install-debian` where another program uses apt or dpkg: it says that it waits, and does not for ever."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.interop.strongswan.site import demand
from tests.machines import Machine, machine
from tests.present import present

pytestmark = pytest.mark.netns

PLUGIN = Path(__file__).parents[3] / "segw_agent/charon_plugin"
DPKG, LISTS = "/var/lib/dpkg/lock-frontend", "/var/lib/apt/lists/lock"
HOLD = (
    "import fcntl, sys; lock = open(sys.argv[1], 'w'); fcntl.lockf(lock, fcntl.LOCK_EX); "
    "print('held', flush=True); sys.stdin.read()"
)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Machine]:
    """This machine, with strongSwan and the plugin built; what a test does to it is gone with the test."""
    demand()
    with machine(Path("/"), tmp_path) as made:
        yield made


@contextmanager
def held(here: Machine, lock: str) -> "Iterator[subprocess.Popen[str]]":
    """Have a process that holds a lock, until its input ends."""
    with here.start(f'{sys.executable} -c "{HOLD}" {lock}') as holder:
        assert present(holder.stdout).readline() == "held\n"
        try:
            yield holder
        finally:
            present(holder.stdin).close()


def test_it_waits_for_whoever_uses_dpkg_and_says_so(here: Machine) -> None:
    with held(here, DPKG) as holder, here.start(f"{PLUGIN}/install-debian") as installer:
        said = present(installer.stdout)
        line = said.readline()
        assert line.startswith("Waiting up to 600 s for another program that installs packages: " + DPKG)
        assert "It is held by process" in line
        present(holder.stdin).close()
        assert said.readline().startswith("Installed. ")
    assert installer.returncode == 0
    assert here.run("dpkg-query -W -f '${Status}' strongswan-voice-dpki").stdout == "install ok installed"


def test_it_ends_when_the_lists_are_kept_for_longer_than_it_waits(here: Machine) -> None:
    """dpkg's own setting for a timeout would not be heeded for this lock."""
    assert here.run("dpkg --remove --force-depends iputils-ping").returncode == 0
    with held(here, LISTS):
        ended = here.run(f"{PLUGIN}/install-debian", LOCK_WAIT_S="1")
    assert ended.returncode == 1
    waits, fails = ended.stderr.splitlines()
    assert waits.startswith("Waiting up to 1 s for another program that installs packages: " + LISTS)
    assert fails.startswith("strongSwan plugin: another program has kept apt's lock for 1 s: " + LISTS)


def test_another_error_of_apt_is_not_waited_for(here: Machine) -> None:
    assert here.run("dpkg --remove --force-depends iputils-ping").returncode == 0
    assert here.run("echo nonsense >/etc/apt/sources.list").returncode == 0
    ended = here.run(f"{PLUGIN}/install-debian")
    assert ended.returncode == 1
    assert "Waiting" not in ended.stderr
    assert "strongSwan plugin: apt-get update: E: Malformed line 1 in source list" in ended.stderr
