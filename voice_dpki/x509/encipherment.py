"""Encryption of short secrets to an RSA key; the names of the algorithms are JOSE's (RFC 7518 §4.2, §4.3)."""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.padding import AsymmetricPadding
from cryptography.hazmat.primitives.hashes import SHA256

from voice_dpki.errors import LocalError, PeerError
from voice_dpki.x509.keys import LocalSigner, check_key_is_for, spki

RSA1_5: Final = "RSA1_5"
"""RSAES-PKCS1-v1_5 (RFC 8017 §7.2)."""

RSA_OAEP_256: Final = "RSA-OAEP-256"
"""RSAES-OAEP with SHA-256, also in MGF1 (RFC 8017 §7.1)."""

_PADDINGS: dict[str, AsymmetricPadding] = {
    RSA1_5: padding.PKCS1v15(),
    RSA_OAEP_256: padding.OAEP(padding.MGF1(SHA256()), SHA256(), label=None),
}


class DecryptionError(PeerError):
    """The data were not encrypted to our key by this algorithm. The peer must not learn more about the reason."""


@dataclass(frozen=True)
class LocalDecrypter:
    """A private RSA key in this process; implements effects.Decrypter. Its repr never shows the key."""

    private_key: rsa.RSAPrivateKey

    @classmethod
    def of(cls, signer: LocalSigner) -> "LocalDecrypter":
        """Use the key that signs, for a certificate that admits both; raises LocalError unless it is RSA."""
        if not isinstance(signer.private_key, rsa.RSAPrivateKey):
            raise LocalError("only an RSA key can decrypt")
        return cls(signer.private_key)

    @cached_property
    def public_key_der(self) -> bytes:
        """Return the DER SubjectPublicKeyInfo."""
        return spki(self.private_key.public_key())

    def decrypt(self, algorithm: str, data: bytes) -> bytes:
        """Decrypt `data`; raises DecryptionError, or for RSA1_5 can return random bytes instead."""
        try:
            return self.private_key.decrypt(data, _PADDINGS[algorithm])
        except ValueError:
            raise DecryptionError("the data are not encrypted to this key") from None


def encrypt_to(public_key_der: bytes, algorithm: str, secret: bytes) -> bytes:
    """Encrypt a secret of at most 64 bytes to an RSA key; raises KeyKindError for another key."""
    key = check_key_is_for(public_key_der, "PS256")
    assert isinstance(key, rsa.RSAPublicKey)
    return key.encrypt(secret, _PADDINGS[algorithm])
