"""Playout where time does not go on evenly: stalls, clocks that jump or stand still, and other numbers."""

import math
from collections.abc import Callable, Iterable
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from voice_dpki.media.playout import DELAY_S, MAX_KEPT_S, Arrival, Frame, PlayoutBuffer
from voice_dpki.media.rtp import RtpPacket

RATE, TICKS, FRAME_S = 8000, 160, 0.02
FIRST = 2**32 - 500
"""Timestamps wrap early, and so do the sequence numbers."""


def packet(number: int, *, jumped_s: float = 0.0, renumbered: int = 0) -> RtpPacket:
    """Packet `number` of a stream whose clock, or whose numbers, have jumped."""
    timestamp = FIRST + TICKS * number + int(jumped_s * RATE)
    return RtpPacket(
        0, (65_530 + number + renumbered) & 0xFFFF, timestamp & 0xFFFFFFFF, 1, number.to_bytes(4, "big")
    )


class Phone:
    """Plays every 5 ms, and notes what was played when, in a list of its own for each packet's number."""

    def __init__(self) -> None:
        self.buffer = PlayoutBuffer(RATE, TICKS)
        self.frames: list[Frame] = []
        self.waits: list[tuple[float, float]] = []
        self._arrived: dict[int, float] = {}
        self._steps = 0

    def take(self, at_s: float, arriving: RtpPacket) -> Arrival:
        self.play_until(at_s)
        self._arrived[int.from_bytes(arriving.payload, "big")] = at_s
        return self.buffer.receive(arriving, TICKS, at_s)

    def play_until(self, until_s: float) -> None:
        while (now_s := 0.005 * self._steps) < until_s:
            for frame in self.buffer.due(now_s):
                self.frames.append(frame)
                if frame.payload is not None:
                    self.waits.append((now_s, now_s - self._arrived[int.from_bytes(frame.payload, "big")]))
            self._steps += 1

    def finish(self) -> list[int]:
        """Play everything, and return the numbers of the packets that were heard."""
        self.play_until(0.005 * self._steps + MAX_KEPT_S + 0.5)
        return [int.from_bytes(frame.payload, "big") for frame in self.frames if frame.payload is not None]


def played(arrivals: Iterable[tuple[float, RtpPacket]]) -> tuple[Phone, list[int]]:
    phone = Phone()
    for at_s, arriving in arrivals:
        phone.take(at_s, arriving)
    heard = phone.finish()
    counted = phone.buffer.statistics()
    assert counted.received == len(heard) + counted.late + counted.overflow
    assert heard == sorted(set(heard))
    return phone, heard


def stalled(stall_s: float, *, of: int = 1500, after: int = 500) -> list[tuple[float, RtpPacket]]:
    """Packets of which those of `stall_s` seconds come in one go at its end."""
    end_s = FRAME_S * after + stall_s
    return [(max(FRAME_S * n, end_s) if n >= after else FRAME_S * n, packet(n)) for n in range(of)]


@pytest.mark.parametrize("stall_s", [0.8, 1.9, 2.0])
def test_what_a_stall_of_two_seconds_has_held_up_is_played(stall_s: float) -> None:
    phone, heard = played(stalled(stall_s))
    assert heard == list(range(1500))
    assert math.isclose(phone.buffer.statistics().paused_s, stall_s - DELAY_S, abs_tol=0.03)


@pytest.mark.parametrize("stall_s", [2.1, 2.5, 3.0, 4.0, 8.0])
def test_of_what_a_longer_stall_has_held_up_the_newest_is_played(stall_s: float) -> None:
    """What is thrown away is counted, the pause too, and the call is quick again after some time."""
    phone, heard = played(stalled(stall_s, of=2000))
    thrown = round((stall_s - MAX_KEPT_S) / FRAME_S)
    counted = phone.buffer.statistics()
    assert counted.overflow == pytest.approx(thrown, abs=2)
    assert heard == [n for n in range(2000) if not 500 <= n < 500 + counted.overflow]
    assert (counted.lost, counted.late, counted.concealed) == (0, 0, 0)
    assert counted.missing == counted.overflow / 2000
    assert math.isclose(counted.paused_s, stall_s - DELAY_S, abs_tol=0.03)
    assert max(wait_s for _, wait_s in phone.waits) <= MAX_KEPT_S + 0.01
    assert max(wait_s for at_s, wait_s in phone.waits if at_s > 10 + stall_s + 21) < 0.12


