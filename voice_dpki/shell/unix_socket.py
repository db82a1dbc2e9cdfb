"""Unix sockets: the path of a socket is taken over only if nobody serves on it any more."""

import errno
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO

from voice_dpki.errors import LocalError
from voice_dpki.shell.files import take_lock

_PROBE_S = 1.0


def claim(path: Path) -> IO[bytes]:
    """Reserve the path of a unix socket until the result is closed, and remove a socket that nobody serves.

    The lock is a file beside the socket, and is not removed. Raises LocalError if somebody serves on the socket, if
    the path is not a socket, or if the folder cannot be written.
    """
    lock = take_lock(path, _TAKEN)
    try:
        _remove_dead(path)
    except OSError as error:
        lock.close()
        raise LocalError(f"{path}: cannot listen: {error.strerror}") from None
    except LocalError:
        lock.close()
        raise
    return lock


_TAKEN = "another program serves on this socket; stop it first, or configure another socket"


def _remove_dead(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise LocalError(f"{path}: there is something else than a socket; it is left as it is")
    if _is_served(path):
        raise LocalError(f"{path}: {_TAKEN}")
    with suppress(FileNotFoundError):
        path.unlink()


def _is_served(path: Path) -> bool:
    """Tell whether a process listens on the socket, even if it is too busy to accept."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_S)
        return probe.connect_ex(str(path)) not in (errno.ECONNREFUSED, errno.ENOENT)
