"""Writing files and folders. A file with keys or tokens is for its owner only, and written whole or not at all."""

import fcntl
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from voice_dpki.errors import LocalError

OWNER_ONLY = 0o600
FOR_ALL = 0o644


def write_private(path: Path, data: bytes) -> None:
    """Write or replace a file that only its owner may read; raises LocalError.

    The replacement is atomic: a reader finds the old file or the new one, also after this process was killed.
    """
    _replace(path, data, OWNER_ONLY)


def write_whole(path: Path, data: bytes) -> None:
    """Write or replace a file that everybody may read, as `write_private` does; raises LocalError.

    What the file held is kept if there is no room. A device or pipe of that name is written to.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        write_file(path, data)
    else:
        _replace(path, data, FOR_ALL)


def write_file(path: Path, data: bytes) -> None:
    """Write or overwrite a file that everybody may read; raises LocalError that names it."""
    try:
        path.write_bytes(data)
    except OSError as error:
        raise LocalError(f"{path}: cannot be written: {error.strerror}") from None


def append_line(path: Path, line: bytes) -> None:
    """Append a line to a file; raises LocalError that names it. A part of the line may have been written then."""
    try:
        with path.open("ab") as file:
            file.write(line + b"\n")
    except OSError as error:
        raise LocalError(f"{path}: cannot be written: {error.strerror}") from None


def write_new(path: Path, data: bytes, mode: int = OWNER_ONLY) -> None:
    """Write a file that must not exist yet: an overwritten key would be lost for good. Raises LocalError."""
    try:
        _create(path, data, mode)
    except OSError as error:
        raise LocalError(f"{path}: cannot make this file: {error.strerror}") from None


def write_all_new(files: Sequence[tuple[Path, bytes, int]]) -> None:
    """Write files (path, content, mode) that must not exist yet: all of them, or none. Raises LocalError."""
    written: list[Path] = []
    try:
        for path, data, mode in files:
            write_new(path, data, mode)
            written.append(path)
    except LocalError:
        for path in written:
            path.unlink(missing_ok=True)
        raise


def make_folder(path: Path, mode: int = 0o777) -> None:
    """Make a folder and its parents if they do not exist yet; raises LocalError."""
    try:
        path.mkdir(mode, parents=True, exist_ok=True)
    except OSError as error:
        raise LocalError(f"{path}: cannot make this folder: {error.strerror}") from None


def take_lock(path: Path, taken: str) -> IO[bytes]:
    """Lock the file `path`.lock, and so what `path` names; as `lock_file`."""
    return lock_file(path.with_name(f"{path.name}.lock"), path, taken)


def lock_file(file: Path, path: Path, taken: str) -> IO[bytes]:
    """Lock a file that stands for `path` until the result is closed or the process ends, in whatever way.

    Raises LocalError that names `path`, with the sentence `taken` if another process holds the lock.
    """
    try:
        lock = file.open("ab")
    except OSError as error:
        raise LocalError(f"{path}: cannot be reserved: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise LocalError(f"{path}: {taken}") from None
    return lock


def _replace(path: Path, data: bytes, mode: int) -> None:
    unfinished = path.with_name(f"{path.name}.new")
    try:
        unfinished.unlink(missing_ok=True)
        _create(unfinished, data, mode)
        unfinished.replace(path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise LocalError(f"{path}: cannot be written: {error.strerror}") from None


def _create(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
    except OSError:
        path.unlink(missing_ok=True)
        raise
