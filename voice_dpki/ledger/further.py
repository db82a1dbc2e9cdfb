"""Further items of records, members and proposals, by which later versions of the rules add to their content.

    further = {1*16 name => value}              -- the last item of the list; left out where there are none

A name is a text of 1 to 64 printable ASCII characters, a value any deterministic CBOR of at most 1024 bytes. All of
them together have at most 4096 bytes. The first character says what an unknown name means. One that begins with "!"
must be understood: a reader that does not know it must not judge what it belongs to. Any other is kept and shown,
and has no effect. Version 4 of the rules writes the first ones (`voice_dpki.ledger.single_numbers`, and "cps" of
`voice_dpki.ledger.members`). No transaction and no proposal can bring in others.

docs/spec/encodings.md#further-items specifies it.
"""

import re
from collections.abc import Collection
from typing import TypeAlias

from voice_dpki.codec import cbor
from voice_dpki.codec.cbor import Cbor
from voice_dpki.errors import MalformedError

MAX_ITEMS = 16
MAX_VALUE_BYTES = 1024
MAX_FURTHER_BYTES = 4096
"""All items of one record, encoded: every answer about a certificate carries its record and its member's."""

_NAME = re.compile(r"[!-~]{1,64}", re.ASCII)

Further: TypeAlias = tuple[tuple[str, bytes], ...]
"""Pairs of a name and its encoded value, in the order of the encoding."""


class NeedsNewerError(MalformedError):
    """An item must be understood, and this release does not know it."""


def parse_further(items: list[Cbor], what: str, known: Collection[str] = ()) -> Further:
    """Read the end of a list, after the items that all versions know: nothing, or the map of further items.

    `what` names the list in errors, and the caller understands the items with the names `known`. Raises
    NeedsNewerError, and MalformedError for anything else.
    """
    if not items:
        return ()
    (found, *more) = items
    if more or not isinstance(found, dict) or not 1 <= len(found) <= MAX_ITEMS:
        raise MalformedError(f"{what}: its further items are not a map of 1 to {MAX_ITEMS}")
    further = tuple((name, cbor.encode(value)) for name, value in found.items())
    if any(not _NAME.fullmatch(name) or len(value) > MAX_VALUE_BYTES for name, value in further):
        raise MalformedError(f"{what}: a further item has a name or a value that none may have")
    if len(cbor.encode(found)) > MAX_FURTHER_BYTES:
        raise MalformedError(f"{what}: its further items have more than {MAX_FURTHER_BYTES} bytes")
    needed = [name for name, _ in further if name.startswith("!") and name not in known]
    if needed:
        raise NeedsNewerError(f"this needs a later release of voice-dpki, which knows {needed[0]} of a {what}")
    return further


def further_items(further: Further) -> list[Cbor]:
    """Return the end of the list, ready for encoding: nothing, or the map."""
    return [{name: cbor.decode(value, "further item") for name, value in further}] if further else []
