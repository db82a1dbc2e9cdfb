"""IKEv2 messages: the header and the chain of payloads (RFC 7296 §3.1, §3.2).

HDR = SPIi(8) SPIr(8) next payload(1) version(1) exchange(1) flags(1) message ID(4) length(4)
payload = next payload(1) critical and reserved(1) length(2) body
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from voice_dpki.codec.cursor import Cursor
from voice_dpki.errors import MalformedError
from voice_dpki.ikev2.payloads import PAYLOADS, Encrypted, EncryptedFragment, Notify, Payload, Unknown, notify_named
from voice_dpki.ikev2.registry import (
    MAJOR_VERSION,
    ExchangeType,
    NotifyType,
    PayloadType,
    name_of,
)

HEADER_BYTES = 28
SPI_BYTES = 8
NO_SPI = bytes(SPI_BYTES)

MAX_MESSAGE_BYTES = 65_507
"""Largest message: a UDP datagram over IPv4; also the largest content of a message in fragments."""

MAX_PAYLOADS = 64
"""Most payloads in one message; a full IKE_AUTH has about 20."""

_INITIATOR, _RESPONSE = 0x08, 0x20

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Header:
    """An IKE header, without next payload and length, which follow from the payloads."""

    spi_i: bytes
    spi_r: bytes
    exchange: int
    message_id: int
    from_initiator: bool
    is_response: bool
    major: int = MAJOR_VERSION

    def serialize(self, first: int, size: int) -> bytes:
        """Write the header of a message of `size` bytes, itself included, whose first payload is `first`."""
        flags = _INITIATOR * self.from_initiator | _RESPONSE * self.is_response
        numbers = bytes((first, self.major << 4, self.exchange, flags))
        return self.spi_i + self.spi_r + numbers + self.message_id.to_bytes(4, "big") + size.to_bytes(4, "big")

    @property
    def name(self) -> str:
        """Name of the exchange."""
        return name_of(ExchangeType, self.exchange)


@dataclass(frozen=True, slots=True)
class Message:
    """A message. The `payloads` of an encrypted one end with the SK or SKF payload, still encrypted."""

    header: Header
    payloads: tuple[Payload, ...]
    octets: bytes = field(default=b"", repr=False)

    @classmethod
    def parse(cls, octets: bytes) -> "Message":
        """Parse a message; raises MalformedError. If it has another major version, only the header is read."""
        if len(octets) > MAX_MESSAGE_BYTES:
            raise MalformedError(f"IKEv2: a message has more than {MAX_MESSAGE_BYTES} bytes")
        cursor = Cursor(octets, "IKEv2 message")
        header, first, length = _parse_header(cursor)
        if header.major != MAJOR_VERSION:
            return cls(header, (), octets)
        if length != len(octets):
            raise MalformedError("IKEv2: the header's length is not the datagram's")
        return cls(header, parse_payloads(first, cursor.rest(), encrypted=True), octets)

    def all(self, kind: type[P]) -> tuple[P, ...]:
        """Return the payloads of a class."""
        return tuple(payload for payload in self.payloads if isinstance(payload, kind))

    def notify(self, kind: int) -> Notify | None:
        """Return the first notify of a type."""
        return notify_named(self.payloads, kind)


def _parse_header(cursor: Cursor) -> tuple[Header, int, int]:
    spi_i, spi_r = cursor.take(SPI_BYTES), cursor.take(SPI_BYTES)
    first, version, exchange, flags = cursor.uint(1), cursor.uint(1), cursor.uint(1), cursor.uint(1)
    message_id, length = cursor.uint(4), cursor.uint(4)
    initiator, response = bool(flags & _INITIATOR), bool(flags & _RESPONSE)
    return Header(spi_i, spi_r, exchange, message_id, initiator, response, version >> 4), first, length


def parse_payloads(first: int, data: bytes, *, encrypted: bool = False) -> tuple[Payload, ...]:
    """Read a chain of payloads whose first is of type `first`; `encrypted` admits SK or SKF at its end.

    Raises MalformedError.
    """
    cursor, payloads, kind = Cursor(data, "IKEv2 payloads"), list[Payload](), first
    while kind != PayloadType.NONE:
        following, critical, length = cursor.uint(1), cursor.uint(1) >> 7, cursor.uint(2)
        body = cursor.take(length - 4)
        if kind in (PayloadType.SK, PayloadType.SKF):
            if not encrypted:
                raise MalformedError("IKEv2: an encrypted payload within another one")
            payloads.append(
                Encrypted(following, body) if kind == PayloadType.SK else EncryptedFragment.of(following, body)
            )
            break
        known = PAYLOADS.get(kind)
        payloads.append(Unknown(kind, body, bool(critical)) if known is None else known.parse(body))
        if len(payloads) > MAX_PAYLOADS:
            raise MalformedError(f"IKEv2: a message has more than {MAX_PAYLOADS} payloads")
        kind = following
    cursor.finish()
    return tuple(payloads)


def serialize_payloads(payloads: Sequence[Payload], last: int = PayloadType.NONE) -> bytes:
    """Write a chain of payloads; `last` is the next payload type in the last one."""
    out = []
    for at, payload in enumerate(payloads, 1):
        following = payloads[at].kind if at < len(payloads) else last
        body = payload.serialize()
        critical = 0x80 if isinstance(payload, Unknown) and payload.critical else 0
        out += [bytes((following, critical)), (len(body) + 4).to_bytes(2, "big"), body]
    return b"".join(out)


def first_kind(payloads: Sequence[Payload]) -> int:
    """Return the type of the first payload, 0 if there is none."""
    return payloads[0].kind if payloads else PayloadType.NONE


def serialize(header: Header, payloads: Sequence[Payload]) -> bytes:
    """Write a message in clear."""
    body = serialize_payloads(payloads)
    return header.serialize(first_kind(payloads), HEADER_BYTES + len(body)) + body


_SHORT: dict[int, str] = {
    PayloadType.NONCE: "Nonce",
    PayloadType.IDI: "IDi",
    PayloadType.IDR: "IDr",
    PayloadType.TSI: "TSi",
    PayloadType.TSR: "TSr",
    PayloadType.DELETE: "D",
    PayloadType.VENDOR_ID: "V",
}


def describe(payloads: Sequence[Payload], names: dict[int, str] | None = None) -> tuple[str, ...]:
    """Return readable names of payloads as in RFC 7296 §1.2; `names` has the names of private notifies."""
    return tuple(_describe(payload, names or {}) for payload in payloads)


def _describe(payload: Payload, names: dict[int, str]) -> str:
    if isinstance(payload, Notify):
        return f"N({names.get(payload.type) or name_of(NotifyType, payload.type)})"
    return _SHORT.get(payload.kind) or name_of(PayloadType, payload.kind)
