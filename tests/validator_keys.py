"""Validators' keys for tests that name them by number: the same in each run, and keys that somebody could hold."""

from functools import cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


@cache
def validator_key(number: int) -> bytes:
    """Return the Ed25519 public key of validator `number`."""
    return Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big")).public_key().public_bytes_raw()
