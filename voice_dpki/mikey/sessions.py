"""The crypto sessions of one m-line, and the bundles that they belong to, for all modes (RFC 3830 §4.1.3, §6.1).

An m-line has two crypto sessions: the Initiator's stream, and the Responder's (RFC 4567 §7.1). An offer leaves the
second's SSRC open, and the answer fills it in (RFC 3830 §6.1.1).
"""

from collections.abc import Iterable

from voice_dpki.codec.ntp import ntp_time
from voice_dpki.effects import Random
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.keys import Label, StreamKey
from voice_dpki.mikey.message import Header, Message, SrtpId
from voice_dpki.mikey.payloads import SecurityPolicy, Timestamp
from voice_dpki.mikey.policy import SrtpProfile, profile_of
from voice_dpki.mikey.registry import DataType, Prf
from voice_dpki.mikey.replay import timestamp_at

_INITIATOR_CS, _RESPONDER_CS = 1, 2

_NTP_SECOND = 1 << 32


class Bundles:
    """IDs and timestamps of one Initiator's offers: each has its own ID, and a later time than the one before.

    Timestamps follow a clock that was set back by a second or more: Responders would refuse any that kept running
    ahead of the time.
    """

    def __init__(self) -> None:
        self._open: set[int] = set()
        self._last_ntp = 0

    def open(self, random: Random) -> int:
        """Draw the ID of a new bundle."""
        while (csb_id := int.from_bytes(random.token(4), "big")) in self._open:
            pass
        self._open.add(csb_id)
        return csb_id

    def close(self, csb_id: int) -> None:
        """Forget a bundle whose call has ended, so that its ID may be drawn again."""
        self._open.discard(csb_id)

    def timestamp(self, now_s: float) -> Timestamp:
        """Return the timestamp of the next offer."""
        ntp = ntp_time(now_s)
        ahead = self._last_ntp + 1 - ntp
        self._last_ntp = ntp + ahead if 0 < ahead < _NTP_SECOND else ntp
        return timestamp_at(self._last_ntp)


def offered_sessions(random: Random) -> tuple[SrtpId, SrtpId]:
    """Return the map of an offer, with a random SSRC for the stream that we send."""
    return SrtpId(0, _new_ssrc(random, other=0)), SrtpId(0, 0)


def answer_header(kind: DataType, offered: Header, random: Random) -> Header:
    """Return the answer's header: the Initiator's values, with a random SSRC of ours filled in (§6.1.1)."""
    first, second = offered.sessions
    sessions = (first, SrtpId(second.policy_no, _new_ssrc(random, other=first.ssrc)))
    return Header(kind, offered.csb_id, offered.prf, sessions)


def stream_keys(tgk: bytes, header: Header, rand: bytes, profile: SrtpProfile) -> tuple[StreamKey, StreamKey]:
    """Derive the keys of the Initiator's stream and of the Responder's."""

    def stream(cs_id: int) -> StreamKey:
        label = Label(Prf(header.prf), cs_id, header.csb_id, rand)
        return StreamKey.from_tgk(tgk, label, profile, header.sessions[cs_id - 1].ssrc)

    return stream(_INITIATOR_CS), stream(_RESPONDER_CS)


def accept_policy(message: Message, profiles: Iterable[SrtpProfile]) -> SrtpProfile:
    """Return the profile that an offer's one policy stands for; raises MikeyError if it is none of `profiles`."""
    policy = message.one(SecurityPolicy)
    if any(session.policy_no != policy.policy_no for session in message.header.sessions):
        raise MikeyError(Failure.POLICY, "a crypto session names a policy that the message does not hold")
    profile = profile_of(policy)
    if profile not in profiles:
        raise MikeyError(Failure.POLICY, f"{profile} is not accepted here")
    return profile


def _new_ssrc(random: Random, other: int) -> int:
    """Draw an SSRC that is neither 0, which means none, nor the other side's."""
    while (ssrc := int.from_bytes(random.token(4), "big")) in (0, other):
        pass
    return ssrc
