"""Owners of keys: no key may be used by two organisations.

    SHA-256("voice-dpki/key/v1" ‖ 00 ‖ SHA-256 of the SPKI) -> ["key", organization, uses]

`uses` counts the recorded certificates with the key, and one more if it is a member's endorsing key. The leaf is
removed with the last use.

docs/spec/encodings.md#leaves specifies it.
"""

import hashlib

from voice_dpki.codec import cbor
from voice_dpki.errors import LocalError
from voice_dpki.ledger.draft import Draft
from voice_dpki.ledger.leaf import Leaf
from voice_dpki.ledger.refusals import Refusal, Refused
from voice_dpki.ledger.view import StateView

_DOMAIN = b"voice-dpki/key/v1\0"


def owner_of(view: StateView, key_id: bytes) -> str | None:
    """Return the organisation that uses a key, in certificates or as an endorsing key; None if it is not in use."""
    return _read(view, key_id)[0]


def claim(draft: Draft, key_id: bytes, organization: str) -> None:
    """Count one more use of a key by an organisation; raises Refused if another organisation uses it."""
    owner, uses = _read(draft, key_id)
    if owner not in (None, organization):
        raise Refused(Refusal.KEY_IN_USE)
    draft.put(_leaf_key(key_id), ["key", organization, uses + 1])


def release(draft: Draft, key_id: bytes) -> None:
    """Count one use of a key less."""
    owner, uses = _read(draft, key_id)
    draft.put(_leaf_key(key_id), ["key", owner, uses - 1] if uses > 1 else None)


def parse_owner(data: bytes) -> tuple[str, int]:
    """Parse the value of a key's leaf to the organisation and its uses; raises LocalError."""
    match cbor.decode(data, "key leaf"):
        case ["key", str(organization), int(uses)]:
            return organization, uses
    raise LocalError("the ledger's state is damaged: the leaf of a key is not one")


def _leaf_key(key_id: bytes) -> bytes:
    return hashlib.sha256(_DOMAIN + key_id).digest()


def _read(view: StateView, key_id: bytes) -> tuple[str | None, int]:
    data = view.leaf(_leaf_key(key_id))
    return (None, 0) if data is None else parse_owner(data)


KEY_LEAF = Leaf(kind="key", key=_leaf_key, parse=parse_owner)
