"""Relaying a call's streams from one side to the other: what a translator of RTP changes (RFC 3550 §7.2).

Each side hears one stream of one SSRC, whichever sources the other side sends from, because keys of MIKEY are bound
to an SSRC. Sequence numbers and timestamps are moved by a constant, which is chosen anew when the source changes so
that both go on. Reports are moved back. Payloads stay as they are; header extensions, CSRCs and padding are
dropped. So are goodbyes: another source may follow the one that leaves, and the stream here ends with the call.
"""

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum

from voice_dpki.effects import Random
from voice_dpki.errors import MalformedError, PeerError
from voice_dpki.media.rtcp import (
    ReceiverReport,
    ReportBlock,
    Rtcp,
    SenderReport,
    SourceDescription,
    parse_compound,
)
from voice_dpki.media.rtp import RtpPacket

MAX_SOURCES = 32
"""Most sources of one side, one after the other, between two changes of its keys."""

OLD_TYPES_S = 2.0
"""How long packets of payload types are passed on that a change of the call has given up: some are on the way."""

_SEQUENCES, _TIMESTAMPS, _COUNTS = 1 << 16, 1 << 32, 1 << 32


class Unrelayed(StrEnum):
    """Why an authentic packet is not passed on."""

    PAYLOAD_TYPE = "payload-type"
    """It was not agreed."""
    SOURCE = "source"
    """It is of a source that another one has replaced, or of one too many."""
    MALFORMED = "malformed"
    NOTHING = "nothing"
    """It is RTCP that has nothing for the other side."""


class NotRelayedError(PeerError):
    """An authentic packet that is not passed on."""

    def __init__(self, why: Unrelayed) -> None:
        super().__init__(f"not relayed: {why}")
        self.why = why


class Translation:
    """One direction: RTP of one side becomes one stream with `ssrc` for the other.

    `payload_types` maps those that arrive to those that leave; `clock_rate` is that of the codec in ticks a second.
    """

    def __init__(self, ssrc: int, payload_types: Mapping[int, int], clock_rate: int, random: Random) -> None:
        self.ssrc = ssrc
        self.source: int | None = None
        """SSRC of the source that is heard now; None before the first packet."""
        self.packets = self.octets = 0
        """What has left, all sources together: octets of payload, as sender's reports count them."""
        self.clock_rate = clock_rate
        self._payload_types = dict(payload_types)
        self._old_types: dict[int, int] = {}
        self._old_until_s = 0.0
        self._left: set[int | None] = set()
        # In the lower half, so that the first packets' loss cannot hide a wrap from SRTP (RFC 3711 §3.3.1).
        self._next = int.from_bytes(random.token(2), "big") & 0x7FFF
        self._timestamp = int.from_bytes(random.token(4), "big")
        self._sequence_moved = self._timestamp_moved = 0
        self._newest_s = 0.0

    def rtp(self, data: bytes, now_s: float) -> bytes:
        """Return the packet to pass on; raises NotRelayedError."""
        try:
            packet = RtpPacket.parse(data)
        except MalformedError:
            raise NotRelayedError(Unrelayed.MALFORMED) from None
        payload_type = self._payload_type(packet.payload_type, now_s)
        starts = packet.ssrc != self.source
        if starts:
            self._begin(packet, now_s)
        moved = RtpPacket(
            payload_type,
            (packet.sequence + self._sequence_moved) % _SEQUENCES,
            (packet.timestamp + self._timestamp_moved) % _TIMESTAMPS,
            self.ssrc,
            packet.payload,
            marker=packet.marker or starts,
        )
        self._note(moved, now_s)
        return moved.serialize()

    def retype(self, payload_types: Mapping[int, int], now_s: float) -> None:
        """Take the payload types of a change, whose clock rate is the same, and for OLD_TYPES_S those of before."""
        if payload_types != self._payload_types:
            self._old_types, self._old_until_s = self._payload_types, now_s + OLD_TYPES_S
            self._payload_types = dict(payload_types)

    def expect_source(self) -> None:
        """Take up other sources, now that the side has new keys: those of before cannot come back under them."""
        self._left &= {self.source}

    def rtcp(self, data: bytes, back: "Translation") -> bytes:
        """Return the compound packet to pass on; `back` is the other direction. Raises NotRelayedError.

        Of the other side's own stream, reports are passed on. All else, such as its CNAME, is not.
        """
        try:
            packets = parse_compound(data)
        except MalformedError:
            raise NotRelayedError(Unrelayed.MALFORMED) from None
        reports = [made for packet in packets if (made := self._report(packet, back)) is not None]
        if not reports:
            raise NotRelayedError(Unrelayed.NOTHING)
        return reports[0].serialize() + SourceDescription(self.ssrc, "voice").serialize()

    def _payload_type(self, arrived: int, now_s: float) -> int:
        leaves = self._payload_types.get(arrived)
        if leaves is None and now_s < self._old_until_s:
            leaves = self._old_types.get(arrived)
        if leaves is None:
            raise NotRelayedError(Unrelayed.PAYLOAD_TYPE)
        return leaves

    def _report(self, packet: Rtcp, back: "Translation") -> SenderReport | ReceiverReport | None:
        """Return what a report says to the other side; None for what is no report.

        A source counts what it sent before this stream began, too, which would look lost here.
        """
        match packet:
            case SenderReport(ssrc=ssrc) if ssrc == self.source:
                timestamp = (packet.rtp_timestamp + self._timestamp_moved) % _TIMESTAMPS
                return SenderReport(
                    self.ssrc,
                    packet.ntp,
                    timestamp,
                    self.packets % _COUNTS,
                    self.octets % _COUNTS,
                    back.moved_back(packet.blocks),
                )
            case SenderReport() | ReceiverReport():
                return ReceiverReport(self.ssrc, back.moved_back(packet.blocks))
        return None

    def moved_back(self, blocks: tuple[ReportBlock, ...]) -> tuple[ReportBlock, ...]:
        """Return those report blocks that are about the stream that leaves here, as its source must read them."""
        if self.source is None:
            return ()
        return tuple(
            replace(
                block,
                ssrc=self.source,
                highest_sequence=(block.highest_sequence - self._sequence_moved) % _TIMESTAMPS,
            )
            for block in blocks
            if block.ssrc == self.ssrc
        )

    def _begin(self, packet: RtpPacket, now_s: float) -> None:
        """Take up another source; raises NotRelayedError for one that was left, and for one too many."""
        if packet.ssrc in self._left or len(self._left) >= MAX_SOURCES:
            raise NotRelayedError(Unrelayed.SOURCE)
        self._left.add(packet.ssrc)
        self.source = packet.ssrc
        passed = round((now_s - self._newest_s) * self.clock_rate) if self.packets else 0
        self._sequence_moved = self._next - packet.sequence
        self._timestamp_moved = self._timestamp + passed - packet.timestamp

    def _note(self, moved: RtpPacket, now_s: float) -> None:
        """Note the packet that leaves, if it is the newest so far."""
        self.packets += 1
        self.octets += len(moved.payload)
        ahead = (moved.sequence + 1 - self._next) % _SEQUENCES
        if 0 < ahead < _SEQUENCES // 2:
            self._next = (moved.sequence + 1) % _SEQUENCES
            self._timestamp, self._newest_s = moved.timestamp, now_s
