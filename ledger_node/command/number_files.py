"""Files that list telephone numbers, as operators exchange them: CSV, with the number in the first column."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.ledger.leaf import number_of
from voice_dpki.names import Tn

MAX_FILE_BYTES = 256 * 1024 * 1024
MAX_NUMBERS = 5_000_000

_DIGIT = re.compile("[0-9]")


def read_numbers(path: Path) -> list[Tn]:
    """Return the numbers in a file, in ascending order, each once.

    The first column holds them, in E.164 with or without +. Other columns are ignored, and so is a first line that
    has no digit in its first column. Raises LocalError that names the line, but no subscriber's number.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise LocalError(f"{path} has more than {MAX_FILE_BYTES} bytes")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LocalError(f"{path} cannot be read: {error}") from None
    try:
        return sorted(_numbers(path, csv.reader(io.StringIO(text, newline=""))))
    except csv.Error as error:
        raise LocalError(f"{path} is no CSV file: {error}") from None


def _numbers(path: Path, rows: Iterable[Sequence[str]]) -> set[Tn]:
    found: set[Tn] = set()
    for line, row in enumerate(rows, 1):
        first = row[0].strip() if row else ""
        if not first or (line == 1 and not _DIGIT.search(first)):
            continue
        try:
            found.add(number_of(first.removeprefix("+")))
        except MalformedError:
            raise LocalError(f"{path}, line {line}: the first column is no number of 1 to 15 digits") from None
        if len(found) > MAX_NUMBERS:
            raise LocalError(f"{path} has more than {MAX_NUMBERS} numbers")
    return found
