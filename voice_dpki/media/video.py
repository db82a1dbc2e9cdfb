"""The two directions of a call's video: numbered pictures to protected packets, and packets to shown pictures.

Both are cores: packets and `now_s` go in, packets and pictures come out, as in `voice_dpki.media.stream`.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Final

from voice_dpki.effects import Random
from voice_dpki.errors import MalformedError
from voice_dpki.media.pictures import CLOCK_RATE, NUMBERS, Descriptor, PictureDecoder, PictureEncoder, is_key
from voice_dpki.media.playout_statistics import PlayoutStatistics
from voice_dpki.media.rtp import RtpPacket
from voice_dpki.media.sequence import SequenceCounter, unwrap
from voice_dpki.media.sources import Sources, Standing
from voice_dpki.media.srtp import Protection, SrtpError
from voice_dpki.media.stream import Dropped

KEY_EVERY: Final = 50
"""Number of pictures from one key frame to the next, even if the peer asks for none."""

MAX_PACKETS: Final = 256
"""Most packets that wait to form pictures, and so the most packets of one picture."""

MAX_SHOWN: Final = 32
"""Most pictures that wait to be shown; further ones are dropped, and a key frame is requested."""

MAX_NUMBERS: Final = 1_000_000
"""Most picture numbers that are kept: those of more than a day."""

MAX_KEPT_BYTES: Final = 8 << 20
"""Most bytes of shown pictures that are kept for the recording."""

REORDER_S: Final = 0.05
"""Time in seconds to wait for a missing packet once a later picture is complete."""


class VideoSender:
    """Sender of one stream of numbered pictures."""

    clock_rate = CLOCK_RATE

    def __init__(self, payload_type: int, ssrc: int, protection: Protection, random: Random) -> None:
        self.ssrc = ssrc
        self.packets = self.octets = self.pictures = 0
        self.payload_type = payload_type
        """May be changed at any time."""
        self._protection = protection
        self._encoder = PictureEncoder()
        # In the lower half, so that the first packets' loss cannot hide a wrap from SRTP (RFC 3711 §3.3.1).
        self._sequence = int.from_bytes(random.token(2), "big") & 0x7FFF
        self._base = int.from_bytes(random.token(4), "big")
        self._ticks = 0
        self._is_ahead = False
        """Whether the encoder's last picture was not sent, so that the next must not depend on it."""

    @property
    def timestamp(self) -> int:
        """RTP timestamp of the next picture."""
        return (self._base + self._ticks) & 0xFFFFFFFF

    def skip(self, ticks: int) -> None:
        """Advance the timestamp by `ticks` without a picture."""
        self._ticks += ticks

    def encode(self, number: int, *, key: bool = False) -> list[bytes]:
        """Draw and encode the picture of `number`; returns its payloads, for `pack`.

        This is slow, so it may run in a thread, one picture at a time. The result is a key frame if `key` is set,
        for every KEY_EVERY-th picture from the first on, and after a picture that was encoded and not sent.
        """
        key = key or self._is_ahead or self.pictures % KEY_EVERY == 0
        self._is_ahead = True
        return self._encoder.encode(number, self._ticks, key=key)

    def pack(self, payloads: list[bytes], ticks: int) -> list[tuple[bytes, bytes]]:
        """Turn an encoded picture, which lasts `ticks`, into packets, each in clear and as on the wire."""
        packets = [self._packet(payload, marker=payload is payloads[-1]) for payload in payloads]
        self._ticks += ticks
        self.pictures += 1
        self._is_ahead = False
        return packets

    def _packet(self, payload: bytes, *, marker: bool) -> tuple[bytes, bytes]:
        packet = RtpPacket(self.payload_type, self._sequence, self.timestamp, self.ssrc, payload, marker=marker)
        self._sequence = (self._sequence + 1) & 0xFFFF
        self.packets += 1
        self.octets += len(payload)
        clear = packet.serialize()
        return clear, self._protection.protect(clear)


@dataclass(frozen=True, slots=True)
class Encoded:
    """A picture of which all packets have arrived; `VideoReceiver` unwraps its `timestamp`."""

    data: bytes
    timestamp: int


