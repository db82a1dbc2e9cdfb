"""Verification of the signatures on transactions, cached so that each is verified only once."""

from functools import lru_cache

from voice_dpki.ledger.refusals import Refusal, Refused
from voice_dpki.x509.keys import KeyKindError, SignatureError, verify_signature

_CACHED_VERDICTS = 8192
"""Signatures whose verification is cached from the check of a transaction to its block: as many as a mempool holds.

With a smaller cache, the oldest entries of a full backlog would be evicted before their block, and every signature
verified twice.
"""

_ES256_BYTES = 64


@lru_cache(_CACHED_VERDICTS)
def verify(key: bytes, signed: bytes, signature: bytes) -> None:
    """Verify an ES256 or PS256 signature under a SubjectPublicKeyInfo; raises Refused."""
    algorithm = "ES256" if len(signature) == _ES256_BYTES else "PS256"  # RSA signatures begin at 256 bytes
    try:
        verify_signature(key, algorithm, signed, signature)
    except (SignatureError, KeyKindError):
        raise Refused(Refusal.SIGNATURE) from None
