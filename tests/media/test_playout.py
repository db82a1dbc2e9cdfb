"""The playout buffer: whatever the network does to packets, frames come out in order and in time."""

import math
import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.media.playout import (
    DELAY_S,
    MAX_CONCEALED_FRAMES,
    MAX_PACKETS,
    Arrival,
    Frame,
    PlayoutBuffer,
)
from voice_dpki.media.rtp import RtpPacket

RATE, TICKS = 8000, 160


def packet(number: int, *, sequence: int = 65_530, timestamp: int = 2**32 - 500) -> RtpPacket:
    """Packet `number` of a stream whose sequence numbers and timestamps wrap early."""
    return RtpPacket(
        0, (sequence + number) & 0xFFFF, (timestamp + TICKS * number) & 0xFFFFFFFF, 1, number.to_bytes(4, "big")
    )


class Line:
    """Plays packet numbers that arrive at given times, and notes what is heard."""

    def __init__(self) -> None:
        self.buffer = PlayoutBuffer(RATE, TICKS)
        self.frames: list[Frame] = []
        self.now_s = 1000.0

    def arrive(self, number: int, at_ms: float) -> Arrival:
        self.play_until(at_ms)
        return self.buffer.receive(packet(number), TICKS, 1000.0 + at_ms / 1000)

    def play_until(self, at_ms: float) -> None:
        while self.now_s < 1000.0 + at_ms / 1000:
            self.now_s += 0.005
            self.frames += self.buffer.due(self.now_s)

    def heard(self) -> list[int | None]:
        self.frames += self.buffer.flush()
        return [None if frame.payload is None else int.from_bytes(frame.payload, "big") for frame in self.frames]

    def positions(self) -> list[int]:
        return [frame.position for frame in self.frames]


def test_in_order() -> None:
    line = Line()
    for number in range(50):
        assert line.arrive(number, 20 * number) is Arrival.PLAYABLE
    assert line.heard() == list(range(50))
    assert line.positions() == [TICKS * number for number in range(50)]
    counted = line.buffer.statistics()
    assert (counted.received, counted.expected, counted.lost, counted.late, counted.concealed) == (50, 50, 0, 0, 0)
    assert counted.jitter < 1
    assert counted.missing == 0


def test_nothing_is_played_before_its_time() -> None:
    line = Line()
    line.arrive(0, 0)
    assert line.buffer.due(1000.0 + DELAY_S - 0.001) == []
    assert [frame.position for frame in line.buffer.due(1000.0 + DELAY_S)] == [0]


def test_reordered_within_the_delay() -> None:
    line = Line()
    for at, number in enumerate([1, 0, 2, 4, 3, 6, 5, 7, 8]):
        line.arrive(number, 20 * at)
    assert line.heard() == list(range(9))
    assert line.buffer.statistics().late == 0


def test_a_lost_packet_is_concealed_in_its_place() -> None:
    line = Line()
    for number in range(10):
        if number not in (4, 5):
            line.arrive(number, 20 * number)
    assert line.heard() == [0, 1, 2, 3, None, None, 6, 7, 8, 9]
    assert line.positions() == [TICKS * number for number in range(10)]
    counted = line.buffer.statistics()
    assert (counted.lost, counted.concealed, counted.missing) == (2, 2, 0.2)


def test_a_packet_that_comes_after_its_place_was_filled_is_late() -> None:
    line = Line()
    for number in (0, 1, 2, 4, 5, 6, 7, 8):
        line.arrive(number, 20 * number)
    assert line.arrive(3, 190) is Arrival.LATE
    assert line.heard() == [0, 1, 2, None, 4, 5, 6, 7, 8]
    counted = line.buffer.statistics()
    assert (counted.lost, counted.late) == (0, 1)
    assert counted.missing == 1 / 9


def test_duplicates_are_counted_and_not_played() -> None:
    line = Line()
    for number in range(6):
        line.arrive(number, 20 * number)
        assert line.arrive(number, 20 * number + 1) is Arrival.DUPLICATE
    assert line.heard() == list(range(6))
    assert line.buffer.statistics().duplicate == 6


def test_a_pause_of_the_network_makes_playout_wait() -> None:
    line = Line()
    for number in range(5):
        line.arrive(number, 20 * number)
    for number in range(5, 20):
        line.arrive(number, 600 + number)
    assert line.heard() == list(range(20))
    counted = line.buffer.statistics()
    assert (counted.lost, counted.late, counted.concealed) == (0, 0, 0)
    assert math.isclose(counted.paused_s, 0.445)


