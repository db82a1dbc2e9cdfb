"""Temporary folders: what a killed command left is removed by the next, and nothing else."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from voice_dpki.shell.output import MARK
from voice_dpki.stage import temporary
from voice_dpki.stage.temporary import temporary_folder

HOLDS = """
import time
from voice_dpki.stage.temporary import temporary_folder
with temporary_folder() as folder:
    (folder / "a").mkdir()
    (folder / "a" / "key.pem").write_text("secret")
    print(folder, flush=True)
    time.sleep(3600)
"""


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def started() -> tuple["subprocess.Popen[str]", Path]:
    """Start a command that has a temporary folder, and return that, too."""
    process = subprocess.Popen([sys.executable, "-c", HOLDS], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, Path(process.stdout.readline().strip())


def end(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_it_is_for_its_owner_alone_and_gone_at_the_end(tmp_path: Path) -> None:
    with temporary_folder() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "below").mkdir()
        (folder / "below" / "key.pem").touch()
    assert not list(tmp_path.iterdir())


def test_a_killed_commands_folder_is_removed_by_the_next_and_a_running_ones_is_not() -> None:
    (killed, abandoned), (running, kept) = started(), started()
    try:
        end(killed)
        assert (abandoned / "a" / "key.pem").exists()
        with temporary_folder() as own:
            assert not abandoned.exists()
            assert (kept / "a" / "key.pem").exists()
            with temporary_folder():
                assert own.exists()
    finally:
        end(running)


def test_nothing_else_is_removed(tmp_path: Path) -> None:
    killed, abandoned = started()
    end(killed)
    unmarked, marked, outside = tmp_path / "voice-dpki-mine", tmp_path / "voice-dpki-out", tmp_path / "elsewhere"
    for folder in (unmarked, marked, outside):
        folder.mkdir()
        (folder / "kept").touch()
    (marked / MARK).write_text("voice-dpki call\nThis folder is that command's: it overwrites its files.\n")
    shutil.copy(abandoned / MARK, outside / MARK)
    (tmp_path / "voice-dpki-link").symlink_to(outside)
    (tmp_path / "voice-dpki-file").touch()
    (unmarked / MARK).symlink_to(outside / MARK)
    os.symlink(outside, abandoned / "link")
    with temporary_folder():
        assert not abandoned.exists()
    assert all((folder / "kept").exists() for folder in (unmarked, marked, outside))
    assert (tmp_path / "voice-dpki-link").is_symlink()
    assert (tmp_path / "voice-dpki-file").exists()


def test_a_folder_that_is_being_made_is_not_even_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its own command would find it taken."""
    (tmp_path / "voice-dpki-new").mkdir()
    monkeypatch.setattr(temporary, "locked", lambda path: pytest.fail(f"{path} is locked"))
    temporary.remove_abandoned(tmp_path)


def test_a_mark_that_never_ends_holds_nobody_up(tmp_path: Path) -> None:
    killed, abandoned = started()
    end(killed)
    pipe = tmp_path / "voice-dpki-pipe"
    pipe.mkdir()
    os.mkfifo(pipe / MARK)
    with temporary_folder() as folder:
        assert folder.exists()
    assert pipe.exists()
    assert not abandoned.exists()
