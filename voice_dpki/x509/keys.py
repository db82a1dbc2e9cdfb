"""Keys of the two kinds that the ledger admits: ECDSA on P-256 ("ES256") and RSA from 2048 bits ("PS256").

The names are JOSE's (RFC 7518 §3.1) and mean the signatures that our protocols make: ES256 is r ‖ s in 64 bytes,
PS256 is RSASSA-PSS with SHA-256 and a salt of 32 bytes.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
)

from voice_dpki.effects import Signer
from voice_dpki.errors import HarmfulAgainError, LocalError, PeerError

MIN_RSA_BITS = 2048
"""Smallest modulus that a certificate may have."""

MAX_RSA_BITS = 8192
"""Largest modulus accepted: the time of a verification grows with the square of its length."""

MIN_RSA_EXPONENT = 65537
"""Smallest public exponent: FIPS 186-5 §5.1 demands more than 2^16."""

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

_ECDSA = ec.ECDSA(SHA256())
_PSS = padding.PSS(mgf=padding.MGF1(SHA256()), salt_length=32)


class SignatureError(PeerError):
    """A signature does not verify under the key that should have made it."""


class KeyKindError(PeerError):
    """A key is neither on P-256 nor RSA of an admitted size."""


class KeyUnavailableError(LocalError):
    """A private key in a device cannot be used now; it may come back.

    `told` can be shown to anyone: it says what fails, and names no file, token or key. The message adds `detail`,
    for log and terminal.
    """

    def __init__(self, told: str, detail: str = "") -> None:
        super().__init__(f"{told}: {detail}" if detail else told)
        self.told, self.detail = told, detail


class PinRefusedError(KeyUnavailableError, HarmfulAgainError):
    """A device has refused the PIN of a key, or would lock itself if it refused it once more."""


class KeyElsewhere(ABC):
    """Marks a key of `cryptography` that a device holds: its use waits for the device; it cannot be exported."""

    @abstractmethod
    def fault(self) -> str:
        """Return why the key cannot be used now, in words for anyone; empty if no fault is known."""

    @abstractmethod
    def probe(self) -> None:
        """Ask the device whether the key is still there; raises KeyUnavailableError."""

    @abstractmethod
    def fail(self, why: KeyUnavailableError) -> None:
        """Record that the key cannot be used, for instance if its device is silent, until it is used again."""


@dataclass(frozen=True)
class LocalSigner:
    """A private key that `cryptography` uses: in this process, or a KeyElsewhere.

    Implements effects.Signer. Its repr never shows the key.
    """

    private_key: PrivateKey

    def __post_init__(self) -> None:
        algorithm_of(self.private_key.public_key())

    @cached_property
    def algorithm(self) -> str:
        """Return "ES256" or "PS256"."""
        return algorithm_of(self.private_key.public_key())

    @cached_property
    def public_key_der(self) -> bytes:
        """Return the DER SubjectPublicKeyInfo."""
        return spki(self.private_key.public_key())

    def sign(self, data: bytes) -> bytes:
        """Sign `data` with SHA-256, in the form that `algorithm` names; raises KeyUnavailableError."""
        if isinstance(self.private_key, rsa.RSAPrivateKey):
            return self.private_key.sign(data, _PSS, SHA256())
        r, s = decode_dss_signature(self.private_key.sign(data, _ECDSA))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def is_elsewhere(signer: Signer) -> bool:
    """Tell whether a signer's key is not in this process, so that signing waits for a device."""
    return isinstance(signer, LocalSigner) and isinstance(signer.private_key, KeyElsewhere)


def fault_of(signer: Signer) -> str:
    """Return why a signer's key cannot be used now, in words for anyone.

    Empty if no fault is known, and for every key in this process.
    """
    key = signer.private_key if isinstance(signer, LocalSigner) else None
    return key.fault() if isinstance(key, KeyElsewhere) else ""


def generate_es256() -> LocalSigner:
    """Make a new key on P-256."""
    return LocalSigner(ec.generate_private_key(ec.SECP256R1()))


