"""The digits of a call: their line in the session descriptions, in the result and in the ladder."""

from sip_testbed.result import Result
from voice_dpki.media.codecs import Codec
from voice_dpki.media.keypad import ALL_EVENTS, Keypad, encoding_of
from voice_dpki.shell.trace import Tracer
from voice_dpki.sip.sdp import RtpMap, SessionDescription, same_encoding

STEP = "digits"
"""The step of the note about digits that came."""


def event_maps(keypad: Keypad, codec: Codec) -> list[RtpMap]:
    """Return the payload type of events in our next description, none if it is to have none."""
    return [] if keypad.ours is None else [RtpMap(keypad.ours, encoding_of(codec), ALL_EVENTS)]


def take_offered(keypad: Keypad, described: SessionDescription, codec: Codec) -> None:
    """Take the events of the other side's offer beside a codec, or their absence, before it is answered."""
    keypad.take_offer(*_events_of(described, codec))


def take_answered(keypad: Keypad, described: SessionDescription, codec: Codec) -> None:
    """Take the events of the other side's answer beside a codec, or their absence."""
    keypad.take_answer(*_events_of(described, codec))


def keep_digits(keypad: Keypad, result: Result, tracer: Tracer) -> None:
    """Put the digits that came into the result and the trace, which are the user's own; no log has them."""
    result.digits = keypad.received
    if result.digits:
        tracer.note(f"digits received: {result.digits}", step=STEP, ok=True)


def _events_of(described: SessionDescription, codec: Codec) -> tuple[int | None, str]:
    """Return the payload type of the events beside a codec and the list of them; None and "" if there are none."""
    for rtpmap in described.audio.rtpmaps:
        if same_encoding(rtpmap.encoding, encoding_of(codec)):
            return rtpmap.payload_type, rtpmap.fmtp
    return None, ""
