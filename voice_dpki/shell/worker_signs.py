"""Notifications of workers to their supervisor, which notifies systemd (`voice_dpki.shell.notify`).

Each worker has the path of a socket of its own as NOTIFY_SOCKET, so that it notifies like a process that systemd
started. It does so without systemd, too, as the supervisor must know which workers serve. The service is ready once
all workers are. Only a worker without a sign of life is killed, and then replaced.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic

from voice_dpki.errors import LocalError
from voice_dpki.shell.notify import (
    ALIVE,
    MAX_BYTES,
    READY,
    SOCKET,
    WATCHDOG_PID,
    WATCHDOG_US,
    tell_ready,
    watchdog_s,
)

log = logging.getLogger(__name__)


class WorkerSigns:
    """The signs of life of the workers with the numbers 0 to `count` - 1."""

    def __init__(self, count: int, folder: Path, ready: Callable[[int], None] = lambda number: None) -> None:
        """Make a socket for each worker in a folder; close them with `close`.

        `ready` is called with the number of a worker that reports that it is ready. Raises LocalError if no socket
        can be made in the folder.
        """
        self._folder, self._tell_ready = folder, ready
        self._sockets = [self._listen(number) for number in range(count)]
        self._ready: set[int] = set()
        self._heard_s: dict[int, float] = {}
        self._told = False

    def _path(self, number: int) -> Path:
        return self._folder / f"notify-{number}"

    def _listen(self, number: int) -> socket.socket:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            listening.bind(str(self._path(number)))
        except OSError as error:
            listening.close()
            raise LocalError(
                f"{self._path(number)}: cannot listen to a worker: {error.strerror or error}"
            ) from None
        asyncio.get_running_loop().add_reader(listening, self._hear, number)
        return listening

    def environment(self, number: int) -> Mapping[str, str]:
        """Return the environment of a worker, with the watchdog interval of its supervisor."""
        given = {name: value for name, value in os.environ.items() if name not in (WATCHDOG_PID, WATCHDOG_US)}
        expected = {WATCHDOG_US: str(int(watchdog_s() * 1e6))} if watchdog_s() else {}
        return {**given, **expected, SOCKET: str(self._path(number))}

    def _hear(self, number: int) -> None:
        """Take one message of a worker."""
        lines = self._sockets[number].recv(MAX_BYTES).decode("utf-8", "replace").split("\n")
        if ALIVE in lines:
            self._heard_s[number] = monotonic()
        if READY in lines:
            self._ready.add(number)
            self._tell_ready(number)
        if not self._told and len(self._ready) == len(self._sockets):
            self._told = True
            tell_ready(workers=str(len(self._sockets)))

    def forget(self, number: int) -> None:
        """Expect nothing of a worker that has ended, until the next one of its number gives a sign."""
        self._heard_s.pop(number, None)

    async def watch(self, kill: Callable[[int], None]) -> None:
        """Call `kill` with the number of each worker that has given no sign for too long, until cancelled."""
        within_s = watchdog_s()
        while within_s:
            slept_from_s = monotonic()
            await asyncio.sleep(within_s / 4)
            if monotonic() - slept_from_s > within_s / 2:  # this process itself stood still
                self._heard_s = dict.fromkeys(self._heard_s, monotonic())
            for number in self._late(monotonic() - within_s):
                log.error("a worker hangs, and is killed", extra={"fields": {"worker": number}})
                self.forget(number)
                kill(number)

    def _late(self, since_s: float) -> list[int]:
        return [number for number, heard_s in self._heard_s.items() if heard_s < since_s]

    def close(self) -> None:
        """Close the sockets."""
        for each in self._sockets:
            asyncio.get_running_loop().remove_reader(each)
            each.close()
