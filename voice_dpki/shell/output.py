"""Output folders of commands: each is marked and locked, and only the command's own files are removed from it."""

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from voice_dpki.errors import LocalError
from voice_dpki.shell.files import FOR_ALL, make_folder, write_new

MARK = ".voice-dpki"
"""The file that names the command that owns the folder."""

_MAX_MARK_BYTES = 200


@contextmanager
def output_folder(path: Path, command: str, names: Iterable[str] = (), mode: int = 0o777) -> Iterator[None]:
    """Make or take over a command's folder, remove the files of the last run, and lock it while the context lasts.

    `names` are patterns of those files, relative to the folder; nothing else is removed. Raises LocalError if
    another process has the folder, if it is not empty and has no mark of `command`, or if it cannot be made.
    """
    make_folder(path, mode)
    with locked(path):
        _check_mark(path, command)
        _remove(path, names)
        yield


@contextmanager
def new_folder(path: Path) -> Iterator[None]:
    """Make a folder, or take an empty one, to be filled inside the context; if that fails, remove what was written.

    Raises LocalError if the folder is not empty, another process has it, or it cannot be made.
    """
    existed = path.exists()
    make_folder(path)
    with locked(path):
        if any(path.iterdir()):
            raise LocalError(f"{path}: there is something in it already; name a new folder")
        try:
            yield
        except BaseException:
            _empty(path)
            if not existed:
                with suppress(OSError):
                    path.rmdir()
            raise


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock an existing folder against other commands; raises LocalError if another one has locked it."""
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise LocalError(f"{path}: cannot be used as a folder: {error.strerror}") from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(folder)
        raise LocalError(
            f"{path}: another command is running in this folder; wait for it, or name another"
        ) from None
    except OSError as error:
        os.close(folder)
        raise LocalError(
            f"{path}: this folder cannot be locked ({error.strerror}); name one on a local disk"
        ) from None
    try:
        yield
    finally:
        os.close(folder)


def _check_mark(path: Path, command: str) -> None:
    mark = path / MARK
    try:
        with mark.open("rb") as file:
            found = file.read(_MAX_MARK_BYTES).decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        if any(path.iterdir()):
            raise LocalError(
                f"{path}: there is something in it that `{command}` did not write; name a new or empty folder"
            ) from None
        write_new(mark, f"{command}\nThis folder is that command's: it overwrites its files.\n".encode(), FOR_ALL)
        return
    if found[:1] != [command]:
        raise LocalError(f"{path}: this folder is `{found[0] if found else 'another command'}`'s; name another one")


def _remove(path: Path, names: Iterable[str]) -> None:
    """Remove files of the last run, and subfolders that become empty; raises LocalError."""
    try:
        for file in [each for name in names for each in path.glob(name)]:
            file.unlink()
            if file.parent != path:
                with suppress(OSError):  # the folder is not empty
                    file.parent.rmdir()
    except OSError as error:
        raise LocalError(f"{error.filename}: cannot be removed: {error.strerror}") from None


def _empty(path: Path) -> None:
    for each in path.iterdir():
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each, ignore_errors=True)
        else:
            each.unlink(missing_ok=True)
