"""Samples, recordings, codecs, correlation and the estimate of quality."""

import math
import struct
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.media.codecs import CODECS, SpeechDecoder, SpeechEncoder, codec_named
from voice_dpki.media.correlate import correlate
from voice_dpki.media.mos import mos, r_factor
from voice_dpki.media.pcm import Pcm
from voice_dpki.media.recording import Recorder, read_wav, write_wav


def tone(rate: int, seconds: float, hertz: float = 400, level: float = 0.5) -> Pcm:
    count = int(rate * seconds)
    samples = (round(32_767 * level * math.sin(2 * math.pi * hertz * n / rate)) for n in range(count))
    return Pcm(rate, struct.pack(f"<{count}h", *samples))


class TestWav:
    @given(st.sampled_from([8000, 16_000, 48_000]), st.lists(st.integers(-32_768, 32_767), min_size=1, max_size=50))
    def test_round_trip(self, rate: int, samples: list[int]) -> None:
        pcm = Pcm(rate, struct.pack(f"<{len(samples)}h", *samples))
        assert read_wav(write_wav(pcm)) == pcm

    @given(st.binary(max_size=200), st.integers(0, 60))
    def test_any_bytes(self, junk: bytes, at: int) -> None:
        good = write_wav(Pcm(8000, bytes(20)))
        for data in (junk, good[:at], good[:at] + junk, good[:at] + junk + good[at + len(junk) :]):
            with suppress(MalformedError):
                read_wav(data)

    @pytest.mark.parametrize("pcm", [Pcm(8000, b""), Pcm(11_025, bytes(20))])
    def test_what_we_do_not_play(self, pcm: Pcm) -> None:
        with pytest.raises(MalformedError):
            read_wav(write_wav(pcm))


class TestPcm:
    def test_frames_are_filled_up(self) -> None:
        pcm = Pcm(8000, b"\1" * 10)
        assert list(pcm.frames(4)) == [b"\1" * 8, b"\1\1" + bytes(6)]
        assert pcm.duration_s == 5 / 8000

    @pytest.mark.parametrize("rate", [8000, 16_000, 48_000])
    def test_resampling_keeps_length_and_sound(self, rate: int) -> None:
        original = tone(16_000, 0.5)
        there = original.resampled(rate)
        assert abs(there.duration_s - original.duration_s) < 0.001
        assert correlate(original, there).coefficient > 0.999

    def test_the_recorder_fills_gaps_with_silence_and_has_an_end(self) -> None:
        recorder = Recorder(8000, max_s=10 / 8000)
        recorder.put(2, b"ab")
        recorder.put(8, b"cdefgh")
        recorder.put(11, b"ij")
        recorder.put(-1, b"kl")
        assert recorder.pcm().data == bytes(4) + b"ab" + bytes(10) + b"cdef"
        with pytest.raises(LocalError):
            Recorder(8000, max_s=0)


class TestCodecs:
    @pytest.mark.parametrize("name", CODECS)
    def test_speech_survives(self, name: str, speech: Any) -> None:
        codec = CODECS[name]
        said = speech("caller", 1.5).resampled(codec.clock_rate)
        encoder, decoder = SpeechEncoder(codec), SpeechDecoder(codec)
        heard = b""
        for frame in said.frames(codec.frame_samples):
            payload = encoder.encode(frame)
            assert codec.duration(payload) == codec.frame_samples
            decoded = decoder.decode(payload)
            assert len(decoded) == len(frame)
            heard += decoded
        assert correlate(said, Pcm(codec.clock_rate, heard)).coefficient > 0.99

    @pytest.mark.parametrize("name", CODECS)
    def test_lost_frames_fade(self, name: str) -> None:
        codec = CODECS[name]
        encoder, decoder = SpeechEncoder(codec), SpeechDecoder(codec)
        assert decoder.conceal(10) == bytes(20)
        for frame in tone(codec.clock_rate, 0.1).frames(codec.frame_samples):
            decoder.decode(encoder.encode(frame))
        levels = [peak(decoder.conceal(codec.frame_samples)) for _ in range(4)]
        assert levels[0] > levels[1] > levels[2] > levels[3] == 0
        assert len(decoder.conceal(7)) == 14

    @pytest.mark.parametrize("name", CODECS)
    def test_an_empty_payload(self, name: str) -> None:
        with pytest.raises(MalformedError):
            CODECS[name].duration(b"")

    @given(st.binary(min_size=1, max_size=200))
    def test_any_opus_payload_is_decoded_or_refused(self, payload: bytes) -> None:
        codec = CODECS["opus"]
        with suppress(MalformedError):
            assert 0 < codec.duration(payload) <= 5760
            SpeechDecoder(codec).decode(payload)

    @pytest.mark.parametrize(
        ("payload", "ticks"),
        [
            (b"\x08x", 960),
            (b"\x18x", 2880),
            (b"\x60x", 480),
            (b"\x80x", 120),
            (b"\xf9x", 1920),
            (b"\xfb\x03x", 2880),
        ],
    )
    def test_opus_durations(self, payload: bytes, ticks: int) -> None:
        assert CODECS["opus"].duration(payload) == ticks

    @pytest.mark.parametrize("payload", [b"\x1b\x3f", b"\xfb\x00", b"\xfb"])
    def test_opus_packets_that_last_too_long_or_nothing(self, payload: bytes) -> None:
        with pytest.raises(MalformedError):
            CODECS["opus"].duration(payload)

    def test_names_have_any_case(self) -> None:
        assert codec_named("OPUS").name == "opus"
        assert codec_named("pcma").payload_type == 8
        with pytest.raises(LocalError, match="G729"):
            codec_named("G729")