class Pictures:
    """Assembles packets into pictures, in order.

    A picture that lacks packets is given up once a later one is complete and `REORDER_S` have passed. Later
    pictures depend on it, so none is returned until the next key frame; `is_broken` is set meanwhile.
    """

    def __init__(self) -> None:
        self.is_broken = False
        self.given_up = 0
        """Pictures, or parts of them, not shown for lack of packets or of a picture that they depend on."""
        self._waiting: dict[int, tuple[RtpPacket, Descriptor]] = {}
        self._next: int | None = None
        """Sequence number of the next packet of the next picture."""
        self._since_s: float | None = None
        """Time since which a later picture has waited for a missing packet."""

    def put(self, sequence: int, packet: RtpPacket, part: Descriptor, now_s: float) -> list[Encoded]:
        """Add a packet with its extended sequence number; return the pictures that are now complete."""
        if self._next is None:
            self._next, self.is_broken = sequence, True  # the descriptor tells whether a picture begins here
        if sequence < self._next:
            return []
        self._waiting[sequence] = packet, part
        complete = self._complete()
        if not complete and self._is_overdue(now_s):
            self._give_up()
            complete = self._complete()
        return complete

    def _complete(self) -> list[Encoded]:
        """Return all next pictures whose packets have arrived without a gap."""
        found = []
        while (last := self._last_of_next()) is not None:
            assert self._next is not None
            parts = [self._waiting.pop(number) for number in range(self._next, last + 1)]
            self._next, self._since_s = last + 1, None
            whole = parts[0][1].begins and not any(part.begins for _, part in parts[1:])
            data = b"".join(part.data for _, part in parts)
            if whole and (not self.is_broken or is_key(data)):
                self.is_broken = False
                found.append(Encoded(data, parts[0][0].timestamp))
                continue
            self.given_up += 1
            self.is_broken = True
        return found

    def _last_of_next(self) -> int | None:
        """Return the number of the last packet of the next picture, if all of its packets have arrived."""
        assert self._next is not None
        number = self._next
        while number in self._waiting:
            if self._waiting[number][0].marker:
                return number
            number += 1
        return None

    def _is_overdue(self, now_s: float) -> bool:
        if len(self._waiting) >= MAX_PACKETS:
            return True
        if not any(packet.marker for packet, _ in self._waiting.values()):
            return False
        self._since_s = now_s if self._since_s is None else self._since_s
        return now_s - self._since_s >= REORDER_S

    def _give_up(self) -> None:
        """Continue at the first beginning of a picture after the first gap."""
        self.given_up += 1
        self.is_broken, self._since_s = True, None
        assert self._next is not None
        missing = self._next
        while missing in self._waiting:
            missing += 1
        begins = [number for number, (_, part) in self._waiting.items() if part.begins and number > missing]
        self._next = min(begins, default=max(self._waiting) + 1)
        for number in [number for number in self._waiting if number < self._next]:
            del self._waiting[number]


