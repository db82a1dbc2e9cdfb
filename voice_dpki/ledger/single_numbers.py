"""Numbers that a member holds one by one, such as those that were ported to it (from version 4 of the rules on).

A change of a member names one as a range with the count 1. The record holds them as further items, which a reader
must understand, because records of earlier versions have no ranges of one number:

    "!numbers-1" => [1*60 number], "!numbers-2" => [1*60 number], ...           -- all full but the last

docs/spec/encodings.md#members specifies it.
"""

from collections.abc import Iterable, Sequence

from voice_dpki.codec import cbor
from voice_dpki.errors import MalformedError
from voice_dpki.ledger.further import Further
from voice_dpki.names import Tn
from voice_dpki.x509.tnauthlist import TnRange

MAX_SINGLES = 240
"""Most numbers that a member holds one by one: its record goes with every answer about its certificates."""

_CHUNK = 60
"""Numbers in one item: with 15 digits each they have 962 of the 1024 bytes that an item may have."""

NAMES = tuple(f"!numbers-{number}" for number in range(1, MAX_SINGLES // _CHUNK + 1))
"""The names of the items."""


def in_order(entries: Iterable[TnRange]) -> tuple[TnRange, ...]:
    """Return the ranges, then the single numbers, each in the given order: a record keeps them apart."""
    return tuple(sorted(entries, key=lambda entry: entry.count == 1))


def singles_of(entries: Iterable[TnRange]) -> tuple[Tn, ...]:
    """Return the single numbers among ranges."""
    return tuple(entry.start for entry in entries if entry.count == 1)


def items_of(singles: Sequence[Tn]) -> Further:
    """Return the further items of single numbers."""
    chunks = [singles[at : at + _CHUNK] for at in range(0, len(singles), _CHUNK)]
    return tuple((name, cbor.encode(chunk)) for name, chunk in zip(NAMES, chunks, strict=False))


def read_items(further: Further) -> tuple[TnRange, ...]:
    """Return the single numbers in further items; raises MalformedError for items that `items_of` does not make."""
    found = tuple(item for item in further if item[0] in NAMES)
    singles: list[Tn] = []
    for _, value in found:
        listed = cbor.decode(value, "single numbers")
        if not isinstance(listed, list):
            raise MalformedError("member: single numbers are not a list")
        singles += [Tn(number) for number in listed if isinstance(number, str)]
    if items_of(singles) != found:
        raise MalformedError("member: single numbers are not in the one form that they have")
    return tuple(TnRange(number, 1) for number in singles)
