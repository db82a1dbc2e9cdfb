"""Unix sockets: the path of a socket is taken over only if nobody serves on it any more."""

import asyncio
import errno
import os
import select
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO

from voice_dpki.errors import LocalError
from voice_dpki.shell.files import take_lock

_PROBE_S = 1.0

_ACCEPT_TURNS = 10
"""Turns of the event loop after which an accepted connection has surely been made; it takes two or three."""


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


def listen_at(path: Path, backlog: int) -> socket.socket:
    """Listen on a unix socket that only its owner and group may use; it replaces whatever has its name atomically.

    Clients can connect at any moment, to the socket before or to this one. Raises LocalError.
    """
    unfinished = path.with_name(f"{path.name}.new")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        unfinished.unlink(missing_ok=True)
        listening.bind(str(unfinished))
        os.chmod(unfinished, 0o660)
        listening.listen(backlog)
        unfinished.replace(path)
    except OSError as error:
        listening.close()
        raise LocalError(f"{path}: cannot listen: {error.strerror or error}") from None
    return listening


async def all_accepted(listening: socket.socket) -> None:
    """Wait until the event loop's server has accepted the whole backlog; the socket can then be closed."""
    turns = 0
    while turns < _ACCEPT_TURNS:  # only the kernel knows the backlog
        turns = 0 if _has_waiting(listening) else turns + 1
        await asyncio.sleep(0)


def _has_waiting(listening: socket.socket) -> bool:
    poll = select.poll()
    poll.register(listening, select.POLLIN)
    return bool(poll.poll(0))


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
