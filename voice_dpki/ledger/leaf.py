"""The parts of a kind of leaf.

Each kind has its `Leaf` in the module that writes it. `voice_dpki.ledger.state.LEAVES` lists all of them. The HTTP
interface, the edge, ABCI's queries and the commands look leaves up by that list.

docs/spec/encodings.md#leaves specifies it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from voice_dpki.errors import MalformedError
from voice_dpki.names import Tn
from voice_dpki.x509.other_names import MAX_NAME_LENGTH

_V = TypeVar("_V", covariant=True)

_NUMBER = re.compile("[0-9]{1,15}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Argument:
    """The value by which one leaf of a kind is looked up, in its forms in URLs and ABCI queries."""

    name: str
    """Its name in URLs and answers."""
    of_text: Callable[[str], Any]
    """Reads it as it stands in a URL; raises MalformedError."""
    of_bytes: Callable[[bytes], Any]
    """Reads it as it stands in the data of an ABCI query; raises MalformedError."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """Where the leaves of a kind are looked up: at `/ledger/v1/PATH/ARGUMENT`, and at ABCI's path `/PATH`."""

    path: str
    argument: Argument


@dataclass(frozen=True, slots=True)
class Leaf(Generic[_V]):
    """One kind of leaf."""

    kind: str
    """The first item of the value, which no other kind has."""
    key: Callable[..., bytes]
    """Returns the key of 32 bytes; takes the argument if there is a lookup."""
    parse: Callable[[bytes], _V]
    """Parses the value; raises MalformedError, or LocalError where only damage to the state can be the reason."""
    lookup: Lookup | None = None
    """None for leaves that can be looked up only by their keys."""


def named(name: str, what: str) -> Argument:
    """Return an argument that is a name, which errors call `what`."""

    def of_text(text: str) -> str:
        if len(text) > MAX_NAME_LENGTH:
            raise MalformedError(f"{what} has at most {MAX_NAME_LENGTH} characters")
        return text

    return Argument(name, of_text, _utf8)


def hashed(name: str, what: str) -> Argument:
    """Return an argument that is a SHA-256 hash, in hexadecimal in a URL; errors call it `what`."""

    def of_text(text: str) -> bytes:
        try:
            found = bytes.fromhex(text)
        except ValueError:
            found = b""
        if len(found) != 32 or len(text) != 64:
            raise MalformedError(f"{what} is 64 hexadecimal digits")
        return found

    def of_bytes(data: bytes) -> bytes:
        if len(data) != 32:
            raise MalformedError(f"{what} has 32 bytes")
        return data

    return Argument(name, of_text, of_bytes)


def number_of(value: object) -> Tn:
    """Read a telephone number of 1 to 15 digits; raises MalformedError."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return Tn(value)
    raise MalformedError("a telephone number has 1 to 15 digits")


def numbered(name: str) -> Argument:
    """Return an argument that is a telephone number, in a URL with or without + before it."""
    return Argument(name, lambda text: number_of(text.removeprefix("+")), lambda data: number_of(_utf8(data)))


def _utf8(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedError("a name is UTF-8") from None
