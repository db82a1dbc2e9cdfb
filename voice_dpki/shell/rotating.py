"""Rotating files of lines: a full file is renamed, the oldest is deleted, and a full disk blocks nothing.

    verdicts.jsonl      written now
    verdicts.jsonl.1    the one before
    verdicts.jsonl.2    ...

A line is written whole or not at all. One that cannot be written is lost; log, `/healthz` and a metric say so.
"""

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from voice_dpki.errors import LocalError
from voice_dpki.metrics import counter
from voice_dpki.shortfalls import SHORTFALLS
from voice_dpki.wire.seldom import Seldom

log = logging.getLogger(__name__)

LOST = counter("export_lines_lost", "Lines of exports that could not be written.")


class RotatingFile:
    """A file of at most `max_bytes`, and `keep` older ones; each file begins with `head`."""

    def __init__(self, path: Path, max_bytes: int, keep: int, head: bytes = b"") -> None:
        """Open the file to append to it; raises LocalError."""
        self._path, self._max_bytes, self._keep, self._head = path, max_bytes, keep, head
        self._said = Seldom(log)
        self._loses = False
        self._file: BinaryIO | None = None
        try:
            self._open()
        except OSError as error:
            raise LocalError(f"{path}: cannot be written: {error.strerror}") from None
        SHORTFALLS.watch(self)

    def append(self, line: bytes) -> None:
        """Write a line, which ends in a line feed; count and say it if that fails."""
        try:
            self._append(line)
        except OSError as error:
            LOST.inc()
            self._loses = True
            self._said.warning("export line lost", file=str(self._path), reason=error.strerror or str(error))
        else:
            self._loses = False

    def shortfall(self) -> str:
        """Return a warning if the last line could not be written; otherwise an empty string."""
        return "an export cannot be written, and its lines are lost" if self._loses else ""

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _append(self, line: bytes) -> None:
        file = self._file or self._open()
        size = os.fstat(file.fileno()).st_size
        if size > len(self._head) and size + len(line) > self._max_bytes:
            self._rotate()
            file, size = self._open(), 0
        _write_whole(file, line if size or not self._head else self._head + line)

    def _open(self) -> BinaryIO:
        # Unbuffered, so that a line is one write, and others read it at once.
        self._file = self._path.open("ab", buffering=0)
        return self._file

    def _rotate(self) -> None:
        """Rename the files, each to the next number; the oldest is replaced."""
        self.close()
        names = [self._path, *(self._path.with_name(f"{self._path.name}.{at}") for at in range(1, self._keep + 1))]
        for old, new in zip(names[-2::-1], names[:0:-1], strict=True):
            with suppress(FileNotFoundError):
                old.replace(new)
        if not self._keep:
            self._path.unlink(missing_ok=True)


def _write_whole(file: BinaryIO, data: bytes) -> None:
    """Write all of `data` or nothing, because a partial line would corrupt the next one; raises OSError."""
    written = file.write(data) or 0
    if written != len(data):
        os.ftruncate(file.fileno(), os.fstat(file.fileno()).st_size - written)
        raise OSError("no room for a whole line")
