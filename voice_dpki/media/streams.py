"""The streams of a call between two changes: one codec, one protection, a stream per direction, and their RTCP."""

from voice_dpki.effects import Random
from voice_dpki.media.codecs import Codec
from voice_dpki.media.control import Control
from voice_dpki.media.pcm import SAMPLE_BYTES, Pcm
from voice_dpki.media.srtp import Clear, Protection, Srtp
from voice_dpki.media.stream import ReceiveStream, SendStream
from voice_dpki.media.telephone_events import AgreedEvents
from voice_dpki.mikey.keys import SrtpKeys

CNAME = "voice"
"""The same for everyone: a personal name would identify the caller to anyone who sees RTCP in clear (RFC 7022)."""

MAX_LAPSE_FRAMES = 6000
"""Longest silence that is recorded for a pause between two talks: two minutes, as long as a recording."""


class Streams:
    """The streams of one agreement; make them with `begin` or `continued`."""

    def __init__(
        self,
        codec: Codec,
        keys: SrtpKeys | None,
        protection: Protection,
        sending: SendStream,
        receiving: ReceiveStream,
        events: AgreedEvents | None = None,
    ) -> None:
        self.codec = codec
        self.events = events or AgreedEvents()
        """The payload types of telephone events and comfort noise."""
        self.keys = keys
        self.sending = sending
        self.receiving = receiving
        self.control = Control(sending, receiving, protection, CNAME)
        self.is_continued = sending.packets > 0
        """Whether packets of an earlier agreement had the same SSRC."""
        self._protection = protection
        self._sent_before = sending.packets
        self._said = bytearray()

    @classmethod
    def begin(
        cls,
        codec: Codec,
        payload_type: int,
        receive_type: int,
        keys: SrtpKeys | None,
        random: Random,
        events: AgreedEvents | None = None,
    ) -> "Streams":
        """Begin streams with new SSRCs: those of `keys`, or in clear a random one of ours.

        We send `payload_type`, and the peer sends `receive_type`; `events` has the payload types of telephone
        events and comfort noise.
        """
        protection: Protection = Clear() if keys is None else Srtp(keys)
        ours = int.from_bytes(random.token(4), "big") if keys is None else keys.send.ssrc
        theirs = None if keys is None else keys.receive.ssrc
        sending = SendStream(codec, payload_type, ours, protection, random)
        receiving = ReceiveStream(codec, receive_type, theirs, protection, events)
        return cls(codec, keys, protection, sending, receiving, events)

    def continued(
        self,
        codec: Codec,
        payload_type: int,
        receive_type: int,
        random: Random,
        events: AgreedEvents | None = None,
    ) -> "Streams":
        """Return streams of another codec with the same SSRCs and keys, whose sequence numbers continue these.

        SRTP keys belong to an SSRC, whose roll-over counter follows the sequence numbers (RFC 3711 §3.3.1).
        """
        sending = self.sending.continued(codec, payload_type, random)
        receiving = ReceiveStream(codec, receive_type, self.receiving.ssrc, self._protection, events)
        receiving.events = self.receiving.events
        return Streams(codec, self.keys, self._protection, sending, receiving, events)

    def retype(self, payload_type: int, receive_type: int, events: AgreedEvents | None = None) -> None:
        """Change the payload types of the same codec."""
        self.events = events or AgreedEvents()
        self.sending.payload_type = payload_type
        self.receiving.retype(receive_type, self.events)

    def say(self, frame: bytes) -> tuple[bytes, bytes]:
        """Turn one frame of speech into a packet; returns it in clear and as it goes on the wire."""
        self._said += frame
        return self.sending.send(frame)

    def rest(self, frame: bytes, payload_type: int, noise: bytes) -> list[tuple[bytes, bytes]]:
        """Skip one frame of a pause, and send `noise`, its comfort noise, unless that is empty."""
        self._said += frame
        if noise:
            return [self.sending.send_noise(payload_type, noise)]
        self.sending.skip()
        return []

    def lapse(self, frames: int) -> None:
        """Skip the frames of a pause between two talks."""
        if self.sending.packets:  # the first talk begins the stream, whenever that is
            self.pass_over(frames)

    def pass_over(self, frames: int = 1) -> None:
        """Skip frames of speech in silence, of which at most MAX_LAPSE_FRAMES are recorded."""
        self._said += bytes(min(frames, MAX_LAPSE_FRAMES) * self.codec.frame_samples * SAMPLE_BYTES)
        self.sending.skip(frames)

    @property
    def sent(self) -> int:
        """Packets sent under this agreement."""
        return self.sending.packets - self._sent_before

    @property
    def said_s(self) -> float:
        """Length of `said` in seconds."""
        return len(self._said) / SAMPLE_BYTES / self.codec.clock_rate

    @property
    def said(self) -> Pcm:
        """What was said, with silence where nothing was sent."""
        return Pcm(self.codec.clock_rate, bytes(self._said))
