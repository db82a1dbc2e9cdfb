"""Public keys of every kind that operators exchange, in one form: PEM (RFC 7468 §13).

Signers' and endorsing keys are those of `voice_dpki.x509.keys`; validators and nodes have Ed25519 keys (RFC 8410).
"""

from typing import TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from nacl.bindings import crypto_core_ed25519_is_valid_point

from voice_dpki.x509.keys import KeyKindError, PublicKey, algorithm_of

ED25519_KEY_BYTES = 32

AnyPublicKey: TypeAlias = PublicKey | Ed25519PublicKey


def to_public_pem(key: AnyPublicKey) -> bytes:
    """Encode a public key as PEM SubjectPublicKeyInfo."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def read_public_pem(pem: bytes) -> AnyPublicKey:
    """Return the public key that a PEM file holds, or that belongs to the unencrypted private key in it.

    Raises KeyKindError for anything else, and for a key that `check_ed25519` or `algorithm_of` refuses.
    """
    key = _load(pem)
    if isinstance(key, Ed25519PublicKey):
        check_ed25519(key.public_bytes_raw())
        return key
    algorithm_of(key)
    return key  # type: ignore[return-value]  # algorithm_of raised for any other kind


def check_ed25519(public_key: bytes) -> None:
    """Raise KeyKindError unless 32 bytes are an Ed25519 public key that only its holder can sign under.

    That is the encoding of a point of the curve (RFC 8032 §5.1.3), in the main subgroup and not its identity. Under
    a key of small order anybody can make signatures, and under one of mixed order implementations disagree:
    CometBFT accepts what OpenSSL refuses. OpenSSL takes any 32 bytes as a key.
    """
    if len(public_key) != ED25519_KEY_BYTES or not crypto_core_ed25519_is_valid_point(public_key):
        raise KeyKindError("not an Ed25519 public key: it is no point of the curve, or one of small order")


def _load(pem: bytes) -> object:
    try:
        if b"PRIVATE KEY" in pem:
            return load_pem_private_key(pem, password=None).public_key()
        return load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyKindError("not a public or unencrypted private key in PEM form") from None
