from collections.abc import Callable
from pathlib import Path

import pytest

from tests.disks import fill
from voice_dpki.errors import LocalError
from voice_dpki.shell.rotating import LOST, RotatingFile

Disk = Callable[[int], Path]


def lost() -> float:
    return float(next(iter(LOST.collect())).samples[0].value)


def files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


def test_files_are_bounded_in_size_and_number(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path / "a.csv", max_bytes=12, keep=2, head=b"h\n")
    for number in range(9):
        file.append(b"row %d\n" % number if number else b"r0\n")
    file.close()
    assert files(tmp_path) == {"a.csv": "h\nrow 8\n", "a.csv.1": "h\nrow 7\n", "a.csv.2": "h\nrow 6\n"}
    again = RotatingFile(tmp_path / "a.csv", max_bytes=100, keep=2, head=b"h\n")
    again.append(b"more\n")
    again.close()
    assert files(tmp_path)["a.csv"] == "h\nrow 8\nmore\n"


def test_without_older_files(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path / "a", max_bytes=4, keep=0)
    for _ in range(3):
        file.append(b"abc\n")
    file.close()
    assert files(tmp_path) == {"a": "abc\n"}


def test_a_line_longer_than_a_file_has_one_of_its_own(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path / "a", max_bytes=4, keep=1)
    file.append(b"long line\n")
    file.append(b"x\n")
    file.close()
    assert files(tmp_path) == {"a": "x\n", "a.1": "long line\n"}


def test_a_file_that_cannot_be_opened_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match=r"missing/a: cannot be written"):
        RotatingFile(tmp_path / "missing/a", max_bytes=4, keep=1)


def test_a_full_disk_is_said_and_leaves_no_part_of_a_line(disk: Disk) -> None:
    folder, line = disk(128), b"x" * 1000 + b"\n"
    file = RotatingFile(folder / "a", max_bytes=1 << 20, keep=1)
    file.append(line)
    fill(folder, 0)
    before = lost()
    for _ in range(8):
        file.append(line)
    assert lost() > before
    assert file.shortfall() == "an export cannot be written, and its lines are lost"
    assert set((folder / "a").read_bytes().splitlines(keepends=True)) == {line}
    (folder / "ballast").unlink()
    file.append(line)
    assert file.shortfall() == ""
    file.close()
