"""The two directions of a call: samples to protected packets, and protected packets to a recording.

Both are cores: packets and `now_s` go in, packets and samples come out. Times are seconds of one clock that never
steps back, chosen by the caller.
"""

from collections import Counter
from enum import StrEnum

from voice_dpki.effects import Random
from voice_dpki.errors import MalformedError
from voice_dpki.media.codecs import Codec, SpeechDecoder, SpeechEncoder
from voice_dpki.media.comfort_noise import ComfortNoise, NoiseGenerator
from voice_dpki.media.pcm import SAMPLE_BYTES, Pcm
from voice_dpki.media.playout import Arrival, Frame, PlayoutBuffer
from voice_dpki.media.playout_statistics import PlayoutStatistics
from voice_dpki.media.recording import Recorder
from voice_dpki.media.rtp import RtpPacket
from voice_dpki.media.sources import Sources, Standing
from voice_dpki.media.srtp import Protection, SrtpError
from voice_dpki.media.telephone_events import AgreedEvents, EventReceiver, Report, TelephoneEvent


class Dropped(StrEnum):
    """Why a packet was dropped before playout, or a picture before it was shown."""

    UNAUTHENTIC = "unauthentic"
    REPLAYED = "replayed"
    MALFORMED = "malformed"
    FOREIGN = "foreign"
    """Not from the peer's address."""
    OTHER = "other"
    """Of another payload type or SSRC than the stream's."""
    PICTURE = "picture"
    """A picture from authentic packets, see `VideoStatistics.dropped`."""


class SendStream:
    """Sender of one stream of speech: encodes, packs and protects it.

    `payload_type` may be changed at any time.
    """

    def __init__(self, codec: Codec, payload_type: int, ssrc: int, protection: Protection, random: Random) -> None:
        self.ssrc = ssrc
        self.payload_type = payload_type
        self.packets = self.octets = 0
        self._codec = codec
        self._begins = True
        """Whether the next packet is the first after silence (RFC 3551 §4.1)."""
        self._protection = protection
        self._encoder = SpeechEncoder(codec)
        self._frame_ticks = codec.frame_samples
        # In the lower half, so that the first packets' loss cannot hide a wrap from SRTP (RFC 3711 §3.3.1).
        self._sequence = int.from_bytes(random.token(2), "big") & 0x7FFF
        self._timestamp = int.from_bytes(random.token(4), "big")

    @property
    def clock_rate(self) -> int:
        """Ticks of the RTP clock a second."""
        return self._codec.clock_rate

    @property
    def timestamp(self) -> int:
        """RTP timestamp of the next frame."""
        return self._timestamp

    def continued(self, codec: Codec, payload_type: int, random: Random) -> "SendStream":
        """Return a sender with another codec that continues SSRC, sequence number and protection of this one."""
        stream = SendStream(codec, payload_type, self.ssrc, self._protection, random)
        stream._sequence, stream._timestamp = self._sequence, self._timestamp
        stream.packets, stream.octets = self.packets, self.octets
        return stream

    def skip(self, frames: int = 1) -> None:
        """Skip frames in silence: nothing is sent, and the timestamp advances."""
        self._timestamp = (self._timestamp + frames * self._frame_ticks) & 0xFFFFFFFF
        self._begins = True

    def send(self, frame: bytes) -> tuple[bytes, bytes]:
        """Turn one frame of samples into a packet; returns it in clear and as it goes on the wire."""
        payload = self._encoder.encode(frame)
        begins, self._begins = self._begins, False
        timestamp = self._timestamp
        self._timestamp = (self._timestamp + self._frame_ticks) & 0xFFFFFFFF
        return self._pack(self.payload_type, timestamp, payload, begins)

    def send_event(self, payload_type: int, report: Report) -> tuple[bytes, bytes]:
        """Turn a report of a telephone event into a packet, as `send` does; the timestamp does not advance."""
        return self._pack(payload_type, report.timestamp, report.event.serialize(), report.begins)

    def send_noise(self, payload_type: int, noise: bytes) -> tuple[bytes, bytes]:
        """Turn the comfort noise of one frame into a packet, as `send` does; the next speech begins a talkspurt."""
        timestamp = self._timestamp
        self.skip()
        return self._pack(payload_type, timestamp, noise, marker=False)

    def _pack(self, payload_type: int, timestamp: int, payload: bytes, marker: bool) -> tuple[bytes, bytes]:
        packet = RtpPacket(payload_type, self._sequence, timestamp, self.ssrc, payload, marker=marker)
        self._sequence = (self._sequence + 1) & 0xFFFF
        self.packets += 1
        self.octets += len(payload)
        clear = packet.serialize()
        return clear, self._protection.protect(clear)


