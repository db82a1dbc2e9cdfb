"""Programs that end when their parent does, however that ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.leftovers import Leftovers
from voice_dpki.shell.tether import tied_module

PARENT = """
import subprocess, sys, time
from pathlib import Path
from voice_dpki.shell.tether import tied_module, tied_program

module = subprocess.Popen(tied_module("sleeper", ["3600"]))
program = subprocess.Popen(tied_program(Path("/bin/sleep"), ["3600"]))
subprocess.Popen(tied_module("parent_of_one", []))
time.sleep(3600)
"""

SLEEPER = """
import os, sys, time
from pathlib import Path
assert sys.argv[1:] == ["3600"]
Path(__file__).with_name(f"runs-{os.getpid()}").touch()
time.sleep(3600)
"""

PARENT_OF_ONE = """
import subprocess, sys, time
from voice_dpki.shell.tether import tied_module
subprocess.Popen(tied_module("sleeper", ["3600"]))
time.sleep(3600)
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    (tmp_path / "parent_of_one.py").write_text(PARENT_OF_ONE)


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize("frozen", [False, True])
def test_children_and_grandchildren_end_with_a_parent_that_is_killed(tmp_path: Path, frozen: bool) -> None:
    leftovers = Leftovers()
    with subprocess.Popen([sys.executable, "-c", PARENT], env=os.environ | leftovers.environment) as parent:
        running = leftovers.wait_some(5)
        while len(list(tmp_path.glob("runs-*"))) < 2 or any("-I -S" in line for line in running.values()):
            running = leftovers.wait_some(5)
        for pid in running if frozen else ():
            if pid != parent.pid:
                os.kill(pid, signal.SIGSTOP)
        parent.kill()
    leftovers.wait_none()


@pytest.mark.usefixtures("modules")
def test_one_whose_parent_is_gone_already_does_not_start() -> None:
    command = tied_module("sleeper", ["3600"])
    command[command.index(str(os.getpid()))] = "1"
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "the process that started this one is gone" in done.stderr
