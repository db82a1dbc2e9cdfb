"""RTCP of a call: reports in both directions, round-trip time and BYE, encrypted if the call is (RFC 3550 §6)."""

from dataclasses import dataclass
from typing import Protocol

from voice_dpki.codec.ntp import ntp_time
from voice_dpki.errors import MalformedError
from voice_dpki.media.playout_statistics import PlayoutStatistics
from voice_dpki.media.rtcp import (
    Goodbye,
    PictureLoss,
    ReceiverReport,
    ReportBlock,
    SenderReport,
    SourceDescription,
    parse_compound,
)
from voice_dpki.media.sequence import unwrap
from voice_dpki.media.srtp import Protection, SrtpError


class Sending(Protocol):
    """What sender reports need to know about our own stream."""

    ssrc: int
    packets: int
    octets: int

    @property
    def clock_rate(self) -> int:
        """Ticks of the RTP clock a second."""
        ...

    @property
    def timestamp(self) -> int:
        """RTP timestamp of the next frame."""
        ...


class Receiving(Protocol):
    """What report blocks need to know about the stream that we receive."""

    ssrc: int | None

    def statistics(self) -> PlayoutStatistics:
        """Return what was counted."""
        ...


@dataclass(frozen=True, slots=True)
class PeerClock:
    """The peer's newest SR: `timestamp` is the RTP timestamp at `ntp`, a 64-bit NTP time (RFC 3550 §6.4.1)."""

    ntp: int
    timestamp: int
    rate: int
    """Ticks a second of the timestamps."""

    def time_s(self, timestamp: int) -> float:
        """Return when the peer took the sample with this RTP timestamp, in seconds of its NTP clock."""
        return self.ntp / (1 << 32) + (unwrap(timestamp, self.timestamp, 32) - self.timestamp) / self.rate

    def timestamp_at(self, time_s: float) -> int:
        """Return the RTP timestamp of the sample that the peer took at `time_s` of its NTP clock."""
        return (self.timestamp + round((time_s - self.ntp / (1 << 32)) * self.rate)) & 0xFFFFFFFF


MAX_AHEAD_S = 1.0
"""Longest time in seconds until the next frame from which a report computes its timestamp to the tick.

In a pause the time of that frame is long past: the timestamps run on."""


