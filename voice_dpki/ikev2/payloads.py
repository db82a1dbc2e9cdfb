"""IKEv2 payloads on the wire (RFC 7296 §3.3 to §3.15, RFC 7383 §2.5).

Every payload begins with a header of four bytes: the type of the next payload, a critical bit, and the length.
`message` writes and reads it, so the classes here hold only the rest. Each `parse` takes a payload's whole body and
raises MalformedError. Numbers are kept as received; the caller refuses or ignores unknown ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self, TypeAlias

from voice_dpki.codec.cursor import Cursor
from voice_dpki.errors import MalformedError
from voice_dpki.ikev2.registry import (
    KEY_LENGTH_ATTRIBUTE,
    CfgAttribute,
    PayloadType,
    Protocol,
    TransformType,
    TsType,
)

MAX_PROPOSALS = 32
MAX_TRANSFORMS = 64
MAX_SPIS = 64
MAX_ATTRIBUTES = 32
MAX_SELECTORS = 64
"""Bounds on what one payload may list; each is several times what real peers send."""

_MORE = {True: 0, False: 2}
"""Last Substruc of a proposal: 2 if more follow (RFC 7296 §3.3.1)."""

_MORE_TRANSFORMS = {True: 0, False: 3}
"""Last Substruc of a transform: 3 if more follow (RFC 7296 §3.3.2)."""


def _uint(value: int, size: int) -> bytes:
    return value.to_bytes(size, "big")


def _listed(count: int, most: int, what: str) -> None:
    if count > most:
        raise MalformedError(f"IKEv2 {what}: more than {most} entries")


def _substructure(cursor: Cursor, more: int, what: str) -> tuple[bool, Cursor]:
    """Read the header that proposals and transforms share; returns whether it is the last, and its body."""
    mark = cursor.uint(1)
    if mark not in (0, more):
        raise MalformedError(f"IKEv2 {what}: Last Substruc is {mark}")
    cursor.take(1)
    length = cursor.uint(2)
    return mark == 0, Cursor(cursor.take(length - 4), f"IKEv2 {what}")


@dataclass(frozen=True, slots=True)
class Transform:
    """A transform (§3.3.2); the key length, in bits, is the only attribute defined."""

    type: int
    id: int
    key_bits: int | None = None
    unknown_attributes: bool = False

    @classmethod
    def parse(cls, body: Cursor) -> Self:
        """Read a transform's substructure, without its header."""
        kind, _, number = body.uint(1), body.take(1), body.uint(2)
        key_bits, unknown = None, False
        while body.remaining:
            word = body.uint(2)
            value = body.uint(2) if word & 0x8000 else body.take(body.uint(2))
            if word == 0x8000 | KEY_LENGTH_ATTRIBUTE and isinstance(value, int) and key_bits is None:
                key_bits = value
            else:
                unknown = True
        return cls(kind, number, key_bits, unknown)

    def serialize(self) -> bytes:
        """Write the transform without its header."""
        attribute = b""
        if self.key_bits is not None:
            attribute = _uint(0x8000 | KEY_LENGTH_ATTRIBUTE, 2) + _uint(self.key_bits, 2)
        return _uint(self.type, 1) + b"\0" + _uint(self.id, 2) + attribute


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposal (§3.3.1): transforms to combine, and the sender's SPI if there is one."""

    number: int
    protocol: int
    spi: bytes
    transforms: tuple[Transform, ...]

    @classmethod
    def parse(cls, body: Cursor) -> Self:
        """Read a proposal's substructure, without its header."""
        number, protocol, spi_size, count = body.uint(1), body.uint(1), body.uint(1), body.uint(1)
        spi = body.take(spi_size)
        _listed(count, MAX_TRANSFORMS, "proposal")
        transforms: list[Transform] = []
        last = count == 0
        while not last:
            last, inner = _substructure(body, 3, "transform")
            transforms.append(Transform.parse(inner))
            _listed(len(transforms), count, "proposal")
        body.finish()
        if len(transforms) != count:
            raise MalformedError("IKEv2 proposal: it has fewer transforms than it says")
        return cls(number, protocol, spi, tuple(transforms))

    def serialize(self) -> bytes:
        """Write the proposal without its header."""
        out = [_uint(self.number, 1), _uint(self.protocol, 1), _uint(len(self.spi), 1)]
        out += [_uint(len(self.transforms), 1), self.spi]
        for at, transform in enumerate(self.transforms, 1):
            body = transform.serialize()
            out += [_uint(_MORE_TRANSFORMS[at == len(self.transforms)], 1), b"\0", _uint(len(body) + 4, 2), body]
        return b"".join(out)

    def of_type(self, kind: TransformType) -> tuple[Transform, ...]:
        """Return the transforms of one type, in their order."""
        return tuple(transform for transform in self.transforms if transform.type == kind)


