"""Key exchange, key derivation and the protection of messages (RFC 7296 §2.13 to §2.17, §3.14).

ECDH on P-256 and P-384: RFC 5903. AES-GCM: RFC 5282. AES-CBC with HMAC-SHA-256-128: RFC 7296 §3.14 and RFC 4868.
"""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from voice_dpki.effects import Random
from voice_dpki.errors import LocalError
from voice_dpki.ikev2.failures import Failure, IkeError
from voice_dpki.ikev2.proposals import CipherSuite, IkeSuite
from voice_dpki.ikev2.registry import Group

PRF_BYTES = 32
"""Output and preferred key length of HMAC-SHA-256."""

NONCE_BYTES = 32

_GCM_SALT, _GCM_IV, _GCM_TAG = 4, 8, 16
_BLOCK, _HMAC_KEY, _HMAC_TAG = 16, 32, 16

_CURVES: dict[int, tuple[ec.EllipticCurve, int, int]] = {
    Group.ECP_256: (ec.SECP256R1(), 32, 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551),
    Group.ECP_384: (
        ec.SECP384R1(),
        48,
        0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    ),
}
"""Curve, length of a coordinate, and order of the base point (FIPS 186-4, appendix D)."""


class KeyPair:
    """An ephemeral key pair of one group. Its repr never shows the key."""

    def __init__(self, group: Group, random: Random) -> None:
        """Draw the private key from `random`, uniform to within 2^-64 (FIPS 186-4, appendix B.4.1)."""
        self.group = group
        curve, size, order = _CURVES[group]
        secret = int.from_bytes(random.token(size + 8), "big") % (order - 1) + 1
        self._key = ec.derive_private_key(secret, curve)

    @property
    def public_value(self) -> bytes:
        """The KE payload's value: x ‖ y (RFC 5903 §7)."""
        size, numbers = _CURVES[self.group][1], self._key.public_key().public_numbers()
        return numbers.x.to_bytes(size, "big") + numbers.y.to_bytes(size, "big")

    def shared(self, value: bytes) -> bytes:
        """Return g^ir, as its x coordinate, for the peer's value.

        Raises IkeError with KE_VALUE unless the value is a point on the curve.
        """
        curve, size, _ = _CURVES[self.group]
        if len(value) != 2 * size:
            raise IkeError(Failure.KE_VALUE, "the peer's key exchange value has the wrong length")
        x, y = int.from_bytes(value[:size], "big"), int.from_bytes(value[size:], "big")
        try:
            peer = ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
        except ValueError:
            raise IkeError(Failure.KE_VALUE, "the peer's key exchange value is no point on the curve") from None
        return self._key.exchange(ec.ECDH(), peer)


def prf(key: bytes, data: bytes) -> bytes:
    """Return HMAC-SHA-256 of `data`."""
    return hmac.digest(key, data, "sha256")


