"""A link to a file that the server processes of one machine share, and that a server finds again when it restarts.

It lasts as long as the machine runs. After a reboot nobody can tell what a file lacks that was not written to disk
in time, so the file's name has the boot's identifier, and a new one begins empty. Times are those of the monotonic
clock, which all processes of a machine share.
"""

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

import lmdb

from verify_server.replay_store import StoreError
from voice_dpki.effects import Clock
from voice_dpki.errors import LocalError
from voice_dpki.shell.files import make_folder

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
PRUNED: Final = 8
"""Most expired keys that a new one removes. It is more than one, so they do not pile up."""
_SINCE: Final = b"since"
_TIME: Final = struct.Struct(">d")
"""Big-endian: positive times sort as bytes in their numeric order."""


class FileLink:
    """One file, opened at its first use."""

    def __init__(self, folder: Path, max_bytes: int, clock: Clock, boot_id: str | None = None) -> None:
        """Raise LocalError if the folder cannot be made. It is made at the first use.

        If another user than the server's checks the configuration, a folder made here would belong to that user.
        """
        if folder.exists() and not folder.is_dir():
            raise LocalError(f"{folder}: this is no folder")
        self._folder, self._max_bytes, self._clock = folder, max_bytes, clock
        self._boot_id = boot_id or _boot_id()
        self._file: _File | None = None
        self.since_s = -math.inf

    async def put(self, key: bytes, value: bytes, retention_s: float) -> bytes | None:
        """Store a value unless the key has one; return the key's earlier value, None if there was none."""
        with self._transaction(write=True) as (transaction, file):
            now_s = self._clock.steady_s()
            _prune(transaction, file, now_s)
            held = _Held.of(transaction.get(key, db=file.used))
            if held is not None and held.end_s >= now_s:
                return held.value
            if held is not None:
                transaction.delete(_TIME.pack(held.end_s) + key, db=file.ends)
            end = _TIME.pack(now_s + retention_s)
            transaction.put(key, end + value, db=file.used)
            transaction.put(end + key, b"", db=file.ends)
        return None

    async def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, None if it has none."""
        with self._transaction(write=False) as (transaction, file):
            held = _Held.of(transaction.get(key, db=file.used))
        return held.value if held is not None and held.end_s >= self._clock.steady_s() else None

    async def remove(self, key: bytes) -> None:
        """Remove a key."""
        with self._transaction(write=True) as (transaction, file):
            held = _Held.of(transaction.pop(key, db=file.used))
            if held is not None:
                transaction.delete(_TIME.pack(held.end_s) + key, db=file.ends)

    async def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.env.close()
            self._file = None

    @contextmanager
    def _transaction(self, *, write: bool) -> "Iterator[tuple[lmdb.Transaction, _File]]":
        """Yield a transaction; raises StoreError."""
        try:
            file = self._opened()
            with file.env.begin(write=write) as transaction:
                yield transaction, file
        except (lmdb.Error, OSError, LocalError) as error:
            raise StoreError(f"{type(error).__name__}: {error}"[:200]) from None

    def _opened(self) -> "_File":
        if self._file is None:
            make_folder(self._folder, 0o700)
            path = self._folder / f"used-{self._boot_id}.mdb"
            self._remove_others(path)
            env = lmdb.open(
                str(path), subdir=False, map_size=self._max_bytes, max_dbs=2, sync=False, metasync=False, mode=0o600
            )
            self._file = _File(env, env.open_db(b"used"), env.open_db(b"ends"))
            now = str(math.floor(self._clock.now_s())).encode()
            with env.begin(write=True) as transaction:
                transaction.put(_SINCE, now, overwrite=False)
                self.since_s = float(bytes(transaction.get(_SINCE, now)))
        return self._file

    def _remove_others(self, file: Path) -> None:
        """Remove the files of earlier boots, which nobody can use any more."""
        kept = {file.name, f"{file.name}-lock"}
        for other in self._folder.glob("used-*.mdb*"):
            if other.name not in kept:
                with suppress(OSError):
                    other.unlink()


class _File(NamedTuple):
    """The open file: values by key, and keys by the time at which they end."""

    env: lmdb.Environment
    used: "lmdb._Database"
    ends: "lmdb._Database"


class _Held:
    """A value, and until when it counts."""

    __slots__ = ("end_s", "value")

    def __init__(self, end_s: float, value: bytes) -> None:
        self.end_s, self.value = end_s, value

    @classmethod
    def of(cls, raw: bytes | memoryview | None) -> "_Held | None":
        """Parse a key's value in the file."""
        return None if raw is None else cls(_TIME.unpack(raw[:8])[0], bytes(raw[8:]))


def _prune(transaction: lmdb.Transaction, file: _File, now_s: float) -> None:
    """Remove at most PRUNED expired keys, the oldest first."""
    cursor = transaction.cursor(db=file.ends)
    for _ in range(PRUNED):
        if not cursor.first() or _TIME.unpack(cursor.key()[:8])[0] >= now_s:
            return
        transaction.delete(bytes(cursor.key()[8:]), db=file.used)
        cursor.delete()


def _boot_id() -> str:
    try:
        return BOOT_ID.read_text().strip()
    except OSError as error:
        raise LocalError(f"{BOOT_ID}: cannot be read: {error.strerror}; a store in a file needs Linux") from None
