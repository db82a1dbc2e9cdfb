"""MIKEY payloads on the wire (RFC 3830 §6).

Every payload but SIGN begins with the type of the next payload, which is LAST in the last one. `message` writes and
reads that byte, so the classes here hold only the rest. Each `parse` reads one payload from a cursor: it raises
MalformedError if bytes are missing, and MikeyError if an unknown algorithm leaves a length unknown.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

from voice_dpki.codec.cursor import Cursor
from voice_dpki.errors import MalformedError
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.registry import (
    DhGroup,
    ErrorNumber,
    HashFunc,
    KeyType,
    MacAlg,
    PayloadType,
    TimestampType,
    ValidityType,
)

DH_BYTES: dict[int, int] = {
    DhGroup.OAKLEY_5: 192,
    DhGroup.OAKLEY_1: 96,
    DhGroup.OAKLEY_2: 128,
    DhGroup.X25519: 32,
    DhGroup.X25519MLKEM768_OFFER: 1184 + 32,
    DhGroup.X25519MLKEM768_ANSWER: 1088 + 32,
}
"""Length of a public value by group (RFC 3830 §6.4; docs/mikey-modern.md)."""

TIMESTAMP_BYTES: dict[int, int] = {TimestampType.NTP_UTC: 8, TimestampType.NTP: 8, TimestampType.COUNTER: 4}
"""Length of a timestamp by type (RFC 3830 §6.6)."""

MAC_BYTES: dict[int, int] = {MacAlg.NULL: 0, MacAlg.HMAC_SHA_1_160: 20, MacAlg.HMAC_SHA_256_256: 32}
"""Length of a MAC by algorithm (RFC 3830 §6.2, RFC 6043 §6.2)."""

HASH_BYTES: dict[int, int] = {HashFunc.SHA_1: 20, HashFunc.MD5: 16, HashFunc.SHA_256: 32}
"""Length of a hash by function (RFC 3830 §6.8, RFC 6043 §6.6)."""


def _length(lengths: dict[int, int], number: int, failure: Failure, what: str) -> int:
    """Return the length that goes with `number`; an unknown number makes the rest of the message unreadable."""
    if number not in lengths:
        raise MikeyError(failure, f"{what} {number} is not supported")
    return lengths[number]


def _uint(value: int, size: int) -> bytes:
    return value.to_bytes(size, "big")


def _counted(data: bytes, size: int) -> bytes:
    """Put the length of `data`, in `size` bytes, before it."""
    return _uint(len(data), size) + data


@dataclass(frozen=True, slots=True)
class KeyValidity:
    """Key validity data (§6.14): an SPI alone in `first`, or an interval from `first` to `last`."""

    first: bytes
    last: bytes | None = None

    @property
    def kind(self) -> ValidityType:
        """Return SPI or INTERVAL."""
        return ValidityType.SPI if self.last is None else ValidityType.INTERVAL

    @classmethod
    def parse(cls, kind: int, cursor: Cursor) -> "KeyValidity | None":
        """Read validity data of `kind`; None for NULL, which has no data. Raises MalformedError."""
        match kind:
            case ValidityType.NULL:
                return None
            case ValidityType.SPI:
                return cls(cursor.take(cursor.uint(1)))
            case ValidityType.INTERVAL:
                return cls(cursor.take(cursor.uint(1)), cursor.take(cursor.uint(1)))
        raise MalformedError(f"MIKEY key validity: type {kind} is unknown (RFC 3830 §6.13)")

    def serialize(self) -> bytes:
        """Write the validity data."""
        return _counted(self.first, 1) + (b"" if self.last is None else _counted(self.last, 1))


def _validity_kind(validity: KeyValidity | None) -> int:
    return ValidityType.NULL if validity is None else validity.kind


class Payload(ABC):
    """A payload behind the header. A class that derives from it reads and writes the payloads of its `kind`."""

    __slots__ = ()
    kind: ClassVar[PayloadType]

    def __init_subclass__(cls) -> None:
        """Enter the class into PAYLOADS.

        `dataclass` creates a class with slots a second time. The second one, which is used, replaces the first.
        """
        super().__init_subclass__()
        PAYLOADS[cls.kind] = cls

    @classmethod
    @abstractmethod
    def parse(cls, cursor: Cursor) -> Self:
        """Read the payload; raises MalformedError or MikeyError."""

    @abstractmethod
    def serialize(self) -> bytes:
        """Write the payload, without the type of the next one."""


PAYLOADS: dict[int, type[Payload]] = {}
"""The class that reads each payload type."""


@dataclass(frozen=True, slots=True)
class Kemac(Payload):
    """Key data transport (§6.2)."""

    kind = PayloadType.KEMAC
    encr_alg: int
    encr_data: bytes
    mac_alg: int
    mac: bytes

    @classmethod
    def parse(cls, cursor: Cursor) -> Self:
        """Read the payload."""
        encr_alg, encr_data = cursor.uint(1), cursor.take(cursor.uint(2))
        mac_alg = cursor.uint(1)
        return cls(
            encr_alg, encr_data, mac_alg, cursor.take(_length(MAC_BYTES, mac_alg, Failure.MAC, "MAC algorithm"))
        )

    def serialize(self) -> bytes:
        """Write the payload."""
        return _uint(self.encr_alg, 1) + _counted(self.encr_data, 2) + _uint(self.mac_alg, 1) + self.mac


@dataclass(frozen=True, slots=True)
class EnvelopeKey(Payload):
    """Envelope data, PKE (§6.3): 2 bits of cache indicator, 14 bits of length."""

    kind = PayloadType.PKE
    cache: int
    data: bytes

    @classmethod
    def parse(cls, cursor: Cursor) -> Self:
        """Read the payload."""
        word = cursor.uint(2)
        return cls(word >> 14, cursor.take(word & 0x3FFF))

    def serialize(self) -> bytes:
        """Write the payload."""
        return _uint(self.cache << 14 | len(self.data), 2) + self.data


@dataclass(frozen=True, slots=True)
class DhValue(Payload):
    """A public Diffie-Hellman value (§6.4); its length follows from the group."""

    kind = PayloadType.DH
    group: int
    value: bytes
    validity: KeyValidity | None = None

    @classmethod
    def parse(cls, cursor: Cursor) -> Self:
        """Read the payload."""
        group = cursor.uint(1)
        value = cursor.take(_length(DH_BYTES, group, Failure.DH_GROUP, "the Diffie-Hellman group"))
        return cls(group, value, KeyValidity.parse(cursor.uint(1) & 0x0F, cursor))

    def serialize(self) -> bytes:
        """Write the payload."""
        validity = b"" if self.validity is None else self.validity.serialize()
        return _uint(self.group, 1) + self.value + _uint(_validity_kind(self.validity), 1) + validity


@dataclass(frozen=True, slots=True)
class Signature(Payload):
    """The signature (§6.5): always last, and without a next payload. 4 bits of type, 12 of length."""

    kind = PayloadType.SIGN
    s_type: int
    signature: bytes

    @classmethod
    def parse(cls, cursor: Cursor) -> Self:
        """Read the payload."""
        word = cursor.uint(2)
        return cls(word >> 12, cursor.take(word & 0x0FFF))

    def serialize(self) -> bytes:
        """Write the payload."""
        return _uint(self.s_type << 12 | len(self.signature), 2) + self.signature


@dataclass(frozen=True, slots=True)
class Timestamp(Payload):
    """The Initiator's time (§6.6): NTP's 64 bits since 1900, or a counter."""

    kind = PayloadType.T
    ts_type: int
    value: bytes

    @classmethod
    def parse(cls, cursor: Cursor) -> Self:
        """Read the payload."""
        ts_type = cursor.uint(1)
        return cls(
            ts_type, cursor.take(_length(TIMESTAMP_BYTES, ts_type, Failure.TIMESTAMP_TYPE, "timestamp type"))
        )

    def serialize(self) -> bytes:
        """Write the payload."""
        return _uint(self.ts_type, 1) + self.value


@dataclass(frozen=True, slots=True)
class Identity(Payload):
    """An identity, ID (§6.7)."""

    kind = PayloadType.ID
    id_type: int
    data: bytes

    @classmethod
    def parse(cls, cursor: Cursor) -> Self:
        """Read the payload."""
        return cls(cursor.uint(1), cursor.take(cursor.uint(2)))

    def serialize(self) -> bytes:
        """Write the payload."""
        return _uint(self.id_type, 1) + _counted(self.data, 2)


@dataclass(frozen=True, slots=True)
class Certificate(Payload):
    """A certificate, CERT (§6.7): DER, or a URL."""

    kind = PayloadType.CERT
    cert_type: int
    data: bytes

    @classmethod
    def parse(cls, cursor: Cursor) -> Self:
        """Read the payload."""
        return cls(cursor.uint(1), cursor.take(cursor.uint(2)))

    def serialize(self) -> bytes:
        """Write the payload."""
        return _uint(self.cert_type, 1) + _counted(self.data, 2)


@dataclass(frozen=True, slots=True)
class CertificateHash(Payload):
    """The hash of the certificate used, CHASH (§6.8)."""

    kind = PayloadType.CHASH
    hash_func: int
    digest: bytes

    @classmethod
    def parse(cls, cursor: Cursor) -> Self:
        """Read the payload."""
        hash_func = cursor.uint(1)
        return cls(hash_func, cursor.take(_length(HASH_BYTES, hash_func, Failure.HASH, "hash function")))

    def serialize(self) -> bytes:
        """Write the payload."""
        return _uint(self.hash_func, 1) + self.digest


@dataclass(frozen=True, slots=True)
class Verification(Payload):
    """The verification message's MAC, V (§6.9)."""

    kind = PayloadType.V
    auth_alg: int
    data: bytes

    @classmethod
    def parse(cls, cursor: Cursor) -> Self:
        """Read the payload."""
        auth_alg = cursor.uint(1)
        return cls(auth_alg, cursor.take(_length(MAC_BYTES, auth_alg, Failure.MAC, "MAC algorithm")))

    def serialize(self) -> bytes:
        """Write the payload."""
        return _uint(self.auth_alg, 1) + self.data


