"""What commands about a ledger print: lines and tables for people, whole in a pipe, or one JSON object.

docs/ledger-command.md documents the JSON.
"""

import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum

from rich.console import Console

from voice_dpki.codec import cbor

PIPE_COLUMNS = 1_000_000
"""Width where no terminal reads: wider than any table, so that nothing is cut or wrapped."""


def make_console() -> Console:
    """Return a console for standard output. What the ledger says is never taken for markup."""
    width = None if sys.stdout.isatty() else PIPE_COLUMNS
    return Console(highlight=False, markup=False, emoji=False, width=width)


def plain(value: object) -> object:
    """Return a value of the ledger as JSON can hold it: records as objects, bytes in hexadecimal, enums by name."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: _field(each.name, getattr(value, each.name)) for each in fields(value)}
    match value:
        case bytes():
            return value.hex()
        case Enum():
            return str(value.value) if isinstance(value, str) else value.name.lower()
        case Mapping():
            return {str(name): plain(item) for name, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
    return value


def _field(name: str, value: object) -> object:
    if name == "further" and isinstance(value, tuple):
        return {item: plain(cbor.decode(data, item)) for item, data in value}
    return plain(value)