def test_what_is_thrown_away_leaves_its_time_in_the_recording() -> None:
    phone, heard = played(stalled(3.0))
    positions = {
        int.from_bytes(frame.payload, "big"): frame.position for frame in phone.frames if frame.payload is not None
    }
    assert all(positions[number] == TICKS * number for number in heard)


def test_a_stall_before_anything_was_played() -> None:
    _, heard = played((3.0, packet(n)) if n < 150 else (FRAME_S * n, packet(n)) for n in range(300))
    assert heard == list(range(heard[0], 300))
    assert 48 <= heard[0] <= 52


def test_a_long_loss_that_ends_in_a_stall_leaves_its_time_in_the_recording() -> None:
    """What comes late by more than the sender's clock went on is of the same clock."""
    phone, heard = played(
        (FRAME_S * n + (10.0 if n >= 300 else 0.0), packet(n)) for n in [*range(100), *range(300, 500)]
    )
    assert heard == [*range(100), *range(300, 500)]
    assert [frame.position for frame in phone.frames if frame.payload is not None] == [TICKS * n for n in heard]


@pytest.mark.parametrize("stopped_s", [2.5, 10.0, 600.0])
def test_a_clock_that_stood_still_was_no_stall(stopped_s: float) -> None:
    """As a sender's on hold may: nothing is missing, and the speech that follows is as quick as ever."""
    phone, heard = played((FRAME_S * n + (stopped_s if n >= 100 else 0.0), packet(n)) for n in range(400))
    assert heard == list(range(400))
    assert phone.buffer.statistics().paused_s == 0.0
    assert max(wait_s for _, wait_s in phone.waits) < 0.1


@pytest.mark.parametrize("jumped_s", [-80_000.0, -30.0, -2.5, -0.5, -0.1, 2.5, 30.0, 80_000.0])
def test_a_clock_that_jumps_loses_no_speech(jumped_s: float) -> None:
    """With packets in the buffer: nothing is lost or heard twice, or counted as jitter."""
    phone, heard = played((FRAME_S * n, packet(n, jumped_s=jumped_s if n >= 100 else 0.0)) for n in range(300))
    assert heard == list(range(300))
    assert [frame.position for frame in phone.frames] == [TICKS * n for n in range(300)]
    counted = phone.buffer.statistics()
    assert (counted.late, counted.overflow, counted.concealed) == (0, 0, 0)
    assert counted.jitter < 1
    assert max(wait_s for _, wait_s in phone.waits) < 2 * DELAY_S


@pytest.mark.parametrize("jumped_s", [-30.0, 30.0])
def test_a_packet_of_before_a_jump_that_comes_after_it_is_late(jumped_s: float) -> None:
    """By its timestamp it would be played half a minute later, in place of what belongs there."""
    order = [*range(100), 101, 100, *range(102, 2000)]
    _, heard = played(
        (FRAME_S * at, packet(n, jumped_s=jumped_s if n > 100 else 0.0)) for at, n in enumerate(order)
    )
    assert heard == [n for n in range(2000) if n != 100]


def test_another_source_takes_nothing_away_from_what_waits() -> None:
    phone = Phone()
    for number in range(100):
        phone.take(FRAME_S * number, packet(number))
    phone.buffer.change_source()
    for number in range(100, 200):
        phone.take(FRAME_S * number, packet(number, jumped_s=12_345.6, renumbered=30_000))
    assert phone.finish() == list(range(200))
    counted = phone.buffer.statistics()
    assert (counted.received, counted.expected, counted.late) == (200, 200, 0)


