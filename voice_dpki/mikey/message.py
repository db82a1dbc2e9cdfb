"""A whole MIKEY message: the common header and the chain of payloads behind it (RFC 3830 §5.2, §6.1).

A message keeps the bytes that it was read from: signatures and MACs are checked over those.
"""

import struct
from dataclasses import dataclass
from typing import Self, TypeVar

from voice_dpki.codec.cursor import Cursor
from voice_dpki.errors import MalformedError
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.payloads import PAYLOADS, Payload, Signature
from voice_dpki.mikey.registry import VERSION, MapType, PayloadType

MAX_MESSAGE_BYTES = 16 * 1024
"""Longest message that is read: twice the ledger's largest certificate, of which a message carries one."""

MAX_PAYLOADS = 32
"""Most payloads that are read from one message; DH-SIGN needs nine."""

_SIGN_HEADER_BYTES = 2
"""Type and length of a signature (§6.5)."""

_LAST = int(PayloadType.LAST)
_MAP_TYPES = frozenset(MapType)

_SESSION = struct.Struct("!BII")
"""An entry of the SRTP-ID map: policy, SSRC, ROC (RFC 3830 §6.1.1)."""

_FIXED = struct.Struct("!BBBBIBB")
"""The header before its map: version, data type, next payload, V and PRF, CSB ID, #CS, map type (§6.1)."""

P = TypeVar("P", bound=Payload)


@dataclass(frozen=True, slots=True)
class SrtpId:
    """One crypto session of the SRTP-ID map (§6.1.1): 9 bytes. An SSRC of 0 means that none is chosen yet."""

    policy_no: int
    ssrc: int
    roc: int = 0

    @classmethod
    def parse(cls, cursor: Cursor) -> Self:
        """Read one entry of the map."""
        return cls(*_SESSION.unpack(cursor.take(_SESSION.size)))

    def serialize(self) -> bytes:
        """Write the entry."""
        return _SESSION.pack(self.policy_no, self.ssrc, self.roc)


@dataclass(frozen=True, slots=True)
class Header:
    """The common header, HDR (§6.1). The crypto session ID of `sessions[i]` is i + 1."""

    data_type: int
    csb_id: int
    prf: int
    sessions: tuple[SrtpId, ...] = ()
    respond: bool = False
    map_type: int = MapType.SRTP_ID

    @classmethod
    def parse(cls, cursor: Cursor) -> tuple[Self, int]:
        """Read the header; returns it and the type of the first payload."""
        fixed = _FIXED.unpack(cursor.take(_FIXED.size))
        version, data_type, first, flags, csb_id, count, map_type = fixed
        if version != VERSION:
            raise MikeyError(Failure.VERSION, f"version {version} is not supported, only version {VERSION}")
        if map_type not in _MAP_TYPES or (map_type == MapType.EMPTY and count):
            raise MikeyError(Failure.CRYPTO_SESSIONS, f"crypto session map type {map_type} is not supported")
        sessions = tuple(SrtpId.parse(cursor) for _ in range(count))
        return cls(data_type, csb_id, flags & 0x7F, sessions, bool(flags & 0x80), map_type), first

    def serialize(self, first: int) -> bytes:
        """Write the header before a payload of type `first`."""
        flags, count = self.respond << 7 | self.prf, len(self.sessions)
        fixed = _FIXED.pack(VERSION, self.data_type, first, flags, self.csb_id, count, self.map_type)
        return fixed + b"".join([session.serialize() for session in self.sessions])


@dataclass(frozen=True, slots=True)
class Message:
    """A message as read: header, payloads in order, and the bytes themselves."""

    header: Header
    payloads: tuple[Payload, ...]
    octets: bytes

    @classmethod
    def parse(cls, octets: bytes) -> Self:
        """Read a whole message; raises MikeyError on anything that is not exactly one."""
        if len(octets) > MAX_MESSAGE_BYTES:
            raise MikeyError(Failure.MALFORMED, f"the message is longer than {MAX_MESSAGE_BYTES} bytes")
        cursor = Cursor(octets, "MIKEY message")
        try:
            header, kind = Header.parse(cursor)
            payloads = parse_payloads(kind, cursor)
            cursor.finish()
        except MalformedError as error:
            raise MikeyError(Failure.MALFORMED, str(error)) from None
        return cls(header, payloads, octets)

    def all(self, kind: type[P]) -> tuple[P, ...]:
        """Return the payloads of one class, in order."""
        return tuple([payload for payload in self.payloads if type(payload) is kind])

    def one(self, kind: type[P]) -> P:
        """Return the only payload of a class; raises MikeyError unless there is exactly one."""
        found = self.all(kind)
        if len(found) != 1:
            raise MikeyError(Failure.PAYLOAD, f"{kind.kind.name} must be there once, and is {len(found)} times")
        return found[0]

    def signed_octets(self) -> bytes:
        """Return the bytes that SIGN covers: the message without the signature field at its end (§5.2)."""
        return self.octets[: len(self.octets) - len(self.one(Signature).signature)]

    def before_signature(self) -> bytes:
        """Return the message without its last payload, SIGN: the part of it that SIGNr of RSA-R covers."""
        return self.signed_octets()[:-_SIGN_HEADER_BYTES]


def parse_payloads(kind: int, cursor: Cursor) -> tuple[Payload, ...]:
    """Read the chain of payloads whose first is of type `kind`, up to the last.

    Raises MalformedError or MikeyError.
    """
    payloads: list[Payload] = []
    while kind != _LAST:
        known = PAYLOADS.get(kind)
        if known is None:
            raise MikeyError(Failure.PAYLOAD, f"payload type {kind} is not supported")
        if len(payloads) == MAX_PAYLOADS:
            raise MikeyError(Failure.MALFORMED, f"more than {MAX_PAYLOADS} payloads")
        following = _LAST if known is Signature else cursor.uint(1)
        payloads.append(known.parse(cursor))
        kind = following
    return tuple(payloads)


def serialize(header: Header, payloads: tuple[Payload, ...]) -> bytes:
    """Write a message; SIGN, if it is there, must be the last payload."""
    kinds = [payload.kind for payload in payloads] + [PayloadType.LAST]
    chain = [
        payload.serialize() if type(payload) is Signature else bytes((following,)) + payload.serialize()
        for payload, following in zip(payloads, kinds[1:], strict=True)
    ]
    return header.serialize(kinds[0]) + b"".join(chain)
