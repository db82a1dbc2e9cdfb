"""The sources whose packets a stream accepts, by SSRC."""

from enum import Enum

from voice_dpki.media.rtp import RtpPacket


class Standing(Enum):
    """Relation of a packet's sender to a stream."""

    SOURCE = "the stream's source"
    SUCCESSOR = "a source that takes its place with this packet"
    OTHER = "another"


class Sources:
    """The source of one stream, which is its first sender, and its successors.

    Another sender replaces the source after two consecutive packets (RFC 3550 A.1): a peer that was transferred or
    restarted has another SSRC. If `is_bound`, the keys are bound to the SSRC, and the source never changes.
    """

    def __init__(self, *, is_bound: bool) -> None:
        self._is_bound = is_bound
        self._other: tuple[int, int] | None = None
        """SSRC and next sequence number of a sender that may replace the source."""

    def judge(self, packet: RtpPacket, ssrc: int | None) -> Standing:
        """Return the standing of a packet's sender; `ssrc` is the stream's, None before its first packet."""
        if ssrc is None or ssrc == packet.ssrc:
            self._other = None
            return Standing.SOURCE
        is_second = self._other == (packet.ssrc, packet.sequence)
        self._other = packet.ssrc, (packet.sequence + 1) & 0xFFFF
        if self._is_bound or not is_second:
            return Standing.OTHER
        self._other = None
        return Standing.SUCCESSOR
