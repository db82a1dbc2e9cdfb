"""The codecs and payload types that a change within a call through the gateway leaves. No I/O.

Payloads are not transcoded, so both sides have the same codecs. Their payload types can differ, and a side keeps
those that it has had in the call (`PayloadTypes`).
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
"""Dynamic payload types, to which descriptions assign codecs (RFC 3551 §3)."""
_OF_PAYLOADS: Final = ("a=rtpmap:", "a=fmtp:")


def in_use(end: Described, other: Described) -> list[RtpMap]:
    """Return the codecs of a call, as `end` has described them and in its order."""
    others = [each.audio.rtpmaps for each in (end.ours, other.ours, other.agreed)]
    return [each for each in end.agreed.audio.rtpmaps if all(_has(maps, each) for maps in others)]


def wanted(used: Sequence[RtpMap], offered: Sequence[RtpMap]) -> tuple[list[RtpMap], bool]:
    """Return the codecs that a call has after an offer, and whether that changes the call.

    If the offer has a speech codec in use, further ones beside it change nothing. Otherwise the call changes to the
    offered codecs. Raises MalformedError if none of these is speech.
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


class PayloadTypes:
    """The codecs assigned to payload types by one side of a call in its descriptions, and by us in ours to it.

    Assignments hold for the whole call, even if a description was refused (RFC 3264 §8.3.2). A side that breaks one
    that only we have described is refused only where our answer would have to break it, too.
    """

    def __init__(self, described: Described) -> None:
        self._ours = {each.payload_type: each for each in described.ours.audio.rtpmaps}
        self._theirs = {each.payload_type: each for each in described.agreed.audio.rtpmaps}

    def take(self, described: SessionDescription, answered: Sequence[RtpMap] = ()) -> None:
        """Note the side's further description, and the payloads that our answer can have.

        Raises MalformedError if a payload type stood for another codec.
        """
        _note(self._theirs, described.audio.rtpmaps)
        _note(self._ours, answered)

    def number(self, payloads: Sequence[RtpMap]) -> list[RtpMap]:
        """Return codecs as we offer them to the side, under the payload types that they have had, else free ones.

        Raises MalformedError if none is free.
        """
        return [self._numbered(each) for each in payloads]

    def _numbered(self, payload: RtpMap) -> RtpMap:
        known = self._ours | self._theirs | self._ours  # ours come first, and override theirs
        before = [number for number, each in known.items() if same_encoding(each.encoding, payload.encoding)]
        free = [each for each in [payload.payload_type, *_DYNAMIC] if each not in known]
        if not before and not free:
            raise MalformedError("no payload type is free for another codec")
        made = replace(payload, payload_type=(before or free)[0])
        _note(self._ours, [made])
        return made


def _note(known: dict[int, RtpMap], payloads: Sequence[RtpMap]) -> None:
    for each in payloads:
        if not same_encoding(known.setdefault(each.payload_type, each).encoding, each.encoding):
            raise MalformedError("the change gives another codec to a payload type (RFC 3264 §8.3.2)")


def with_payloads(described: SessionDescription, payloads: Sequence[RtpMap]) -> SessionDescription:
    """Return a description of ours whose section in use has only these codecs."""
    at = section_in_use(described)
    media = (*described.media[:at], _with(described.media[at], payloads), *described.media[at + 1 :])
    return replace(described, media=media)


def passed(of: Described, to: Described) -> dict[int, int]:
    """Return the payload type sent to the side of `to` for each that arrives from the side of `of`."""
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


def _has(payloads: Sequence[RtpMap], payload: RtpMap) -> bool:
    return any(same_encoding(each.encoding, payload.encoding) for each in payloads)


def _is_speech(payload: RtpMap) -> bool:
    return not ascii_lower(payload.encoding).startswith(_EVENTS)
