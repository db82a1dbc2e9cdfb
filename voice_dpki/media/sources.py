"""Whose packets a stream takes, by their SSRC."""

from enum import Enum

from voice_dpki.media.rtp import RtpPacket


class Standing(Enum):
    """What the sender of a packet is to a stream."""

    SOURCE = "the stream's source"
    SUCCESSOR = "a source that takes its place with this packet"
    OTHER = "another"


class Sources:
    """Watch over the source of one stream, which is its first sender.

    Another takes its place once two packets of it in a row have come (RFC 3550 A.1): a peer that was transferred or
    restarted has another SSRC. Where keys are bound to the SSRC, nobody does.
    """

    def __init__(self, *, is_bound: bool) -> None:
        self._is_bound = is_bound
        self._other: tuple[int, int] | None = None
        """SSRC and next sequence number of a sender that may take the source's place."""

    def judge(self, packet: RtpPacket, ssrc: int | None) -> Standing:
        """Tell what the sender of a packet is; `ssrc` is the stream's, None before its first packet."""
        if ssrc is None or ssrc == packet.ssrc:
            self._other = None
            return Standing.SOURCE
        is_second = self._other == (packet.ssrc, packet.sequence)
        self._other = packet.ssrc, (packet.sequence + 1) & 0xFFFF
        if self._is_bound or not is_second:
            return Standing.OTHER
        self._other = None
        return Standing.SUCCESSOR
