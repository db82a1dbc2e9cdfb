"""Packets that wait for the keys: the order of arrival, the bounds, and who gives way to whom."""

import pytest

from voice_dpki.wire.early import EarlyPackets

PEER = ("192.0.2.1", 4000)


@pytest.fixture
def early() -> EarlyPackets[int]:
    return EarlyPackets(each=3, sources=2)


def stranger(number: int) -> tuple[str, int]:
    return (f"198.51.100.{number}", 9)


def test_packets_come_in_the_order_of_arrival_and_once(early: EarlyPackets[int]) -> None:
    for number, source in enumerate((PEER, stranger(1), PEER)):
        assert early.hold(source, number) == 0
    assert early.release() == [(PEER, 0), (stranger(1), 1), (PEER, 2)]
    assert early.release() == []


def test_further_packets_of_a_source_are_dropped(early: EarlyPackets[int]) -> None:
    assert [early.hold(PEER, number) for number in range(5)] == [0, 0, 0, 1, 1]
    assert early.release() == [(PEER, 0), (PEER, 1), (PEER, 2)]


def test_the_source_with_the_fewest_packets_gives_way(early: EarlyPackets[int]) -> None:
    early.hold(stranger(0), 0)
    early.hold(PEER, 1)
    early.hold(PEER, 2)
    assert [early.hold(stranger(number), number) for number in range(3, 100)] == [1] * 97
    assert early.release() == [(PEER, 1), (PEER, 2), (stranger(99), 99)]


def test_strangers_that_have_sent_all_they_may_do_not_keep_the_peer_out(early: EarlyPackets[int]) -> None:
    for source in (stranger(1), stranger(2)):
        for number in range(3):
            early.hold(source, number)
    assert early.hold(PEER, 7) == 3
    assert early.release()[-1] == (PEER, 7)


def test_a_strangers_ports_give_way_to_each_other() -> None:
    early: EarlyPackets[int] = EarlyPackets(each=3, sources=4)
    early.hold(PEER, 0)
    early.hold((PEER[0], PEER[1] + 1), 1)  # RTCP
    for port in range(1000, 1100):
        for _ in range(3):
            early.hold(("198.51.100.1", port), 2)
    assert early.release()[:2] == [(PEER, 0), ((PEER[0], PEER[1] + 1), 1)]
