"""A command's temporary folder, which holds keys: it is removed at the end, or after kill -9 by the next command.

Such a folder has a mark, and is locked while its command runs. The kernel releases the lock at its end.
"""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from voice_dpki.errors import LocalError
from voice_dpki.shell.files import write_new
from voice_dpki.shell.output import MARK, locked

PREFIX = "voice-dpki-"
"""Prefix of these folders' names."""

_CONTENT = b"voice-dpki temporary folder\nIt is removed when no command has it locked.\n"


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Remove the folders of killed commands, and make a new one, for its owner only, until the context ends.

    Raises LocalError or OSError if none can be made.
    """
    remove_abandoned(Path(tempfile.gettempdir()))
    path = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        with locked(path):  # before the mark is written, for a folder with a mark and no lock counts as abandoned
            write_new(path / MARK, _CONTENT)
            try:
                yield path
            finally:
                with suppress(FileNotFoundError):  # somebody else has removed it already
                    _remove(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def remove_abandoned(where: Path) -> None:
    """Remove this user's marked folders in `where` that no command has locked; skip what cannot be removed."""
    with suppress(OSError):
        for path in where.glob(f"{PREFIX}*"):
            with suppress(OSError, LocalError):
                _remove_if_abandoned(path)


def _remove_if_abandoned(path: Path) -> None:
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        return
    if not _is_marked(path / MARK):  # do not even lock it, because its owner may be about to
        return
    with locked(path):
        if _is_marked(path / MARK):
            _remove(path)


def _is_marked(mark: Path) -> bool:
    descriptor = os.open(mark, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        return file.read(len(_CONTENT) + 1) == _CONTENT


def _remove(path: Path) -> None:
    """Remove a folder, its mark last, so that the folder stays marked if this process is killed meanwhile."""
    for each in path.iterdir():
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        elif each.name != MARK:
            each.unlink()
    (path / MARK).unlink()
    path.rmdir()
