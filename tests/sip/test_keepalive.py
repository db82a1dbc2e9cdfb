"""Keep-alives of a flow: their times by RFC 5626 §4.4 and RFC 5389 §7.2.1, and what counts as failure."""

import itertools
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from voice_dpki.sip.hop import Hop
from voice_dpki.sip.keepalive import KeepAlive, KeepAliveTimes
from voice_dpki.sip.stun import answer_binding

UDP, TCP = Hop("udp", "192.0.2.9", 5060), Hop("tcp", "192.0.2.9", 5060)
HERE = ("192.0.2.1", 32853)


@pytest.fixture
def keep(random: Any) -> KeepAlive:
    return KeepAlive(UDP, KeepAliveTimes(), random)


def refusal(request: bytes) -> bytes:
    """A Binding error response, 400 (RFC 5389 §15.6), to a request."""
    error = struct.pack("!HHHBB", 0x0009, 4, 0, 4, 0)
    return struct.pack("!HH", 0x0111, len(error)) + request[4:] + error


def turn(keep: KeepAlive) -> tuple[float, bytes | None]:
    """Let the timer run out; returns when that is, and what is sent."""
    at_s = keep.next_s
    assert at_s is not None
    return at_s, keep.handle_timer(at_s)


def exchange(keep: KeepAlive, host: str = HERE[0], port: int = HERE[1]) -> float:
    """One request and its answer from the proxy; returns when it was sent."""
    at_s, request = turn(keep)
    assert request is not None
    answer = answer_binding(request, host, port)
    assert answer is not None
    keep.receive(answer, at_s + 0.01)
    return at_s


def test_a_udp_flow_is_kept_with_20_octets_each_24_to_29_s(keep: KeepAlive) -> None:
    keep.start(100.0)
    assert keep.handle_timer(99.0) is None
    at_s, request = turn(keep)
    assert (at_s, len(request or b"")) == (100.0, 20)
    assert (request or b"")[:8] == bytes.fromhex("000100002112a442")  # RFC 5389 §6
    keep.receive(answer_binding(request or b"", *HERE) or b"", 100.1)
    times = [exchange(keep) for _ in range(200)]
    waits = {round(after - before, 6) for before, after in itertools.pairwise(times)}
    assert min(waits) >= 24
    assert max(waits) <= 29.02
    assert keep.failure is None


@pytest.mark.parametrize(("hop", "flow_timer_s", "least_s", "most_s"), [
    (UDP, 0, 24, 29), (UDP, 20, 16, 20), (TCP, 20, 16, 20), (TCP, 0, 96, 120), (UDP, 1, 0.8, 1),
])  # fmt: skip
def test_intervals_are_drawn_from_what_the_proxy_says(
    hop: Hop, flow_timer_s: int, least_s: float, most_s: float
) -> None:
    """Flow-Timer is the longest, and 80 percent of it the shortest (RFC 5626 §4.4); both ends are drawn."""

    class Drawn:
        draws: Iterator[bytes] = iter([b"\0\0", b"\xff\xff"])

        def token(self, size: int) -> bytes:
            return bytes(size) if size > 2 else next(self.draws)

    keep = KeepAlive(hop, KeepAliveTimes(), Drawn())
    keep.start(0.0, flow_timer_s)
    for wanted_s in (least_s, least_s + (most_s - least_s) * 0xFFFF / 0x10000):
        at_s = exchange(keep) if hop is UDP else turn(keep)[0]
        assert keep.next_s is not None
        assert keep.next_s - at_s == pytest.approx(wanted_s + (0.01 if hop is UDP else 0))


def test_nothing_is_sent_or_read_before_the_start(keep: KeepAlive) -> None:
    assert (keep.next_s, keep.failure) == (None, None)
    assert keep.handle_timer(0.0) is None
    keep.receive(answer_binding(bytes.fromhex("000100002112a442") + bytes(12), *HERE) or b"", 0.0)
    assert (keep.next_s, keep.failure) == (None, None)


def test_a_connection_gets_two_line_ends(random: Any) -> None:
    keep = KeepAlive(TCP, KeepAliveTimes(), random)
    keep.start(0.0)
    assert [turn(keep)[1] for _ in range(3)] == [b"\r\n\r\n"] * 3


def silent(keep: KeepAlive) -> tuple[list[float], set[bytes | None]]:
    """Let a proxy be silent through one request; returns when it was sent, and what."""
    sent = [turn(keep) for _ in range(7)]
    at_s, nothing = turn(keep)
    assert nothing is None
    return [time_s - sent[0][0] for time_s, _ in sent] + [at_s - sent[0][0]], {data for _, data in sent}


def test_a_silent_proxy_is_asked_seven_times_and_then_the_flow_has_failed(keep: KeepAlive) -> None:
    """RFC 5389 §7.2.1: "0 ms, 500 ms, 1500 ms, 3500 ms, 7500 ms, 15500 ms, and 31500 ms", then 39500 ms."""
    keep.start(0.0)
    exchange(keep)
    times_s, sent = silent(keep)
    assert times_s == pytest.approx([0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 39.5])
    assert len(sent) == 1
    assert keep.failure == "the proxy does not answer keep-alives any more"
    assert keep.next_s is None


def test_a_proxy_without_stun_is_no_failure(keep: KeepAlive) -> None:
    keep.start(0.0)
    silent(keep)
    at_s, request = turn(keep)
    assert 39.5 + 24 <= at_s <= 39.5 + 29
    assert request is not None
    keep.receive(refusal(request), 100.0)
    assert keep.failure is None
    assert keep.next_s is not None
    assert 24 <= keep.next_s - 100 <= 29
    assert turn(keep)[1] not in (None, request), "a new transaction"


@pytest.mark.parametrize("seen", [("192.0.2.1", 32854), ("192.0.2.2", 32853)])
def test_another_address_than_before_is_a_failure(keep: KeepAlive, seen: tuple[str, int]) -> None:
    keep.start(0.0)
    exchange(keep)
    exchange(keep)
    assert keep.failure is None
    exchange(keep, *seen)
    assert keep.failure == "the proxy sees this telephone at another address than before"
    assert keep.next_s is None
    keep.start(99.0)
    exchange(keep, *seen)
    assert keep.failure is None, "registered over again, that is where the telephone is"


def test_an_error_is_a_failure_of_a_flow_that_has_worked(keep: KeepAlive) -> None:
    keep.start(0.0)
    exchange(keep)
    at_s, request = turn(keep)
    assert request is not None
    keep.receive(refusal(request), at_s)
    assert keep.failure == "the STUN server answered with an error"


def test_answers_to_nothing_and_of_others_are_passed_over(keep: KeepAlive) -> None:
    keep.start(0.0)
    exchange(keep)
    keep.receive(answer_binding(bytes.fromhex("000100002112a442") + bytes(12), "192.0.2.7", 1) or b"", 1.0)
    at_s, request = turn(keep)
    assert request is not None
    for data in (b"", request, answer_binding(request[:-1] + b"\xff", "192.0.2.7", 1) or b"", b"\r\n"):
        keep.receive(data, at_s)
    assert keep.failure is None
    keep.stop()
    assert keep.next_s is None
    assert keep.handle_timer(at_s + 99) is None