class Control:
    """Writer and reader of one session's RTCP; `now_s` is Unix time here."""

    def __init__(self, sending: Sending, receiving: Receiving, protection: Protection, cname: str) -> None:
        self.goodbye = False
        """Whether the peer has left."""
        self.round_trip_s: float | None = None
        self.remote: ReportBlock | None = None
        """The peer's last report on our stream."""
        self.dropped = 0
        self.peer_packets: int | None = None
        """Number of RTP packets sent, according to the peer's last SR."""
        self._peer_clock: tuple[int, PeerClock] | None = None
        """The SSRC of the newest SR, and its clock."""
        self.next_frame_s: float | None = None
        """When our next frame is due; our reports compute the timestamp of their own time from it."""
        self.picture_lost = False
        """Whether the peer asks for a key frame; the sender of one resets it."""
        self._sending = sending
        self._receiving = receiving
        self._protection = protection
        self._cname = cname
        self._last_report: tuple[int, float] | None = None
        """Middle 32 bits of the NTP time in the peer's last SR, and the time of its arrival."""
        self._reported = PlayoutStatistics()
        self._told = 0, 0
        """Number of packets that we had sent at the report before last, and at the last report."""
        self._has_reported = self._has_told = False
        """Whether we have sent a report, and an SR."""

    @property
    def peer_clock(self) -> PeerClock | None:
        """The newest SR's relation of the peer's timestamps to its clock; None before the stream's first SR."""
        told = self._peer_clock
        return None if told is None or told[0] != self._receiving.ssrc else told[1]

    @property
    def owes_sender_report(self) -> bool:
        """Whether packets were sent but no SR yet: the first SR is due at once (RFC 6051 §2.1.1)."""
        return self._sending.packets > 0 and not self._has_told

    @property
    def is_known(self) -> bool:
        """Whether we have sent any RTP or RTCP; if not, BYE must not be sent (RFC 3550 §6.3.7)."""
        return self._sending.packets > 0 or self._has_reported

    def report(self, now_s: float, *, goodbye: bool = False, picture_lost: bool = False) -> tuple[bytes, bytes]:
        """Write a compound packet; returns it in clear and as it goes on the wire.

        With `picture_lost`, it asks the peer for a key frame.
        """
        sending = self._sending
        clear = self._head(now_s).serialize() + SourceDescription(sending.ssrc, self._cname).serialize()
        if picture_lost and self._receiving.ssrc is not None:
            clear += PictureLoss(sending.ssrc, self._receiving.ssrc).serialize()
        if goodbye:
            clear += Goodbye((sending.ssrc,)).serialize()
        return clear, self._protection.protect_rtcp(clear)

    def _head(self, now_s: float) -> SenderReport | ReceiverReport:
        """Return an SR if packets were sent since the report before last, else an RR (RFC 3550 §6.4)."""
        sending, blocks, (before, last) = self._sending, self._blocks(now_s), self._told
        self._told, self._has_reported = (last, sending.packets), True
        if sending.packets == before:
            return ReceiverReport(sending.ssrc, blocks)
        self._has_told = True
        timestamp = self._timestamp(now_s)
        return SenderReport(sending.ssrc, ntp_time(now_s), timestamp, sending.packets, sending.octets, blocks)

    def is_for(self, wire: bytes) -> bool:
        """Return whether an unverified packet has the SSRC of the peer's stream."""
        return int.from_bytes(wire[4:8], "big") == self._receiving.ssrc

    def receive(self, wire: bytes, now_s: float) -> bool:
        """Take a compound packet; returns False, and counts it as dropped, if it is not authentic RTCP."""
        try:
            packets = parse_compound(self._protection.unprotect_rtcp(wire))
        except (SrtpError, MalformedError):
            self.dropped += 1
            return False
        for packet in packets:
            if isinstance(packet, Goodbye):
                self.goodbye = self.goodbye or self._receiving.ssrc in packet.ssrcs
                continue
            if isinstance(packet, PictureLoss):
                self.picture_lost = self.picture_lost or packet.media_ssrc == self._sending.ssrc
                continue
            if isinstance(packet, SenderReport):
                self._last_report = (packet.middle, now_s)
                if packet.ssrc == self._receiving.ssrc:
                    self.peer_packets = packet.packets
                clock = PeerClock(packet.ntp, packet.rtp_timestamp, self._sending.clock_rate)
                self._peer_clock = packet.ssrc, clock
            self._read_blocks(packet, now_s)
        return True

    def _timestamp(self, now_s: float) -> int:
        """Return the RTP timestamp of `now_s` (RFC 3550 §6.4.1), or of the next frame if its time is unknown."""
        timestamp, due_s = self._sending.timestamp, self.next_frame_s
        if due_s is None or due_s - now_s > MAX_AHEAD_S:
            return timestamp
        return (timestamp - round((due_s - now_s) * self._sending.clock_rate)) & 0xFFFFFFFF

    def _read_blocks(self, packet: SenderReport | ReceiverReport, now_s: float) -> None:
        for block in packet.blocks:
            if block.ssrc != self._sending.ssrc:
                continue
            self.remote = block
            if block.last_sender_report:
                middle = ntp_time(now_s) >> 16 & 0xFFFFFFFF
                ticks = (middle - block.last_sender_report - block.delay_since) % (1 << 32)
                self.round_trip_s = ticks / 65_536 if ticks < 1 << 31 else 0.0

    def _blocks(self, now_s: float) -> tuple[ReportBlock, ...]:
        """Return a report on the peer's stream; none while its SSRC is unknown (RFC 3550 §6.4.1)."""
        if self._receiving.ssrc is None:
            return ()
        counted, before = self._receiving.statistics(), self._reported
        self._reported = counted
        expected, received = counted.expected - before.expected, counted.received - before.received
        fraction = max(0, min(255, 256 * (expected - received) // expected)) if expected > 0 else 0
        last, at_s = self._last_report or (0, now_s)
        return (
            ReportBlock(
                ssrc=self._receiving.ssrc,
                fraction_lost=fraction,
                cumulative_lost=counted.lost,
                highest_sequence=counted.highest_sequence,
                jitter=int(counted.jitter),
                last_sender_report=last,
                delay_since=int((now_s - at_s) * 65_536) & 0xFFFFFFFF,
            ),
        )
