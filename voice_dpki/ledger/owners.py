"""Whose a key is: no key may stand for two organisations.

    SHA-256("voice-dpki/key/v1" ‖ 00 ‖ SHA-256 of the SPKI) -> ["key", organization, uses]

`uses` counts the recorded certificates with the key, and the member whose endorsing key it is; with the last one
the leaf goes.
"""

import hashlib

from voice_dpki.codec import cbor
from voice_dpki.errors import LocalError
from voice_dpki.ledger.draft import Draft
from voice_dpki.ledger.refusals import Refusal, Refused
from voice_dpki.ledger.view import StateView

_DOMAIN = b"voice-dpki/key/v1\0"


def owner_of(view: StateView, key_id: bytes) -> str | None:
    """Tell whose a key is: the organisation of the certificates with it, or of the endorsing key that it is."""
    return _read(view, key_id)[0]


def claim(draft: Draft, key_id: bytes, organization: str) -> None:
    """Use a key for an organisation once more; raises Refused where it is another's."""
    owner, uses = _read(draft, key_id)
    if owner not in (None, organization):
        raise Refused(Refusal.KEY_IN_USE)
    draft.put(_leaf_key(key_id), ["key", organization, uses + 1])


def release(draft: Draft, key_id: bytes) -> None:
    """Use a key once less."""
    owner, uses = _read(draft, key_id)
    draft.put(_leaf_key(key_id), ["key", owner, uses - 1] if uses > 1 else None)


def _leaf_key(key_id: bytes) -> bytes:
    return hashlib.sha256(_DOMAIN + key_id).digest()


def _read(view: StateView, key_id: bytes) -> tuple[str | None, int]:
    data = view.leaf(_leaf_key(key_id))
    if data is None:
        return None, 0
    match cbor.decode(data, "key leaf"):
        case ["key", str(organization), int(uses)]:
            return organization, uses
    raise LocalError("the ledger's state is damaged: the leaf of a key is not one")
