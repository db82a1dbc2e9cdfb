"""Takeover of a unix socket by a new process of a program, without a gap.

The new process listens under another name and renames it over the socket (`unix_socket.listen_at`), so every
connection reaches one of the two. Only then does it end the old one, which still answers its connections.
"""

import asyncio
import errno
import logging
import os
import select
import signal
import socket
import struct
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

from voice_dpki.errors import LocalError
from voice_dpki.shell.files import take_lock

log = logging.getLogger(__name__)

END_S = 10.0
"""How long the old process may take to end by itself: longer than its remaining answers can take."""

_CREDENTIALS = struct.Struct("3i")
"""Linux's struct ucred: pid, uid, gid."""


class Predecessor:
    """The process that serves on a socket now. Close it with `close`."""

    def __init__(self, path: Path, pidfd: int, turn: IO[bytes]) -> None:
        """Take a descriptor of the process, and the lock by which one process at a time takes over."""
        self._path, self._pidfd, self._turn = path, pidfd, turn

    @classmethod
    def at(cls, path: Path) -> "Predecessor | None":
        """Find the process that serves on a socket claimed by `unix_socket.claim`; None if there is none.

        Raises LocalError if it may not be ended by this process, or if another process is taking over.
        """
        if not _is_claimed(path):
            return None
        with ExitStack() as failed:
            turn = take_lock(
                path.with_name(f"{path.name}.next"), "another process is taking it over at this moment"
            )
            failed.callback(turn.close)
            pidfd = _server_of(path)
            if pidfd is None:
                return None
            failed.callback(os.close, pidfd)
            _send(path, pidfd, 0)
            failed.pop_all()
            return cls(path, pidfd, turn)

    async def end(self, within_s: float = END_S) -> None:
        """Have it end as by SIGTERM, by force if that takes longer than `within_s`, and wait for its end."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._pidfd, ended.set)
        try:
            _send(self._path, self._pidfd, signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), within_s)
            if not ended.is_set():
                log.warning(
                    "who served here does not end, and is killed", extra={"fields": {"path": str(self._path)}}
                )
                _send(self._path, self._pidfd, signal.SIGKILL)
                await ended.wait()
        finally:
            loop.remove_reader(self._pidfd)

    def close(self) -> None:
        """Release the lock, so that other processes can take over."""
        os.close(self._pidfd)
        self._turn.close()


def _is_claimed(path: Path) -> bool:
    try:
        take_lock(path, "").close()
    except LocalError:
        return True
    return False


def _server_of(path: Path) -> int | None:
    """Return a descriptor of the process that listens on a socket; None if nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(END_S)
        try:
            probe.connect(str(path))
        except OSError as error:
            if error.errno in (errno.ECONNREFUSED, errno.ENOENT):
                return None
            raise LocalError(f"{path}: who serves there cannot be reached: {error.strerror}") from None
        pid, _, _ = _CREDENTIALS.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        with suppress(OSError):
            pidfd = os.pidfd_open(pid)
            if not _is_broken(probe):  # it lives, so the number is still its own
                return pidfd
            os.close(pidfd)
    raise LocalError(f"{path}: who serves there cannot be found, or is ending")


def _is_broken(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, 0)  # POLLHUP is told in any case
    return bool(poll.poll(0))


def _send(path: Path, pidfd: int, number: int) -> None:
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return  # it has ended by itself
    except OSError as error:
        raise LocalError(f"{path}: who serves there cannot be ended: {error.strerror}") from None
