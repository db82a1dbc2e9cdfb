"""Streams of pictures: in order and out of it, with loss, under keys, and what strangers may send."""

import struct
from typing import Any

import pytest

from voice_dpki.effects import SystemRandom
from voice_dpki.errors import MalformedError
from voice_dpki.media.control import Control
from voice_dpki.media.pictures import CLOCK_RATE, PICTURES_A_SECOND, is_key
from voice_dpki.media.rtcp import PictureLoss, parse_compound
from voice_dpki.media.rtp import RtpPacket
from voice_dpki.media.srtp import Clear, Protection, Srtp
from voice_dpki.media.stream import Dropped
from voice_dpki.media.video import MAX_PACKETS, MAX_SHOWN, Shown, VideoReceiver, VideoSender
from voice_dpki.mikey.policy import SrtpProfile

TICKS = CLOCK_RATE // PICTURES_A_SECOND
TYPE = 100


class Line:
    """A sender and a receiver; `send` returns the packets of one picture, and `take` plays them at once."""

    def __init__(self, one: Protection | None = None, other: Protection | None = None) -> None:
        self.shown = Shown()
        self.sender = VideoSender(TYPE, 7, one or Clear(), SystemRandom())
        self.receiver = VideoReceiver(TYPE, 7, other or Clear())
        self.count = 0

    def send(self, *, key: bool = False) -> list[bytes]:
        self.count += 1
        return [wire for _, wire in self.sender.pack(self.sender.encode(self.count - 1, key=key), TICKS)]

    def take(self, packets: list[bytes], now_s: float | None = None) -> None:
        now_s = self.count / PICTURES_A_SECOND if now_s is None else now_s
        for packet in packets:
            self.receiver.receive(packet, now_s)
        for picture in self.receiver.due(float("inf")):
            try:
                self.shown.add(self.receiver.decode(picture), picture.data, now_s)
            except MalformedError:
                self.receiver.give_up()
                self.shown.undecodable += 1


def split(packet: bytes, parts: int) -> list[bytes]:
    """One packet's picture in several packets, as a large one has them, with numbers that follow."""
    given = RtpPacket.parse(packet)
    data, size = given.payload[4:], len(given.payload) // parts + 1
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return [
        RtpPacket(
            TYPE,
            (given.sequence * parts + at) & 0xFFFF,
            given.timestamp,
            7,
            (b"\x10" if at == 0 else b"\x00") + piece,
            marker=at == len(pieces) - 1,
        ).serialize()
        for at, piece in enumerate(pieces)
    ]


def test_pictures_arrive_in_order() -> None:
    line = Line()
    for _ in range(20):
        line.take(line.send())
    assert line.shown.numbers == list(range(20))
    assert (line.shown.missed, line.receiver.needs_key) == (0, False)
    assert line.receiver.statistics().lost == 0


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 2, 0)])
def test_packets_of_one_picture_may_change_places(order: tuple[int, ...]) -> None:
    line = Line()
    line.take(split(line.send()[0], 3))
    packets = split(line.send()[0], 3)
    line.take([packets[at] for at in order])
    assert line.shown.numbers == [0, 1]


def test_a_picture_may_overtake_another() -> None:
    line = Line()
    line.take(line.send())
    second, third = line.send(), line.send()
    line.take(third, 0.30)
    assert line.shown.numbers == [0]
    line.take(second, 0.32)
    assert line.shown.numbers == [0, 1, 2]


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_after_a_loss_nothing_is_shown_until_a_whole_picture_comes(lost: int) -> None:
    line = Line()
    line.take(split(line.send()[0], 3))
    packets = split(line.send()[0], 3)
    del packets[lost]
    line.take(packets)
    for _ in range(3):
        line.take(split(line.send()[0], 3))
    assert line.shown.numbers == [0]
    assert line.receiver.needs_key
    line.take(split(line.send(key=True)[0], 3))
    line.take(split(line.send()[0], 3))
    assert line.shown.numbers == [0, 5, 6]
    assert (line.shown.missed, line.receiver.needs_key) == (4, False)