def test_a_silence_of_the_sender_is_no_loss() -> None:
    line = Line()
    for number in range(5):
        line.arrive(number, 20 * number)
    for later in range(5):
        talk = packet(5 + later, timestamp=2**32 - 500 + 50 * TICKS)
        line.play_until(1000 + 20 * (5 + later))
        line.buffer.receive(talk, TICKS, line.now_s)
    assert line.heard() == list(range(10))
    assert line.buffer.statistics().lost == 0
    assert line.positions()[5] == (5 + 50) * TICKS


def test_a_long_gap_is_not_filled() -> None:
    line = Line()
    line.arrive(0, 0)
    far = MAX_CONCEALED_FRAMES + 2
    line.arrive(far, 20 * far)
    assert line.heard() == [0, far]


@pytest.mark.parametrize("jumped_to", [1_000_000, 2**32 - 1_000_000])
def test_a_sender_whose_clock_jumps_is_followed(jumped_to: int) -> None:
    """Forwards, and backwards over the wrap of the timestamp: nothing is lost, and no time is heard twice."""
    line = Line()
    for number in range(5):
        line.arrive(number, 20 * number)
    line.play_until(200)
    for number in range(5, 10):
        line.play_until(200 + 20 * (number - 5))
        line.buffer.receive(packet(number, timestamp=jumped_to), TICKS, line.now_s)
    assert line.heard() == list(range(10))
    assert line.positions() == [TICKS * number for number in range(10)]


def test_packets_of_another_length() -> None:
    buffer = PlayoutBuffer(RATE, TICKS)
    for number in range(6):
        buffer.receive(RtpPacket(0, number, 240 * number, 1, b"x"), 240, 1000 + 0.03 * number)
    assert [(frame.position, frame.payload) for frame in buffer.flush()] == [(240 * n, b"x") for n in range(6)]


def test_it_holds_no_more_than_its_bound() -> None:
    buffer = PlayoutBuffer(RATE, 1)
    arrivals = [buffer.receive(RtpPacket(0, n, n, 1, b"x"), 1, 1000.0) for n in range(MAX_PACKETS + 50)]
    assert arrivals.count(Arrival.OVERFLOW) == 50
    assert len(buffer.flush()) == MAX_PACKETS
    assert buffer.statistics().overflow == 50


def test_jitter_is_that_of_rfc_3550() -> None:
    """With transit alternating by D, J tends to D (appendix A.8)."""
    buffer = PlayoutBuffer(RATE, TICKS)
    for number in range(400):
        buffer.receive(packet(number), TICKS, 1000 + 0.02 * number + 0.004 * (number % 2))
        buffer.due(1000 + 0.02 * number)
    assert math.isclose(buffer.statistics().jitter, 0.004 * RATE, rel_tol=0.01)


def test_an_empty_buffer() -> None:
    buffer = PlayoutBuffer(RATE, TICKS)
    assert buffer.due(1e9) == []
    assert buffer.statistics().missing == 0


class Heard:
    """What a listener heard of packets that arrived at given times, played every 5 ms as a telephone does."""

    def __init__(self, arrivals: Iterable[tuple[float, int]]) -> None:
        self.buffer = PlayoutBuffer(RATE, TICKS)
        self.waits: list[tuple[float, float]] = []
        """When each packet was played, and how long it had waited."""
        self._arrived: dict[int, float] = {}
        self._now_s = 0.0
        for at_s, number in sorted(arrivals):
            self._play_until(at_s)
            self._arrived[number] = at_s
            self.buffer.receive(packet(number), TICKS, at_s)
        self._play_until(self._now_s + 2)

    def _play_until(self, until_s: float) -> None:
        while self._now_s < until_s:
            for frame in self.buffer.due(self._now_s):
                if frame.payload is not None:
                    number = int.from_bytes(frame.payload, "big")
                    self.waits.append((self._now_s, self._now_s - self._arrived[number]))
            self._now_s += 0.005

    @property
    def mean_wait_s(self) -> float:
        return sum(wait_s for _, wait_s in self.waits) / len(self.waits)


def test_the_delay_after_a_stall_shrinks_again() -> None:
    """Nothing came for 0.8 s, then all at once: a pause, and ten seconds later the call is as quick as before."""
    heard = Heard((max(0.02 * n, 10.8) if n >= 500 else 0.02 * n, n) for n in range(1100))
    assert len(heard.waits) == 1100
    assert max(wait_s for _, wait_s in heard.waits) > 0.6
    assert max(wait_s for at_s, wait_s in heard.waits if at_s > 20.8) < 0.12
    counted = heard.buffer.statistics()
    assert math.isclose(counted.paused_s, 0.74, abs_tol=0.01)
    assert math.isclose(counted.delay_s, heard.mean_wait_s)


