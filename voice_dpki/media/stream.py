"""The two directions of a call: samples to protected packets, and protected packets to a recording.

Both are cores: packets and `now_s` go in, packets and samples come out. Times are those of one clock that never
steps back; the caller chooses which.
"""

from collections import Counter
from enum import StrEnum

from voice_dpki.effects import Random
from voice_dpki.errors import MalformedError
from voice_dpki.media.codecs import Codec, SpeechDecoder, SpeechEncoder
from voice_dpki.media.pcm import Pcm
from voice_dpki.media.playout import Frame, PlayoutBuffer, PlayoutStatistics
from voice_dpki.media.recording import Recorder
from voice_dpki.media.rtp import RtpPacket
from voice_dpki.media.srtp import Protection, SrtpError


class Dropped(StrEnum):
    """Why a packet was dropped before playout."""

    UNAUTHENTIC = "unauthentic"
    REPLAYED = "replayed"
    MALFORMED = "malformed"
    FOREIGN = "foreign"
    """From elsewhere than the peer."""
    OTHER = "other"
    """Of another payload type or SSRC than the stream's."""


class SendStream:
    """Sender of one stream of speech: encodes, packs and protects it."""

    def __init__(self, codec: Codec, payload_type: int, ssrc: int, protection: Protection, random: Random) -> None:
        self.ssrc = ssrc
        self.packets = self.octets = 0
        self._codec = codec
        self._payload_type = payload_type
        self._protection = protection
        self._encoder = SpeechEncoder(codec)
        # In the lower half, so that the first packets' loss cannot hide a wrap from SRTP (RFC 3711 §3.3.1).
        self._sequence = int.from_bytes(random.token(2), "big") & 0x7FFF
        self._timestamp = int.from_bytes(random.token(4), "big")

    @property
    def timestamp(self) -> int:
        """RTP timestamp of the next frame."""
        return self._timestamp

    def send(self, frame: bytes) -> tuple[bytes, bytes]:
        """Turn one frame of samples into a packet; returns it in clear and as it goes on the wire."""
        payload = self._encoder.encode(frame)
        first = self.packets == 0
        packet = RtpPacket(self._payload_type, self._sequence, self._timestamp, self.ssrc, payload, marker=first)
        self._sequence = (self._sequence + 1) & 0xFFFF
        self._timestamp = (self._timestamp + self._codec.frame_samples) & 0xFFFFFFFF
        self.packets += 1
        self.octets += len(payload)
        clear = packet.serialize()
        return clear, self._protection.protect(clear)


class ReceiveStream:
    """Receiver of one stream of speech: checks, orders, decodes and records it.

    If `ssrc` is None, because no keys are bound to one, the first packet's SSRC becomes the stream's. Packets with
    another SSRC are dropped.
    """

    def __init__(self, codec: Codec, payload_type: int, ssrc: int | None, protection: Protection) -> None:
        self.ssrc = ssrc
        self.dropped: Counter[Dropped] = Counter()
        self._codec = codec
        self._payload_type = payload_type
        self._protection = protection
        self._playout = PlayoutBuffer(codec.clock_rate, codec.frame_samples)
        self._decoder = SpeechDecoder(codec)
        self._recorder = Recorder(codec.clock_rate)

    def receive(self, wire: bytes, now_s: float) -> bool:
        """Take a packet from the wire; returns whether it is an authentic one of this stream."""
        try:
            packet = RtpPacket.parse(self._protection.unprotect(wire))
            if packet.payload_type != self._payload_type or packet.ssrc != (self.ssrc or packet.ssrc):
                self.dropped[Dropped.OTHER] += 1
                return False
            duration = self._codec.duration(packet.payload)
        except SrtpError as error:
            self.dropped[Dropped.REPLAYED if error.replayed else Dropped.UNAUTHENTIC] += 1
            return False
        except MalformedError:
            self.dropped[Dropped.MALFORMED] += 1
            return False
        self.ssrc = packet.ssrc
        self._playout.receive(packet, duration, now_s)
        return True

    def play(self, now_s: float) -> None:
        """Decode and record what is due by now; with infinity, everything in the buffer."""
        for frame in self._playout.due(now_s):
            self._recorder.put(frame.position, self._samples(frame))

    def heard(self) -> Pcm:
        """Return what was played so far."""
        return self._recorder.pcm()

    @property
    def highest_sequence(self) -> int | None:
        """Extended sequence number of the newest authentic packet; None before the first."""
        return self._playout.highest_sequence

    def statistics(self) -> PlayoutStatistics:
        """Return what the playout buffer counted."""
        return self._playout.statistics()

    def _samples(self, frame: Frame) -> bytes:
        if frame.payload is not None:
            try:
                return self._decoder.decode(frame.payload)
            except MalformedError:
                self.dropped[Dropped.MALFORMED] += 1
        return self._decoder.conceal(frame.duration)