class ReceiveStream:
    """Receiver of one stream of speech: checks, orders, decodes and records it.

    With an `ssrc`, to which the keys are bound, packets with another one are dropped. If it is None, the first
    packet's SSRC becomes the stream's, and another one may replace it (see `Sources`).
    """

    def __init__(
        self,
        codec: Codec,
        payload_type: int,
        ssrc: int | None,
        protection: Protection,
        events: AgreedEvents | None = None,
    ) -> None:
        events = events or AgreedEvents()
        self.ssrc = ssrc
        self.retype(payload_type, events)
        self.events = EventReceiver(events.digits)
        self.rests = False
        """Whether the newest packet was comfort noise, so that the peer may send nothing for some time."""
        self.dropped: Counter[Dropped] = Counter()
        self._sources = Sources(is_bound=ssrc is not None)
        self._codec = codec
        self._protection = protection
        self._playout = PlayoutBuffer(codec.clock_rate, codec.frame_samples)
        self._decoder = SpeechDecoder(codec)
        self._noise = NoiseGenerator()
        self._recorder = Recorder(codec.clock_rate)

    def retype(self, payload_type: int, events: AgreedEvents) -> None:
        """Change the payload types: that of speech, and those of events and comfort noise."""
        self._payload_type = payload_type
        self._event_type, self._noise_type = events.receives, events.noise_receives
        self._types = {payload_type, self._event_type, self._noise_type}

    def receive(self, wire: bytes, now_s: float) -> bool:
        """Take a packet from the wire; returns whether it is authentic and belongs to this stream."""
        try:
            packet = RtpPacket.parse(self._protection.unprotect(wire))
            if packet.payload_type not in self._types or not self._is_source(packet):
                self.dropped[Dropped.OTHER] += 1
                return False
            self._take(packet, now_s)
        except SrtpError as error:
            self.dropped[Dropped.REPLAYED if error.replayed else Dropped.UNAUTHENTIC] += 1
            return False
        except MalformedError:
            self.dropped[Dropped.MALFORMED] += 1
            return False
        self.ssrc = packet.ssrc
        return True

    def _take(self, packet: RtpPacket, now_s: float) -> None:
        """Take speech, comfort noise or telephone events; raises MalformedError."""
        self.rests = packet.payload_type == self._noise_type
        if packet.payload_type == self._payload_type:
            self._playout.receive(packet, self._codec.duration(packet.payload), now_s)
            return
        if self.rests:
            ComfortNoise.parse(packet.payload)
            self._playout.receive_noise(packet, now_s)
            return
        reports = TelephoneEvent.parse_all(packet.payload)
        arrival = self._playout.pass_by(packet, sum(report.duration for report in reports), now_s)
        if arrival is not Arrival.DUPLICATE:
            self.events.receive(packet, reports, is_newest=arrival is Arrival.PLAYABLE)

    def _is_source(self, packet: RtpPacket) -> bool:
        """Return whether a packet is from the stream's source, or from a successor that replaces it."""
        standing = self._sources.judge(packet, self.ssrc)
        if standing is Standing.SUCCESSOR:
            self._playout.change_source()
        return standing is not Standing.OTHER

    def is_for(self, wire: bytes) -> bool:
        """Return whether an unverified packet has this stream's payload types and SSRC."""
        ssrc = int.from_bytes(wire[8:12], "big")
        is_ours = len(wire) > 12 and wire[1] & 0x7F in self._types
        return is_ours and self.ssrc in (None, ssrc)

    def play(self, now_s: float) -> None:
        """Decode and record the frames that are due; with infinity, everything in the buffer."""
        for frame in self._playout.due(now_s):
            self._recorder.put(frame.position, self._samples(frame))

    def heard(self) -> Pcm:
        """Return what was played so far."""
        return self._recorder.pcm()

    @property
    def highest_sequence(self) -> int | None:
        """Extended sequence number of the newest authentic packet; None before the first."""
        return self._playout.highest_sequence

    def due_s(self, timestamp: int) -> float | None:
        """Return when the sample with an RTP timestamp is played, see `PlayoutBuffer.due_s`."""
        return self._playout.due_s(timestamp)

    def statistics(self) -> PlayoutStatistics:
        """Return what the playout buffer counted."""
        return self._playout.statistics()

    def _samples(self, frame: Frame) -> bytes:
        if frame.payload is None:
            return self._decoder.conceal(frame.duration)
        if not frame.payload:
            return bytes(frame.duration * SAMPLE_BYTES)
        if frame.is_noise:
            return self._noise.noise(frame.payload, frame.duration)
        try:
            return self._decoder.decode(frame.payload)
        except MalformedError:
            self.dropped[Dropped.MALFORMED] += 1
            return self._decoder.conceal(frame.duration)
