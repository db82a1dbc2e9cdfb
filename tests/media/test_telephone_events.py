"""Telephone events without sockets: octets of another program, losses, and what a stranger may send."""

from itertools import pairwise
from typing import Any

import pytest

from voice_dpki.errors import MalformedError
from voice_dpki.media.codecs import CODECS, Codec
from voice_dpki.media.keypad import EVENT_TYPE, Keypad
from voice_dpki.media.rtp import RtpPacket
from voice_dpki.media.srtp import Clear
from voice_dpki.media.stream import Dropped, ReceiveStream
from voice_dpki.media.streams import Streams
from voice_dpki.media.telephone_events import (
    DIGITS,
    MAX_DIGITS,
    MAX_DURATION,
    MAX_EVENTS,
    AgreedEvents,
    Dialler,
    TelephoneEvent,
)
from voice_dpki.mikey.policy import SrtpProfile

PCMU = CODECS["PCMU"]
FRAME = 160

SIPP_4 = [
    bytes.fromhex(text)
    for text in (
        "80e51fb9000091000e05384e040a0000",
        "80651fba000091000e05384e040a0140",
        "80651fbb000091000e05384e040a0280",
        "80651fbc000091000e05384e040a03c0",
        "80651fbd000091000e05384e040a0500",
        "80651fbe000091000e05384e040a0640",
        "80651fbf000091000e05384e040a0780",
        "80651fc0000091000e05384e048a08c0",
        "80651fc0000091000e05384e048a08c0",
        "80651fc0000091000e05384e048a08c0",
    )
]
"""The packets of dtmf_2833_4.pcap, with which SIPp dials a 4: recorded from a telephone, as its ports tell."""


def receiver(codec: Codec = PCMU) -> tuple[ReceiveStream, AgreedEvents]:
    events = AgreedEvents(None, EVENT_TYPE)
    return ReceiveStream(codec, codec.payload_type, None, Clear(), events), events


def event(sequence: int, timestamp: int, *reports: TelephoneEvent) -> bytes:
    payload = b"".join(report.serialize() for report in reports)
    return RtpPacket(EVENT_TYPE, sequence, timestamp, 7, payload).serialize()


def speech(sequence: int, timestamp: int) -> bytes:
    return RtpPacket(0, sequence, timestamp, 7, b"\x20" * FRAME).serialize()


def call(keypad: Keypad, random: Any, keys: Any = None, codec: Codec = PCMU) -> Streams:
    """Our streams in a call whose other side takes events."""
    keypad.take_answer(EVENT_TYPE, "")
    return Streams.begin(codec, codec.payload_type, codec.payload_type, keys, random, keypad.agreed)


def said(keypad: Keypad, streams: Streams, frames: int) -> list[list[bytes]]:
    """What goes on the wire at each frame of speech."""
    frame = b"\x10\x20" * streams.codec.frame_samples
    return [[wire for _, wire in keypad.say(streams, frame, may_send=True)] for _ in range(frames)]


def heard(stream: ReceiveStream, frames: list[list[bytes]]) -> None:
    for number, wires in enumerate(frames):
        for wire in wires:
            stream.receive(wire, 0.02 * number)
        stream.play(0.02 * number)
    stream.play(float("inf"))


def test_digits_of_another_program() -> None:
    stream, events = receiver()
    assert all(stream.receive(wire, 0.04 * at) for at, wire in enumerate(SIPP_4))
    assert events.digits.text == "4"
    counted = stream.statistics()
    assert (counted.received, counted.lost, counted.duplicate) == (8, 0, 2)


def test_our_octets_are_those_of_another_program() -> None:
    """The first report of SIPp's tells no time yet; ours is sent at the end of its first frame."""
    assert TelephoneEvent(4, 0x0140).serialize() == SIPP_4[1][12:]
    assert TelephoneEvent(4, 0x08C0, is_over=True).serialize() == SIPP_4[-1][12:]
    assert TelephoneEvent.parse_all(SIPP_4[-1][12:]) == (TelephoneEvent(4, 0x08C0, True, 10),)


def test_what_is_sent_of_one_digit(random: Any) -> None:
    keypad = Keypad(digits="7")
    packets = [[RtpPacket.parse(wire) for wire in wires] for wires in said(keypad, call(keypad, random), 10)]
    events = [packet for wires in packets for packet in wires if packet.payload_type == EVENT_TYPE]
    reports = [TelephoneEvent.parse_all(packet.payload)[0] for packet in events]
    assert [report.duration for report in reports] == [160, 320, 480, 640, 800, 800, 800]
    assert [report.is_over for report in reports] == [False] * 4 + [True] * 3
    assert {report.code for report in reports} == {7}
    assert [packet.marker for packet in events] == [True] + [False] * 6
    assert len({packet.timestamp for packet in events}) == 1
    assert [len(wires) for wires in packets] == [1] * 5 + [2, 2] + [1] * 3
    everything = [packet for wires in packets for packet in wires]
    assert all(after.sequence - before.sequence == 1 for before, after in pairwise(everything))
    first = next(packet for packet in everything if packet.payload_type == 0)
    assert (first.timestamp - events[0].timestamp, first.marker) == (5 * FRAME, True)


