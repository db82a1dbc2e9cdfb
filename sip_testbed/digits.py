"""Digits and comfort noise in the session descriptions of a call, and digits in its result and ladder."""

from sip_testbed.result import Result
from voice_dpki.media import comfort_noise
from voice_dpki.media.codecs import Codec
from voice_dpki.media.keypad import ALL_EVENTS, Keypad, encoding_of
from voice_dpki.shell.trace import Tracer
from voice_dpki.sip.sdp import RtpMap, SessionDescription, same_encoding

STEP = "digits"
"""Step of the trace note about received digits."""


def further_maps(keypad: Keypad, codec: Codec) -> list[RtpMap]:
    """Return the payload types of events and comfort noise that our next description is to have."""
    maps = [] if keypad.ours is None else [RtpMap(keypad.ours, encoding_of(codec), ALL_EVENTS)]
    if keypad.our_noise is not None and codec.clock_rate == comfort_noise.CLOCK_RATE:
        maps.append(RtpMap(keypad.our_noise, comfort_noise.ENCODING))
    return maps


def take_offered(keypad: Keypad, described: SessionDescription, codec: Codec) -> None:
    """Take events and comfort noise of the other side's offer beside a codec, or their absence.

    Call it before the offer is answered.
    """
    keypad.take_offer(*_events_of(described, codec))
    keypad.take_offered_noise(_noise_of(described, codec))


def take_answered(keypad: Keypad, described: SessionDescription, codec: Codec) -> None:
    """Take events and comfort noise of the other side's answer beside a codec, or their absence."""
    keypad.take_answer(*_events_of(described, codec))
    keypad.take_answered_noise(_noise_of(described, codec))


def keep_digits(keypad: Keypad, result: Result, tracer: Tracer) -> None:
    """Put the received digits into the result and the trace, which are the user's own, and never into a log."""
    result.digits = keypad.received
    if result.digits:
        tracer.note(f"digits received: {result.digits}", step=STEP, ok=True)


def _noise_of(described: SessionDescription, codec: Codec) -> int | None:
    """Return the payload type of comfort noise at the clock rate of a codec; None if there is none."""
    if codec.clock_rate != comfort_noise.CLOCK_RATE:
        return None
    found = (each for each in described.audio.rtpmaps if same_encoding(each.encoding, comfort_noise.ENCODING))
    return next((each.payload_type for each in found), None)


def _events_of(described: SessionDescription, codec: Codec) -> tuple[int | None, str]:
    """Return the payload type of telephone events beside a codec, and their list; None and "" if there are none."""
    for rtpmap in described.audio.rtpmaps:
        if same_encoding(rtpmap.encoding, encoding_of(codec)):
            return rtpmap.payload_type, rtpmap.fmtp
    return None, ""
