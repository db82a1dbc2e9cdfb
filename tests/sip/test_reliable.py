"""Reliable provisional responses (RFC 3262): RSeq, RAck and their order. The first values are the standard's."""

import pytest
from sipmessage import Request, Response

from voice_dpki.effects import Random, SystemRandom
from voice_dpki.errors import MalformedError
from voice_dpki.sip.message import parse_uri
from voice_dpki.sip.reliable import (
    MAX_FIRST,
    Rack,
    Received,
    Sent,
    is_reliable,
    is_required,
    is_supported,
    read_number_of,
)


def test_rack_is_read_and_written_as_the_standard_has_it() -> None:
    """RFC 3262 §7.2: `RAck: 776656 1 INVITE`."""
    assert Rack.parse("776656 1 INVITE") == Rack.parse(" 776656\t1  INVITE ") == Rack(776656, 1, "INVITE")
    assert Rack(776656, 1, "INVITE").serialize() == "776656 1 INVITE"
    assert Rack.parse("4294967295 4294967295 x").number == 4_294_967_295


@pytest.mark.parametrize(
    "text",
    ["", "1", "1 2", "1 2 INVITE x", "-1 2 INVITE", "4294967296 1 INVITE", "1 4294967296 INVITE", "a 1 INVITE"],
)
def test_a_malformed_rack_is_refused(text: str) -> None:
    with pytest.raises(MalformedError, match="RAck"):
        Rack.parse(text)


@pytest.mark.parametrize(
    ("status", "headers", "reliable"),
    [
        (183, {"Require": "100rel"}, True),
        (180, {"Require": "timer, 100rel"}, True),
        (183, {"Supported": "100rel"}, False),
        (100, {"Require": "100rel"}, False),
        (200, {"Require": "100rel"}, False),
        (183, {}, False),
    ],
)
def test_which_responses_are_reliable(status: int, headers: dict[str, str], reliable: bool) -> None:
    response = Response(status, "Phrase")
    for name, value in headers.items():
        response.headers.set(name, value)
    assert is_reliable(response) is reliable


@pytest.mark.parametrize(
    ("name", "value", "supported", "required"),
    [
        ("Require", "100rel", True, True),
        ("Supported", "timer, 100rel", True, False),
        ("Supported", "timer", False, False),
        ("Require", "timer", False, False),
    ],
)
def test_what_a_caller_wants(name: str, value: str, supported: bool, required: bool) -> None:
    invite = Request("INVITE", parse_uri("sip:+442079460123@b.example"))
    invite.headers.set(name, value)
    assert (is_supported(invite), is_required(invite)) == (supported, required)


@pytest.mark.parametrize("value", ["", "0", "-1", "4294967296", "1 2", "x"])
def test_a_reliable_response_has_a_number_from_1(value: str) -> None:
    response = Response(183, "Session Progress")
    if value:
        response.headers.set("RSeq", value)
    with pytest.raises(MalformedError, match="RSeq"):
        read_number_of(response)
    response.headers.set("RSeq", "4294967295")
    assert read_number_of(response) == 4_294_967_295


def test_numbers_begin_anywhere_and_go_up_by_one() -> None:
    first = set()
    for _ in range(8):
        sent = Sent(1, SystemRandom())
        number = sent.next()
        assert 1 <= number <= MAX_FIRST
        assert sent.acknowledge(Rack(number, 1, "INVITE"))
        assert sent.next() == number + 1
        first.add(number)
    assert len(first) > 1


@pytest.mark.parametrize(
    ("token", "number"),
    [(0, 1), (2**31 - 3, 2**31 - 2), (2**31 - 2, 2**31 - 1), (2**31 - 1, 1), (2**31, 2), (2**32 - 1, 2)],
)
def test_the_first_number_is_one_of_31_bits(token: int, number: int) -> None:
    """RFC 3262 §3: from 1 to 2**31 - 1, so that there is room for those that follow."""

    class Drawn:
        def token(self, size: int) -> bytes:
            return token.to_bytes(size)

    assert Sent(1, Drawn()).next() == number


def test_only_the_response_that_waits_is_acknowledged_and_once(random: Random) -> None:
    sent = Sent(7, random)
    assert not sent.acknowledge(Rack(1, 7, "INVITE")), "nothing was sent yet"
    number = sent.next()
    for wrong in (Rack(number + 1, 7, "INVITE"), Rack(number, 8, "INVITE"), Rack(number, 7, "UPDATE")):
        assert not sent.acknowledge(wrong)
    assert sent.acknowledge(Rack(number, 7, "INVITE"))
    assert not sent.acknowledge(Rack(number, 7, "INVITE")), "a second PRACK gets 481"


def test_responses_are_taken_in_order_each_once() -> None:
    received = Received()
    taken = [number for number in (17, 17, 19, 18, 18, 17, 20, 19) if received.take(number)]
    assert taken == [17, 18, 19]
