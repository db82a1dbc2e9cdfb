"""STUN on a SIP port, as much as keeps a telephone's UDP flow open (RFC 5626 §4.4.2 and §8, RFC 5389 §6)."""

import struct
from ipaddress import ip_address
from typing import Final

MAX_REQUEST_BYTES: Final = 548
"""What fits where the path's MTU is unknown (RFC 5389 §7.1)."""

_BINDING_REQUEST: Final = 0x0001
_BINDING_SUCCESS: Final = 0x0101
_COOKIE: Final = 0x2112A442
_HEADER: Final = struct.Struct("!HHI12s")
_ATTRIBUTE: Final = struct.Struct("!HH")
_XOR_MAPPED_ADDRESS: Final = 0x0020
_OPTIONAL: Final = 0x8000
"""Attributes from here on may be passed over (RFC 5389 §15)."""


def is_stun(data: bytes) -> bool:
    """Whether a datagram is for STUN: SIP begins with a letter, STUN with two bits that are 0 (RFC 5626 §8)."""
    return len(data) >= _HEADER.size and data[0] < 0x40 and data[4:8] == _COOKIE.to_bytes(4, "big")


def answer_binding(data: bytes, host: str, port: int) -> bytes | None:
    """Return the answer to a Binding request from `host`:`port`, which tells it that address.

    None for anything else, and where an attribute is there that has to be understood: keep-alives have none.
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