@dataclass(frozen=True, slots=True)
class SecurityAssociation:
    """SA (§3.3): proposals, best first."""

    kind: ClassVar[PayloadType] = PayloadType.SA
    proposals: tuple[Proposal, ...]

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the payload."""
        cursor, proposals, last = Cursor(data, "IKEv2 SA"), list[Proposal](), False
        while not last:
            last, body = _substructure(cursor, 2, "proposal")
            proposals.append(Proposal.parse(body))
            _listed(len(proposals), MAX_PROPOSALS, "SA")
        cursor.finish()
        return cls(tuple(proposals))

    def serialize(self) -> bytes:
        """Write the payload."""
        out = []
        for at, proposal in enumerate(self.proposals, 1):
            body = proposal.serialize()
            out += [_uint(_MORE[at == len(self.proposals)], 1), b"\0", _uint(len(body) + 4, 2), body]
        return b"".join(out)


@dataclass(frozen=True, slots=True)
class KeyExchange:
    """KE (§3.4): a public value in a key exchange group."""

    kind: ClassVar[PayloadType] = PayloadType.KE
    group: int
    value: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the payload."""
        cursor = Cursor(data, "IKEv2 KE")
        group, _ = cursor.uint(2), cursor.take(2)
        return cls(group, cursor.rest())

    def serialize(self) -> bytes:
        """Write the payload."""
        return _uint(self.group, 2) + bytes(2) + self.value


@dataclass(frozen=True, slots=True)
class Nonce:
    """Ni or Nr (§3.9): 16 to 256 bytes."""

    kind: ClassVar[PayloadType] = PayloadType.NONCE
    value: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the payload."""
        if not 16 <= len(data) <= 256:
            raise MalformedError("IKEv2 nonce: it has not 16 to 256 bytes (RFC 7296 §3.9)")
        return cls(data)

    def serialize(self) -> bytes:
        """Write the payload."""
        return self.value


@dataclass(frozen=True, slots=True)
class Identification:
    """The body of IDi and IDr (§3.5); the subclasses set `kind`."""

    id_type: int
    data: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the payload; its three reserved bytes are ignored."""
        cursor = Cursor(data, "IKEv2 ID")
        id_type, _ = cursor.uint(1), cursor.take(3)
        return cls(id_type, cursor.rest())

    def serialize(self) -> bytes:
        """Write the payload."""
        return _uint(self.id_type, 1) + bytes(3) + self.data


@dataclass(frozen=True, slots=True)
class IdInitiator(Identification):
    """IDi."""

    kind: ClassVar[PayloadType] = PayloadType.IDI


@dataclass(frozen=True, slots=True)
class IdResponder(Identification):
    """IDr."""

    kind: ClassVar[PayloadType] = PayloadType.IDR


@dataclass(frozen=True, slots=True)
class Certificate:
    """CERT (§3.6)."""

    kind: ClassVar[PayloadType] = PayloadType.CERT
    encoding: int
    data: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the payload."""
        cursor = Cursor(data, "IKEv2 CERT")
        return cls(cursor.uint(1), cursor.rest())

    def serialize(self) -> bytes:
        """Write the payload."""
        return _uint(self.encoding, 1) + self.data


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """CERTREQ (§3.7): hashes of the trust anchors' keys; ours has none, because trust comes from the ledger."""

    kind: ClassVar[PayloadType] = PayloadType.CERTREQ
    encoding: int
    authorities: bytes = b""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the payload."""
        cursor = Cursor(data, "IKEv2 CERTREQ")
        return cls(cursor.uint(1), cursor.rest())

    def serialize(self) -> bytes:
        """Write the payload."""
        return _uint(self.encoding, 1) + self.authorities


@dataclass(frozen=True, slots=True)
class Authentication:
    """AUTH (§3.8)."""

    kind: ClassVar[PayloadType] = PayloadType.AUTH
    method: int
    data: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the payload."""
        cursor = Cursor(data, "IKEv2 AUTH")
        method, _ = cursor.uint(1), cursor.take(3)
        return cls(method, cursor.rest())

    def serialize(self) -> bytes:
        """Write the payload."""
        return _uint(self.method, 1) + bytes(3) + self.data


