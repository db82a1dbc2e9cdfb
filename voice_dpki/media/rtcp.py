"""The RTCP that a call of two parties needs: SR, RR, SDES CNAME, BYE (RFC 3550 §6.4-6.6), PLI and FIR."""

import struct
from dataclasses import dataclass
from typing import TypeAlias

from voice_dpki.codec.cursor import Cursor
from voice_dpki.errors import MalformedError
from voice_dpki.media.rtp import MAX_PACKET_BYTES

SENDER_REPORT, RECEIVER_REPORT, SOURCE_DESCRIPTION, GOODBYE = 200, 201, 202, 203
PAYLOAD_FEEDBACK = 206
_PICTURE_LOSS, _FULL_INTRA = 1, 4
_CNAME = 1

_BLOCK = struct.Struct("!IIIIII")


def is_rtcp(packet: bytes) -> bool:
    """Return whether a packet at a port that RTP and RTCP share is RTCP, by its packet type (RFC 5761 §4)."""
    return len(packet) > 1 and 192 <= packet[1] <= 223


@dataclass(frozen=True, slots=True)
class ReportBlock:
    """A receiver's report on one source (§6.4.1). `jitter` is in ticks, `delay_since` in 1/65536 s.

    `last_sender_report` is the `middle` of the SR that it answers, 0 if there was none.
    """

    ssrc: int
    fraction_lost: int
    cumulative_lost: int
    highest_sequence: int
    jitter: int
    last_sender_report: int = 0
    delay_since: int = 0

    @classmethod
    def parse(cls, cursor: Cursor) -> "ReportBlock":
        """Read a block of 24 bytes."""
        ssrc, lost, highest, jitter, last, delay = _BLOCK.unpack(cursor.take(_BLOCK.size))
        cumulative = lost & 0xFFFFFF
        signed = cumulative - (1 << 24) if cumulative & 0x800000 else cumulative
        return cls(ssrc, lost >> 24, signed, highest, jitter, last, delay)

    def serialize(self) -> bytes:
        """Write the block; the cumulative loss is clamped to its 24 signed bits."""
        cumulative = max(-(1 << 23), min(self.cumulative_lost, (1 << 23) - 1)) & 0xFFFFFF
        lost = self.fraction_lost << 24 | cumulative
        return _BLOCK.pack(
            self.ssrc, lost, self.highest_sequence, self.jitter, self.last_sender_report, self.delay_since
        )


@dataclass(frozen=True, slots=True)
class SenderReport:
    """SR (§6.4.1): what was sent, and what was received. `ntp` is a 64-bit NTP time."""

    ssrc: int
    ntp: int
    rtp_timestamp: int
    packets: int
    octets: int
    blocks: tuple[ReportBlock, ...] = ()

    def serialize(self) -> bytes:
        """Write the packet."""
        info = struct.pack("!IQIII", self.ssrc, self.ntp, self.rtp_timestamp, self.packets, self.octets)
        return _packet(SENDER_REPORT, len(self.blocks), info + b"".join(b.serialize() for b in self.blocks))

    @property
    def middle(self) -> int:
        """The middle 32 bits of `ntp`, which identify this report in a report block."""
        return self.ntp >> 16 & 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class ReceiverReport:
    """RR (§6.4.2): what was received, from a participant that sends nothing."""

    ssrc: int
    blocks: tuple[ReportBlock, ...] = ()

    def serialize(self) -> bytes:
        """Write the packet."""
        body = self.ssrc.to_bytes(4, "big") + b"".join(block.serialize() for block in self.blocks)
        return _packet(RECEIVER_REPORT, len(self.blocks), body)


