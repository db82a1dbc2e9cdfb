"""Which codecs a change within a call through the gateway leaves, and under which payload types. No I/O.

Payloads are not changed on their way, so both sides have the same codecs. Their payload types may differ, and a
side keeps those that it has had in the call (RFC 3264 §8.3.2).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from sip_testbed.gateway_refresh import Described, section_in_use
from sip_testbed.gateway_rules import clock_rate, payload_types
from voice_dpki.errors import MalformedError
from voice_dpki.names import ascii_lower
from voice_dpki.sip.sdp import Media, RtpMap, SessionDescription, same_encoding

_EVENTS: Final = "telephone-event/"
_DYNAMIC: Final = range(96, 128)
"""Payload types that descriptions give a meaning (RFC 3551 §3)."""
_OF_PAYLOADS: Final = ("a=rtpmap:", "a=fmtp:")


def in_use(end: Described, other: Described) -> list[RtpMap]:
    """Return the codecs of a call, as `end` has described them and in its order."""
    others = [each.audio.rtpmaps for each in (end.ours, other.ours, other.agreed)]
    return [each for each in end.agreed.audio.rtpmaps if all(_has(maps, each) for maps in others)]


def wanted(used: Sequence[RtpMap], offered: Sequence[RtpMap]) -> tuple[list[RtpMap], bool]:
    """Return what an offer leaves of the codecs in use, and whether that changes the call.

    An offer that has a codec in use changes nothing by others beside it. Without one, the call goes over to what it
    has. Raises MalformedError if that is no speech.
    """
    kept = [each for each in offered if _has(used, each)]
    if any(map(_is_speech, kept)):
        return kept, any(not _has(kept, each) for each in used)
    if not any(map(_is_speech, offered)):
        raise MalformedError("the offer has no codec of speech")
    return list(offered), True


def speech_rate(payloads: Sequence[RtpMap]) -> int:
    """Return the clock rate of the first codec of speech, in ticks a second; raises MalformedError."""
    return clock_rate(next((each for each in payloads if _is_speech(each)), payloads[0]))


def numbered_for(described: Described, payloads: Sequence[RtpMap]) -> list[RtpMap]:
    """Return codecs under the payload types of another side: those that it has had, else free ones.

    Raises MalformedError if none is free.
    """
    known = [*described.ours.audio.rtpmaps, *described.agreed.audio.rtpmaps]
    taken = {each.payload_type for each in known}
    made: list[RtpMap] = []
    for payload in payloads:
        before = next((each for each in known if same_encoding(each.encoding, payload.encoding)), None)
        number = before.payload_type if before else _free(payload.payload_type, taken)
        taken.add(number)
        made.append(replace(payload, payload_type=number))
    return made


def with_payloads(described: SessionDescription, payloads: Sequence[RtpMap]) -> SessionDescription:
    """Return a description of ours whose section in use has these codecs alone."""
    at = section_in_use(described)
    media = (*described.media[:at], _with(described.media[at], payloads), *described.media[at + 1 :])
    return replace(described, media=media)


def passed(of: Described, to: Described) -> dict[int, int]:
    """Return which payload type leaves to the side of `to` for each that arrives from that of `of`."""
    return payload_types(of.ours.audio.rtpmaps, to.agreed.audio.rtpmaps)


def _with(section: Media, payloads: Sequence[RtpMap]) -> Media:
    lines = [f"a=rtpmap:{each.payload_type} {each.encoding}" for each in payloads]
    lines += [f"a=fmtp:{each.payload_type} {each.fmtp}" for each in payloads if each.fmtp]
    others = [line for line in section.lines if not line.startswith(_OF_PAYLOADS)]
    first = [line for line in others if line[:2] in ("i=", "c=")]  # attributes come after these (RFC 8866 §5)
    rest = [line for line in others if line[:2] not in ("i=", "c=")]
    return replace(
        section, formats=tuple(str(each.payload_type) for each in payloads), lines=(*first, *lines, *rest)
    )


def _free(number: int, taken: set[int]) -> int:
    if number not in taken:
        return number
    free = next((each for each in _DYNAMIC if each not in taken), None)
    if free is None:
        raise MalformedError("no payload type is free for another codec")
    return free


def _has(payloads: Sequence[RtpMap], payload: RtpMap) -> bool:
    return any(same_encoding(each.encoding, payload.encoding) for each in payloads)


def _is_speech(payload: RtpMap) -> bool:
    return not ascii_lower(payload.encoding).startswith(_EVENTS)
