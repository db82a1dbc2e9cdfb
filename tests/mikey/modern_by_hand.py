"""The modern mode, written from docs/mikey-modern.md alone: no code of this project, only primitives.

`offer_of` and `answer_of` give the octets of both messages, `keys_of` the keys. Signatures are deterministic
(RFC 6979), so that the same inputs give the same octets.
"""

import hashlib
import hmac
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256

SHORT_POLICIES = {
    "AES_CM_128_HMAC_SHA1_80": "0000 0000",
    "AEAD_AES_128_GCM": "0000 0006 000106 140110",
}
SIZES = {"AES_CM_128_HMAC_SHA1_80": (16, 14), "AEAD_AES_128_GCM": (16, 12)}
"""Master key and salt."""


@dataclass(frozen=True)
class Side:
    """One party, and what it draws for one exchange."""

    uri: str
    certificate: bytes
    key: ec.EllipticCurvePrivateKey
    ssrc: int
    x25519: bytes
    mlkem_seed: bytes = b""
    further: tuple[int, ...] = ()
    """The SSRCs of the m-lines after the first."""


@dataclass(frozen=True)
class Bundle:
    """What both messages share."""

    profile: str
    csb_id: int
    ntp: int
    rand: bytes
    hybrid: bool


def header(data_type: int, first: int, v: int, bundle: Bundle, *ssrcs: int) -> bytes:
    """The SSRCs are the Initiator's and the Responder's of each m-line in turn."""
    session = [b"\0" + ssrc.to_bytes(4, "big") + bytes(4) for ssrc in ssrcs]
    fixed = bytes([1, data_type, first, v << 7 | 1]) + bundle.csb_id.to_bytes(4, "big") + bytes([len(ssrcs), 0])
    return fixed + b"".join(session)


def timestamp(bundle: Bundle, following: int) -> bytes:
    return bytes([following, 0]) + bundle.ntp.to_bytes(8, "big")


def identity(uri: str, following: int) -> bytes:
    data = uri.encode()
    return bytes([following, 1]) + len(data).to_bytes(2, "big") + data


def certificate_hash(side: Side, following: int) -> bytes:
    return bytes([following, 2]) + hashlib.sha256(side.certificate).digest()


def general_extension(kind: int, data: bytes, following: int) -> bytes:
    return bytes([following, kind]) + len(data).to_bytes(2, "big") + data


def signature(side: Side, signed: bytes) -> bytes:
    r, s = decode_dss_signature(side.key.sign(signed, ec.ECDSA(SHA256(), deterministic_signing=True)))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def public(secret: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def offer_of(caller: Side, callee_uri: str, bundle: Bundle) -> bytes:
    value = bytes([241]) + public(caller.x25519)
    if bundle.hybrid:
        key = MLKEM768PrivateKey.from_seed_bytes(caller.mlkem_seed).public_key().public_bytes_raw()
        value = bytes([242]) + key + public(caller.x25519)
    message = (
        header(4, 5, 1, bundle, *(each for ssrc in (caller.ssrc, *caller.further) for each in (ssrc, 0)))
        + timestamp(bundle, 11)
        + bytes([6, 16])
        + bundle.rand
        + identity(caller.uri, 8)
        + certificate_hash(caller, 6)
        + identity(callee_uri, 10)
        + bytes([3])
        + bytes.fromhex(SHORT_POLICIES[bundle.profile])
        + bytes([21])
        + value
        + bytes([0])
        + general_extension(0, b"vDPKI\x01", 21)
        + general_extension(1, b"mikey", 4)
        + bytes([0xF0, 64])
    )
    return message + signature(caller, b"voice-dpki/mikey-offer/v1\0" + message)


def answer_of(
    callee: Side, caller_ssrc: int, bundle: Bundle, offer: bytes, ciphertext: bytes = b"", *further: int
) -> tuple[bytes, bytes]:
    """The answer, and the value in it; `further` are the caller's SSRCs of the m-lines after the first."""
    value = ciphertext + public(callee.x25519)
    pairs = zip((caller_ssrc, *further), (callee.ssrc, *callee.further), strict=True)
    message = (
        header(5, 5, 0, bundle, *(ssrc for pair in pairs for ssrc in pair))
        + timestamp(bundle, 6)
        + identity(callee.uri, 8)
        + certificate_hash(callee, 3)
        + bytes([21, 243 if bundle.hybrid else 241])
        + value
        + bytes([0])
        + general_extension(0, b"vDPKI\x01", 4)
        + bytes([0xF0, 64])
    )
    signed = b"voice-dpki/mikey-answer/v1\0" + hashlib.sha256(offer).digest() + message
    return message + signature(callee, signed), value


def tgk_of(caller: Side, bundle: Bundle, offer: bytes, value: bytes) -> bytes:
    """The TGK, from the secrets of the caller."""
    shared = X25519PrivateKey.from_private_bytes(caller.x25519).exchange(
        X25519PublicKey.from_public_bytes(value[-32:])
    )
    if bundle.hybrid:
        shared = MLKEM768PrivateKey.from_seed_bytes(caller.mlkem_seed).decapsulate(value[:1088]) + shared
    extracted = hmac.digest(hashlib.sha256(offer).digest(), shared, "sha256")
    return hmac.digest(extracted, b"voice-dpki/mikey-tgk/v1\0" + value + b"\x01", "sha256")


def keys_of(tgk: bytes, bundle: Bundle, line: int = 0) -> dict[str, bytes]:
    """Key and salt of the caller's stream and of the callee's, of an m-line."""
    size, salt_size = SIZES[bundle.profile]
    tail = bundle.csb_id.to_bytes(4, "big") + bundle.rand
    found = {}
    for cs_id, speaker in ((2 * line + 1, "caller"), (2 * line + 2, "callee")):
        found[f"{speaker}_key"] = _p(tgk, bytes.fromhex("2AD01C64") + bytes([cs_id]) + tail)[:size]
        found[f"{speaker}_salt"] = _p(tgk, bytes.fromhex("39A2C14B") + bytes([cs_id]) + tail)[:salt_size]
    return found


def _p(key: bytes, label: bytes) -> bytes:
    """The first block of RFC 3830 §4.1.2's P with HMAC-SHA-256: HMAC(s, A_1 ‖ label), A_1 = HMAC(s, label)."""
    return hmac.digest(key, hmac.digest(key, label, "sha256") + label, "sha256")