@dataclass(frozen=True, slots=True)
class SourceDescription:
    """SDES with only a CNAME, which every compound packet must have (§6.1, §6.5.1)."""

    ssrc: int
    cname: str

    def serialize(self) -> bytes:
        """Write the packet: one chunk, terminated and padded with zeros."""
        name = self.cname.encode("utf-8")
        chunk = self.ssrc.to_bytes(4, "big") + bytes([_CNAME, len(name)]) + name + b"\0"
        return _packet(SOURCE_DESCRIPTION, 1, chunk + bytes(-len(chunk) % 4))


@dataclass(frozen=True, slots=True)
class Goodbye:
    """BYE (§6.6): sources that leave."""

    ssrcs: tuple[int, ...]

    def serialize(self) -> bytes:
        """Write the packet."""
        return _packet(GOODBYE, len(self.ssrcs), b"".join(ssrc.to_bytes(4, "big") for ssrc in self.ssrcs))


@dataclass(frozen=True, slots=True)
class PictureLoss:
    """PLI (RFC 4585 §6.3.1): `ssrc` has lost pictures of `media_ssrc`, and needs a key frame."""

    ssrc: int
    media_ssrc: int

    def serialize(self) -> bytes:
        """Write the packet."""
        return _packet(PAYLOAD_FEEDBACK, _PICTURE_LOSS, struct.pack("!II", self.ssrc, self.media_ssrc))


Rtcp: TypeAlias = SenderReport | ReceiverReport | Goodbye | PictureLoss
"""What is read from a compound packet; source descriptions and others are skipped."""


def parse_compound(data: bytes) -> tuple[Rtcp, ...]:
    """Read a compound packet, whose first packet must be a report (§6.1); raises MalformedError."""
    if len(data) > MAX_PACKET_BYTES:
        raise MalformedError(f"the RTCP packet is longer than {MAX_PACKET_BYTES} bytes")
    cursor = Cursor(data, "RTCP packet")
    found: list[Rtcp] = []
    first = True
    while cursor.remaining:
        head, kind = cursor.uint(1), cursor.uint(1)
        if head >> 6 != 2 or (first and kind not in (SENDER_REPORT, RECEIVER_REPORT)):
            raise MalformedError("the RTCP packet is not of version 2, or does not begin with a report")
        body = Cursor(cursor.take(4 * cursor.uint(2)), "RTCP packet")
        found.extend(_parse_body(kind, head & 0x1F, body))
        first = False
    return tuple(found)


def _parse_body(kind: int, count: int, body: Cursor) -> tuple[Rtcp, ...]:
    if kind == SENDER_REPORT:
        ssrc, ntp, rtp_timestamp, packets, octets = struct.unpack("!IQIII", body.take(24))
        return (SenderReport(ssrc, ntp, rtp_timestamp, packets, octets, _blocks(count, body)),)
    if kind == RECEIVER_REPORT:
        return (ReceiverReport(body.uint(4), _blocks(count, body)),)
    if kind == GOODBYE:
        return (Goodbye(tuple(body.uint(4) for _ in range(count))),)
    if kind == PAYLOAD_FEEDBACK and count in (_PICTURE_LOSS, _FULL_INTRA):
        return _picture_losses(count, body)
    return ()


def _picture_losses(count: int, body: Cursor) -> tuple[PictureLoss, ...]:
    """Read PLI, or FIR, which requests the same and names each source in 8 bytes (RFC 5104 §4.3.1.1)."""
    ssrc, media_ssrc = struct.unpack("!II", body.take(8))
    if count == _PICTURE_LOSS:
        return (PictureLoss(ssrc, media_ssrc),)
    sources = (int.from_bytes(body.take(8)[:4], "big") for _ in range(body.remaining // 8))
    return tuple(PictureLoss(ssrc, source) for source in sources)


def _blocks(count: int, body: Cursor) -> tuple[ReportBlock, ...]:
    return tuple(ReportBlock.parse(body) for _ in range(count))


def _packet(kind: int, count: int, body: bytes) -> bytes:
    return struct.pack("!BBH", 2 << 6 | count, kind, len(body) // 4) + body