def test_a_sender_that_numbers_anew_with_lower_numbers_is_followed() -> None:
    """The second packet in a row that is too old shows it (RFC 3550 A.1); before, half of 65536 were dropped."""
    phone = Phone()
    for number in range(100):
        phone.take(FRAME_S * number, packet(number))
    arrivals = [phone.take(FRAME_S * n, packet(n, renumbered=-20_000)) for n in range(100, 200)]
    assert arrivals == [Arrival.DUPLICATE] + [Arrival.PLAYABLE] * 99
    assert phone.finish() == [*range(100), *range(101, 200)]
    assert phone.buffer.statistics().lost == 0


def test_a_sender_that_numbers_anew_with_higher_numbers_has_lost_nothing() -> None:
    phone, heard = played((FRAME_S * n, packet(n, renumbered=20_000 if n >= 100 else 0)) for n in range(200))
    assert heard == list(range(200))
    assert phone.buffer.statistics().lost == 0


def test_old_packets_that_do_not_follow_each_other_change_nothing() -> None:
    phone = Phone()
    for number in range(2000, 2100):
        phone.take(FRAME_S * number, packet(number))
        if number % 3 == 0:
            old = phone.take(FRAME_S * number, packet(number - 1900))
            assert old is Arrival.DUPLICATE
    assert phone.finish() == list(range(2000, 2100))


@given(st.lists(st.tuples(st.integers(1, 200), st.floats(0, 8), st.booleans()), max_size=6))
@example([(157, 7.0, False), (1, 4.0, False)])  # the delay grows while what a stall has held up is played
@example([(1, 5.0, False), (1, 5.0, True), (1, 5.0, True)])  # a second's pause is skipped, and another follows
def test_any_stalls_and_jumps(pieces: list[tuple[int, float, bool]]) -> None:
    """Each piece of speech is held up, or its clock jumps, by a time: every packet is played or counted."""
    arrivals: list[tuple[float, RtpPacket]] = []
    number, free_s, jumped_s = 0, 0.0, 0.0
    for packets, time_s, is_jump in pieces:
        jumped_s += time_s - 4 if is_jump else 0.0
        free_s = free_s if is_jump else max(free_s, FRAME_S * number + time_s)
        for _ in range(packets):
            arrivals.append((max(free_s, FRAME_S * number), packet(number, jumped_s=jumped_s)))
            number += 1
    phone, _ = played(arrivals)
    assert all(one.position + one.duration <= other.position for one, other in pairwise(phone.frames))
    assert all(wait_s <= MAX_KEPT_S + 0.1 for _, wait_s in phone.waits)


@given(
    st.lists(
        st.tuples(st.integers(0, 65_535), st.integers(0, 2**32 - 1), st.integers(1, 5760), st.floats(0, 10)),
        max_size=60,
    ),
    st.sampled_from([lambda number: False, lambda number: number % 3 == 1, lambda number: number % 2 == 0]),
)
def test_every_packet_of_a_stranger_is_played_or_counted(
    events: list[tuple[int, int, int, float]], is_noise: Callable[[int], bool]
) -> None:
    """Comfort noise among them: frames stay in order, and no more of them come than there was time for."""
    buffer = PlayoutBuffer(48_000, 960)
    now_s, frames, speech = 0.0, [], 0
    for number, (sequence, timestamp, duration, wait_s) in enumerate(events):
        now_s += wait_s
        arriving = RtpPacket(0, sequence, timestamp, 1, b"x")
        if is_noise(number):
            buffer.receive_noise(arriving, now_s)
        else:
            speech += buffer.receive(arriving, duration, now_s) is not Arrival.DUPLICATE
        frames += buffer.due(now_s)
    frames += buffer.flush()
    assert all(one.position + one.duration <= other.position for one, other in pairwise(frames))
    counted = buffer.statistics()
    spoken = sum(frame.payload is not None and not frame.is_noise for frame in frames)
    assert spoken <= speech
    if not any(map(is_noise, range(len(events)))):
        assert counted.received == spoken + counted.late + counted.overflow
    assert sum(frame.is_noise for frame in frames) <= (now_s + 5) / FRAME_S + len(events)
