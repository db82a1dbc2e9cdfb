"""Owners of keys: two organisations cannot use the same key, and nobody can use a compromised one.

    SHA-256("voice-dpki/key/v1" ‖ 00 ‖ SHA-256 of the SPKI) -> ["key", organization, uses]
                                                             / ["key", organization, uses, [* H(CERT)], compromised]

`uses` counts the recorded certificates with the key, and one more if it is a member's endorsing key. From version 4
of the rules on, a leaf that is written also lists the certificates that were recorded with the key since then. It
is removed with the last use, unless the key was revoked as compromised: then it stays for ever.

docs/spec/encodings.md#leaves specifies it.
"""

import hashlib
from bisect import insort
from dataclasses import dataclass, replace

from voice_dpki.codec import cbor
from voice_dpki.errors import LocalError
from voice_dpki.ledger.draft import Draft
from voice_dpki.ledger.leaf import Leaf
from voice_dpki.ledger.refusals import Refusal, Refused
from voice_dpki.ledger.view import StateView
from voice_dpki.names import CertDigest

MAX_CERTIFICATES = 256
"""Certificates that are recorded with one key at a time: all of them are revoked in one transaction."""

_DOMAIN = b"voice-dpki/key/v1\0"


@dataclass(frozen=True, slots=True)
class KeyUse:
    """The ledger's entry for a key."""

    organization: str | None
    """The organisation that uses it, or used it last; None for a key that the ledger does not know."""
    uses: int
    certificates: tuple[CertDigest, ...] = ()
    """Those that were recorded under version 4 of the rules or a later one, sorted."""
    compromised: bool = False


_UNKNOWN = KeyUse(None, 0)


def owner_of(view: StateView, key_id: bytes) -> str | None:
    """Return the organisation that uses a key, in certificates or as an endorsing key; None if it is not in use."""
    found = _read(view, key_id)
    return found.organization if found.uses else None


def is_compromised(view: StateView, key_id: bytes) -> bool:
    """Return whether the key was revoked as compromised (from version 4 of the rules on)."""
    return _read(view, key_id).compromised


def claim(draft: Draft, key_id: bytes, organization: str, certificate: CertDigest | None = None) -> None:
    """Count one more use of a key by an organisation, in `certificate` or, if None, for endorsing.

    Raises Refused if another organisation uses it, if it is compromised, or if too many certificates have it.
    """
    found = _read(draft, key_id)
    if found.compromised:
        raise Refused(Refusal.COMPROMISED)
    if found.organization not in (None, organization):
        raise Refused(Refusal.KEY_IN_USE)
    listed = list(found.certificates)
    if certificate is not None and draft.rules.bars_keys:
        if len(listed) >= MAX_CERTIFICATES:
            raise Refused(Refusal.KEY_FULL)
        insort(listed, certificate)
    _write(draft, key_id, KeyUse(organization, found.uses + 1, tuple(listed)))


def release(draft: Draft, key_id: bytes, certificate: CertDigest | None = None) -> None:
    """End one use of a key: in `certificate` or, if None, for endorsing."""
    found = _read(draft, key_id)
    left = tuple(digest for digest in found.certificates if digest != certificate)
    _write(draft, key_id, replace(found, uses=found.uses - 1, certificates=left))


def bar(draft: Draft, key_id: bytes) -> tuple[CertDigest, ...]:
    """Bar a key from all new uses; return the certificates that are listed with it."""
    found = _read(draft, key_id)
    _write(draft, key_id, replace(found, compromised=True))
    return found.certificates


def parse_use(data: bytes) -> KeyUse:
    """Parse the value of a key's leaf; raises LocalError."""
    match cbor.decode(data, "key leaf"):
        case ["key", str(organization), int(uses)]:
            return KeyUse(organization, uses)
        case ["key", str(organization), int(uses), list(listed), bool(compromised)]:
            digests = tuple(CertDigest(digest) for digest in listed if isinstance(digest, bytes))
            return KeyUse(organization, uses, digests, compromised)
    raise LocalError("the ledger's state is damaged: the leaf of a key is not one")


def _leaf_key(key_id: bytes) -> bytes:
    return hashlib.sha256(_DOMAIN + key_id).digest()


def _read(view: StateView, key_id: bytes) -> KeyUse:
    data = view.leaf(_leaf_key(key_id))
    return _UNKNOWN if data is None else parse_use(data)


def _write(draft: Draft, key_id: bytes, use: KeyUse) -> None:
    if not use.uses and not use.compromised:
        draft.put(_leaf_key(key_id), None)
    elif draft.rules.bars_keys:
        draft.put(_leaf_key(key_id), ["key", use.organization, use.uses, use.certificates, use.compromised])
    else:
        draft.put(_leaf_key(key_id), ["key", use.organization, use.uses])


KEY_LEAF = Leaf(kind="key", key=_leaf_key, parse=parse_use)
