"""Comfort noise, judged by FFmpeg's own encoder and decoder of RFC 3389, and in streams that pause."""

import math
from fractions import Fraction
from hashlib import shake_256
from itertools import pairwise
from typing import Any

import pytest
from av import AudioFrame, CodecContext, Packet
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.errors import MalformedError
from voice_dpki.media.codecs import CODECS
from voice_dpki.media.comfort_noise import (
    MAX_LEVEL,
    MAX_ORDER,
    OVERLOAD,
    PAYLOAD_TYPE,
    ComfortNoise,
    NoiseGenerator,
)
from voice_dpki.media.g711 import mu_law
from voice_dpki.media.keypad import Keypad
from voice_dpki.media.pauses import HANGOVER_FRAMES, UPDATE_FRAMES, Pauses
from voice_dpki.media.pcm import Pcm, audio_frame, samples_of
from voice_dpki.media.rtp import RtpPacket
from voice_dpki.media.srtp import Clear
from voice_dpki.media.stream import Dropped, ReceiveStream
from voice_dpki.media.streams import Streams
from voice_dpki.media.telephone_events import AgreedEvents, TelephoneEvent
from voice_dpki.mikey.policy import SrtpProfile

PCMU, RATE, TICKS = CODECS["PCMU"], 8000, 160
LOUD = (b"\x00\x20" * 4 + b"\x00\xe0" * 4) * (TICKS // 8)
"""A frame of a tone of 1 kHz."""
FAINT = b"\x05\x00\xfb\xff" * (TICKS // 2)
NOISE = bytes.fromhex("28")
LOW, HIGH = bytes.fromhex("281a7f7f"), bytes.fromhex("28e0")


def level_of(samples: bytes) -> float:
    """Return the level of samples in dBov."""
    return 20 * math.log10(Pcm(RATE, samples).level / OVERLOAD)


def neighbours(samples: bytes) -> float:
    """Return the correlation of neighbouring samples: near 1 for low frequencies, near -1 for high ones."""
    values = memoryview(samples).cast("h").tolist()
    return sum(one * other for one, other in pairwise(values)) / sum(value * value for value in values)


def ffmpeg_describes(samples: bytes) -> list[bytes]:
    """Return FFmpeg's payloads for noise, one for each 80 ms."""
    encoder = CodecContext.create("comfortnoise", "w")
    encoder.sample_rate, encoder.layout, encoder.format = RATE, "mono", "s16"
    encoder.time_base = Fraction(1, RATE)
    encoder.open()
    size = encoder.frame_size
    frames = [audio_frame(frame, RATE, pts=size * at) for at, frame in enumerate(Pcm(RATE, samples).frames(size))]
    return [bytes(packet) for frame in frames for packet in encoder.encode(frame)]


def ffmpeg_plays(payload: bytes, times: int) -> bytes:
    decoder = CodecContext.create("comfortnoise", "r")
    decoder.sample_rate, decoder.layout = RATE, "mono"
    frames: list[AudioFrame] = [frame for _ in range(times) for frame in decoder.decode(Packet(payload))]
    return b"".join(samples_of(frame) for frame in frames)


@pytest.mark.parametrize("payload", ["1e", "1e1a", "28e0", "3c1a7f7f60a0", "1a19777a82807d7f7e8180", "46c07f40"])
def test_our_noise_is_what_ffmpeg_says_it_is(payload: str) -> None:
    said = bytes.fromhex(payload)
    noise = NoiseGenerator().noise(said, 10 * RATE)
    assert level_of(noise) == pytest.approx(-said[0], abs=0.7)
    described = ffmpeg_describes(noise)
    for at, index in enumerate((said[1:] + bytes([127] * 10))[:10], start=1):
        found = sum(one[at] for one in described) / len(described)
        assert found == pytest.approx(index, abs=4)
    assert sum(one[0] for one in described) / len(described) == pytest.approx(said[0], abs=1.2)


@pytest.mark.parametrize("payload", [LOW, HIGH, bytes.fromhex("1ee0a0")])
def test_we_describe_what_ffmpeg_plays(payload: bytes) -> None:
    """FFmpeg plays noise 6 dB fainter than it was told to; spectra agree."""
    played = ffmpeg_plays(payload, 20)[len(LOUD) * 10 :]
    described = ComfortNoise.of(played)
    assert described.level == pytest.approx(payload[0] + 6, abs=1.5)
    found = described.serialize()[1 : len(payload)]
    assert list(found) == pytest.approx(list(payload[1:]), abs=5)


@pytest.mark.parametrize("times", [1, 8])
def test_we_describe_noise_as_ffmpeg_does(times: int) -> None:
    white = shake_256(b"white").digest(times * 640 * 2)
    samples = memoryview(white).cast("h").tolist()
    smooth = [(one + other) // 64 for one, other in pairwise([0, *samples])]
    noise = b"".join(sample.to_bytes(2, "little", signed=True) for sample in smooth)
    ours = [ComfortNoise.of(frame).serialize() for frame in Pcm(RATE, noise).frames(640)]
    for one, other in zip(ours, ffmpeg_describes(noise), strict=True):
        assert abs(one[0] - other[0]) <= 1
        assert abs(one[1] - other[1]) <= 8


def test_coefficients_are_those_of_the_rfc() -> None:
    """k = 258 (N - 127) / 32768, and 255 stands for none (§3.2); the level's first bit is unused (§3.1)."""
    noise = ComfortNoise.parse(bytes([0x80 | 40, 127, 0, 254, 64]))
    assert noise.level == 40
    assert noise.coefficients == (0.0, -127 * 258 / 32_768, 127 * 258 / 32_768, -63 * 258 / 32_768)
    assert noise.serialize() == bytes([40, 127, 0, 254, 64])
    assert ComfortNoise.parse(bytes([40, 100, 255, 100])) == ComfortNoise.parse(bytes([40, 100]))
    assert len(ComfortNoise.parse(bytes(1400)).coefficients) == MAX_ORDER
    with pytest.raises(MalformedError):
        ComfortNoise.parse(b"")


@given(st.binary(min_size=1, max_size=30))
def test_any_description_gives_noise_that_is_no_louder(payload: bytes) -> None:
    noise = NoiseGenerator().noise(payload, 2 * TICKS)
    assert len(noise) == 4 * TICKS
    assert Pcm(RATE, noise).level <= 32_768


@given(st.lists(st.integers(-32_768, 32_767), min_size=2, max_size=TICKS))
def test_any_frame_can_be_described(samples: list[int]) -> None:
    frame = b"".join(sample.to_bytes(2, "little", signed=True) for sample in samples)
    noise = ComfortNoise.of(frame)
    assert 0 <= noise.level <= MAX_LEVEL
    assert ComfortNoise.parse(noise.serialize()).level == noise.level


def test_digital_silence_is_told_as_the_faintest_level() -> None:
    assert ComfortNoise.of(bytes(2 * TICKS)).serialize() == bytes([MAX_LEVEL])
    assert NoiseGenerator().noise(bytes([MAX_LEVEL]), TICKS) == bytes(2 * TICKS)


class Ear:
    """A receiver in clear that is played every 20 ms."""

    def __init__(self) -> None:
        self.stream = ReceiveStream(PCMU, 0, None, Clear(), AgreedEvents(101, 101, noise_receives=PAYLOAD_TYPE))
        self._sequence = 65_530
        self._at = 0

    def play_until(self, at: int) -> None:
        while self._at < at:
            self.stream.play(0.02 * self._at)
            self._at += 1

    def take(self, at: int, payload_type: int, payload: bytes, *, frame: int | None = None) -> bool:
        """Take a packet at the time of frame `at`, with the timestamp of `frame`, which is the same by default."""
        self.play_until(at)
        self._sequence += 1
        timestamp = 2**32 - 5000 + TICKS * (at if frame is None else frame)
        packet = RtpPacket(payload_type, self._sequence & 0xFFFF, timestamp & 0xFFFFFFFF, 7, payload)
        return self.stream.receive(packet.serialize(), 0.02 * at)

    def speak(self, frames: range, late: int = 0) -> None:
        for frame in frames:
            assert self.take(frame + late, 0, mu_law().encode(LOUD), frame=frame)

    def heard(self, first: int, last: int) -> bytes:
        """Return what was played of frames `first` to `last`."""
        return self.stream.heard().data[first * len(LOUD) : last * len(LOUD)]


def test_a_pause_sounds_as_it_was_described() -> None:
    """While it lasts, not only once speech comes again; and it is neither loss nor concealment."""
    ear = Ear()
    ear.speak(range(50))
    ear.take(50, PAYLOAD_TYPE, LOW)
    ear.play_until(100)
    assert level_of(ear.heard(52, 90)) == pytest.approx(-0x28, abs=1)
    assert neighbours(ear.heard(52, 90)) > 0.7
    ear.take(100, PAYLOAD_TYPE, HIGH)
    ear.speak(range(150, 200))
    ear.stream.play(float("inf"))
    assert level_of(ear.heard(101, 150)) == pytest.approx(-0x28, abs=1)
    assert neighbours(ear.heard(101, 150)) < -0.7
    assert ear.heard(150, 200) == ear.heard(0, 50) == mu_law().decode(mu_law().encode(LOUD)) * 50
    counted = ear.stream.statistics()
    assert (counted.received, counted.lost, counted.late, counted.concealed, counted.paused_s) == (102, 0, 0, 0, 0)
    assert not ear.stream.dropped


@pytest.mark.parametrize("late", [5, 60, 140])
def test_speech_that_comes_late_after_a_pause_is_played_whole(late: int) -> None:
    """Up to 2.8 s late: noise has sounded in its place, and only lasts longer."""
    ear = Ear()
    ear.speak(range(50))
    ear.take(50, PAYLOAD_TYPE, NOISE)
    ear.speak(range(70, 120), late)
    ear.stream.play(float("inf"))
    counted = ear.stream.statistics()
    assert (counted.late, counted.concealed, counted.lost, counted.overflow) == (0, 0, 0, 0)
    heard = ear.stream.heard().data
    assert heard.endswith(ear.heard(0, 50))
    assert len(heard) // len(LOUD) == pytest.approx(120 + late, abs=5)


def test_speech_lost_after_a_pause_is_concealed_and_not_noise() -> None:
    ear = Ear()
    ear.take(0, PAYLOAD_TYPE, NOISE)
    ear.speak(range(20, 30))
    ear._sequence += 1
    ear.speak(range(31, 40))
    ear.stream.play(float("inf"))
    counted = ear.stream.statistics()
    assert (counted.lost, counted.concealed) == (1, 1)
    assert level_of(ear.heard(30, 31)) > -30


def test_noise_with_nothing_after_it_is_heard_to_the_end_of_the_call() -> None:
    ear = Ear()
    ear.take(0, PAYLOAD_TYPE, NOISE)
    ear.stream.play(float("inf"))
    assert ear.stream.heard().duration_s == pytest.approx(0.02)
    ear.play_until(100)
    assert ear.stream.heard().duration_s > 1.5


def test_digits_in_a_pause_are_taken() -> None:
    ear = Ear()
    ear.speak(range(10))
    ear.take(10, PAYLOAD_TYPE, NOISE)
    for at in range(20, 25):
        ear.take(at, 101, TelephoneEvent(5, TICKS * (at - 19), is_over=at == 24).serialize(), frame=20)
    ear.speak(range(40, 50))
    ear.stream.play(float("inf"))
    counted = ear.stream.statistics()
    assert (ear.stream.events._digits.text, counted.late, counted.concealed) == ("5", 0, 0)


def test_what_is_no_comfort_noise() -> None:
    ear = Ear()
    assert not ear.take(0, PAYLOAD_TYPE, b"")
    assert ear.stream.dropped[Dropped.MALFORMED] == 1
    ear.stream.retype(0, AgreedEvents())
    assert not ear.take(1, PAYLOAD_TYPE, NOISE)
    assert ear.stream.dropped[Dropped.OTHER] == 1


# --- what we send ---------------------------------------------------------------------------------------------


def sent(frames: list[bytes], keypad: Keypad, random: Any, keys: Any = None) -> list[list[bytes]]:
    """What goes on the wire at each frame, to a side that takes noise under its payload type 97."""
    keypad.take_answered_noise(97)
    streams = Streams.begin(PCMU, 0, 0, keys, random, keypad.agreed)
    return [[wire for _, wire in keypad.say(streams, frame, may_send=True)] for frame in frames]


def test_pauses_are_sent_as_noise(random: Any) -> None:
    """Five faint frames as speech, then noise at once and once in ten frames; the marker is at the next speech."""
    frames = [LOUD] * 10 + [FAINT] * 40 + [LOUD] * 10
    packets = [[RtpPacket.parse(wire) for wire in wires] for wires in sent(frames, Keypad(pauses=True), random)]
    types = [[packet.payload_type for packet in each] for each in packets]
    pause = ([[97]] + [[]] * (UPDATE_FRAMES - 1)) * 4
    assert types == [[0]] * (10 + HANGOVER_FRAMES) + pause[: 40 - HANGOVER_FRAMES] + [[0]] * 10
    flat = [packet for each in packets for packet in each]
    assert all((other.sequence - one.sequence) & 0xFFFF == 1 for one, other in pairwise(flat))
    times = [(at, packet.timestamp) for at, each in enumerate(packets) for packet in each]
    assert all((time - times[0][1]) & 0xFFFFFFFF == TICKS * at for at, time in times)
    assert [at for at, each in enumerate(packets) for packet in each if packet.marker] == [0, 50]
    noise = ComfortNoise.parse(next(packet.payload for packet in flat if packet.payload_type == 97))
    assert noise.level == round(-level_of(FAINT))


@pytest.mark.parametrize(("pauses", "theirs"), [(False, 97), (True, None)])
def test_nothing_is_suppressed_unless_it_is_asked_for_and_agreed(
    pauses: bool, theirs: int | None, random: Any
) -> None:
    keypad = Keypad(pauses=pauses)
    keypad.take_answered_noise(theirs)
    streams = Streams.begin(PCMU, 0, 0, None, random, keypad.agreed)
    assert [len(keypad.say(streams, bytes(2 * TICKS), may_send=True)) for _ in range(50)] == [1] * 50


@pytest.mark.parametrize("profile", list(SrtpProfile))
def test_speech_with_pauses_in_srtp(profile: SrtpProfile, new_keys: Any, random: Any) -> None:
    keys, theirs = new_keys(profile), Keypad()
    theirs.take_offered_noise(97)
    frames = ([LOUD] * 30 + [FAINT] * 60) * 3
    other = Streams.begin(PCMU, 0, 0, keys[1], random, theirs.agreed)
    wires = sent(frames, Keypad(pauses=True, digits="1"), random, keys[0])
    for number, each in enumerate(wires):
        for wire in each:
            assert other.receiving.receive(wire, 0.02 * number)
        other.receiving.play(0.02 * number)
    other.receiving.play(float("inf"))
    counted = other.receiving.statistics()
    assert counted.received == sum(map(len, wires)) < len(frames) / 1.5
    assert (counted.lost, counted.late, counted.concealed, counted.paused_s) == (0, 0, 0, 0)
    heard = other.receiving.heard()
    faint = heard.part(1.0, 1.7)
    assert level_of(faint.data) == pytest.approx(level_of(FAINT), abs=1.5)
    assert heard.part(1.82, 2.38).level == pytest.approx(Pcm(RATE, LOUD).level, rel=0.05)


def test_words_keep_their_faint_ends() -> None:
    pauses = Pauses()
    frames = [LOUD, *[FAINT] * HANGOVER_FRAMES] * 5
    assert [pauses.payload_for(frame) for frame in frames] == [None] * len(frames)


def test_payload_types_of_noise_follow_the_offer() -> None:
    keypad = Keypad(pauses=True)
    types = [(keypad.our_noise, keypad.agreed.noise_sends, keypad.agreed.noise_receives)]
    for theirs in (98, None):
        keypad.take_offered_noise(theirs)
        types.append((keypad.our_noise, keypad.agreed.noise_sends, keypad.agreed.noise_receives))
    assert types == [(13, None, None), (98, 98, 98), (None, None, None)]