@dataclass(frozen=True, slots=True)
class SecurityPolicy(Payload):
    """A policy for one security protocol, SP (§6.10): parameters as (type, value), in the order of the wire."""

    kind = PayloadType.SP
    policy_no: int
    prot_type: int
    parameters: tuple[tuple[int, bytes], ...]

    @classmethod
    def parse(cls, cursor: Cursor) -> Self:
        """Read the payload."""
        policy_no, prot_type = cursor.uint(1), cursor.uint(1)
        inner = Cursor(cursor.take(cursor.uint(2)), "MIKEY SP")
        parameters = []
        while inner.remaining:
            parameters.append((inner.uint(1), inner.take(inner.uint(1))))
        return cls(policy_no, prot_type, tuple(parameters))

    def serialize(self) -> bytes:
        """Write the payload."""
        parameters = b"".join(_uint(number, 1) + _counted(value, 1) for number, value in self.parameters)
        return _uint(self.policy_no, 1) + _uint(self.prot_type, 1) + _counted(parameters, 2)


@dataclass(frozen=True, slots=True)
class Rand(Payload):
    """The Initiator's random bit-string (§6.11)."""

    kind = PayloadType.RAND
    rand: bytes

    @classmethod
    def parse(cls, cursor: Cursor) -> Self:
        """Read the payload."""
        return cls(cursor.take(cursor.uint(1)))

    def serialize(self) -> bytes:
        """Write the payload."""
        return _counted(self.rand, 1)


