"""The pins of one telephone on its disk: the key of each party that it called (trust on first use).

The pins are in a small SQLite file that only its owner may read, since it tells whom the telephone has called. No
connection to it stays open between calls, so another program can change it meanwhile (`sip-testbed pins`).
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Final

from voice_dpki.errors import LocalError
from voice_dpki.names import CertDigest, Tn
from voice_dpki.shell.files import write_new

MAX_PINS: Final = 10_000
"""Most parties in one file, about 3 MB; every call to a further party counts as the first one."""

BUSY_S: Final = 2.0
"""Timeout for another program that is writing the file."""

_APPLICATION: Final = 0x76647069  # "vdpi", so that no other program's database is taken for pins
_VERSION: Final = 1
_TABLE: Final = (
    "CREATE TABLE pins (number TEXT PRIMARY KEY, uri TEXT NOT NULL, digest BLOB NOT NULL, key_id BLOB NOT NULL, "
    "organization TEXT NOT NULL, since_s INTEGER NOT NULL) WITHOUT ROWID"
)
_HASH_BYTES: Final = 32
_OTHERS: Final = 0o077


@dataclass(frozen=True, slots=True)
class Pin:
    """A party's certificate in the call that last changed its pin. Members are in the order of the columns."""

    number: Tn
    """The party: telephones are identified by their number, at whatever domain it was dialled."""
    uri: str
    digest: CertDigest
    """H(CERT)."""
    key_id: bytes
    """SHA-256 of its SubjectPublicKeyInfo."""
    organization: str
    """The organisation that recorded it."""
    since_s: int
    """When the key was first believed, in seconds since the Unix epoch."""

    def __post_init__(self) -> None:
        texts = (self.number, self.uri, self.organization)
        hashes = (self.digest, self.key_id)
        if not all(isinstance(text, str) for text in texts) or type(self.since_s) is not int:
            raise LocalError("a pin is damaged")
        if not all(isinstance(each, bytes) and len(each) == _HASH_BYTES for each in hashes):
            raise LocalError("a pin is damaged")


class PinsFullError(LocalError):
    """The file holds MAX_PINS parties already, so another one was not pinned."""


class PinMovedError(LocalError):
    """The party was pinned with another key meanwhile, by another call or another program, so that one stays."""


class PinStore:
    """The pins in one file. Every method raises LocalError, which names the file, if it cannot be used."""

    def __init__(self, path: Path) -> None:
        """Open the file at `path`, or make it; a damaged one is refused, since no pins would mean no protection."""
        self._path = path
        if not path.exists():
            write_new(path, b"")
        if path.stat().st_mode & _OTHERS:
            raise LocalError(f"{path}: others may read or write it, and it tells whom you called: chmod 600 it")
        with self._database() as database:
            self._prepare(database)

    def find(self, number: Tn) -> Pin | None:
        """Return the pin of a party, None if it has none."""
        with self._database() as database:
            row = database.execute("SELECT * FROM pins WHERE number = ?", (number,)).fetchone()
        return None if row is None else self._pin(row)

    def all(self) -> list[Pin]:
        """Return all pins by number."""
        with self._database() as database:
            rows = database.execute("SELECT * FROM pins ORDER BY number LIMIT ?", (MAX_PINS,)).fetchall()
        return [self._pin(row) for row in rows]

    def keep(self, pin: Pin, before: Pin | None = None) -> None:
        """Write the pin of a party that has none, or has one with the same key or with that of `before`.

        Raises PinMovedError if its pin has another key, and PinsFullError if the file is full.
        """
        with self._database() as database:
            database.execute("BEGIN IMMEDIATE")
            held = database.execute("SELECT key_id FROM pins WHERE number = ?", (pin.number,)).fetchone()
            if held is not None and held[0] not in (pin.key_id, before and before.key_id):
                database.execute("ROLLBACK")
                raise PinMovedError(f"{self._path}: the party was pinned with another key meanwhile")
            database.execute("DELETE FROM pins WHERE number = ?", (pin.number,))
            if database.execute("SELECT count(*) FROM pins").fetchone()[0] >= MAX_PINS:
                database.execute("ROLLBACK")
                raise PinsFullError(f"{self._path}: holds {MAX_PINS} pins, and takes no more")
            database.execute("INSERT INTO pins VALUES (?, ?, ?, ?, ?, ?)", astuple(pin))
            database.execute("COMMIT")

    def forget(self, number: Tn) -> bool:
        """Remove the pin of a party, whose next key is then believed on first use; return whether there was one."""
        with self._database() as database:
            return database.execute("DELETE FROM pins WHERE number = ?", (number,)).rowcount == 1

    def _pin(self, row: tuple[object, ...]) -> Pin:
        try:
            return Pin(*row)  # type: ignore[arg-type]  # checked by the class
        except LocalError as error:
            raise LocalError(f"{self._path}: {error}") from None

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None)) as database:
                yield database
        except sqlite3.Error as error:
            raise LocalError(
                f"{self._path}: the pins cannot be used: {error}. Move the file away to begin with none"
            ) from None

    def _prepare(self, database: sqlite3.Connection) -> None:
        """Make the table in a new file, and check that an old one is ours and whole; raises LocalError."""
        found = tuple(
            database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        if found == (0, 0) and not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            database.executescript(
                f"BEGIN IMMEDIATE; {_TABLE}; PRAGMA application_id = {_APPLICATION}; "
                f"PRAGMA user_version = {_VERSION}; COMMIT;"
            )
        elif found != (_APPLICATION, _VERSION):
            raise LocalError(f"{self._path}: this file holds no pins that this release can read")
        elif database.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise LocalError(f"{self._path}: the pins are damaged. Move the file away to begin with none")