def peak(data: bytes) -> int:
    return max(abs(sample) for (sample,) in struct.iter_unpack("<h", data))


class TestCorrelation:
    def test_the_same_is_one(self, speech: Any) -> None:
        said = speech("caller", 1)
        result = correlate(said, said)
        assert (round(result.coefficient, 6), result.lag_ms) == (1.0, 0.0)

    @pytest.mark.parametrize("lag", [-2000, -7, 33, 4000])
    def test_shifted_and_fainter(self, speech: Any, lag: int) -> None:
        said = speech("caller", 1)
        heard = bytes(2 * lag) + said.data if lag > 0 else said.data[-2 * lag :]
        faint = b"".join(struct.pack("<h", sample // 4) for (sample,) in struct.iter_unpack("<h", heard))
        result = correlate(said, Pcm(said.rate, faint))
        assert result.lag_ms == 1000 * lag / said.rate
        assert result.coefficient > 0.98

    def test_other_speech_is_not_the_same(self, speech: Any) -> None:
        assert abs(correlate(speech("caller", 2), speech("callee", 2)).coefficient) < 0.3

    def test_silence(self, speech: Any) -> None:
        said = speech("caller", 1)
        for heard in (Pcm(16_000, bytes(1000)), Pcm(16_000, b"")):
            assert correlate(said, heard).coefficient == 0
        with pytest.raises(LocalError):
            correlate(Pcm(16_000, bytes(100)), said)

    def test_half_of_it_lost(self, speech: Any) -> None:
        said = speech("caller", 2)
        heard = Pcm(said.rate, said.data[: len(said.data) // 2])
        assert correlate(said, heard).coefficient < 0.95


class TestQuality:
    def test_a_good_call(self) -> None:
        assert round(mos(r_factor(CODECS["PCMU"], 0, 80)), 1) == 4.4

    def test_loss_and_delay_cost(self) -> None:
        scores = [
            mos(r_factor(CODECS["PCMU"], loss, delay)) for loss, delay in ((0, 0), (0.01, 0), (0.1, 0), (1, 0))
        ]
        assert scores == sorted(scores, reverse=True)
        assert mos(r_factor(CODECS["PCMU"], 0, 150)) > 4.3 > mos(r_factor(CODECS["PCMU"], 0, 400))
        assert mos(r_factor(CODECS["opus"], 0.05, 0)) > mos(r_factor(CODECS["PCMA"], 0.05, 0))

    def test_values_of_g_107(self) -> None:
        """Annex B: R of 93.2 is a MOS of 4.41; of 80, 4.02; of 50, 2.58; the ends are 1 and 4.5."""
        assert [round(mos(r), 2) for r in (93.2, 80, 50, 0, 100)] == [4.41, 4.02, 2.58, 1.0, 4.5]

    @pytest.mark.parametrize(("loss", "delay"), [(-0.1, 0), (1.1, 0), (0, -1)])
    def test_impossible_values(self, loss: float, delay: float) -> None:
        with pytest.raises(LocalError):
            r_factor(CODECS["PCMU"], loss, delay)
