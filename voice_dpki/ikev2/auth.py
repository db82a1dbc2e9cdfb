"""AUTH: each end's signature over its own first message (RFC 7296 §2.15, RFC 7427, RFC 4754)."""

from collections.abc import Callable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from voice_dpki.effects import Signer
from voice_dpki.errors import LocalError
from voice_dpki.ikev2.crypto import prf
from voice_dpki.ikev2.failures import Failure, IkeError
from voice_dpki.ikev2.payloads import Authentication, Identification, Notify
from voice_dpki.ikev2.registry import AuthMethod, HashAlgorithm
from voice_dpki.x509.keys import KeyKindError, SignatureError, verify_signature

HASHES = HashAlgorithm.SHA2_256.to_bytes(2, "big")
"""Content of our N(SIGNATURE_HASH_ALGORITHMS): only SHA-256, so that a peer uses no other hash."""

ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
RSA_SHA256 = bytes.fromhex("300d06092a864886f70d01010b0500")
RSA_PSS_SHA256 = bytes.fromhex(
    "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108"
    "300d06096086480165030402010500a203020120"
)
"""AlgorithmIdentifiers of RFC 7427 appendix A, in DER; PSS with a salt of 32 bytes."""


_SHA_1_ONLY = "the peer takes RSA signatures with SHA-1 only (RFC 7296 §3.8), which are not made here"


def knows_sha256(notify: Notify | None) -> bool:
    """Return whether a peer announced digital signatures with SHA-256 (RFC 7427 §4)."""
    numbers = notify.data if notify else b""
    return HASHES in (numbers[at : at + 2] for at in range(0, len(numbers), 2))


def signed_octets(message: bytes, peer_nonce: bytes, sk_p: bytes, identification: Identification) -> bytes:
    """Return the octets that AUTH signs: the signer's first message, the peer's nonce, and the MACed ID (§2.15)."""
    return message + peer_nonce + prf(sk_p, identification.serialize())


def sign(signer: Signer, octets: bytes, *, digital: bool) -> Authentication:
    """Sign as in RFC 7427 if `digital`, otherwise as in RFC 4754, for an older peer.

    Raises LocalError for an RSA key and an older peer, which would accept only a signature with SHA-1.
    """
    signature = signer.sign(octets)
    if signer.algorithm == "ES256":
        if not digital:
            return Authentication(AuthMethod.ECDSA_P256, signature)
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        return _digital(ECDSA_SHA256, encode_dss_signature(r, s))
    if not digital:
        raise LocalError(_SHA_1_ONLY)
    return _digital(RSA_PSS_SHA256, signature)


def check_can_sign(signer: Signer, *, digital: bool) -> None:
    """Check that `sign` can make a signature that the peer accepts; raises IkeError with AUTH_METHOD."""
    if signer.algorithm != "ES256" and not digital:
        raise IkeError(Failure.AUTH_METHOD, _SHA_1_ONLY)


def _digital(algorithm: bytes, signature: bytes) -> Authentication:
    return Authentication(AuthMethod.DIGITAL_SIGNATURE, bytes((len(algorithm),)) + algorithm + signature)


def verify(authentication: Authentication, octets: bytes, public_key_der: bytes) -> None:
    """Verify AUTH under the key of the peer's certificate; raises IkeError with AUTH_METHOD or SIGNATURE."""
    check, signature = _split(authentication)
    try:
        check(public_key_der, octets, signature)
    except (SignatureError, KeyKindError, InvalidSignature, ValueError):
        raise IkeError(Failure.SIGNATURE, "AUTH does not verify under the key of the certificate") from None


Check = Callable[[bytes, bytes, bytes], None]


def _split(authentication: Authentication) -> tuple[Check, bytes]:
    if authentication.method == AuthMethod.ECDSA_P256:
        return _ecdsa_raw, authentication.data
    if authentication.method != AuthMethod.DIGITAL_SIGNATURE:
        raise IkeError(
            Failure.AUTH_METHOD, f"authentication method {authentication.method} is not accepted, only signatures"
        )
    size = authentication.data[0] + 1 if authentication.data else 0
    check = _CHECKS.get(authentication.data[1:size])
    if check is None:
        raise IkeError(Failure.AUTH_METHOD, "the signature's algorithm is not one with SHA-256 (RFC 7427)")
    return check, authentication.data[size:]


def _ecdsa_raw(key: bytes, octets: bytes, signature: bytes) -> None:
    verify_signature(key, "ES256", octets, signature)


def _ecdsa_der(key: bytes, octets: bytes, signature: bytes) -> None:
    r, s = decode_dss_signature(signature)
    if max(r, s) >= 1 << 256:  # the decoder refuses negative numbers
        raise SignatureError("r or s is out of range")
    _ecdsa_raw(key, octets, r.to_bytes(32, "big") + s.to_bytes(32, "big"))


def _rsa_pss(key: bytes, octets: bytes, signature: bytes) -> None:
    verify_signature(key, "PS256", octets, signature)


def _rsa_pkcs1(key: bytes, octets: bytes, signature: bytes) -> None:
    """Verify RSASSA-PKCS1-v1_5, which strongSwan uses unless told otherwise."""
    loaded = load_der_public_key(key)
    if not isinstance(loaded, rsa.RSAPublicKey):
        raise KeyKindError("the key is not RSA")
    loaded.verify(signature, octets, padding.PKCS1v15(), SHA256())


_CHECKS: dict[bytes, Check] = {ECDSA_SHA256: _ecdsa_der, RSA_PSS_SHA256: _rsa_pss, RSA_SHA256: _rsa_pkcs1}
