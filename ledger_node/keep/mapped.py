"""LMDB with a map that grows by itself, so that the size of a store need not be configured.

LMDB writes no page beyond its map's size. A write that does not fit is undone, the map is doubled, and the write is
done again. For that moment LMDB ends all transactions of the process. Those of readers are begun anew: nothing was
written, so they see the same state as before. Only a reader of a state older than the newest cannot have it back.

LMDB's binding undoes a write only in a moment when no other thread reads. Threads that read without end would
leave it no such moment, so all readers pause meanwhile.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias
from weakref import WeakSet

import lmdb

from voice_dpki.errors import LocalError

log = logging.getLogger(__name__)

MAP_BYTES = 1 << 24
"""Smallest map. It is address space, neither memory nor disk."""

_Databases: TypeAlias = "dict[bytes, lmdb._Database]"
_Transaction: TypeAlias = "lmdb.Transaction[bytes]"


class MovedError(LocalError):
    """The map grew while a state older than the newest was read: the reader must begin again with the newest."""


class Reading:
    """A read transaction: the state when it began. Use it from one thread at a time."""

    def __init__(self, mapped: "Mapped", transaction: _Transaction) -> None:
        self._mapped = mapped
        self._databases = mapped.databases
        self._transaction = transaction
        self.state = transaction.id()
        """LMDB's number of the state; the next write makes another."""
        self.closed = False

    def get(self, database: bytes, key: bytes) -> bytes | None:
        """Return an entry of a database, None if there is none; raises MovedError."""
        self._mapped.pause()
        try:
            return self._transaction.get(key, db=self._databases[database])
        except lmdb.Error:
            self._mapped.begin_again(self)
            return self._transaction.get(key, db=self._databases[database])

    def count(self, database: bytes) -> int:
        """Return the number of entries in a database; raises MovedError."""
        self._mapped.pause()
        try:
            return self._transaction.stat(self._databases[database])["entries"]
        except lmdb.Error:
            self._mapped.begin_again(self)
            return self._transaction.stat(self._databases[database])["entries"]

    def items(self, database: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over a database in order of its keys; raises MovedError also where the map grows on the way."""
        transaction = self._transaction
        try:
            for entry in transaction.cursor(db=self._databases[database]):
                yield entry
                self._mapped.pause()
        except lmdb.Error:
            if self._lives(transaction):
                raise
            raise MovedError("the store's map grew while this was read; ask again") from None

    @property
    def lives(self) -> bool:
        """Whether the transaction is still open in LMDB."""
        return self._lives(self._transaction)

    @staticmethod
    def _lives(transaction: _Transaction) -> bool:
        try:
            transaction.id()
        except lmdb.Error:
            return False
        return True

    def replace(self, transaction: _Transaction) -> None:
        """Go on with another transaction, which has ended this one or is of the same state."""
        self._transaction.abort()
        self._transaction = transaction
        self.state = transaction.id()

    def close(self) -> None:
        """End the transaction; nothing can be read afterwards."""
        self._mapped.end(self)

    def abort(self) -> None:
        """End LMDB's transaction; called by `Mapped` alone."""
        self.closed = True
        self._transaction.abort()


class Writing:
    """A write transaction, which reads its own writes."""

    def __init__(self, databases: _Databases, transaction: _Transaction) -> None:
        self._databases = databases
        self._transaction = transaction

    def get(self, database: bytes, key: bytes) -> bytes | None:
        """Return an entry of a database, None if there is none."""
        return self._transaction.get(key, db=self._databases[database])

    def put(self, database: bytes, key: bytes, value: bytes) -> None:
        """Set an entry."""
        self._transaction.put(key, value, db=self._databases[database])

    def change(self, database: bytes, key: bytes, value: bytes | None) -> None:
        """Set an entry, or remove it if `value` is None."""
        if value is None:
            self._transaction.delete(key, db=self._databases[database])
        else:
            self.put(database, key, value)

    def empty(self, database: bytes) -> None:
        """Remove all entries of a database."""
        self._transaction.drop(self._databases[database], delete=False)


class Mapped:
    """An open LMDB file. One thread writes; any may read."""

    def __init__(self, path: Path, names: Sequence[bytes], *, read_only: bool = False, make: bool = False) -> None:
        """Open the file with the databases `names`, or `make` it, unseen by others; raises lmdb.Error."""
        size = 0 if make else path.stat().st_size
        self._environment = lmdb.open(
            str(path),
            subdir=False,
            map_size=max(MAP_BYTES, 2 * size),
            max_dbs=len(names),
            readonly=read_only,
            lock=not (read_only or make),
            mode=0o600,
        )
        self._moving = threading.Lock()
        """Held where a transaction begins or the map is replaced."""
        self._settled = threading.Event()
        """Cleared while a write is undone and the map grows."""
        self._settled.set()
        self._readings = WeakSet[Reading]()
        try:
            self.databases = {name: self._environment.open_db(name, create=make) for name in names}
        except lmdb.Error:
            self._environment.close()
            raise

    @property
    def bytes(self) -> int:
        """Size of the map."""
        return self._environment.info()["map_size"]

    def read(self) -> Reading:
        """Begin to read the newest state."""
        self.pause()
        with self._moving:
            reading = Reading(self, self._begin())
            self._readings.add(reading)
            return reading

    def pause(self) -> None:
        """Wait while the map grows."""
        if not self._settled.is_set():
            self._settled.wait()

    def renew(self, reading: Reading) -> None:
        """Have a reading go on with the newest state."""
        self.pause()
        with self._moving:
            reading.replace(self._begin())

    def write(self, work: Callable[[Writing], None]) -> None:
        """Do `work` in one durable transaction; again, if the map had to grow for it. Raises lmdb.Error."""
        while True:
            try:
                self._write(work)
                return
            except lmdb.MapFullError:
                self._settled.clear()
                self._grow()
            finally:
                self._settled.set()

    def begin_again(self, reading: Reading) -> None:
        """Go on reading the same state after the map has grown; raises MovedError where that is not the newest."""
        with self._moving:
            if not (reading.closed or reading.lives):
                self._begin_again(reading)

    def end(self, reading: Reading) -> None:
        """End a reading."""
        with self._moving:
            self._readings.discard(reading)
            reading.abort()

    def close(self) -> None:
        """Close the file, and end all transactions."""
        self._environment.close()

    def _write(self, work: Callable[[Writing], None]) -> None:
        with self._environment.begin(write=True) as transaction:
            try:
                work(Writing(self.databases, transaction))
            except lmdb.MapFullError:
                self._settled.clear()
                raise

    def _begin(self) -> _Transaction:
        """Begin a read transaction, with a larger map if another process has made it larger."""
        try:
            return self._environment.begin()
        except lmdb.MapResizedError:
            self._resize(0)
            return self._environment.begin()

    def _grow(self) -> None:
        with self._moving:
            size = 2 * self.bytes
            self._resize(size)
        log.info("store's map has grown", extra={"fields": {"map_bytes": size}})

    def _resize(self, size: int) -> None:
        """Replace the map, and begin all readings again whose state is the newest; the others raise MovedError."""
        self._environment.set_mapsize(size)
        for reading in list(self._readings):
            try:
                self._begin_again(reading)
            except MovedError:
                continue

    def _begin_again(self, reading: Reading) -> None:
        transaction = self._environment.begin()
        if transaction.id() != reading.state:
            transaction.abort()
            raise MovedError("the store's map grew while an older state was read; ask again")
        reading.replace(transaction)


def copy(path: Path, target: Path) -> None:
    """Copy an LMDB file, which another process may be writing, to a new file: one state of it, whole and durable.

    Raises OSError, and lmdb.Error.
    """
    environment = lmdb.open(str(path), subdir=False, readonly=True, max_dbs=0)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        _copy(environment, descriptor)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
        environment.close()


def _copy(environment: lmdb.Environment, descriptor: int) -> None:
    """Copy an environment to an empty file; once more if the map has grown between opening and reading it."""
    try:
        environment.copyfd(descriptor, compact=True)
    except lmdb.MapResizedError:
        environment.set_mapsize(0)
        environment.copyfd(descriptor, compact=True)