class Shown:
    """The pictures that a call has shown, over all its agreements."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        """The numbers that were read, unwrapped; at most MAX_NUMBERS."""
        self.encoded: list[tuple[bytes, float]] = []
        """The encoded pictures, with the times when they were shown; at most MAX_KEPT_BYTES."""
        self.undecodable = 0
        self._bytes = 0

    def add(self, number: int | None, data: bytes, now_s: float) -> None:
        """Record that a picture was shown."""
        if number is not None and len(self.numbers) < MAX_NUMBERS:
            near = self.numbers[-1] if self.numbers else number
            self.numbers.append(unwrap(number, near, NUMBERS.bit_length() - 1))
        if self._bytes + len(data) <= MAX_KEPT_BYTES:
            self.encoded.append((data, now_s))
            self._bytes += len(data)

    @property
    def missed(self) -> int:
        """Number of pictures that were not shown between the first and the last that were."""
        numbers = set(self.numbers)
        return max(numbers) - min(numbers) + 1 - len(numbers) if numbers else 0


class VideoReceiver:
    """Receiver of one stream of pictures: checks and assembles packets, and keeps pictures until they are shown.

    The keys are bound to `ssrc`; if it is None, the first packet's SSRC becomes the stream's, and another one may
    replace it (see `Sources`).
    """

    def __init__(self, payload_type: int, ssrc: int | None, protection: Protection) -> None:
        self.ssrc = ssrc
        self.dropped: Counter[Dropped] = Counter()
        self.payload_type = payload_type
        """May be changed at any time."""
        self._sources = Sources(is_bound=ssrc is not None)
        self._protection = protection
        self._before = PlayoutStatistics()
        """Counts of earlier sources."""
        self._sequence: SequenceCounter | None = None
        self._timestamp: int | None = None
        self._pictures = Pictures()
        self._waiting: list[tuple[Encoded, float]] = []
        self._decoder = PictureDecoder()
        self._lost_picture = False
        self._last_transit: tuple[int, float] | None = None
        """Unwrapped timestamp of the newest packet, and its transit in ticks."""
        self._jitter = 0.0

    def receive(self, wire: bytes, now_s: float) -> bool:
        """Take a packet from the wire; returns whether it is authentic and belongs to this stream."""
        try:
            packet = RtpPacket.parse(self._protection.unprotect(wire))
            if packet.payload_type != self.payload_type or not self._is_source(packet):
                self.dropped[Dropped.OTHER] += 1
                return False
            part = Descriptor.parse(packet.payload)
        except SrtpError as error:
            self.dropped[Dropped.REPLAYED if error.replayed else Dropped.UNAUTHENTIC] += 1
            return False
        except MalformedError:
            self.dropped[Dropped.MALFORMED] += 1
            return False
        self.ssrc = packet.ssrc
        self._take(packet, part, now_s)
        return True

    def _is_source(self, packet: RtpPacket) -> bool:
        """Return whether a packet is from the stream's source, or from a successor, with which it begins anew."""
        standing = self._sources.judge(packet, self.ssrc)
        if standing is Standing.SUCCESSOR:
            self._begin_anew()
        return standing is not Standing.OTHER

    def _begin_anew(self) -> None:
        """Expect sequence numbers and timestamps unrelated to the earlier ones."""
        self._before = self.statistics()
        self._sequence = self._timestamp = self._last_transit = None
        self._pictures = Pictures()
        self.dropped[Dropped.PICTURE] += len(self._waiting)
        self._waiting.clear()

    def is_for(self, wire: bytes) -> bool:
        """Return whether an unverified packet has this stream's payload type and SSRC."""
        ssrc = int.from_bytes(wire[8:12], "big")
        return len(wire) > 12 and wire[1] & 0x7F == self.payload_type and self.ssrc in (None, ssrc)

    @property
    def highest_sequence(self) -> int | None:
        """Extended sequence number of the newest authentic packet; None before the first."""
        return None if self._sequence is None else self._sequence.highest

    @property
    def needs_key(self) -> bool:
        """Whether nothing can be shown until a key frame arrives."""
        return self._sequence is not None and (self._pictures.is_broken or self._lost_picture)

    def waiting(self) -> list[tuple[int, float]]:
        """Return unwrapped timestamp and time of arrival of the pictures that wait to be shown."""
        return [(picture.timestamp, arrived_s) for picture, arrived_s in self._waiting]

    def due(self, timestamp: float) -> list[Encoded]:
        """Take and return the pictures up to the one with this timestamp."""
        found = []
        while self._waiting and self._waiting[0][0].timestamp <= timestamp:
            found.append(self._waiting.pop(0)[0])
        return found

    def decode(self, picture: Encoded) -> int | None:
        """Decode the next picture and return its number, or None if it has none; raises MalformedError.

        This is slow, so it may run in a thread, one picture at a time.
        """
        return self._decoder.number(picture.data, picture.timestamp & 0xFFFFFFFF)

    def give_up(self) -> None:
        """Drop pictures until the next key frame, because one that they depend on was not decoded."""
        self._lost_picture = True

    def statistics(self) -> PlayoutStatistics:
        """Return the counts, as for a stream of speech."""
        counter = self._sequence
        if counter is None:
            return self._before
        counted = PlayoutStatistics(
            received=counter.received,
            expected=counter.highest - counter.base + 1,
            jitter=self._jitter,
            highest_sequence=counter.highest & 0xFFFFFFFF,
        )
        return self._before.plus(counted)

    def _take(self, packet: RtpPacket, part: Descriptor, now_s: float) -> None:
        if self._sequence is not None and self._sequence.count(packet.sequence) is None:
            if not self._sequence.is_over:
                self.dropped[Dropped.REPLAYED] += 1
                return
            self._begin_anew()
        if self._sequence is None or self._timestamp is None:
            self._sequence, self._timestamp = SequenceCounter(packet.sequence), packet.timestamp
        self._measure_jitter(packet.timestamp, now_s)
        number = unwrap(packet.sequence, self._sequence.highest, 16)
        before = self._pictures.given_up
        complete = self._pictures.put(number, packet, part, now_s)
        self.dropped[Dropped.PICTURE] += self._pictures.given_up - before
        for picture in complete:
            self._timestamp = unwrap(picture.timestamp, self._timestamp, 32)
            self._queue(Encoded(picture.data, self._timestamp), now_s)

    def _queue(self, picture: Encoded, now_s: float) -> None:
        self._lost_picture = self._lost_picture and not is_key(picture.data)
        if len(self._waiting) >= MAX_SHOWN:
            self._lost_picture = True
        if self._lost_picture:
            self.dropped[Dropped.PICTURE] += 1
        else:
            self._waiting.append((picture, now_s))

    def _measure_jitter(self, timestamp: int, now_s: float) -> None:
        """Estimate the jitter as RFC 3550 §6.4.1 and appendix A.8 do."""
        last, before = self._last_transit or (timestamp, None)
        timestamp = unwrap(timestamp, last, 32)
        transit = now_s * CLOCK_RATE - timestamp
        if before is not None:
            self._jitter += (abs(transit - before) - self._jitter) / 16
        self._last_transit = timestamp, transit


@dataclass(frozen=True, slots=True)
class VideoStatistics:
    """Video statistics of one side of a call: `sent` and `whole_sent` are its own, everything else the peer's."""

    codec: str
    srtp: str | None
    sent: int
    """Pictures."""
    whole_sent: int
    """Key frames that were sent because the peer asked for one."""
    received: int
    """Packets."""
    lost: int
    """Packets."""
    unauthentic: int
    malformed: int
    other: int
    shown: int
    """Pictures whose number was read."""
    missed: int
    """Pictures that were not shown, between the first and the last that were."""
    dropped: int
    """Pictures that were not decoded for lack of packets, of a picture that they depend on, or of room."""
    asked: int
    """Number of requests for a key frame."""
    jitter_ms: float | None
    sync_ms: float | None
    """Mean time by which a picture was shown before or after its speech; None if there is none to compare."""
    sync_worst_ms: float | None