def test_a_call_that_is_joined_late_begins_with_a_whole_picture() -> None:
    line = Line()
    for _ in range(3):
        line.send()
    line.take(line.send())
    assert line.receiver.needs_key
    line.take(line.send(key=True))
    assert line.shown.numbers == [4]


def test_a_whole_picture_comes_once_in_a_while_without_being_asked_for() -> None:
    line = Line()
    for at in range(60):
        packets = line.send()
        if at != 1:
            line.take(packets)
    assert line.shown.numbers == [0, *range(50, 60)]


def test_sequence_numbers_and_timestamps_wrap() -> None:
    line = Line()
    line.sender._sequence, line.sender._base = 0xFFFD, 0xFFFFFFFF - 3 * TICKS
    for _ in range(8):
        line.take(line.send())
    assert line.shown.numbers == list(range(8))
    assert line.receiver.statistics().jitter < TICKS


@pytest.mark.parametrize("moved", [-20_000, 20_000])
def test_a_sender_that_numbers_anew_is_followed(moved: int) -> None:
    """Before, up to half of 65536 packets were dropped for old, or as many counted as lost (RFC 3550 A.1)."""
    line = Line()
    for _ in range(10):
        line.take(line.send())
    for at in range(10):
        line.take([renumbered(packet, moved) for packet in line.send(key=at % 5 == 0)])
    assert line.shown.numbers[-5:] == list(range(15, 20))
    assert line.receiver.statistics().lost == 0


def renumbered(packet: bytes, moved: int) -> bytes:
    given = RtpPacket.parse(packet)
    return given._replace(sequence=(given.sequence + moved) & 0xFFFF).serialize()


def test_pictures_under_keys(new_keys: Any) -> None:
    ours, theirs = new_keys(SrtpProfile.AES_CM_128_HMAC_SHA1_80)
    line = Line(Srtp(ours), Srtp(theirs))
    line.sender.ssrc, line.receiver.ssrc = ours.send.ssrc, ours.send.ssrc
    packets = line.send()
    line.take(packets)
    line.take(packets)
    later = line.send()[0]
    spoiled = later[:-1] + bytes([later[-1] ^ 1])
    line.take([spoiled, b"", b"\x80" * 40])
    assert line.shown.numbers == [0]
    assert (line.receiver.dropped[Dropped.REPLAYED], line.receiver.dropped[Dropped.UNAUTHENTIC]) == (1, 3)


def test_packets_of_others_are_not_taken() -> None:
    line = Line()
    packet = RtpPacket.parse(line.send()[0])
    for other in (
        RtpPacket(TYPE + 1, packet.sequence, packet.timestamp, 7, packet.payload, marker=True),
        RtpPacket(TYPE, packet.sequence, packet.timestamp, 8, packet.payload, marker=True),
        RtpPacket(TYPE, packet.sequence, packet.timestamp, 7, b"\x10", marker=True),
    ):
        assert not line.receiver.receive(other.serialize(), 0.0)
    assert (line.receiver.dropped[Dropped.OTHER], line.receiver.dropped[Dropped.MALFORMED]) == (2, 1)
    assert line.shown.numbers == []


def test_what_waits_is_bounded() -> None:
    """A peer that ends no picture, and one whose pictures nobody shows."""
    line = Line()
    for number in range(5 * MAX_PACKETS):
        line.receiver.receive(RtpPacket(TYPE, number, 9, 7, b"\x10x").serialize(), 0.0)
        assert len(line.receiver._pictures._waiting) <= MAX_PACKETS
    line = Line()
    for _ in range(2 * MAX_SHOWN):
        for packet in line.send(key=True):
            line.receiver.receive(packet, 0.0)
    assert len(line.receiver.waiting()) == MAX_SHOWN
    assert line.receiver.needs_key
    assert line.receiver.dropped == {Dropped.PICTURE: MAX_SHOWN}


