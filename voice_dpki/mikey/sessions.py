"""The crypto sessions of a message's m-lines, and the bundles that they belong to (RFC 3830 §4.1.3, §6.1).

Each m-line has two crypto sessions: the Initiator's stream, and the Responder's. Their IDs are 1 and 2 for the
first m-line that the message keys, 3 and 4 for the second (RFC 4567 §7.1). An offer leaves the SSRC of each
Responder's stream open, and the answer fills it in (RFC 3830 §6.1.1). All SSRCs of a bundle are
different.
"""

from collections.abc import Iterable
from dataclasses import replace

from voice_dpki.codec.ntp import ntp_time
from voice_dpki.effects import Random
from voice_dpki.errors import LocalError
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.keys import KeyedPrf, Label, SrtpKeys, StreamKey
from voice_dpki.mikey.message import Header, Message, SrtpId
from voice_dpki.mikey.payloads import SecurityPolicy, Timestamp
from voice_dpki.mikey.policy import SrtpProfile, profile_of
from voice_dpki.mikey.registry import DataType, Prf
from voice_dpki.mikey.replay import timestamp_at

MAX_LINES = 4
"""Most m-lines that one message keys."""

_NTP_SECOND = 1 << 32


class Bundles:
    """IDs and timestamps of one Initiator's offers: each has its own ID, and a later time than the one before.

    If the clock is set back by a second or more, the timestamps follow it: Responders would refuse timestamps that
    stay ahead of the time.
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
        """Forget a bundle whose call has ended, so that its ID can be drawn again."""
        self._open.discard(csb_id)

    def timestamp(self, now_s: float) -> Timestamp:
        """Return the timestamp of the next offer."""
        ntp = ntp_time(now_s)
        ahead = self._last_ntp + 1 - ntp
        self._last_ntp = ntp + ahead if 0 < ahead < _NTP_SECOND else ntp
        return timestamp_at(self._last_ntp)


def offered_sessions(random: Random, lines: int = 1) -> tuple[SrtpId, ...]:
    """Return the CS ID map of an offer for `lines` m-lines, with random SSRCs for the streams that we send.

    Raises LocalError for more than MAX_LINES.
    """
    if not 0 < lines <= MAX_LINES:
        raise LocalError(f"a MIKEY message keys one m-line and at most {MAX_LINES}, not {lines}")
    taken: set[int] = set()
    return tuple(each for _ in range(lines) for each in (SrtpId(0, _new_ssrc(random, taken)), SrtpId(0, 0)))


def answer_header(kind: DataType, offered: Header, random: Random) -> Header:
    """Return the answer's header: that of the offer, with random SSRCs for our streams (§6.1.1)."""
    taken = {session.ssrc for session in offered.sessions}
    filled = (each if each.ssrc else replace(each, ssrc=_new_ssrc(random, taken)) for each in offered.sessions)
    return Header(kind, offered.csb_id, offered.prf, tuple(filled))


def srtp_keys(tgk: bytes, header: Header, rand: bytes, profile: SrtpProfile, *, initiates: bool) -> SrtpKeys:
    """Derive the keys of each m-line in an answer's `header`, for its Initiator or its Responder."""
    prf = KeyedPrf(Prf(header.prf), tgk)

    def stream(cs_id: int) -> StreamKey:
        label = Label(cs_id, header.csb_id, rand)
        return StreamKey.from_tgk(prf, label, profile, header.sessions[cs_id - 1].ssrc)

    def line(first: int) -> SrtpKeys:
        ours, theirs = (stream(first), stream(first + 1))[:: 1 if initiates else -1]
        return SrtpKeys(profile, send=ours, receive=theirs)

    keys, *further = [line(first) for first in range(1, len(header.sessions), 2)]
    return replace(keys, further=tuple(further)) if further else keys


def accept_policy(message: Message, profiles: Iterable[SrtpProfile]) -> SrtpProfile:
    """Return the SRTP profile of an offer's one policy; raises MikeyError if it is none of `profiles`."""
    policy = message.one(SecurityPolicy)
    if any(session.policy_no != policy.policy_no for session in message.header.sessions):
        raise MikeyError(Failure.POLICY, "a crypto session names a policy that the message does not hold")
    profile = profile_of(policy)
    if profile not in profiles:
        raise MikeyError(Failure.POLICY, f"{profile} is not accepted here")
    return profile


def _new_ssrc(random: Random, taken: set[int]) -> int:
    """Draw an SSRC that is neither 0, which means none, nor in `taken`, and add it to `taken`."""
    while (ssrc := int.from_bytes(random.token(4), "big")) == 0 or ssrc in taken:
        pass
    taken.add(ssrc)
    return ssrc
