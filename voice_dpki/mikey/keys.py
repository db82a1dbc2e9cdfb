"""Key derivation (RFC 3830 §4.1, RFC 6043 §6.1): from a TGK or a pre-shared key to the keys in use."""

import struct
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import reduce

from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.mikey.registry import Prf

_BLOCK_BYTES = 32
"""The input key is split into blocks of 256 bits, whatever the hash (RFC 3830 §4.1.2, RFC 6043 §6.1)."""

_LABEL = struct.Struct("!IBI")
"""The beginning of a label: constant, crypto session, bundle (RFC 3830 §4.1.3)."""

_HASHES = {Prf.MIKEY_1: SHA1(), Prf.HMAC_SHA_256: SHA256()}  # noqa: S303 - MIKEY-1 is HMAC with SHA-1

PRE_SHARED = 0xFF
"""Replaces the crypto session ID when keys for MIKEY's own messages are derived (RFC 3830 §4.1.4)."""


class TgkConstant(IntEnum):
    """First part of the label when a key is derived from a TGK (RFC 3830 §4.1.3)."""

    TEK = 0x2AD01C64
    AUTHENTICATION = 0x1B5C7973
    ENCRYPTION = 0x15798CEF
    SALT = 0x39A2C14B


class EnvelopeConstant(IntEnum):
    """First part of the label when a key is derived from a pre-shared or envelope key (RFC 3830 §4.1.4)."""

    ENCRYPTION = 0x150533E1
    AUTHENTICATION = 0x2D22AC75
    SALT = 0x29B88916


class KeyedPrf:
    """PRF(key, label) with one key, which is set up once for all labels (RFC 3830 §4.1.2, RFC 6043 §6.1).

    The key is not empty. One whose length is a multiple of 32 bytes has no empty last block.
    """

    __slots__ = ("_blocks",)

    def __init__(self, function: Prf, key: bytes) -> None:
        blocks = (key[start : start + _BLOCK_BYTES] for start in range(0, len(key), _BLOCK_BYTES))
        self._blocks = [HMAC(block, _HASHES[function]) for block in blocks]

    def derive(self, label: bytes, size: int) -> bytes:
        """Compute `size` bytes."""
        return reduce(_xor, [self._p(block, label, size) for block in self._blocks])

    @staticmethod
    def _p(block: HMAC, label: bytes, size: int) -> bytes:
        """Compute the P-function over one block of the key, cut to `size` bytes."""
        out, link = b"", label
        while len(out) < size:
            link = _mac(block, link)
            out += _mac(block, link + label)
        return out[:size]


def _mac(keyed: HMAC, data: bytes) -> bytes:
    context = keyed.copy()
    context.update(data)
    return context.finalize()


def _xor(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(len(one), "big")


@dataclass(frozen=True, slots=True)
class Label:
    """Context that a derived key is bound to besides its constant: crypto session, bundle and RAND."""

    cs_id: int
    csb_id: int
    rand: bytes

    def derive(self, prf: KeyedPrf, constant: TgkConstant | EnvelopeConstant, size: int) -> bytes:
        """Derive `size` bytes: label = constant ‖ cs_id ‖ csb_id ‖ RAND."""
        return prf.derive(_LABEL.pack(constant, self.cs_id, self.csb_id) + self.rand, size)


@dataclass(frozen=True, slots=True, repr=False)
class StreamKey:
    """Master key and salt of the SRTP stream with this SSRC. Not shown by repr."""

    ssrc: int
    tek: bytes
    salt: bytes

    @classmethod
    def from_tgk(cls, tgk: KeyedPrf, label: Label, profile: SrtpProfile, ssrc: int) -> "StreamKey":
        """Derive the key of the crypto session that `label` names from a TGK (RFC 3830 §4.1.3)."""
        tek = label.derive(tgk, TgkConstant.TEK, profile.key_bytes)
        return cls(ssrc, tek, label.derive(tgk, TgkConstant.SALT, profile.salt_bytes))


@dataclass(frozen=True, slots=True, repr=False)
class SrtpKeys:
    """The result of a MIKEY exchange for SRTP: the profile, and the keys for the holder's two directions.

    They are those of the first m-line that the exchange keys.
    """

    profile: SrtpProfile
    send: StreamKey
    receive: StreamKey
    further: tuple["SrtpKeys", ...] = ()
    """The keys of the m-lines after the first, in their order; theirs have no `further` lines."""

    @property
    def lines(self) -> tuple["SrtpKeys", ...]:
        """The keys of each m-line, in the order of the session description."""
        return (replace(self, further=()), *self.further)