def test_pictures_that_cannot_be_shown_are_counted() -> None:
    """One that lacks a packet, those that need it, and those of a sender that another one has replaced."""
    line = Line()
    line.take(line.send(key=True))
    assert line.receiver.dropped[Dropped.PICTURE] == 0
    for packet in [*line.send()[1:], *line.send(), *line.send()]:
        line.receiver.receive(packet, 0.0)
    for packet in line.send():
        line.receiver.receive(packet, 1.0)
    assert line.receiver.needs_key
    assert line.receiver.dropped[Dropped.PICTURE] == 4
    for packet in line.send(key=True):
        line.receiver.receive(packet, 1.0)
    assert (len(line.receiver.waiting()), line.receiver.dropped[Dropped.PICTURE]) == (1, 4)


def test_a_picture_that_was_encoded_and_not_sent_is_not_built_on() -> None:
    """The encoder refers to the one before, which the peer has not got: a hold came while it was encoded."""
    line = Line()
    line.take(line.send())
    line.sender.encode(1)
    line.sender.skip(TICKS)
    line.count += 1
    line.take(line.send())
    line.take(line.send())
    assert line.shown.numbers == [0, 2, 3]
    assert is_key(line.shown.encoded[1][0])
    assert not is_key(line.shown.encoded[2][0])


def test_a_broken_picture_asks_for_a_whole_one() -> None:
    line = Line()
    line.take(line.send())
    good = RtpPacket.parse(line.send()[0])
    junk = b"\x10\x90\x02\x00\x9d\x01\x2a\xff\x3f\xff\x3f"
    line.take([RtpPacket(TYPE, good.sequence, good.timestamp, 7, junk, marker=True).serialize()])
    assert (line.shown.undecodable, line.receiver.needs_key) == (1, True)


def control_of(line: Line) -> Control:
    return Control(line.sender, line.receiver, Clear(), "x")


def test_a_lost_picture_is_told_in_octets_of_the_standard() -> None:
    """RFC 4585 §6.1, §6.3.1: PT 206, FMT 1, two words; it comes behind the report (RFC 3550 §6.1)."""
    line = Line()
    line.take(line.send())
    clear, _ = control_of(line).report(1.0, picture_lost=True)
    assert clear.endswith(struct.pack("!BBHII", 0x81, 206, 2, 7, 7))
    assert PictureLoss(7, 7) in parse_compound(clear)


@pytest.mark.parametrize(
    ("feedback", "is_asked"),
    [
        (struct.pack("!BBHII", 0x81, 206, 2, 9, 7), True),
        (struct.pack("!BBHII", 0x81, 206, 2, 9, 8), False),
        (struct.pack("!BBHIIII", 0x84, 206, 4, 9, 0, 7, 1 << 24), True),
        (struct.pack("!BBHIIII", 0x84, 206, 4, 9, 0, 8, 1 << 24), False),
        (struct.pack("!BBHII", 0x82, 206, 2, 9, 7), False),
    ],
)
def test_a_whole_picture_is_asked_for_by_pli_and_fir(feedback: bytes, is_asked: bool) -> None:
    control = control_of(Line())
    assert control.receive(struct.pack("!BBHI", 0x80, 201, 1, 9) + feedback, 0.0)
    assert control.picture_lost is is_asked


def test_a_feedback_packet_that_is_cut_off_is_dropped() -> None:
    control = control_of(Line())
    assert not control.receive(struct.pack("!BBHIBBHI", 0x80, 201, 1, 9, 0x81, 206, 1, 9), 0.0)
    assert control.dropped == 1


def test_a_report_tells_the_timestamp_of_its_own_time() -> None:
    line = Line()
    line.send()
    control = control_of(line)
    control.next_frame_s = 10.1
    clear, _ = control.report(10.06)
    assert struct.unpack("!I", clear[16:20])[0] == (line.sender.timestamp - 3600) & 0xFFFFFFFF
    clear, _ = control.report(20.1)
    later = (line.sender.timestamp + 10 * 90_000) & 0xFFFFFFFF
    assert struct.unpack("!I", clear[16:20])[0] == later, "timestamps run on in a pause"
    control.next_frame_s = 32.0
    line.send()
    clear, _ = control.report(30.0)
    assert struct.unpack("!I", clear[16:20])[0] == line.sender.timestamp, "the next frame is too far ahead to tell"
