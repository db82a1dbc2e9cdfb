"""STUN on a SIP port, limited to what keeps a telephone's UDP flow open (RFC 5626 §4.4.2 and §8, RFC 5389 §6)."""

import struct
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final

from voice_dpki.errors import MalformedError, PeerError

MAX_REQUEST_BYTES: Final = 548
"""Largest message over IPv4 if the path's MTU is unknown (RFC 5389 §7.1)."""
TRANSACTION_BYTES: Final = 12

_BINDING_REQUEST: Final = 0x0001
_BINDING_SUCCESS: Final = 0x0101
_BINDING_ERROR: Final = 0x0111
_COOKIE: Final = 0x2112A442
_HEADER: Final = struct.Struct("!HHI12s")
_ATTRIBUTE: Final = struct.Struct("!HH")
_XOR_MAPPED_ADDRESS: Final = 0x0020
_UNDERSTOOD: Final = (0x0001, 0x0008, _XOR_MAPPED_ADDRESS)
"""Attributes that a success may have; MAPPED-ADDRESS and MESSAGE-INTEGRITY are ignored."""
_ADDRESS_FORMS: Final = ((b"\x01", 8), (b"\x02", 20))
"""Family of an XOR-MAPPED-ADDRESS, and size of such a value (RFC 5389 §15.2)."""
_OPTIONAL: Final = 0x8000
"""Attributes from this number on may be ignored if they are unknown (RFC 5389 §15)."""


class BindingRefusedError(PeerError):
    """The server answered a Binding request with an error."""


def is_stun(data: bytes) -> bool:
    """Return whether a datagram is STUN: its first two bits are 0, while SIP begins with a letter (RFC 5626 §8)."""
    return len(data) >= _HEADER.size and data[0] < 0x40 and data[4:8] == _COOKIE.to_bytes(4, "big")


def answer_binding(data: bytes, host: str, port: int) -> bytes | None:
    """Return the answer to a Binding request, which tells the client its address `host`:`port`.

    Returns None for anything else, and for a request with an attribute that may not be ignored: keep-alives have
    none.
    """
    if not _HEADER.size <= len(data) <= MAX_REQUEST_BYTES:
        return None
    kind, length, cookie, transaction = _HEADER.unpack_from(data)
    if (kind, cookie) != (_BINDING_REQUEST, _COOKIE) or length != len(data) - _HEADER.size or length % 4:
        return None
    if not _can_be_passed_over(data[_HEADER.size :]):
        return None
    value = _mapped_address(host, port, transaction)
    head = _HEADER.pack(_BINDING_SUCCESS, _ATTRIBUTE.size + len(value), _COOKIE, transaction)
    return head + _ATTRIBUTE.pack(_XOR_MAPPED_ADDRESS, len(value)) + value


def _can_be_passed_over(attributes: bytes) -> bool:
    at = 0
    while at < len(attributes):
        kind, length = _ATTRIBUTE.unpack_from(attributes, at)
        at += _ATTRIBUTE.size + (length + 3) // 4 * 4
        if kind < _OPTIONAL or at > len(attributes):
            return False
    return True


def _mapped_address(host: str, port: int, transaction: bytes) -> bytes:
    """Return the value of XOR-MAPPED-ADDRESS (RFC 5389 §15.2)."""
    address = ip_address(host.partition("%")[0]).packed
    key = _COOKIE.to_bytes(4, "big") + transaction
    masked = bytes(octet ^ mask for octet, mask in zip(address, key, strict=False))
    return struct.pack("!BBH", 0, 1 if len(address) == 4 else 2, port ^ (_COOKIE >> 16)) + masked


def binding_request(transaction: bytes) -> bytes:
    """Return a Binding request of 20 octets, without attributes; `transaction` is its ID of 12 octets."""
    return _HEADER.pack(_BINDING_REQUEST, 0, _COOKIE, transaction)


def is_binding_answer(data: bytes) -> bool:
    """Return whether a datagram is a success or error response to a Binding request."""
    return is_stun(data) and int.from_bytes(data[:2], "big") in (_BINDING_SUCCESS, _BINDING_ERROR)


def read_binding_answer(data: bytes, transaction: bytes) -> tuple[str, int] | None:
    """Return the address and port from which the server received the request `transaction`.

    Returns None if `data` is not an answer to this request. Raises BindingRefusedError for an error response, and
    MalformedError for an answer without the address, or with an unknown attribute that may not be ignored.
    """
    if not is_binding_answer(data) or len(data) > MAX_REQUEST_BYTES:
        return None
    kind, length, _, answered = _HEADER.unpack_from(data)
    if answered != transaction:
        return None
    if kind == _BINDING_ERROR:
        raise BindingRefusedError("the STUN server answered with an error")
    if length != len(data) - _HEADER.size or length % 4:
        raise MalformedError("the STUN answer has another length than it says")
    found = None
    for attribute, value in _attributes(data[_HEADER.size :]):
        if attribute < _OPTIONAL and attribute not in _UNDERSTOOD:
            raise MalformedError(f"the STUN answer has an unknown attribute {attribute:#06x}")
        if attribute == _XOR_MAPPED_ADDRESS and found is None:
            found = _read_mapped_address(value, transaction)
    if found is None:
        raise MalformedError("the STUN answer has no XOR-MAPPED-ADDRESS")
    return found


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        kind, length = _ATTRIBUTE.unpack_from(data, at)
        at += _ATTRIBUTE.size
        if at + length > len(data):
            raise MalformedError("an attribute of the STUN answer is cut off")
        yield kind, data[at : at + length]
        at += (length + 3) // 4 * 4


def _read_mapped_address(value: bytes, transaction: bytes) -> tuple[str, int]:
    """Read the value of XOR-MAPPED-ADDRESS (RFC 5389 §15.2)."""
    if (value[1:2], len(value)) not in _ADDRESS_FORMS:
        raise MalformedError("the XOR-MAPPED-ADDRESS of the STUN answer is of no known family")
    key = _COOKIE.to_bytes(4, "big") + transaction
    address = bytes(octet ^ mask for octet, mask in zip(value[4:], key, strict=False))
    return str(ip_address(address)), int.from_bytes(value[2:4], "big") ^ (_COOKIE >> 16)
