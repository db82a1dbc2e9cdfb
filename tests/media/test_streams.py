"""Streams without sockets: protection, order, loss, and what an attacker on the path can and cannot do."""

import random as stdlib_random
from typing import Any

import pytest

from voice_dpki.errors import LocalError
from voice_dpki.media.codecs import CODECS
from voice_dpki.media.control import Control
from voice_dpki.media.correlate import correlate
from voice_dpki.media.pcm import Pcm
from voice_dpki.media.rtp import RtpPacket
from voice_dpki.media.srtp import MAX_CLEAR_BYTES, Clear, Srtp, SrtpError
from voice_dpki.media.stream import Dropped, ReceiveStream, SendStream
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.policy import SrtpProfile

CODEC = CODECS["PCMU"]
PROFILES = list(SrtpProfile)


class Ends:
    """A sender and a receiver of one direction, with the packets of a piece of speech between them."""

    def __init__(self, keys: tuple[SrtpKeys, SrtpKeys], random: Any, said: Pcm) -> None:
        self.ours, self.theirs = Srtp(keys[0]), Srtp(keys[1])
        self.sender = SendStream(CODEC, 0, keys[0].send.ssrc, self.ours, random)
        self.receiver = ReceiveStream(CODEC, 0, keys[1].receive.ssrc, self.theirs)
        self.said = said.resampled(CODEC.clock_rate)
        self.packets = [self.sender.send(frame) for frame in self.said.frames(CODEC.frame_samples)]

    def deliver(self, wires: list[bytes]) -> None:
        for number, wire in enumerate(wires):
            self.receiver.receive(wire, 0.02 * number)
            self.receiver.play(0.02 * number)
        self.receiver.play(float("inf"))

    def correlation(self) -> float:
        return correlate(self.said, self.receiver.heard()).coefficient


@pytest.fixture(params=PROFILES)
def ends(request: Any, new_keys: Any, random: Any, speech: Any) -> Ends:
    return Ends(new_keys(request.param), random, speech("caller", 2))


def test_what_is_sent_is_heard(ends: Ends) -> None:
    ends.deliver([wire for _, wire in ends.packets])
    assert ends.correlation() > 0.99
    assert ends.receiver.statistics().lost == 0


def test_reordered_packets_cost_nothing(ends: Ends) -> None:
    wires = [wire for _, wire in ends.packets]
    for at in range(0, len(wires) - 1, 2):
        wires[at], wires[at + 1] = wires[at + 1], wires[at]
    ends.deliver(wires)
    assert ends.correlation() > 0.99
    assert ends.receiver.statistics().late == 0


def test_five_percent_lost(ends: Ends) -> None:
    lottery = stdlib_random.Random(7)
    kept = [wire for _, wire in ends.packets if lottery.random() > 0.05]
    ends.deliver(kept)
    counted = ends.receiver.statistics()
    assert counted.lost == counted.concealed == len(ends.packets) - len(kept)
    assert ends.correlation() > 0.9


def test_the_wire_is_not_playable_without_keys(ends: Ends) -> None:
    listener = ReceiveStream(CODEC, 0, None, Clear())
    for number, (_, wire) in enumerate(ends.packets):
        assert listener.receive(wire, 0.02 * number)
        listener.play(0.02 * number)
    assert abs(correlate(ends.said, listener.heard()).coefficient) < 0.1


def test_clear_packets_are_refused_where_keys_are_agreed(ends: Ends) -> None:
    ends.deliver([clear for clear, _ in ends.packets])
    assert ends.receiver.dropped == {Dropped.UNAUTHENTIC: len(ends.packets)}
    assert not ends.receiver.heard().data


