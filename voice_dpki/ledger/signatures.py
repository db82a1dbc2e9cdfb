"""Signatures on transactions: what they sign, how keys are named, and their verification, which is cached.

docs/spec/encodings.md#transactions specifies it.
"""

import hashlib
from functools import lru_cache

from voice_dpki.ledger.refusals import Refusal, Refused
from voice_dpki.x509.keys import KeyKindError, SignatureError, verify_signature

SIGNATURE_DOMAIN = b"voice-dpki/tx/v1\0"
"""Separates these signatures from everything else that an endorsing key may sign."""

_CACHED_VERDICTS = 8192
"""Signatures whose verification is cached from the check of a transaction to its block: as many as a mempool holds.

With a smaller cache, the oldest entries of a full backlog would be evicted before their block, and every signature
verified twice.
"""

_ES256_BYTES = 64

_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Order of the group of P-256 (SEC 2, §2.4.2)."""


def key_id_of(public_key_der: bytes) -> bytes:
    """Return a key's identifier: the SHA-256 of its DER SubjectPublicKeyInfo."""
    return hashlib.sha256(public_key_der).digest()


def signed_bytes(body_bytes: bytes) -> bytes:
    """Return the bytes that an endorsement of a body signs."""
    return SIGNATURE_DOMAIN + body_bytes


def is_canonical(signature: bytes) -> bool:
    """Return whether a signature has its canonical form; anybody can turn an ECDSA (r, s) into (r, n - s)."""
    return len(signature) != _ES256_BYTES or 2 * _s(signature) <= _P256_ORDER


def canonical_signature(signature: bytes) -> bytes:
    """Return the canonical form of a signature; no key is needed."""
    if is_canonical(signature) or _s(signature) >= _P256_ORDER:
        return signature
    return signature[:32] + (_P256_ORDER - _s(signature)).to_bytes(32, "big")


def _s(signature: bytes) -> int:
    return int.from_bytes(signature[32:], "big")


@lru_cache(_CACHED_VERDICTS)
def verify(key: bytes, signed: bytes, signature: bytes) -> None:
    """Verify an ES256 or PS256 signature under a SubjectPublicKeyInfo; raises Refused."""
    algorithm = "ES256" if len(signature) == _ES256_BYTES else "PS256"  # RSA signatures begin at 256 bytes
    try:
        verify_signature(key, algorithm, signed, signature)
    except (SignatureError, KeyKindError):
        raise Refused(Refusal.SIGNATURE) from None
