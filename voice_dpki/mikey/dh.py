"""Diffie-Hellman in group OAKLEY 5, the mandatory one of MIKEY's DH method (RFC 3830 §4.2.7).

OpenSSL does the arithmetic, in constant time and nine times as fast as Python's integers. The cryptography library
warns that it will drop finite-field groups some day, because newer protocols do without them. The warning is
silenced, because MIKEY's registry has no other groups. docs/adr/0049-a-modern-mode-of-mikey.md has the alternative.
"""

import warnings
from dataclasses import dataclass

from voice_dpki.effects import Random
from voice_dpki.mikey.failures import Failure, MikeyError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from cryptography.hazmat.primitives.asymmetric.dh import DHParameterNumbers, DHPrivateNumbers, DHPublicNumbers

PRIME = int(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74"
    "020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437"
    "4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED"
    "EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF05"
    "98DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB"
    "9ED529077096966D670C354E4ABC9804F1746C08CA237327FFFFFFFFFFFFFFFF",
    16,
)
"""The prime of 1536 bits (RFC 3526 §2; group 5 of RFC 2412, appendix E.5)."""

GENERATOR = 2

_GROUP = DHParameterNumbers(PRIME, GENERATOR)

SECRET_BYTES = 32
"""Length of a secret exponent.

RFC 3526 §8 estimates the group's strength at 90 to 120 bits, which calls for exponents of 180 to 240 bits: an
exponent of n bits is found in 2^(n/2) steps. A longer one costs time and adds nothing. The group's order is twice a
prime, so a peer learns at most one bit of the exponent, whatever value it sends.
"""


@dataclass(frozen=True, slots=True, repr=False)
class KeyPair:
    """A secret exponent and g^secret, for one exchange only. Not shown by repr."""

    secret: int
    public_value: bytes
    """192 bytes."""


def new_pair(random: Random) -> KeyPair:
    """Draw a secret exponent and compute its public value; this can be done before a call begins."""
    secret = int.from_bytes(random.token(SECRET_BYTES), "big") | 1 << (8 * SECRET_BYTES - 1)
    return KeyPair(secret, _power(GENERATOR, secret))


def shared_value(secret: int, peer_value: bytes) -> bytes:
    """Compute the TGK, 192 bytes long.

    Raises MikeyError unless 1 < y < p-1: any other value gives a TGK that anyone can guess.
    """
    y = int.from_bytes(peer_value, "big")
    if not 1 < y < PRIME - 1:
        raise MikeyError(Failure.DH_VALUE, "the public Diffie-Hellman value is not between 2 and p-2")
    return _power(y, secret)


def _power(base: int, secret: int) -> bytes:
    """Compute base^secret, 192 bytes long, by a key exchange with `base` as the peer's value."""
    own = DHPrivateNumbers(secret, DHPublicNumbers(GENERATOR, _GROUP))  # the exchange ignores our public value
    return own.private_key().exchange(DHPublicNumbers(base, _GROUP).public_key())
