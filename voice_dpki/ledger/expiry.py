"""Removing expired certificates from the live state (storage optimisation of ITU-T X.1409), a few in each block.

A certificate is queued under the day on which it expires. Its record, its list entries and its bytes are removed
from the state `retention_s` (a parameter) after the end of that day. Until then, its record proves that it was
recorded and whether it was revoked. Afterwards its absence can be proved, and its history is in the blocks.

    SHA-256("voice-dpki/expiry/v1" ‖ 00 ‖ day, 8 bytes)                      -> ["expiry", chunks, [* H(CERT)]]
    SHA-256("voice-dpki/expiry/v1" ‖ 00 ‖ day, 8 bytes ‖ number, 8 bytes)    -> ["expiry", 0, [* H(CERT)]]
    SHA-256("voice-dpki/pruned/v1" ‖ 00)                                     -> ["pruned", first day not yet pruned]

A day's list spills into numbered chunks, so that adding to a long one stays cheap. Days count from the Unix epoch.

docs/spec/encodings.md#leaves specifies it.
"""

import hashlib
from collections.abc import Iterable

from voice_dpki.codec import cbor
from voice_dpki.errors import LocalError
from voice_dpki.ledger import names, owners, quotas
from voice_dpki.ledger.admission import read_admitted
from voice_dpki.ledger.draft import Draft
from voice_dpki.ledger.leaf import Leaf
from voice_dpki.ledger.parameters import DAY_S, parameters_of
from voice_dpki.ledger.view import StateView
from voice_dpki.names import CertDigest

MAX_PRUNED = 200
"""Certificates that one block removes: about 50 ms of work, and 17 million a day at a block a second."""

MAX_DAYS = 64
"""Most days that one block moves the cursor past; a day is passed when it has no certificates left."""

CHUNK = 64
"""Certificates in a full chunk."""

_DOMAIN = b"voice-dpki/expiry/v1\0"
_CURSOR_KEY = hashlib.sha256(b"voice-dpki/pruned/v1\0").digest()
_DAMAGED = "the ledger's state is damaged: it does not say what is pruned"


def begin(draft: Draft, time_s: int) -> None:
    """Start pruning at the day of `time_s`; no certificate that expired earlier can be recorded."""
    draft.put(_CURSOR_KEY, ["pruned", time_s // DAY_S])


def pruned_before(view: StateView) -> int:
    """Return the time, in Unix seconds, before which every expired certificate is gone from the state.

    Raises LocalError if the state lacks the cursor, which every state has from its genesis on.
    """
    data = view.leaf(_CURSOR_KEY)
    if data is None:
        raise LocalError(_DAMAGED)
    return parse_pruned(data) * DAY_S


def parse_pruned(data: bytes) -> int:
    """Parse the value of the leaf to the first day that is not pruned; raises LocalError."""
    match cbor.decode(data, "pruned"):
        case ["pruned", int(day)]:
            return day
    raise LocalError(_DAMAGED)


def enqueue(draft: Draft, expiring: Iterable[tuple[CertDigest, int]]) -> None:
    """Queue certificates, each given with its expiry time in Unix seconds, under the days on which they expire."""
    days: dict[int, list[CertDigest]] = {}
    for digest, not_after_s in expiring:
        days.setdefault(not_after_s // DAY_S, []).append(digest)
    for day, digests in days.items():
        chunks, listed = _read(draft, _key(day))
        listed += digests
        while len(listed) > CHUNK:
            draft.put(_key(day, chunks), ["expiry", 0, listed[:CHUNK]])
            chunks, listed = chunks + 1, listed[CHUNK:]
        draft.put(_key(day), ["expiry", chunks, listed])


def prune(draft: Draft, time_s: int) -> None:
    """Remove the certificates that are due at `time_s`, within the limits of one block."""
    first = day = pruned_before(draft) // DAY_S
    last = min((time_s - parameters_of(draft).retention_s) // DAY_S, first + MAX_DAYS)
    left = MAX_PRUNED
    while day < last and left:
        taken = _take(draft, day, left)
        if not taken:
            day += 1
        for digest in taken:
            _remove(draft, digest)
        left -= len(taken)
    if day != first:
        draft.put(_CURSOR_KEY, ["pruned", day])


def _take(draft: Draft, day: int, most: int) -> list[CertDigest]:
    """Take up to `most` certificates off a day's list; return an empty list only if none are left."""
    chunks, listed = _read(draft, _key(day))
    if not listed and chunks:
        chunks -= 1
        listed = _read(draft, _key(day, chunks))[1]
        draft.put(_key(day, chunks), None)
    rest, taken = listed[:-most], listed[-most:]
    draft.put(_key(day), ["expiry", chunks, rest] if rest or chunks else None)
    return taken


def _remove(draft: Draft, digest: CertDigest) -> None:
    record, der = draft.record(digest), draft.certificate(digest)
    if record is None or der is None:
        raise LocalError("the ledger's state is damaged: a queued certificate is missing")
    owners.release(draft, record.key_id, digest)
    names.strike(draft, read_admitted(der), record.organization)
    quotas.leave(draft, record.organization)
    draft.put(digest, None)
    draft.certificates[digest] = None


def _key(day: int, chunk: int | None = None) -> bytes:
    number = b"" if chunk is None else chunk.to_bytes(8, "big")
    return hashlib.sha256(_DOMAIN + day.to_bytes(8, "big") + number).digest()


def _read(draft: Draft, key: bytes) -> tuple[int, list[CertDigest]]:
    data = draft.leaf(key)
    return (0, []) if data is None else parse_expiring(data)


def parse_expiring(data: bytes) -> tuple[int, list[CertDigest]]:
    """Parse the value of a day's leaf, or of a chunk's: number of chunks, and digests. Raises LocalError."""
    match cbor.decode(data, "expiry leaf"):
        case ["expiry", int(chunks), list(listed)]:
            return chunks, [CertDigest(digest) for digest in listed if isinstance(digest, bytes)]
    raise LocalError("the ledger's state is damaged: an expiry leaf is not one")


EXPIRY_LEAF = Leaf(kind="expiry", key=_key, parse=parse_expiring)
PRUNED_LEAF = Leaf(kind="pruned", key=lambda: _CURSOR_KEY, parse=parse_pruned)
