"""Trace events of a call: SIP messages and media, in addition to those of `voice_dpki.stage.events`."""

from dataclasses import dataclass

from voice_dpki.sip.video import PAYLOAD_TYPE
from voice_dpki.stage.events import COMMON_KINDS, Event, Kinds, ends, octets


@dataclass(frozen=True, slots=True)
class SipEvent(Event):
    """A SIP message as sent."""

    transport: str
    src: str
    dst: str
    data: bytes


@dataclass(frozen=True, slots=True)
class RtpEvent(Event):
    """An RTP or RTCP packet: `wire` as sent, `clear` as it was before encryption."""

    src: str
    dst: str
    wire: bytes
    clear: bytes

    @property
    def is_control(self) -> bool:
        """Whether the packet is RTCP (RFC 5761 §4)."""
        return len(self.clear) > 1 and 192 <= self.clear[1] <= 223

    @property
    def is_video(self) -> bool:
        """Whether the packet has the payload type that our telephones give to video."""
        return len(self.clear) > 1 and self.clear[1] & 0x7F == PAYLOAD_TYPE


def _sip(time_s: float, actor: str, members: dict[str, object]) -> Event:
    transport = str(members["transport"]).lower()
    return SipEvent(time_s, actor, transport, *ends(members), octets(members["data"]))


def _rtp(time_s: float, actor: str, members: dict[str, object]) -> Event:
    return RtpEvent(time_s, actor, *ends(members), octets(members["wire"]), octets(members["clear"]))


KINDS: Kinds = {**COMMON_KINDS, "sip": _sip, "rtp": _rtp}
"""The kinds of events that the programs of a call write."""
