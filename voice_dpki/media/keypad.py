"""The keypad of one call: what both sides have agreed on about digits, those that we dial, and those that came."""

from voice_dpki.media.codecs import Codec
from voice_dpki.media.streams import Streams
from voice_dpki.media.telephone_events import DIGITS, AgreedEvents, Dialler

EVENT_TYPE = 101
"""The payload type that we offer for events, as most telephones do."""

ALL_EVENTS = "0-15"
"""The events of the keys, as fmtp lists them; meant, too, where there is no fmtp (RFC 4733 §2.4.1)."""

MAX_FMTP_CHARS = 64
"""Longest list of events that is read."""


def encoding_of(codec: Codec) -> str:
    """Return the encoding of events beside a codec, whose clock they have, too (RFC 4733 §2.1)."""
    return f"telephone-event/{codec.clock_rate}"


class Keypad:
    """A call's keypad; `digits` are dialled during the speech, once both sides have agreed on events."""

    def __init__(self, *, offers: bool = False, digits: str = "") -> None:
        self._digits = digits
        self._dialler = Dialler(digits)
        self._stream: object = None
        """The stream in which the digit that sounds has begun."""
        self.ours: int | None = EVENT_TYPE if offers or digits else None
        """The payload type of events in our next description; None if it has none."""
        self.agreed = AgreedEvents()
        """What the next streams have."""

    @property
    def received(self) -> str:
        """The digits that came."""
        return self.agreed.digits.text

    def take_offer(self, theirs: int | None, fmtp: str) -> None:
        """Answer an offer: events are taken under the payload type of the offer, if it has them."""
        self.ours = theirs
        self.take_answer(theirs, fmtp)

    def take_answer(self, theirs: int | None, fmtp: str) -> None:
        """Take the payload type of the other side's answer, None without events; `fmtp` lists those that it takes.

        Nothing is sent to a side that does not take all of our digits.
        """
        takes = theirs is not None and _takes(fmtp, self._digits)
        receives = None if theirs is None else self.ours
        self.agreed = AgreedEvents(theirs if takes else None, receives, self.agreed.digits)

    def is_dialling(self, streams: Streams) -> bool:
        """Return whether digits are left, which the other side takes."""
        return streams.events.sends is not None and self._dialler.is_busy

    def say(self, streams: Streams, frame: bytes, *, may_send: bool) -> list[tuple[bytes, bytes]]:
        """Turn one frame of speech, or the digit that sounds in its place, into packets as `Streams.say` does."""
        sending = streams.sending
        if not may_send or self._stream is not sending:
            self._dialler.interrupt()
            self._stream = sending
        if not may_send:
            streams.pass_over(frame)
            return []
        if streams.events.sends is None or not self._dialler.is_busy:
            return [streams.say(frame)]
        sounds = self._dialler.sounds
        reports = self._dialler.reports(sending.timestamp, streams.codec.frame_samples)
        events = [sending.send_event(streams.events.sends, report) for report in reports]
        if sounds:
            streams.pass_over(frame)
            return events
        return [*events, streams.say(frame)]


def _takes(fmtp: str, digits: str) -> bool:
    """Return whether a list of events, such as "0-11,16", has those of all `digits`."""
    taken = _codes(fmtp or ALL_EVENTS)
    return all(DIGITS.index(digit) in taken for digit in digits)


def _codes(listed: str) -> frozenset[int]:
    """Return the codes of keys in a list; none of a list that is malformed or too long."""
    codes: set[int] = set()
    for part in listed.replace(" ", "").split(",") if len(listed) <= MAX_FMTP_CHARS else ():
        first, _, last = part.partition("-")
        if not all(text.isascii() and text.isdigit() for text in (first, last or first)):
            return frozenset()
        codes.update(code for code in range(len(DIGITS)) if int(first) <= code <= int(last or first))
    return frozenset(codes)
