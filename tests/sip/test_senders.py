"""Known senders and strangers: who is which, and what a stranger may send."""

import pytest

from voice_dpki.sip import senders
from voice_dpki.sip.hop import source_of
from voice_dpki.sip.senders import KNOWN_S, STRANGER_BURST, STRANGER_MESSAGES_S, Senders


def test_what_strangers_may_send_and_how_long_one_is_known() -> None:
    assert (STRANGER_MESSAGES_S, STRANGER_BURST, KNOWN_S) == (200, 2_000, 3_600)


def test_a_stranger_has_a_burst_and_a_rate() -> None:
    known = Senders()
    burst = int(STRANGER_BURST)
    assert sum(known.admits("a", 100.0) for _ in range(2 * burst)) == burst
    assert known.admits("b", 100.0), "another one has its own"
    admitted = sum(known.admits("a", 100.0 + number / 10_000) for number in range(1, 20_001))  # 10,000/s for 2 s
    assert abs(admitted - 2 * STRANGER_MESSAGES_S) <= 1
    assert sum(known.admits("a", 1_000.0) for _ in range(2 * burst)) == burst, "quiet time fills it, and no further"


def test_configured_peers_and_those_who_authenticated_are_known() -> None:
    known = Senders(["192.0.2.1", "2001:db8::5"])
    assert known.is_known("192.0.2.1", 1e9)
    assert known.is_known("2001:db8::/64", 1e9)
    assert not known.is_known("192.0.2.2", 0.0)
    known.vouch("192.0.2.2", 10.0)
    known.vouch("::ffff:192.0.2.3", 10.0)
    assert known.is_known("192.0.2.2", 10.0 + KNOWN_S - 1)
    assert known.is_known("192.0.2.3", 10.0), "an IPv4 address is itself on an IPv6 socket, too"
    assert not known.is_known("192.0.2.2", 10.0 + KNOWN_S)


def test_what_is_remembered_is_bounded() -> None:
    known = Senders()
    for number in range(senders.MAX_KNOWN + 10):
        known.vouch(f"k{number}", 0.0)
    assert len(known._known_until_s) == 65_536
    assert not known.is_known("k9", 0.0)
    assert known.is_known("k10", 0.0)
    for number in range(senders.MAX_STRANGERS + 10):
        assert known.admits(f"s{number}", 0.0)
        known.admits("busy", 0.0)
    assert len(known._strangers) == 10_000
    assert not known.admits("busy", 0.0), "who is busy is not forgotten, whoever else comes"


def test_who_authenticated_longest_ago_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(senders, "MAX_KNOWN", 2)
    known = Senders()
    for host in ("a", "b", "a", "c"):
        known.vouch(host, 0.0)
    assert [host for host in "abc" if known.is_known(host, 1.0)] == ["a", "c"]


def test_whoever_has_authenticated_is_no_stranger_any_more() -> None:
    known = Senders()
    known.admits("192.0.2.2", 10.0)
    known.vouch("192.0.2.2", 10.0)
    assert known._strangers == {}


def test_what_is_no_address_is_its_own_source() -> None:
    assert source_of("not:an:address") == "not:an:address"
    assert source_of("2001:db8::5") == source_of("2001:db8::6") == "2001:db8::/64"
