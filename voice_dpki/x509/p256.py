"""ECDSA on P-256 with SHA-256 ("ES256") by the fastest installed implementation, to sign and verify calls.

With the package `awscrt` (the extra "fast"), that is AWS-LC, which takes about three quarters of OpenSSL's time;
otherwise it is OpenSSL, which `voice_dpki.x509.keys` uses. Ledger nodes do not use this module: all of them must
reach the same result, so all of them have one implementation (docs/adr/0036).
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from voice_dpki.effects import Signer
from voice_dpki.x509.keys import LocalSigner, SignatureError, check_key_is_for, is_elsewhere, verify_signature

try:
    from awscrt.crypto import EC
except ImportError:
    EC = None

HAS_AWS_LC: Final = EC is not None
MAX_KEYS: Final = 4096
"""Public keys that are cached; one takes about a kilobyte."""

_SIZE: Final = 32
"""Octets of a coordinate, and of each half of a signature."""


@dataclass(frozen=True)
class AwsLcSigner:
    """A private key on P-256 in this process; implements effects.Signer. Its repr never shows the key."""

    signer: LocalSigner

    @property
    def algorithm(self) -> str:
        """Return "ES256"."""
        return "ES256"

    @cached_property
    def public_key_der(self) -> bytes:
        """Return the DER SubjectPublicKeyInfo."""
        return self.signer.public_key_der

    def sign(self, data: bytes) -> bytes:
        """Sign `data`: r ‖ s in 64 bytes (RFC 7518 §3.4)."""
        signature = self._key.sign(hashlib.sha256(data).digest())
        padded: bytes = EC.decode_der_signature_to_padded_pair(signature, pad_to=_SIZE)
        return padded

    @cached_property
    def _key(self) -> Any:
        form = PrivateFormat.TraditionalOpenSSL
        return EC.new_key_from_der_data(self.signer.private_key.private_bytes(Encoding.DER, form, NoEncryption()))


def fastest(signer: Signer) -> Signer:
    """Return the same key with the fastest installed implementation; any other key unchanged."""
    if HAS_AWS_LC and isinstance(signer, LocalSigner) and signer.algorithm == "ES256" and not is_elsewhere(signer):
        return AwsLcSigner(signer)
    return signer


def verify_es256(public_key_der: bytes, data: bytes, signature: bytes) -> None:
    """Verify an ES256 signature as `voice_dpki.x509.keys.verify_signature` does, by the fastest implementation.

    Raises SignatureError if it does not verify, and KeyKindError if the key is not one for ES256.
    """
    if not HAS_AWS_LC:
        verify_signature(public_key_der, "ES256", data, signature)
        return
    key = _public_key(public_key_der)
    if not key.verify(hashlib.sha256(data).digest(), _der(signature)):
        raise SignatureError("the signature does not verify under the key")


@lru_cache(maxsize=MAX_KEYS)
def _public_key(public_key_der: bytes) -> Any:
    check_key_is_for(public_key_der, "ES256")
    return EC.new_key_from_der_data(public_key_der)


def _der(signature: bytes) -> bytes:
    """Turn r ‖ s of 64 bytes into the Ecdsa-Sig-Value of RFC 3279 §2.2.3: SEQUENCE { INTEGER r, INTEGER s }."""
    if len(signature) != 2 * _SIZE:
        raise SignatureError("an ES256 signature has 64 bytes (RFC 7518 §3.4)")
    r, s = _unsigned(signature[:_SIZE]), _unsigned(signature[_SIZE:])
    return b"\x30%c\x02%c%b\x02%c%b" % (4 + len(r) + len(s), len(r), r, len(s), s)


def _unsigned(number: bytes) -> bytes:
    """Return the shortest octets of a DER INTEGER that is not negative."""
    shortest = number.lstrip(b"\0")
    return shortest if b"\0" < shortest[:1] < b"\x80" else b"\0" + shortest