def generate_rsa(bits: int = MIN_RSA_BITS) -> LocalSigner:
    """Make a new RSA key of `bits`; raises KeyKindError below 2048 and above 8192."""
    if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
        raise KeyKindError(f"an RSA key has {MIN_RSA_BITS} to {MAX_RSA_BITS} bits")
    return LocalSigner(rsa.generate_private_key(MIN_RSA_EXPONENT, bits))


def to_pem(key: LocalSigner | Ed25519PrivateKey) -> bytes:
    """Encode a private key, a signer's or a validator's, as unencrypted PKCS#8 PEM."""
    private = key.private_key if isinstance(key, LocalSigner) else key
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def from_pem(pem: bytes, passphrase: bytes | None = None) -> LocalSigner:
    """Load a PEM private key (PKCS#8, SEC1 or PKCS#1), encrypted if there is a passphrase.

    Raises LocalError for anything else: a private key is always our own, so the fault is local.
    """
    key = open_pem(pem, passphrase)
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise LocalError("the private key is neither ECDSA nor RSA")
    try:
        return LocalSigner(key)
    except KeyKindError as error:
        raise LocalError(f"the private key cannot be used: {error}") from None


def open_pem(pem: bytes, passphrase: bytes | None = None) -> PrivateKeyTypes:
    """Load a PEM private key of any kind, encrypted if there is a passphrase; raises LocalError."""
    try:
        return load_pem_private_key(pem, password=passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        what = "a private key in PEM form that its passphrase opens" if passphrase else _UNENCRYPTED
        raise LocalError(f"not {what}") from None


_UNENCRYPTED = "an unencrypted private key in PEM form"


def algorithm_of(key: object) -> str:
    """Return "ES256" or "PS256" for an admitted public key; raises KeyKindError for any other."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        if isinstance(key.curve, ec.SECP256R1):
            return "ES256"
        raise KeyKindError(f"the key is on {key.curve.name}, and only P-256 is admitted")
    if isinstance(key, rsa.RSAPublicKey):
        if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
            raise KeyKindError(
                f"the RSA key has {key.key_size} bits: {MIN_RSA_BITS} to {MAX_RSA_BITS} are admitted"
            )
        if key.public_numbers().e < MIN_RSA_EXPONENT:
            raise KeyKindError(f"the RSA exponent is less than {MIN_RSA_EXPONENT}")
        return "PS256"
    raise KeyKindError("the key is neither ECDSA on P-256 nor RSA")


def spki(key: PublicKey) -> bytes:
    """Encode a public key as DER SubjectPublicKeyInfo."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def verify_signature(public_key_der: bytes, algorithm: str, data: bytes, signature: bytes) -> None:
    """Verify the signature that a Signer of `algorithm` made over `data`.

    Raises SignatureError if it does not verify, and KeyKindError if the key is not one for `algorithm`.
    """
    key = check_key_is_for(public_key_der, algorithm)
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, _PSS, SHA256())
        else:
            key.verify(_dss(signature), data, _ECDSA)
    except InvalidSignature:
        raise SignatureError("the signature does not verify under the key") from None


def check_key_is_for(public_key_der: bytes, algorithm: str) -> PublicKey:
    """Check that a public key is one for `algorithm`, and return it; raises KeyKindError."""
    key, kind = _load(public_key_der)
    if kind != algorithm:
        raise KeyKindError(f"the key is not one for {algorithm[:16]}")
    return key


def _dss(signature: bytes) -> bytes:
    """Turn r ‖ s of 64 bytes into the DER that the library expects."""
    if len(signature) != 64:
        raise SignatureError("an ES256 signature has 64 bytes (RFC 7518 §3.4)")
    return encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))


@lru_cache(maxsize=256)
def _load(public_key_der: bytes) -> tuple[PublicKey, str]:
    """Return a public key and its algorithm, cached since each signature needs both; raises KeyKindError."""
    try:
        key = load_der_public_key(public_key_der)
    except (ValueError, UnsupportedAlgorithm):
        raise KeyKindError("not a public key in DER form") from None
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise KeyKindError("the key is neither ECDSA on P-256 nor RSA")
    return key, algorithm_of(key)