def test_every_changed_bit_is_noticed(ends: Ends) -> None:
    _, wire = ends.packets[0]
    for bit in range(8 * len(wire)):
        changed = bytearray(wire)
        changed[bit // 8] ^= 1 << bit % 8
        assert not ends.receiver.receive(bytes(changed), 0.0)
    assert ends.receiver.dropped.total() == 8 * len(wire)
    assert ends.receiver.receive(wire, 0.0)


def test_a_replayed_packet_is_dropped(ends: Ends) -> None:
    _, wire = ends.packets[0]
    assert ends.receiver.receive(wire, 0.0)
    assert not ends.receiver.receive(wire, 0.0)
    assert ends.receiver.dropped == {Dropped.REPLAYED: 1}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("lost", [range(0), range(3), range(6), range(20), range(4, 9)])
def test_a_sender_that_starts_just_before_the_wrap(profile: SrtpProfile, lost: range, new_keys: Any) -> None:
    """As devices of others may (RFC 3711 §3.3.1); its first packet has number 65530."""
    keys = new_keys(profile)
    sending, receiving = Srtp(keys[0]), Srtp(keys[1])
    packets = [
        RtpPacket(0, 65_530 + n & 0xFFFF, 160 * n, keys[0].send.ssrc, bytes([n]) * 160).serialize()
        for n in range(50)
    ]
    wires = [sending.protect(packet) for packet in packets]
    kept = [n for n in range(50) if n not in lost]
    assert [receiving.unprotect(wires[n]) for n in kept] == [packets[n] for n in kept]
    with pytest.raises(SrtpError) as replayed:
        receiving.unprotect(wires[-1])
    assert replayed.value.replayed


@pytest.mark.parametrize("profile", PROFILES)
def test_a_forged_first_packet_chooses_no_counter(profile: SrtpProfile, new_keys: Any) -> None:
    keys = new_keys(profile)
    sending, receiving = Srtp(keys[0]), Srtp(keys[1])
    packet = RtpPacket(0, 7, 0, keys[0].send.ssrc, bytes(160)).serialize()
    wire = sending.protect(packet)
    for _ in range(3):
        with pytest.raises(SrtpError):
            receiving.unprotect(wire[:-1] + bytes([wire[-1] ^ 1]))
    assert receiving.unprotect(wire) == packet


@pytest.mark.parametrize("profile", PROFILES)
def test_a_call_of_70_000_packets(profile: SrtpProfile, new_keys: Any, random: Any) -> None:
    """Its sequence numbers wrap, every hundredth packet is lost, and some overtake others."""
    keys = new_keys(profile)
    sender = SendStream(CODEC, 0, keys[0].send.ssrc, Srtp(keys[0]), random)
    receiver = ReceiveStream(CODEC, 0, keys[1].receive.ssrc, Srtp(keys[1]))
    frame, held = bytes(2 * CODEC.frame_samples), b""
    for number in range(70_000):
        _, wire = sender.send(frame)
        now_s = 0.02 * number
        if number % 50 == 25:
            held = wire
        elif number % 100:
            assert receiver.receive(wire, now_s)
        if number % 50 == 26:
            assert receiver.receive(held, now_s)
        receiver.play(now_s)
    counted = receiver.statistics()
    assert (counted.expected, counted.lost) == (69_999, 699)
    assert (counted.late, counted.duplicate) == (0, 0)
    assert receiver.dropped.total() == 0


def test_the_keys_of_another_call(ends: Ends, new_keys: Any) -> None:
    for profile in PROFILES:
        stranger = Srtp(new_keys(profile, "another call")[1])
        with pytest.raises(SrtpError):
            stranger.unprotect(ends.packets[0][1])


def test_our_own_stream_reflected(ends: Ends) -> None:
    """Directions have keys of their own, so that what we sent does not come back as the peer's."""
    with pytest.raises(SrtpError):
        ends.ours.unprotect(ends.packets[0][1])


def test_a_packet_that_cannot_be_protected(ends: Ends) -> None:
    with pytest.raises(LocalError):
        ends.ours.protect(RtpPacket(0, 1, 1, ends.sender.ssrc, bytes(MAX_CLEAR_BYTES)).serialize())


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (RtpPacket(8, 1, 1, 5, bytes(160)), Dropped.OTHER),
        (RtpPacket(0, 1, 1, 6, bytes(160)), Dropped.OTHER),
        (RtpPacket(0, 1, 1, 5, b""), Dropped.MALFORMED),
    ],
    ids=["another payload type", "another source", "no payload"],
)
def test_in_clear_other_packets_are_dropped(packet: RtpPacket, reason: Dropped) -> None:
    receiver = ReceiveStream(CODEC, 0, None, Clear())
    assert receiver.receive(RtpPacket(0, 0, 0, 5, bytes(160)).serialize(), 0.0)
    assert not receiver.receive(packet.serialize(), 0.0)
    assert not receiver.receive(b"junk", 0.0)
    assert receiver.dropped[reason] >= 1