@pytest.mark.parametrize("name", ["PCMU", "opus"])
@pytest.mark.parametrize("profile", list(SrtpProfile))
def test_all_digits_between_speech_in_srtp(profile: SrtpProfile, name: str, new_keys: Any, random: Any) -> None:
    keys, codec = new_keys(profile), CODECS[name]
    ours, theirs = Keypad(digits=DIGITS), Keypad()
    theirs.take_offer(EVENT_TYPE, "0-15")
    streams = call(ours, random, keys[0], codec)
    sent = [[streams.say(bytes(2 * codec.frame_samples))[1]], *said(ours, streams, 169)]
    types = (codec.payload_type, codec.payload_type)
    other = Streams.begin(codec, *types, keys[1], random, theirs.agreed)
    heard(other.receiving, sent)
    counted = other.receiving.statistics()
    assert theirs.received == DIGITS
    assert (counted.lost, counted.late, counted.concealed, counted.paused_s) == (0, 0, 0, 0.0)
    assert counted.received == sum(map(len, sent))
    assert not other.receiving.dropped
    assert other.receiving.heard().duration_s == pytest.approx(170 * 0.02, abs=0.03)


@pytest.mark.parametrize("lost", [{0}, {0, 1, 2, 3}, {4, 5, 6}, {1, 3, 5}, {0, 1, 2, 3, 4, 5}, {1, 2, 3, 4, 5, 6}])
def test_each_digit_comes_once_whatever_is_lost_of_it(lost: set[int], random: Any) -> None:
    keypad = Keypad(digits="118")
    stream, events = receiver()
    streams = call(keypad, random)
    frames, at = [[streams.say(bytes(2 * FRAME))[1]]], -1
    for wires in said(keypad, streams, 40):
        kept = []
        for wire in wires:
            is_event = wire[1] & 0x7F == EVENT_TYPE
            at += is_event
            kept += [] if is_event and at % 7 in lost else [wire]
        frames.append(kept)
    heard(stream, frames)
    assert events.digits.text == "118"
    assert stream.statistics().lost == 3 * len(lost)


def test_repeated_and_reordered_packets_tell_no_digit_again() -> None:
    stream, events = receiver()
    one = [event(at, 1000, TelephoneEvent(1, FRAME * at, at == 3)) for at in (1, 2, 3)]
    other = event(4, 3000, TelephoneEvent(2, FRAME))
    for wire in (one[1], one[0], one[1], other, one[2], other):
        stream.receive(wire, 0.0)
    assert events.digits.text == "12"
    assert stream.statistics().duplicate == 2


def test_a_digit_that_another_has_overtaken_is_not_told_out_of_order() -> None:
    stream, events = receiver()
    for wire in (speech(1, 0), event(3, 3000, TelephoneEvent(2, FRAME)), event(2, 1000, TelephoneEvent(1, FRAME))):
        stream.receive(wire, 0.0)
    assert (events.digits.text, stream.events.late) == ("2", 1)


def test_a_long_event_is_one_digit_in_segments(random: Any) -> None:
    dialler, stream = Dialler("5", tone_frames=1000), receiver()[0]
    streams = call(Keypad(), random)
    begin = streams.sending.timestamp
    reports = [report for _ in range(1000) for report in _advanced(dialler, streams)]
    full = [report for report in reports if report.event.duration == MAX_DURATION]
    assert [(report.timestamp - begin) & 0xFFFFFFFF for report in full] == [0, MAX_DURATION]
    assert not any(report.event.is_over for report in full)
    assert [report.begins for report in reports] == [True] + [False] * (len(reports) - 1)
    last = reports[-1]
    assert (last.event.is_over, last.event.duration) == (True, 1000 * FRAME - 2 * MAX_DURATION)
    for report in reports:
        stream.receive(streams.sending.send_event(EVENT_TYPE, report)[1], 0.0)
    assert stream.events._digits.text == "5"


def _advanced(dialler: Dialler, streams: Streams) -> Any:
    reports = dialler.reports(streams.sending.timestamp, FRAME)
    streams.sending.skip()
    return reports


def test_the_same_key_again_is_no_segment() -> None:
    stream, events = receiver()
    stream.receive(event(1, 0, TelephoneEvent(5, MAX_DURATION, is_over=True)), 0.0)
    stream.receive(event(2, MAX_DURATION, TelephoneEvent(5, FRAME)), 0.0)
    assert events.digits.text == "55"


def test_several_events_in_one_packet() -> None:
    stream, events = receiver()
    one, other = TelephoneEvent(1, 800, is_over=True), TelephoneEvent(2, 400)
    stream.receive(event(1, 1000, one, other), 0.0)
    stream.receive(event(2, 1800, TelephoneEvent(2, 800, is_over=True)), 0.05)
    assert events.digits.text == "12"


