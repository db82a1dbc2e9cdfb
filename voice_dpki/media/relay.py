"""The relay of a call's streams from one side to the other: an RTP translator (RFC 3550 §7.2).

Each side receives one stream with one SSRC, whatever sources the other side has, because MIKEY keys are bound to an
SSRC. A constant is added to sequence numbers and timestamps; it changes with the source, so that both continue.
Reports are translated back. Payloads do not change; header extensions, CSRCs and padding are dropped. BYE is
dropped, too: another source may follow the one that leaves, and the relayed stream ends with the call.
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
"""Most successive sources of one side between two changes of its keys."""

OLD_TYPES_S = 2.0
"""How long packets with former payload types are still relayed after a change, in seconds: some are in flight."""

_SEQUENCES, _TIMESTAMPS, _COUNTS = 1 << 16, 1 << 32, 1 << 32


class Unrelayed(StrEnum):
    """Why an authentic packet is not relayed."""

    PAYLOAD_TYPE = "payload-type"
    """Its payload type was not agreed."""
    SOURCE = "source"
    """Its source was replaced by another one, or exceeds MAX_SOURCES."""
    MALFORMED = "malformed"
    NOTHING = "nothing"
    """It is RTCP without a report for the other side."""


class NotRelayedError(PeerError):
    """An authentic packet is not relayed."""

    def __init__(self, why: Unrelayed) -> None:
        super().__init__(f"not relayed: {why}")
        self.why = why


class Translation:
    """One direction: RTP from one side becomes one stream with `ssrc` for the other.

    `payload_types` maps received payload types to sent ones; `clock_rate` is the codec's, in ticks a second.
    """

    def __init__(self, ssrc: int, payload_types: Mapping[int, int], clock_rate: int, random: Random) -> None:
        self.ssrc = ssrc
        self.source: int | None = None
        """SSRC of the current source; None before the first packet."""
        self.packets = self.octets = 0
        """Packets and octets of payload sent, of all sources, as sender reports count them."""
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
        """Return the packet to send; raises NotRelayedError."""
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
        """Use the payload types of a change with the same clock rate, and the former ones for OLD_TYPES_S more."""
        if payload_types != self._payload_types:
            self._old_types, self._old_until_s = self._payload_types, now_s + OLD_TYPES_S
            self._payload_types = dict(payload_types)

    def expect_source(self) -> None:
        """Forget the replaced sources after a change of keys, under which they cannot come back."""
        self._left &= {self.source}

    def rtcp(self, data: bytes, back: "Translation") -> bytes:
        """Return the compound packet to send; `back` is the other direction. Raises NotRelayedError.

        Only the first report is relayed, with a CNAME of ours; anything else is dropped.
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
        """Return a report translated for the other side; None for other packets.

        An SR gets our own counts: the source's include packets from before this stream, which would look lost.
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
        """Return the report blocks about the stream that we send, translated for its source."""
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
        """Switch to another source; raises NotRelayedError for a replaced one, and for one beyond MAX_SOURCES."""
        if packet.ssrc in self._left or len(self._left) >= MAX_SOURCES:
            raise NotRelayedError(Unrelayed.SOURCE)
        self._left.add(packet.ssrc)
        self.source = packet.ssrc
        passed = round((now_s - self._newest_s) * self.clock_rate) if self.packets else 0
        self._sequence_moved = self._next - packet.sequence
        self._timestamp_moved = self._timestamp + passed - packet.timestamp

    def _note(self, moved: RtpPacket, now_s: float) -> None:
        """Count a packet that is sent, and note its numbers if it is the newest so far."""
        self.packets += 1
        self.octets += len(moved.payload)
        ahead = (moved.sequence + 1 - self._next) % _SEQUENCES
        if 0 < ahead < _SEQUENCES // 2:
            self._next = (moved.sequence + 1) % _SEQUENCES
            self._timestamp, self._newest_s = moved.timestamp, now_s