def test_what_the_codec_cannot_read_is_concealed() -> None:
    receiver = ReceiveStream(CODECS["opus"], 96, None, Clear())
    receiver.receive(RtpPacket(96, 0, 0, 5, b"\xff\xff").serialize(), 0.0)
    receiver.receive(RtpPacket(96, 0, 0, 5, b"\x0b\x81\x00").serialize(), 0.0)
    receiver.play(float("inf"))
    assert receiver.dropped[Dropped.MALFORMED] >= 1


class TestControl:
    def ends(self, keys: tuple[SrtpKeys, SrtpKeys], random: Any, speech: Any) -> tuple[Control, Control, Ends]:
        ends = Ends(keys, random, speech("caller", 0.5))
        back = SendStream(CODEC, 0, keys[1].send.ssrc, ends.theirs, random)
        away = ReceiveStream(CODEC, 0, keys[0].receive.ssrc, ends.ours)
        return (
            Control(ends.sender, away, ends.ours, "x"),
            Control(back, ends.receiver, ends.theirs, "x"),
            ends,
        )

    @pytest.mark.parametrize("profile", PROFILES)
    def test_reports_tell_loss_and_round_trip(
        self, profile: SrtpProfile, new_keys: Any, random: Any, speech: Any
    ) -> None:
        ours, theirs, ends = self.ends(new_keys(profile), random, speech)
        ends.deliver([wire for number, (_, wire) in enumerate(ends.packets) if number % 5 != 2])
        now_s = 1_790_000_000.0
        theirs.receive(ours.report(now_s)[1], now_s + 0.03)
        ours.receive(theirs.report(now_s + 0.5)[1], now_s + 0.54)
        assert ours.round_trip_s == pytest.approx(0.07, abs=0.001)
        assert ours.remote is not None
        assert (ours.remote.cumulative_lost, ours.remote.fraction_lost) == (6, 256 * 6 // 30)

    def test_only_an_authentic_goodbye_counts(self, new_keys: Any, random: Any, speech: Any) -> None:
        ours, theirs, _ = self.ends(new_keys(PROFILES[0]), random, speech)
        clear, wire = ours.report(1_790_000_000.0, goodbye=True)
        theirs.receive(clear, 1_790_000_000.0)
        assert (theirs.goodbye, theirs.dropped) == (False, 1)
        theirs.receive(wire, 1_790_000_000.0)
        assert theirs.goodbye


def test_a_source_in_clear_is_followed_to_another_ssrc() -> None:
    """A peer that was transferred or restarted has another SSRC; a stray packet takes nobody's place."""
    receiver = ReceiveStream(CODEC, 0, None, Clear())

    def takes(ssrc: int, number: int) -> bool:
        return receiver.receive(RtpPacket(0, number & 0xFFFF, 160 * number, ssrc, bytes(160)).serialize(), 0.0)

    assert [takes(1, number) for number in range(3)] == [True] * 3
    assert [takes(2, 65_535), takes(1, 3), takes(2, 0), takes(1, 4)] == [False, True, False, True]
    assert [takes(2, 40), takes(2, 42), takes(3, 43)] == [False, False, False]
    assert [takes(2, 65_535), takes(2, 65_536), takes(2, 65_537), takes(1, 5)] == [False, True, True, False]
    counted = receiver.statistics()
    assert (receiver.ssrc, counted.received, counted.expected, counted.lost) == (2, 7, 7, 0)


def test_keys_are_bound_to_their_ssrc() -> None:
    receiver = ReceiveStream(CODEC, 0, 1, Clear())
    packets = [RtpPacket(0, number, 160 * number, 2, bytes(160)).serialize() for number in range(5)]
    assert not any(receiver.receive(packet, 0.0) for packet in packets)
