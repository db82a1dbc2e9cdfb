import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.disks import fill
from voice_dpki.errors import LocalError
from voice_dpki.shell.files import FOR_ALL, make_folder, write_new, write_private, write_whole


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_private_is_so_even_where_a_file_for_all_was(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(b"old")
    path.chmod(0o644)
    path.with_name("key.pem.new").write_bytes(b"left by a start that was killed")
    write_private(path, b"secret")
    assert (path.read_bytes(), mode(path)) == (b"secret", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_without_room_is_left_as_it_was(disk: Callable[[int], Path]) -> None:
    folder = disk(64)
    path = folder / "result.json"
    write_whole(path, b"first")
    fill(folder, leave_kilobytes=8)
    with pytest.raises(LocalError, match=r"result\.json: cannot be written: No space left on device"):
        write_whole(path, bytes(16 * 1024))
    assert path.read_bytes() == b"first"
    assert sorted(each.name for each in folder.iterdir()) == ["ballast", "result.json"]


def test_a_link_and_a_device_are_written_to_and_not_replaced(tmp_path: Path) -> None:
    link, path, pipe = (tmp_path / name for name in ("link", "file", "pipe"))
    path.write_bytes(b"old")
    link.symlink_to(path)
    write_whole(link, b"new")
    assert (link.is_symlink(), path.read_bytes(), mode(path)) == (True, b"new", 0o644 & ~umask())
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_whole(pipe, b"through")
    assert os.read(reading, 100) == b"through"
    os.close(reading)
    assert pipe.is_fifo()


def umask() -> int:
    os.umask(now := os.umask(0))
    return now


def test_a_new_file_never_takes_anothers_place(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    write_new(path, b"first")
    with pytest.raises(LocalError, match=r"key\.pem: cannot make this file: File exists"):
        write_new(path, b"second")
    assert (path.read_bytes(), mode(path)) == (b"first", 0o600)
    write_new(tmp_path / "certificate.der", b"for all", FOR_ALL)
    assert mode(tmp_path / "certificate.der") & 0o077 != 0


def test_where_nothing_can_be_written_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="cannot be written: No such file or directory"):
        write_private(tmp_path / "no folder" / "key.pem", b"secret")


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    make_folder(tmp_path / "out" / "logs")
    make_folder(tmp_path / "out" / "logs")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LocalError, match="cannot make this folder: Not a directory"):
        make_folder(tmp_path / "file" / "logs")