@dataclass(frozen=True, slots=True)
class Notify:
    """N (§3.10)."""

    kind: ClassVar[PayloadType] = PayloadType.NOTIFY
    type: int
    data: bytes = b""
    protocol: int = 0
    spi: bytes = b""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the payload."""
        cursor = Cursor(data, "IKEv2 N")
        protocol, spi_size, number = cursor.uint(1), cursor.uint(1), cursor.uint(2)
        spi = cursor.take(spi_size)
        return cls(number, cursor.rest(), protocol, spi)

    def serialize(self) -> bytes:
        """Write the payload."""
        return _uint(self.protocol, 1) + _uint(len(self.spi), 1) + _uint(self.type, 2) + self.spi + self.data


@dataclass(frozen=True, slots=True)
class Delete:
    """D (§3.11): deletes the IKE SA, without SPIs, or child SAs, by the sender's inbound SPIs."""

    kind: ClassVar[PayloadType] = PayloadType.DELETE
    protocol: int
    spis: tuple[bytes, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the payload."""
        cursor = Cursor(data, "IKEv2 D")
        protocol, size, count = cursor.uint(1), cursor.uint(1), cursor.uint(2)
        _listed(count, MAX_SPIS, "D")
        if (protocol == Protocol.IKE) != (size == 0) or (size == 0 and count):
            raise MalformedError("IKEv2 D: the IKE SA is deleted without an SPI, others with one (RFC 7296 §3.11)")
        spis = tuple(cursor.take(size) for _ in range(count))
        cursor.finish()
        return cls(protocol, spis)

    def serialize(self) -> bytes:
        """Write the payload."""
        size = 0 if self.protocol == Protocol.IKE else 4
        return _uint(self.protocol, 1) + _uint(size, 1) + _uint(len(self.spis), 2) + b"".join(self.spis)


@dataclass(frozen=True, slots=True)
class VendorId:
    """V (§3.12); read and otherwise ignored."""

    kind: ClassVar[PayloadType] = PayloadType.VENDOR_ID
    data: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the payload."""
        return cls(data)

    def serialize(self) -> bytes:
        """Write the payload."""
        return self.data


_ADDRESS_BYTES: dict[int, int] = {TsType.IPV4_ADDR_RANGE: 4, TsType.IPV6_ADDR_RANGE: 16}


@dataclass(frozen=True, slots=True)
class Selector:
    """A traffic selector (§3.13.1): addresses `start` to `end` as bytes, a protocol and ports (all by default)."""

    ts_type: int
    start: bytes
    end: bytes
    protocol: int = 0
    ports: tuple[int, int] = (0, 65_535)

    @classmethod
    def parse(cls, cursor: Cursor) -> "Selector | None":
        """Read a selector; returns None for an unknown type, which is skipped."""
        ts_type, protocol, length = cursor.uint(1), cursor.uint(1), cursor.uint(2)
        body = Cursor(cursor.take(length - 4), "IKEv2 TS")
        size = _ADDRESS_BYTES.get(ts_type)
        if size is None:
            return None
        ports = body.uint(2), body.uint(2)
        start, end = body.take(size), body.take(size)
        body.finish()
        return cls(ts_type, start, end, protocol, ports)

    def serialize(self) -> bytes:
        """Write the selector."""
        body = _uint(self.ports[0], 2) + _uint(self.ports[1], 2) + self.start + self.end
        return _uint(self.ts_type, 1) + _uint(self.protocol, 1) + _uint(len(body) + 4, 2) + body


@dataclass(frozen=True, slots=True)
class TrafficSelectors:
    """The body of TSi and TSr (§3.13)."""

    selectors: tuple[Selector, ...]

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the payload."""
        cursor = Cursor(data, "IKEv2 TS")
        count, _ = cursor.uint(1), cursor.take(3)
        _listed(count, MAX_SELECTORS, "TS")
        selectors = [Selector.parse(cursor) for _ in range(count)]
        cursor.finish()
        return cls(tuple(selector for selector in selectors if selector is not None))

    def serialize(self) -> bytes:
        """Write the payload."""
        return _uint(len(self.selectors), 1) + bytes(3) + b"".join(each.serialize() for each in self.selectors)


@dataclass(frozen=True, slots=True)
class TsInitiator(TrafficSelectors):
    """TSi."""

    kind: ClassVar[PayloadType] = PayloadType.TSI


@dataclass(frozen=True, slots=True)
class TsResponder(TrafficSelectors):
    """TSr."""

    kind: ClassVar[PayloadType] = PayloadType.TSR


@dataclass(frozen=True, slots=True)
class Configuration:
    """CP (§3.15): attributes as (type, value)."""

    kind: ClassVar[PayloadType] = PayloadType.CP
    cfg_type: int
    attributes: tuple[tuple[int, bytes], ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the payload."""
        cursor = Cursor(data, "IKEv2 CP")
        cfg_type, _ = cursor.uint(1), cursor.take(3)
        attributes: list[tuple[int, bytes]] = []
        while cursor.remaining:
            attributes.append((cursor.uint(2) & 0x7FFF, cursor.take(cursor.uint(2))))
            _listed(len(attributes), MAX_ATTRIBUTES, "CP")
        return cls(cfg_type, tuple(attributes))

    def serialize(self) -> bytes:
        """Write the payload."""
        body = b"".join(_uint(kind, 2) + _uint(len(value), 2) + value for kind, value in self.attributes)
        return _uint(self.cfg_type, 1) + bytes(3) + body

    def value(self, attribute: CfgAttribute) -> bytes | None:
        """Return the first value of an attribute, which may be empty; None if the attribute is missing."""
        return next((value for kind, value in self.attributes if kind == attribute), None)


@dataclass(frozen=True, slots=True)
class Encrypted:
    """SK (§3.14): IV, ciphertext and checksum. `first` is the type of the first payload inside."""

    kind: ClassVar[PayloadType] = PayloadType.SK
    first: int
    body: bytes

    def serialize(self) -> bytes:
        """Write the payload."""
        return self.body


@dataclass(frozen=True, slots=True)
class EncryptedFragment:
    """SKF (RFC 7383 §2.5): fragment `number` of `total`, from 1. `first` is 0 except in the first."""

    kind: ClassVar[PayloadType] = PayloadType.SKF
    first: int
    number: int
    total: int
    body: bytes

    @classmethod
    def of(cls, first: int, data: bytes) -> Self:
        """Read the payload."""
        cursor = Cursor(data, "IKEv2 SKF")
        number, total = cursor.uint(2), cursor.uint(2)
        if not 1 <= number <= total:
            raise MalformedError("IKEv2 SKF: the fragment's number lies outside of its total (RFC 7383 §2.5)")
        return cls(first, number, total, cursor.rest())

    def serialize(self) -> bytes:
        """Write the payload."""
        return _uint(self.number, 2) + _uint(self.total, 2) + self.body


@dataclass(frozen=True, slots=True)
class Unknown:
    """A payload of an unknown type: ignored unless it is critical (RFC 7296 §2.5)."""

    kind: int
    data: bytes = field(repr=False)
    critical: bool = False

    def serialize(self) -> bytes:
        """Write the payload."""
        return self.data


Payload: TypeAlias = (
    SecurityAssociation
    | KeyExchange
    | Nonce
    | IdInitiator
    | IdResponder
    | Certificate
    | CertificateRequest
    | Authentication
    | Notify
    | Delete
    | VendorId
    | TsInitiator
    | TsResponder
    | Configuration
    | Encrypted
    | EncryptedFragment
    | Unknown
)
"""Any payload."""

_Parsed: TypeAlias = (
    type[SecurityAssociation]
    | type[KeyExchange]
    | type[Nonce]
    | type[IdInitiator]
    | type[IdResponder]
    | type[Certificate]
    | type[CertificateRequest]
    | type[Authentication]
    | type[Notify]
    | type[Delete]
    | type[VendorId]
    | type[TsInitiator]
    | type[TsResponder]
    | type[Configuration]
)

PAYLOADS: dict[int, _Parsed] = {
    kind.kind: kind
    for kind in (
        SecurityAssociation,
        KeyExchange,
        Nonce,
        IdInitiator,
        IdResponder,
        Certificate,
        CertificateRequest,
        Authentication,
        Notify,
        Delete,
        VendorId,
        TsInitiator,
        TsResponder,
        Configuration,
    )
}
"""The class that reads each payload type; `message` reads SK and SKF, because they end the chain."""


def notify_named(payloads: Sequence[Payload], kind: int) -> Notify | None:
    """Return the first notify of a type."""
    return next((each for each in payloads if isinstance(each, Notify) and each.type == kind), None)
