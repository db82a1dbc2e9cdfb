"""Writing files and folders: what holds keys or tokens is for its owner alone, whole or not there at all."""

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
    """Write a file, or another in its place, that only its owner may read; raises LocalError.

    Whoever reads meanwhile, and a program that is killed meanwhile, leaves or finds the old file or the new one.
    """
    unfinished = path.with_name(f"{path.name}.new")
    try:
        unfinished.unlink(missing_ok=True)
        _create(unfinished, data, OWNER_ONLY)
        unfinished.replace(path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise LocalError(f"{path}: cannot be written: {error.strerror}") from None


def write_file(path: Path, data: bytes) -> None:
    """Write a file that everybody may read, or in the place of what it held; raises LocalError that names it."""
    try:
        path.write_bytes(data)
    except OSError as error:
        raise LocalError(f"{path}: cannot be written: {error.strerror}") from None


def append_line(path: Path, line: bytes) -> None:
    """Write a line at the end of a file; raises LocalError that names it, and may have written a part then."""
    try:
        with path.open("ab") as file:
            file.write(line + b"\n")
    except OSError as error:
        raise LocalError(f"{path}: cannot be written: {error.strerror}") from None


def write_new(path: Path, data: bytes, mode: int = OWNER_ONLY) -> None:
    """Write a file that must not be there yet: an overwritten key is gone for good. Raises LocalError."""
    try:
        _create(path, data, mode)
    except OSError as error:
        raise LocalError(f"{path}: cannot make this file: {error.strerror}") from None


def write_all_new(files: Sequence[tuple[Path, bytes, int]]) -> None:
    """Write files (path, content, mode) that must not be there yet: all of them, or none. Raises LocalError."""
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
    """Make a folder, and those above it, where it is not there yet; raises LocalError."""
    try:
        path.mkdir(mode, parents=True, exist_ok=True)
    except OSError as error:
        raise LocalError(f"{path}: cannot make this folder: {error.strerror}") from None


def take_lock(path: Path, taken: str) -> IO[bytes]:
    """Reserve what `path`.lock stands for until the result is closed, or the process ends however it does.

    Raises LocalError, with the sentence `taken` where another process has it.
    """
    try:
        lock = path.with_name(f"{path.name}.lock").open("ab")
    except OSError as error:
        raise LocalError(f"{path}: cannot be reserved: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise LocalError(f"{path}: {taken}") from None
    return lock


def _create(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
    except OSError:
        path.unlink(missing_ok=True)
        raise
