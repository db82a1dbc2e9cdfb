"""A vendor's list of devices: a CSV file, as spreadsheets write it.

It may begin with a byte order mark, and its columns may be separated by commas, semicolons or tabs. One error
reports all wrong lines.
"""

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from voice_dpki.errors import LocalError
from voice_dpki.names import ascii_lower

MAX_DEVICES = 1_000_000
MAX_DAYS = 14_600

KEY_KINDS = ("ec", "rsa")

TOLD = 50
"""Most wrong lines that the error names; it counts the others."""

_COLUMNS = frozenset({"identity", "common_name", "key", "days"})
_NAME = re.compile(r"(?=.{1,253}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_SEPARATORS = ",;\t"


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """One device of the CSV file."""

    identity: str
    common_name: str
    key: str
    days: int


def read_rows(path: Path, days: int) -> list[DeviceRow]:
    """Read the CSV file; `days` is the default validity. Raises LocalError that names all wrong lines."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter=_separator(head))
            columns = {name.strip() for name in reader.fieldnames or ()}
            if "identity" not in columns or not columns <= _COLUMNS:
                raise LocalError(f"{path}: the first line must name identity, and else only {sorted(_COLUMNS)}")
            reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
            return _rows(((reader.line_num, line) for line in reader), days, path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LocalError(f"{path}: cannot be read as CSV: {error}") from None


def _separator(head: str) -> str:
    """Return the column separator: the candidate most frequent in the first line, a comma if there is none."""
    return max(_SEPARATORS, key=head.count)


def _rows(lines: Iterable[tuple[int, Mapping[str, str | None]]], days: int, path: Path) -> list[DeviceRow]:
    rows: dict[str, DeviceRow] = {}
    at: dict[str, int] = {}
    wrong: list[str] = []
    for number, line in lines:
        if len(rows) >= MAX_DEVICES:
            raise LocalError(f"{path}, line {number}: more than {MAX_DEVICES} devices")
        try:
            row = _row(line, days)
        except ValueError as error:
            wrong.append(f"line {number}: {error}")
            continue
        if row.identity in rows:
            wrong.append(f"line {number}: {row.identity} is a device twice, first in line {at[row.identity]}")
        rows.setdefault(row.identity, row)
        at.setdefault(row.identity, number)
    if wrong:
        raise LocalError(_told(path, wrong))
    return list(rows.values())


def _told(path: Path, wrong: list[str]) -> str:
    more = [f"and {len(wrong) - TOLD} more"] if len(wrong) > TOLD else []
    return f"{path}: nothing was done, for {len(wrong)} lines are wrong: " + "; ".join((*wrong[:TOLD], *more))


def _row(line: Mapping[str, str | None], days: int) -> DeviceRow:
    """Read a line; raises ValueError with all that is wrong with it."""
    given = {name: (value or "").strip() for name, value in line.items() if name in _COLUMNS}
    identity = ascii_lower(given["identity"])
    key = given.get("key") or "ec"
    lifetime = given.get("days") or str(days)
    is_number = lifetime.isascii() and lifetime.isdigit() and len(lifetime) <= 9
    valid_days = is_number and 1 <= int(lifetime) <= MAX_DAYS
    faults = [
        *(["there are more columns than the first line names"] if None in line else []),
        *([] if _NAME.match(identity) else ["the identity is not a DNS name"]),
        *([] if key in KEY_KINDS else ["the key is ec or rsa"]),
        *([] if valid_days else [f"days is a number from 1 to {MAX_DAYS}"]),
    ]
    if faults:
        raise ValueError(", ".join(faults))
    return DeviceRow(identity, given.get("common_name") or identity[:64], key, int(lifetime))
