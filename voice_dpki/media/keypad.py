"""What a call sends and receives beside speech: digits, and comfort noise."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from voice_dpki.media import comfort_noise
from voice_dpki.media.codecs import Codec
from voice_dpki.media.pauses import Pauses
from voice_dpki.media.streams import Streams
from voice_dpki.media.telephone_events import DIGITS, AgreedEvents, Dialler

EVENT_TYPE = 101
"""The payload type that we offer for events, as most telephones do."""

ALL_EVENTS = "0-15"
"""The events of the keys, as fmtp lists them; also the default without fmtp (RFC 4733 §2.4.1)."""

MAX_FMTP_CHARS = 64
"""Longest list of events that is read."""


def encoding_of(codec: Codec) -> str:
    """Return the encoding of events beside a codec, which have its clock rate (RFC 4733 §2.1)."""
    return f"telephone-event/{codec.clock_rate}"


class Keypad:
    """A call's keypad; `digits` are dialled during the speech, once both sides have agreed on events.

    With `pauses`, pauses in our speech are sent as comfort noise, once the other side has agreed to receive it.
    """

    def __init__(self, *, offers: bool = False, digits: str = "", pauses: bool = False) -> None:
        self._digits = digits
        self._dialler = Dialler(digits)
        self._stream: object = None
        """The stream in which the current digit began."""
        self.ours: int | None = EVENT_TYPE if offers or digits else None
        """The payload type of events in our next description; None if it has none."""
        self._pauses = Pauses() if pauses else None
        self.our_noise: int | None = comfort_noise.PAYLOAD_TYPE
        """The payload type of comfort noise in our next description, for a codec with its clock; None without."""
        self.agreed = AgreedEvents()
        """The payload types of the next streams."""

    @property
    def received(self) -> str:
        """The digits received."""
        return self.agreed.digits.text

    @contextmanager
    def unless_refused(self) -> Iterator[None]:
        """Context in which an offer is answered; an exception refuses it and restores what was agreed before."""
        before = self.ours, self.our_noise, self.agreed
        try:
            yield
        except BaseException:
            self.ours, self.our_noise, self.agreed = before
            raise

    def take_offer(self, theirs: int | None, fmtp: str) -> None:
        """Answer an offer: accept events under the offered payload type, None if it has none."""
        self.ours = theirs
        self.take_answer(theirs, fmtp)

    def take_answer(self, theirs: int | None, fmtp: str) -> None:
        """Take the answer's payload type of events, None without; `fmtp` lists the events that it accepts.

        Nothing is sent to a side that does not accept all of our digits.
        """
        takes = theirs is not None and _takes(fmtp, self._digits)
        receives = None if theirs is None else self.ours
        self.agreed = replace(self.agreed, sends=theirs if takes else None, receives=receives)

    def take_offered_noise(self, theirs: int | None) -> None:
        """Answer an offer: accept comfort noise under the offered payload type, None if it has none."""
        self.our_noise = theirs
        self.take_answered_noise(theirs)

    def take_answered_noise(self, theirs: int | None) -> None:
        """Take the payload type of comfort noise in the other side's answer, None without."""
        sends = theirs if self._pauses is not None else None
        receives = None if theirs is None else self.our_noise
        self.agreed = replace(self.agreed, noise_sends=sends, noise_receives=receives)

    def is_dialling(self, streams: Streams) -> bool:
        """Return whether digits are left to send, and the other side accepts events."""
        return streams.events.sends is not None and self._dialler.is_busy

    def say(
        self, streams: Streams, frame: bytes, *, may_send: bool, may_dial: bool | None = None
    ) -> list[tuple[bytes, bytes]]:
        """Turn one frame of speech, or the digit in its place, into packets as `Streams.say` does.

        `may_dial` allows digits where speech may not be sent, to a side on hold; by default it equals `may_send`.
        """
        may_dial = may_send if may_dial is None else may_dial
        if not may_dial or self._stream is not streams.sending:
            self._dialler.interrupt()
            self._stream = streams.sending
        sounds, events = self._dial(streams) if may_dial else (False, [])
        if sounds or not may_send:
            streams.pass_over()
            return events
        return [*events, *self._speak(streams, frame)]

    def _dial(self, streams: Streams) -> tuple[bool, list[tuple[bytes, bytes]]]:
        """Return whether a digit takes the place of this frame, and the packets of digits that go with it."""
        payload_type = streams.events.sends
        if payload_type is None or not self._dialler.is_busy:
            return False, []
        sounds, sending = self._dialler.sounds, streams.sending
        reports = self._dialler.reports(sending.timestamp, streams.codec.frame_samples)
        return sounds, [sending.send_event(payload_type, report) for report in reports]

    def _speak(self, streams: Streams, frame: bytes) -> list[tuple[bytes, bytes]]:
        """Turn a frame of speech into a packet, or one of a pause into comfort noise or nothing."""
        if self._pauses is None or streams.events.noise_sends is None:
            return [streams.say(frame)]
        noise = self._pauses.payload_for(frame)
        if noise is None:
            return [streams.say(frame)]
        return streams.rest(frame, streams.events.noise_sends, noise)


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
