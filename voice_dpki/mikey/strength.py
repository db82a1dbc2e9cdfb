"""The bounds on a peer's RSA key, checked before anything costly is computed with it.

The ledger admits keys of up to 8192 bits with any exponent of 65537 or more. The time of a verification grows with
the length of both, so a recorded certificate could make each message expensive to read. These bounds are narrower,
and hold for MIKEY alone.
"""

from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.x509.keys import MIN_RSA_BITS, MIN_RSA_EXPONENT
from voice_dpki.x509.profile import ProfileError, library_errors

MAX_RSA_BITS: Final = 4096
"""Longest modulus. Its signatures have 512 bytes, which fits SIGN's length field of 12 bits (§6.5)."""

MAX_RSA_EXPONENT: Final = (1 << 32) - 1
"""Largest public exponent: NIST SP 800-56B §6.2 allows up to 2^256, but keys in use have 65537."""


def check_rsa_key(der: bytes, whose: str) -> None:
    """Check the RSA key in a certificate (DER) before the certificate is verified, without computing with the key.

    Keys of other kinds pass, and are judged later. Raises MikeyError, which says `whose` certificate it is.
    """
    try:
        with library_errors():
            key = x509.load_der_x509_certificate(der).public_key()
    except ProfileError as error:
        raise MikeyError(Failure.CERTIFICATE, f"{whose} is refused: {error}") from None
    if not isinstance(key, RSAPublicKey):
        return
    if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        accepted = f"{MIN_RSA_BITS} to {MAX_RSA_BITS} are accepted"
        raise MikeyError(Failure.CERTIFICATE, f"{whose} has an RSA key of {key.key_size} bits, and {accepted}")
    if not MIN_RSA_EXPONENT <= key.public_numbers().e <= MAX_RSA_EXPONENT:
        raise MikeyError(Failure.CERTIFICATE, f"{whose} has an RSA exponent that is not {MIN_RSA_EXPONENT} to 2^32")
