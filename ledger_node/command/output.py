"""Values of the ledger, as commands print them in JSON; docs/ledger-command.md documents it."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum

from voice_dpki.codec import cbor


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
