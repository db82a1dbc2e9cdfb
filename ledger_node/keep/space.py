"""Disk space: bytes that a node's files take, bytes free, and days until the disk is full."""

import asyncio
import logging
import math
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from voice_dpki.metrics import gauge
from voice_dpki.shell.readiness import Finding, failed_if, warned_if, worst
from voice_dpki.shortfalls import SHORTFALLS

log = logging.getLogger(__name__)

BYTES = gauge("ledger_disk_used_bytes", "Room that this node's files take on its disk.")
FREE = gauge("ledger_disk_free_bytes", "Room that is left on the disk of this node's store.")
DAYS = gauge("ledger_disk_days_left", "Days until that disk is full, at the pace of the last day; +Inf if unknown.")

DAY_S = 86_400
LOOK_S = 60.0
"""How often the files are measured."""

SHORTEST_S = 3600.0
"""Shortest observation that gives a growth rate: a store grows in steps."""

WARNED_DAYS = 14.0
WARNED_SHARE = 0.05
"""Share of the disk below which the free space is reported, whatever the growth rate."""

MAX_FILES = 100_000
"""Most files measured, so that a folder full of other files does not delay the node."""


@dataclass(frozen=True, slots=True)
class Room:
    """One measurement, in bytes: `used` by the files, `free` on the disk, and the `whole` disk's size."""

    used: int
    free: int
    whole: int


class Pace:
    """How fast the files have grown in the last day. Times are of any clock that only goes forward, in seconds."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, int]] = deque()

    def add(self, now_s: float, used: int) -> None:
        """Record the bytes that the files take at `now_s`."""
        self._looks.append((now_s, used))
        while len(self._looks) > 2 and now_s - self._looks[1][0] >= DAY_S:
            self._looks.popleft()

    def bytes_a_day(self) -> float:
        """Return the growth in bytes a day, 0 if they do not grow or have not been watched for long enough."""
        (began_s, before), (now_s, after) = self._looks[0], self._looks[-1]
        if now_s - began_s < SHORTEST_S:
            return 0.0
        return max(0.0, (after - before) * DAY_S / (now_s - began_s))


class Space:
    """Watches the folders of one node; the first is on the disk whose room counts."""

    def __init__(self, folders: Sequence[Path], *, look: Callable[[Sequence[Path]], Room] | None = None) -> None:
        self._folders = folders
        self._look = look or measure
        self._pace = Pace()
        self._note = ""
        self._free: int | None = None
        """Free bytes, None before the first measurement."""
        SHORTFALLS.watch(self)

    async def run(self) -> None:
        """Look every LOOK_S seconds, until cancelled."""
        while True:
            try:
                room = await asyncio.to_thread(self._look, self._folders)
            except OSError as error:
                log.warning("disk cannot be looked at", extra={"fields": {"reason": str(error)}})
            else:
                self.take(time.monotonic(), room)
            await asyncio.sleep(LOOK_S)

    def take(self, now_s: float, room: Room) -> None:
        """Record a measurement, set the metrics, and log when a warning begins and ends."""
        self._pace.add(now_s, room.used)
        pace = self._pace.bytes_a_day()
        days = room.free / pace if pace else math.inf
        BYTES.set(room.used)
        FREE.set(room.free)
        DAYS.set(days)
        note = _note(room, pace, days)
        if note and not self._note:
            log.warning("disk is filling up", extra={"fields": {"reason": note}})
        elif self._note and not note:
            log.info("disk has room again")
        self._note, self._free = note, room.free

    def check(self) -> Finding:
        """Return a finding on the free space: a warning if the disk is filling up, a failure if it is full."""
        nearly = self._free is not None and self._free < FULL_BYTES
        full = "the disk of the ledger's store is full" if nearly else ""
        return worst(failed_if(full), warned_if(self._note))

    def shortfall(self) -> str:
        """Return the warning if the disk will soon be full."""
        return self._note


FULL_BYTES = 256 * 1024 * 1024
"""Less than this can be too little for the blocks of an hour: the node is about to end."""


def _note(room: Room, pace: float, days: float) -> str:
    left = f"{room.free / 1e9:.1f} GB are left on the disk of the ledger's store"
    if days < WARNED_DAYS:
        return f"{left}, which lasts {days:.1f} days: its files grow by {pace / 1e9:.2f} GB a day"
    if room.free < WARNED_SHARE * room.whole:
        return f"{left}, less than {WARNED_SHARE:.0%} of it"
    return ""


def measure(folders: Sequence[Path]) -> Room:
    """Measure folders and the disk of the first one; a missing folder counts 0 bytes. Raises OSError."""
    usage = shutil.disk_usage(folders[0])
    return Room(_room_of(folders), usage.free, usage.total)


def _room_of(folders: Iterable[Path]) -> int:
    """Return the room that at most MAX_FILES files take; one that disappears meanwhile takes none."""
    size = count = 0
    for folder in folders:
        for parent, _, names in os.walk(folder):
            for name in names:
                try:
                    size += 512 * os.lstat(os.path.join(parent, name)).st_blocks
                except FileNotFoundError:
                    continue
                count += 1
                if count >= MAX_FILES:
                    return size
    return size