def test_stalls_that_come_again_and_again_are_covered() -> None:
    """Every second 0.2 s are held up: two pauses teach that, and no frame is missing afterwards."""
    heard = Heard((0.02 * n if n % 50 < 40 else 0.02 * (n - n % 50 + 50), n) for n in range(3000))
    assert len(heard.waits) == 3000
    assert heard.buffer.statistics().paused_s < 0.5


@pytest.mark.parametrize("drift", [0.001, -0.001])
def test_a_clock_that_runs_fast_or_slow_is_followed(drift: float) -> None:
    """Ten minutes at ten times what a bad crystal does."""
    heard = Heard((0.02 * n * (1 + drift) + 0.004 * (n % 2), n) for n in range(30_000))
    assert len(heard.waits) == 30_000
    assert max(wait_s for _, wait_s in heard.waits) < 0.12
    assert heard.buffer.statistics().missing == 0


@pytest.mark.long
@pytest.mark.parametrize("drift", [0.0001, -0.0001])
def test_a_clock_that_runs_fast_or_slow_for_four_hours(drift: float) -> None:
    heard = Heard((0.02 * n * (1 + drift), n) for n in range(720_000))
    assert len(heard.waits) == 720_000
    assert max(wait_s for _, wait_s in heard.waits) < 0.12


@pytest.mark.parametrize(
    ("loss", "jitter_s", "played"),
    [(0.01, 0, 0.98), (0.05, 0, 0.94), (0.1, 0, 0.89), (0, 0.05, 0.98), (0.01, 0.05, 0.96), (0.1, 0.05, 0.88)],
)
def test_loss_and_jitter(loss: float, jitter_s: float, played: float) -> None:
    """The jitter is Gaussian: packets overtake each other by many places."""
    dice = random.Random(7)
    arrivals = [(0.02 * n + 0.3 + dice.gauss(0, jitter_s), n) for n in range(9000) if dice.random() >= loss]
    heard = Heard(arrivals)
    assert len(heard.waits) >= played * 9000
    assert heard.mean_wait_s <= 0.15
    assert math.isclose(heard.buffer.statistics().delay_s, heard.mean_wait_s)


def test_a_pause_of_the_sender_takes_any_change_of_the_delay() -> None:
    """A talk spurt after a stall begins at the delay that is right, and need not wait until it has shrunk."""
    buffer = PlayoutBuffer(RATE, TICKS)
    for number in range(50):
        buffer.receive(packet(number), TICKS, 0.02 * number)
        buffer.due(0.02 * number)
    buffer.due(1.2)
    for number in range(50, 80):  # a stall of 0.6 s
        buffer.receive(packet(number), TICKS, 1.6)
    now_s = 1.6
    while now_s < 3:
        buffer.due(now_s)
        now_s += 0.005
    spoken = packet(80, timestamp=2**32 - 500 + 120 * TICKS)
    buffer.receive(spoken, TICKS, 4.0)
    assert buffer.due(4.0 + DELAY_S - 0.001) == []
    assert buffer.due(4.0 + DELAY_S + 0.001)


@given(st.permutations(range(30)), st.sets(st.integers(0, 29)), st.floats(0, 3))
def test_any_network_gives_order_and_counts(order: list[int], lost: set[int], spread: float) -> None:
    """Packets come late by up to `spread` places; some do not come at all."""
    arrivals = sorted((number + spread * order[number] / 30, number) for number in range(30) if number not in lost)
    line = Line()
    results = [line.arrive(number, 20 * at) for at, number in arrivals]
    played = [number for number in line.heard() if number is not None]
    assert played == sorted(set(played))
    assert len(played) == results.count(Arrival.PLAYABLE)
    counted = line.buffer.statistics()
    assert counted.received == len(arrivals)
    assert counted.late == results.count(Arrival.LATE)
    positions = line.positions()
    assert positions == sorted(positions)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 65_535), st.integers(0, 2**32 - 1), st.integers(1, 5760), st.floats(0, 10), st.booleans()
        ),
        max_size=60,
    )
)
def test_any_packets_at_any_time(events: list[tuple[int, int, int, float, bool]]) -> None:
    """A hostile sender can neither break the order nor make the buffer grow."""
    buffer = PlayoutBuffer(48_000, 960)
    now_s, end = 0.0, 0
    for sequence, timestamp, duration, wait_s, play in events:
        now_s += wait_s
        buffer.receive(RtpPacket(0, sequence, timestamp, 1, b"x"), duration, now_s)
        frames = buffer.due(now_s) if play else []
        for frame in frames:
            assert frame.position >= end
            end = frame.position + frame.duration
    frames = buffer.flush()
    assert len(frames) <= MAX_PACKETS * (1 + MAX_CONCEALED_FRAMES)
    assert [frame.position for frame in frames] == sorted(frame.position for frame in frames)
    counted = buffer.statistics()
    assert 0 <= counted.missing <= 1 or not counted.expected