@dataclass(frozen=True, slots=True)
class Error(Payload):
    """An error, ERR (§6.12)."""

    kind = PayloadType.ERR
    number: int

    @classmethod
    def parse(cls, cursor: Cursor) -> Self:
        """Read the payload; its two reserved bytes are ignored."""
        number = cursor.uint(1)
        cursor.take(2)
        return cls(number)

    def serialize(self) -> bytes:
        """Write the payload."""
        return _uint(self.number, 1) + bytes(2)

    @property
    def name(self) -> str:
        """Name of the error for people."""
        known = {number.value: number.name for number in ErrorNumber}
        return known.get(self.number, str(self.number))


@dataclass(frozen=True, slots=True)
class GeneralExtension(Payload):
    """A general extension (§6.15)."""

    kind = PayloadType.GENERAL_EXTENSION
    ext_type: int
    data: bytes

    @classmethod
    def parse(cls, cursor: Cursor) -> Self:
        """Read the payload."""
        return cls(cursor.uint(1), cursor.take(cursor.uint(2)))

    def serialize(self) -> bytes:
        """Write the payload."""
        return _uint(self.ext_type, 1) + _counted(self.data, 2)


@dataclass(frozen=True, slots=True, repr=False)
class KeyData(Payload):
    """A key inside decrypted KEMAC data (§6.13): TGK or TEK, with its salt if one is sent."""

    kind = PayloadType.KEY_DATA
    key_type: int
    key: bytes
    salt: bytes | None = None
    validity: KeyValidity | None = None

    @classmethod
    def parse(cls, cursor: Cursor) -> Self:
        """Read the sub-payload."""
        types = cursor.uint(1)
        key_type = types >> 4
        if key_type not in set(KeyType):
            raise MalformedError(f"MIKEY Key data: key type {key_type} is unknown (RFC 3830 §6.13)")
        key = cursor.take(cursor.uint(2))
        salt = cursor.take(cursor.uint(2)) if key_type in (KeyType.TGK_SALT, KeyType.TEK_SALT) else None
        return cls(key_type, key, salt, KeyValidity.parse(types & 0x0F, cursor))

    def serialize(self) -> bytes:
        """Write the sub-payload."""
        salt = b"" if self.salt is None else _counted(self.salt, 2)
        validity = b"" if self.validity is None else self.validity.serialize()
        types = self.key_type << 4 | _validity_kind(self.validity)
        return _uint(types, 1) + _counted(self.key, 2) + salt + validity
