"""RTP packets (RFC 3550 §5.1).

 0                   1                   2                   3
 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
|V=2|P|X|  CC   |M|     PT      |       sequence number         |
|                           timestamp                           |
|                             SSRC                              |
|                        CSRC, 4 bytes each                     |
"""

import struct
from typing import NamedTuple

from voice_dpki.codec.cursor import Cursor
from voice_dpki.errors import MalformedError

MAX_PACKET_BYTES = 1500
"""Longest packet that is read: an Ethernet frame's payload."""

_FIXED = struct.Struct("!BBHII")
_VERSION = 2


class RtpPacket(NamedTuple):
    """One packet; CSRCs, header extension and padding are dropped when reading, and never written."""

    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes
    marker: bool = False

    @classmethod
    def parse(cls, data: bytes) -> "RtpPacket":
        """Read a packet; raises MalformedError."""
        if len(data) > MAX_PACKET_BYTES:
            raise MalformedError(f"the RTP packet is longer than {MAX_PACKET_BYTES} bytes")
        if len(data) < _FIXED.size:
            raise MalformedError(f"the RTP packet is shorter than its header, {_FIXED.size} bytes")
        first, second, sequence, timestamp, ssrc = _FIXED.unpack_from(data)
        if first >> 6 != _VERSION:
            raise MalformedError("the RTP packet is not of version 2")
        payload = data[_FIXED.size :]
        if first & 0x3F:
            payload = _bare(payload, first)
        return cls(second & 0x7F, sequence, timestamp, ssrc, payload, bool(second & 0x80))

    def serialize(self) -> bytes:
        """Write the packet."""
        second = self.marker << 7 | self.payload_type
        return _FIXED.pack(_VERSION << 6, second, self.sequence, self.timestamp, self.ssrc) + self.payload


def _bare(payload: bytes, first: int) -> bytes:
    """Drop the CSRCs, header extension and padding that the header's first byte announces."""
    cursor = Cursor(payload, "RTP packet")
    cursor.take(4 * (first & 0x0F))
    if first & 0x10:
        cursor.take(2)
        cursor.take(4 * cursor.uint(2))
    return _without_padding(cursor.rest()) if first & 0x20 else cursor.rest()


def _without_padding(payload: bytes) -> bytes:
    """Drop the padding, whose length is its last byte."""
    padding = payload[-1] if payload else 0
    if not 0 < padding <= len(payload):
        raise MalformedError("the RTP packet's padding is longer than its payload")
    return payload[:-padding]
