"""A small disk of one's own: a tmpfs in a mount namespace that only this thread and what it starts can see."""

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

_CLONE_FS = 0x00000200
_CLONE_NEWNS = 0x00020000
_libc = ctypes.CDLL(None, use_errno=True)


class NoMountsError(Exception):
    """This machine lets us mount nothing."""


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """Have an empty disk of a size at `folder` while the context lasts; raises NoMountsError."""
    folder.mkdir()
    here, root = Path.cwd(), os.open("/", os.O_RDONLY)
    with open("/proc/thread-self/ns/mnt") as before:
        try:
            _check(_libc.unshare(_CLONE_NEWNS))
        except OSError as error:
            raise NoMountsError(error.strerror) from None
        try:
            _run("mount", "--make-rprivate", "/")
            _run("mount", "-t", "tmpfs", "-o", f"size={kilobytes}k,mode=0700", "tmpfs", str(folder))
            yield folder
        finally:
            # A thread that was started meanwhile and still runs shares our root and working directory, and the
            # kernel lets nobody who shares them change its mounts.
            _check(_libc.unshare(_CLONE_FS))
            _check(_libc.setns(before.fileno(), _CLONE_NEWNS))
            os.fchdir(root)  # setns leads to the machine's root, also out of a chroot
            os.chroot(".")
            os.chdir(here)
            os.close(root)


def fill(disk: Path, leave_kilobytes: int = 0) -> Path:
    """Fill a disk but for a few kilobytes; returns the file that takes the room."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    os.truncate(ballast, max(ballast.stat().st_size - leave_kilobytes * 1024, 0))
    return ballast


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    except subprocess.CalledProcessError as error:
        raise NoMountsError(error.stderr.strip()) from None
