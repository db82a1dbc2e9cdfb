"""Commands and services on a disk that is full: a sentence that names the file, and nothing half done."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.disks import fill
from tests.leftovers import Leftovers

BIN = Path(sys.executable).parent

MEMBERS = """
chain_id = "test-1"

[[members]]
organization = "Operator A"
kind = "operator"
domains = ["a.example"]
validators = 1
"""

NO_ROOM = "No space left on device"

LONG = pytest.mark.long

Disk = Callable[[int], Path]


def run(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder."""
    program, *arguments = line.split()
    return subprocess.run(
        [BIN / program, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
    )


@pytest.mark.parametrize(
    ("line", "leave_kilobytes"),
    [
        ("ledger-node init --members {m} --out net", 8),
        pytest.param("ledger-node init --members {m} --out net", 16, marks=LONG),
        ("ledger-node certificate --name n --organization o --out tls", 4),
        pytest.param(
            "authn-server make-credential --organization o --common-name sti.a.example --spc 709J", 0, marks=LONG
        ),
        pytest.param("voice-dpki device attach --out out", 0, marks=LONG),
        ("voice-dpki call --out out", 0),
        pytest.param("voice-dpki federation up --operators 2 --folder out", 12, marks=LONG),
    ],
)
def test_a_command_says_which_file_has_no_room_and_leaves_nothing_half_done(
    disk: Disk, tmp_path: Path, line: str, leave_kilobytes: int
) -> None:
    members = tmp_path / "members.toml"
    members.write_text(MEMBERS)
    folder = disk(128)
    fill(folder, leave_kilobytes)
    done = run(line.format(m=members), folder)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done
    assert NO_ROOM in done.stderr.splitlines()[-1], done
    left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert left == ["ballast"], done


@pytest.mark.parametrize(("kilobytes", "leave_kilobytes"), [(512, 60), pytest.param(4096, 800, marks=LONG)])
@pytest.mark.parametrize("line", ["voice-dpki call --out {out}"])
def test_a_network_whose_own_files_have_no_room_ends_in_a_sentence(
    disk: Disk, tmp_path: Path, line: str, kilobytes: int, leave_kilobytes: int
) -> None:
    """The folder of configurations, stores and traces is on the full disk; the report's is not."""
    leftovers, folder = Leftovers(), disk(kilobytes)
    fill(folder, leave_kilobytes)
    done = run(line.format(out=tmp_path / "out"), tmp_path, TMPDIR=str(folder), **leftovers.environment)
    assert done.returncode in (1, 2), done
    assert "Traceback" not in done.stderr + done.stdout, done
    leftovers.wait_none()
    assert [path.name for path in folder.iterdir()] == ["ballast"]


def test_provisioning_says_which_device_has_no_room_and_goes_on_when_there_is_some(
    disk: Disk, tmp_path: Path
) -> None:
    listed = tmp_path / "devices.csv"
    listed.write_text("identity\n" + "".join(f"enb{number}.vendor.example\n" for number in range(20)))
    folder = disk(512)
    ballast = fill(folder, leave_kilobytes=16)
    line = f"voice-dpki device provision --csv {listed} --out out --organization Vendor"
    done = run(line, folder)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done
    assert "cannot be written: No space left on device" in done.stderr.splitlines()[-1]
    kept = {path.name: path.read_bytes() for path in (folder / "out").glob("*.pem")}
    assert kept
    ballast.unlink()
    assert run(line, folder).returncode == 0
    assert len(list((folder / "out").glob("*.der"))) == 20
    assert all((folder / "out" / name).read_bytes() == key for name, key in kept.items())
