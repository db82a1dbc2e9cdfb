"""Verifying the signatures on transactions, each only once."""

from functools import lru_cache

from voice_dpki.ledger.refusals import Refusal, Refused
from voice_dpki.x509.keys import KeyKindError, SignatureError, verify_signature

_CACHED_VERDICTS = 8192
"""Signatures whose verification is remembered between the check of a transaction and its block: a mempool's worth,
for with fewer, the first of those that wait are forgotten before their block comes, and all are verified twice."""

_ES256_BYTES = 64


@lru_cache(_CACHED_VERDICTS)
def verify(key: bytes, signed: bytes, signature: bytes) -> None:
    """Verify an ES256 or PS256 signature under a SubjectPublicKeyInfo; raises Refused."""
    algorithm = "ES256" if len(signature) == _ES256_BYTES else "PS256"  # RSA signatures begin at 256 bytes
    try:
        verify_signature(key, algorithm, signed, signature)
    except (SignatureError, KeyKindError):
        raise Refused(Refusal.SIGNATURE) from None
