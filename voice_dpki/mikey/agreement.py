"""The two private groups of the modern mode: X25519, and X25519MLKEM768 (docs/mikey-modern.md).

The hybrid group joins X25519 (RFC 7748) with ML-KEM-768 (FIPS 203): an attacker who recorded a call
must break both. The order of its parts is that of TLS's X25519MLKEM768. A key encapsulation is not symmetric, so
offers and answers of the hybrid group differ in size, and have a number each.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from voice_dpki.effects import Random
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.registry import DhGroup

X25519_BYTES = 32
"""Length of a secret, a public value and a shared secret of X25519 (RFC 7748 §6.1)."""

ENCAPSULATION_KEY_BYTES = 1184
"""Length of a public key of ML-KEM-768 (FIPS 203 §8, table 3)."""

CIPHERTEXT_BYTES = 1088
"""Length of a ciphertext of ML-KEM-768 (FIPS 203 §8, table 3)."""

SEED_BYTES = 64
"""Length of the seed of a key pair of ML-KEM-768: d ‖ z (FIPS 203 §7.1)."""


class Strength(IntEnum):
    """The modern mode's groups, the weaker first."""

    MODERN = 1
    """X25519: small, but not safe against quantum computers."""
    HYBRID = 2
    """X25519MLKEM768: a future quantum computer cannot decrypt a call recorded today."""

    @property
    def offered(self) -> DhGroup:
        """The group number of an offer."""
        return _NUMBERS[self][0]

    @property
    def answered(self) -> DhGroup:
        """The group number of an answer."""
        return _NUMBERS[self][1]

    @property
    def group(self) -> str:
        """The group's name, for people."""
        return {Strength.MODERN: "X25519", Strength.HYBRID: "X25519MLKEM768"}[self]


_NUMBERS = {
    Strength.MODERN: (DhGroup.X25519, DhGroup.X25519),
    Strength.HYBRID: (DhGroup.X25519MLKEM768_OFFER, DhGroup.X25519MLKEM768_ANSWER),
}

Encapsulate: TypeAlias = Callable[[bytes], tuple[bytes, bytes]]
"""Shared secret and ciphertext for a public key of ML-KEM-768; raises ValueError for an invalid key."""


def encapsulate(public_key: bytes) -> tuple[bytes, bytes]:
    """Encapsulate with OpenSSL's randomness, which cannot be passed in; raises ValueError for an invalid key."""
    return MLKEM768PublicKey.from_public_bytes(public_key).encapsulate()


@dataclass(frozen=True, slots=True, repr=False)
class Exchange:
    """The Initiator's half of an exchange, for one offer only. Not shown by repr."""

    strength: Strength
    public_value: bytes
    _x25519: X25519PrivateKey
    _mlkem: MLKEM768PrivateKey | None

    @classmethod
    def begin(cls, strength: Strength, random: Random) -> "Exchange":
        """Draw the secrets and compute the public value of an offer."""
        x25519 = X25519PrivateKey.from_private_bytes(random.token(X25519_BYTES))
        value = x25519.public_key().public_bytes_raw()
        if strength is Strength.MODERN:
            return cls(strength, value, x25519, None)
        mlkem = MLKEM768PrivateKey.from_seed_bytes(random.token(SEED_BYTES))
        return cls(strength, mlkem.public_key().public_bytes_raw() + value, x25519, mlkem)

    def finish(self, answered: bytes) -> bytes:
        """Return the shared secret with the value of an answer, which has its group's length; raises MikeyError."""
        if self._mlkem is None:
            return _exchange(self._x25519, answered)
        ciphertext, value = answered[:CIPHERTEXT_BYTES], answered[CIPHERTEXT_BYTES:]
        return self._mlkem.decapsulate(ciphertext) + _exchange(self._x25519, value)


def answer(
    strength: Strength, offered: bytes, random: Random, encapsulate: Encapsulate = encapsulate
) -> tuple[bytes, bytes]:
    """Return the value of an answer and the shared secret; raises MikeyError for an invalid public key."""
    x25519 = X25519PrivateKey.from_private_bytes(random.token(X25519_BYTES))
    value = x25519.public_key().public_bytes_raw()
    if strength is Strength.MODERN:
        return value, _exchange(x25519, offered)
    key, theirs = offered[:ENCAPSULATION_KEY_BYTES], offered[ENCAPSULATION_KEY_BYTES:]
    shared = _exchange(x25519, theirs)
    try:
        secret, ciphertext = encapsulate(key)
    except ValueError:
        raise MikeyError(Failure.DH_VALUE, "the offered key is none of ML-KEM-768 (FIPS 203 §7.2)") from None
    return ciphertext + value, secret + shared


def _exchange(own: X25519PrivateKey, theirs: bytes) -> bytes:
    """Compute the shared secret of X25519; a value that makes it zero is refused (RFC 7748 §6.1)."""
    try:
        return own.exchange(X25519PublicKey.from_public_bytes(theirs))
    except ValueError:
        raise MikeyError(Failure.DH_VALUE, "the public value gives a shared secret that anybody knows") from None
