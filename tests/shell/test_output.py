"""Folders that commands write: marked, locked, and never emptied of what is not theirs."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.disks import fill
from voice_dpki.errors import LocalError
from voice_dpki.shell.files import FOR_ALL, OWNER_ONLY, write_all_new, write_new, write_private
from voice_dpki.shell.output import MARK, locked, new_folder, output_folder

NAMES = ("report.json", "*.pcap", "logs/*.log")


def run(folder: Path, command: str = "voice-dpki call") -> None:
    with output_folder(folder, command, NAMES):
        (folder / "logs").mkdir(exist_ok=True)
        for name in ("report.json", "a.pcap", "logs/caller.log"):
            assert not (folder / name).exists()
            (folder / name).write_text("ours")


def test_the_next_run_removes_what_is_its_own_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    run(folder)
    (folder / "notes.txt").write_text("mine")
    (folder / "logs" / "mine.txt").write_text("mine")
    run(folder)
    (folder / "logs" / "mine.txt").unlink()
    with output_folder(folder, "voice-dpki call", NAMES):
        assert {path.name for path in folder.iterdir()} == {MARK, "notes.txt"}


@pytest.mark.parametrize("mine", ["logs", "report.json", ".hidden"])
def test_a_folder_of_the_users_is_left_alone(tmp_path: Path, mine: str) -> None:
    if mine == "logs":
        (tmp_path / mine).mkdir()
        (tmp_path / mine / "server.log").write_text("mine")
    else:
        (tmp_path / mine).write_text("mine")
    with pytest.raises(LocalError, match=r"something in it that `voice-dpki call` did not write"):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [mine]
    assert mine != "logs" or (tmp_path / "logs" / "server.log").read_text() == "mine"


def test_the_folder_of_another_command_is_left_alone(tmp_path: Path) -> None:
    run(tmp_path, "voice-dpki device attach")
    with pytest.raises(LocalError, match="this folder is `voice-dpki device attach`'s"):
        run(tmp_path)
    assert (tmp_path / "report.json").exists()


HOLDS = """
import sys, time
from pathlib import Path
from voice_dpki.shell.output import output_folder
with output_folder(Path(sys.argv[1]), "voice-dpki call"):
    print("holds", flush=True)
    time.sleep(3600)
"""


def test_a_second_run_says_that_the_first_is_there_and_a_killed_one_is_not(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        first.stdout.readline()
        with pytest.raises(LocalError, match="another command is running in this folder"):
            run(tmp_path)
        first.kill()
    run(tmp_path)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(LocalError, match=r"out: cannot make this folder: File exists"):
        run(tmp_path / "out")
    with pytest.raises(LocalError, match="cannot be used as a folder: Not a directory"), locked(tmp_path / "out"):
        pass


@pytest.mark.parametrize("existed", [False, True])
def test_what_could_not_be_finished_is_removed_again(disk: Callable[[int], Path], existed: bool) -> None:
    folder = disk(256) / "net"
    if existed:
        folder.mkdir()
    fill(folder.parent, leave_kilobytes=16)

    def make() -> None:
        with new_folder(folder):
            (folder / "keys").mkdir()
            for number in range(100):
                write_new(folder / "keys" / f"{number}.pem", bytes(1000))

    with pytest.raises(LocalError, match=r"\.pem: cannot make this file: No space left on device"):
        make()
    assert folder.exists() == existed
    assert not existed or not list(folder.iterdir())


def test_a_new_folder_is_new(tmp_path: Path) -> None:
    with new_folder(tmp_path / "net"):
        (tmp_path / "net" / "key.pem").write_text("key")
    with pytest.raises(LocalError, match="something in it already"), new_folder(tmp_path / "net"):
        pass
    assert (tmp_path / "net" / "key.pem").read_text() == "key"


def test_nothing_half_written_stays_on_a_full_disk(disk: Callable[[int], Path]) -> None:
    folder = disk(64)
    write_private(folder / "state", b"old")
    fill(folder, leave_kilobytes=8)
    before = {path.name for path in folder.iterdir()}
    with pytest.raises(LocalError, match="state: cannot be written: No space left on device"):
        write_private(folder / "state", bytes(100_000))
    with pytest.raises(LocalError, match="cannot make this file: No space left on device"):
        write_all_new([(folder / "key", b"key", OWNER_ONLY), (folder / "certificate", bytes(100_000), FOR_ALL)])
    assert {path.name for path in folder.iterdir()} == before
    assert (folder / "state").read_bytes() == b"old"