def test_a_strangers_durations_take_no_speech_away() -> None:
    """Events of eight seconds at each packet: the speech is played whole, and the digits kept are bounded."""
    stream, events = receiver()
    for at in range(1000):
        stream.receive(speech(2 * at, FRAME * at), 0.02 * at)
        report = TelephoneEvent(at % 16, MAX_DURATION)
        stream.receive(event(2 * at + 1, at * 12_345_678 & 0xFFFFFFFF, report), 0.02 * at)
        stream.play(0.02 * at)
    stream.play(float("inf"))
    counted = stream.statistics()
    assert (counted.late, counted.lost, counted.overflow) == (0, 0, 0)
    assert stream.heard().data.strip(b"\0") == stream.heard().data
    assert stream.heard().duration_s == pytest.approx(20.0)
    assert len(events.digits.text) == MAX_DIGITS
    assert len(stream._playout._silences) < 10


def test_lost_speech_is_still_concealed_beside_digits() -> None:
    stream, _ = receiver()
    for at in (0, 1, 2, 4, 5, 6):
        stream.receive(speech(at, FRAME * at), 0.02 * at)
    stream.receive(event(7, 7 * FRAME, TelephoneEvent(1, FRAME)), 0.14)
    stream.play(float("inf"))
    assert stream.statistics().concealed == 1


def test_codes_that_are_no_key_are_no_digit() -> None:
    stream, events = receiver()
    assert stream.receive(event(1, 0, TelephoneEvent(16, FRAME)), 0.0)
    assert events.digits.text == ""


@pytest.mark.parametrize("size", [0, 3, 5, 4 * MAX_EVENTS + 4])
def test_payloads_that_are_no_reports(size: int) -> None:
    with pytest.raises(MalformedError):
        TelephoneEvent.parse_all(bytes(size))
    stream, events = receiver()
    assert not stream.receive(RtpPacket(EVENT_TYPE, 1, 0, 7, bytes(size)).serialize(), 0.0)
    assert (stream.dropped[Dropped.MALFORMED], events.digits.text) == (1, "")


def test_events_that_were_not_agreed_are_dropped() -> None:
    stream = ReceiveStream(PCMU, 0, None, Clear())
    assert not stream.receive(SIPP_4[0], 0.0)
    assert stream.dropped[Dropped.OTHER] == 1


@pytest.mark.parametrize(
    ("fmtp", "digits", "sends"),
    [
        ("", "1D", True),
        ("0-15", "1D", True),
        ("0-11,16", "1#", True),
        ("0-11", "1D", False),
        ("1,2, 3", "123", True),
        ("1,2", "123", False),
        ("x", "1", False),
        ("0-99999999999999999999", "1", True),
        ("0-15," * 100, "1", False),
    ],
)
def test_digits_go_only_to_a_side_that_takes_them_all(fmtp: str, digits: str, sends: bool) -> None:
    keypad = Keypad(digits=digits)
    keypad.take_answer(97, fmtp)
    assert keypad.agreed.sends == (97 if sends else None)
    assert keypad.agreed.receives == EVENT_TYPE


def test_an_offer_is_answered_under_its_own_payload_type_and_only_then() -> None:
    keypad = Keypad()
    types = [keypad.ours]
    for theirs in (97, None):
        keypad.take_offer(theirs, "0-15")
        types += [keypad.ours, keypad.agreed.sends, keypad.agreed.receives]
    assert types == [None, 97, 97, 97, None, None, None]


def test_nothing_is_dialled_on_hold_or_to_who_takes_no_events(random: Any) -> None:
    keypad = Keypad(digits="1")
    streams = call(keypad, random)
    assert keypad.say(streams, bytes(2 * FRAME), may_send=False) == []
    assert keypad.is_dialling(streams)
    keypad.take_answer(None, "")
    without = Streams.begin(PCMU, 0, 0, None, random, keypad.agreed)
    assert [len(wires) for wires in said(keypad, without, 3)] == [1, 1, 1]
    assert not keypad.is_dialling(without)


def test_digits_go_to_a_side_that_is_on_hold_of_ours_in_place_of_silence(random: Any) -> None:
    keypad = Keypad(digits="12")
    streams = call(keypad, random)
    stream, events = receiver()
    frame = bytes(2 * FRAME)
    frames = [[wire for _, wire in keypad.say(streams, frame, may_send=False, may_dial=True)] for _ in range(30)]
    assert {wire[1] & 0x7F for wires in frames for wire in wires} == {EVENT_TYPE}
    heard(stream, frames)
    assert events.digits.text == "12"
    assert streams.said_s == pytest.approx(30 * 0.02)


def test_a_hold_in_the_middle_of_a_digit_ends_it(random: Any) -> None:
    keypad = Keypad(digits="12")
    streams = call(keypad, random)
    stream, events = receiver()
    frames = said(keypad, streams, 2)
    keypad.say(streams, bytes(2 * FRAME), may_send=False)
    heard(stream, frames + said(keypad, streams, 20))
    assert events.digits.text == "12"
    assert not keypad.is_dialling(streams)