def prf_plus(key: bytes, seed: bytes, size: int) -> bytes:
    """Return `size` bytes of prf+ (RFC 7296 §2.13)."""
    out, block = b"", b""
    for counter in range(1, -(-size // PRF_BYTES) + 1):
        block = prf(key, block + seed + bytes((counter,)))
        out += block
    return out[:size]


def nat_detection(spi_i: bytes, spi_r: bytes, address: bytes, port: int) -> bytes:
    """Return the content of NAT_DETECTION_*_IP (RFC 7296 §2.23), by SHA-1, whose collisions do no harm here."""
    data = spi_i + spi_r + address + port.to_bytes(2, "big")
    return hashlib.sha1(data, usedforsecurity=False).digest()


def _encryption_bytes(cipher: CipherSuite) -> int:
    return cipher.key_bits // 8 + (_GCM_SALT if cipher.is_aead else 0)


def _integrity_bytes(cipher: CipherSuite) -> int:
    return 0 if cipher.is_aead else _HMAC_KEY


@dataclass(frozen=True, slots=True, repr=False)
class IkeKeys:
    """The seven keys of an IKE SA (RFC 7296 §2.14)."""

    suite: IkeSuite
    sk_d: bytes
    sk_ai: bytes
    sk_ar: bytes
    sk_ei: bytes
    sk_er: bytes
    sk_pi: bytes
    sk_pr: bytes

    @classmethod
    def derive(
        cls,
        suite: IkeSuite,
        shared: bytes,
        nonces: tuple[bytes, bytes],
        spis: tuple[bytes, bytes],
        *,
        old_sk_d: bytes | None = None,
    ) -> "IkeKeys":
        """Derive the keys from g^ir, (Ni, Nr) and (SPIi, SPIr); for a rekeying also from the old SK_d (§2.18)."""
        seed = b"".join(nonces)
        skeyseed = prf(seed, shared) if old_sk_d is None else prf(old_sk_d, shared + seed)
        integrity, encryption = _integrity_bytes(suite.cipher), _encryption_bytes(suite.cipher)
        sizes = (PRF_BYTES, integrity, integrity, encryption, encryption, PRF_BYTES, PRF_BYTES)
        stream = prf_plus(skeyseed, seed + b"".join(spis), sum(sizes))
        return cls(suite, *_cut(stream, sizes))

    def cipher(self, random: Random, *, of_initiator: bool) -> "Cipher":
        """Return the cipher for the Initiator's messages if `of_initiator`, otherwise for the Responder's."""
        encryption = self.sk_ei if of_initiator else self.sk_er
        integrity = self.sk_ai if of_initiator else self.sk_ar
        return AesGcm(encryption) if self.suite.cipher.is_aead else AesCbcHmac(encryption, integrity, random)


@dataclass(frozen=True, slots=True, repr=False)
class ChildKeys:
    """Keys of a child SA (RFC 7296 §2.17): (encryption, integrity) for the traffic that each end sends."""

    initiator: tuple[bytes, bytes]
    responder: tuple[bytes, bytes]

    @classmethod
    def derive(
        cls, cipher: CipherSuite, sk_d: bytes, nonces: tuple[bytes, bytes], shared: bytes = b""
    ) -> "ChildKeys":
        """Derive the keys of both directions; `shared` is g^ir of a new key exchange, if there was one."""
        sizes = (_encryption_bytes(cipher), _integrity_bytes(cipher)) * 2
        first, second, third, fourth = _cut(prf_plus(sk_d, shared + b"".join(nonces), sum(sizes)), sizes)
        return cls((first, second), (third, fourth))


def _cut(stream: bytes, sizes: tuple[int, ...]) -> list[bytes]:
    parts, at = [], 0
    for size in sizes:
        parts.append(stream[at : at + size])
        at += size
    return parts


class ProtectionError(IkeError):
    """A message's checksum does not verify; the message is dropped as if it had never arrived (RFC 7296 §2.21)."""

    def __init__(self) -> None:
        super().__init__(Failure.PROTECTION, "a message's integrity checksum does not verify")


class Cipher(Protocol):
    """Protection of the content of SK and SKF payloads, for one direction."""

    def sealed_bytes(self, size: int) -> int:
        """Return the sealed length of `size` bytes of content."""
        ...

    def seal(self, associated: bytes, content: bytes) -> bytes:
        """Return IV, ciphertext and checksum; `associated` is all of the message before the IV."""
        ...

    def open(self, associated: bytes, body: bytes) -> bytes:
        """Return the content; raises ProtectionError."""
        ...


class AesGcm:
    """AES-GCM with a tag of 16 bytes (RFC 5282). The IV is a counter, so that it never repeats under a key."""

    def __init__(self, key: bytes) -> None:
        self._aead, self._salt = AESGCM(key[:-_GCM_SALT]), key[-_GCM_SALT:]
        self._sent = 0

    def sealed_bytes(self, size: int) -> int:
        """Return the length of IV, content, pad length and tag."""
        return _GCM_IV + size + 1 + _GCM_TAG

    def seal(self, associated: bytes, content: bytes) -> bytes:
        """Seal with the next IV."""
        if self._sent >= 1 << 64:
            raise LocalError("an IKE SA has sent more messages than its IVs can count")
        iv = self._sent.to_bytes(_GCM_IV, "big")
        self._sent += 1
        return iv + self._aead.encrypt(self._salt + iv, content + b"\0", associated)

    def open(self, associated: bytes, body: bytes) -> bytes:
        """Decrypt and verify, then remove the padding."""
        if len(body) < _GCM_IV + _GCM_TAG + 1:
            raise ProtectionError
        try:
            content = self._aead.decrypt(self._salt + body[:_GCM_IV], body[_GCM_IV:], associated)
        except InvalidTag:
            raise ProtectionError from None
        return _unpad(content)


class AesCbcHmac:
    """AES-CBC, then HMAC-SHA-256 cut to 16 bytes over the whole message (RFC 7296 §3.14)."""

    def __init__(self, encryption: bytes, integrity: bytes, random: Random) -> None:
        self._aes, self._integrity, self._random = AES(encryption), integrity, random

    def sealed_bytes(self, size: int) -> int:
        """Return the length of IV, content, padding to the block and checksum."""
        return _BLOCK + (size // _BLOCK + 1) * _BLOCK + _HMAC_TAG

    def seal(self, associated: bytes, content: bytes) -> bytes:
        """Seal with a random IV."""
        iv, pad = self._random.token(_BLOCK), -(len(content) + 1) % _BLOCK
        encryptor = BlockCipher(self._aes, CBC(iv)).encryptor()
        body = iv + encryptor.update(content + bytes(pad) + bytes((pad,))) + encryptor.finalize()
        return body + self._tag(associated + body)

    def open(self, associated: bytes, body: bytes) -> bytes:
        """Verify first, then decrypt and remove the padding."""
        sealed, tag = body[:-_HMAC_TAG], body[-_HMAC_TAG:]
        if len(sealed) < 2 * _BLOCK or len(sealed) % _BLOCK:
            raise ProtectionError
        if not hmac.compare_digest(self._tag(associated + sealed), tag):
            raise ProtectionError
        decryptor = BlockCipher(self._aes, CBC(sealed[:_BLOCK])).decryptor()
        return _unpad(decryptor.update(sealed[_BLOCK:]) + decryptor.finalize())

    def _tag(self, data: bytes) -> bytes:
        return prf(self._integrity, data)[:_HMAC_TAG]


def _unpad(content: bytes) -> bytes:
    """Remove the padding and its length. Both may have any value; the checksum was verified before."""
    pad = content[-1] + 1
    if pad > len(content):
        raise ProtectionError
    return content[:-pad]
