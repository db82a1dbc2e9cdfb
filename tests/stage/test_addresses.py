import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from voice_dpki.errors import LocalError
from voice_dpki.stage import addresses
from voice_dpki.stage.addresses import Addresses, AddressPlan

PLAN = AddressPlan("127.0.9", 5099, {"proxy": (2, 5060), "gateway": (3, 4500), "gateway-again": (3, 5060)})


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def reserve(stack: ExitStack, elsewhere: dict[str, str] | None = None) -> Addresses:
    reserved = Addresses(PLAN, elsewhere)
    stack.callback(reserved.close)
    return reserved


def test_two_demonstrations_stand_side_by_side_with_each_protocol_at_its_own_port(stack: ExitStack) -> None:
    first, second = reserve(stack), reserve(stack)
    assert {first["proxy"].host, second["proxy"].host} == {"127.0.9.2", "127.0.9.18"}
    assert first["gateway"].host == first["gateway-again"].host == "127.0.9.3"
    assert first["proxy"].port == second["proxy"].port == 5060
    assert str(second["gateway"]) == "127.0.9.19:4500"


def test_a_block_is_given_back(stack: ExitStack) -> None:
    taken = [Addresses(PLAN) for _ in range(3)]
    for reserved in taken:
        reserved.close()
    assert reserve(stack)["proxy"].host == taken[0]["proxy"].host


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_port_that_another_program_holds_is_not_given_out(stack: ExitStack, kind: socket.SocketKind) -> None:
    other = stack.enter_context(socket.socket(socket.AF_INET, kind))
    other.bind(("127.0.9.3", 4500))
    if kind is socket.SOCK_STREAM:
        other.listen()
    assert reserve(stack)["proxy"].host == "127.0.9.18"


def test_a_port_that_another_program_holds_on_all_addresses_is_moved_with_all_others(stack: ExitStack) -> None:
    other = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    other.bind(("0.0.0.0", 5060))
    reserved = reserve(stack)
    assert [reserved[name].port for name in PLAN.listeners] == [15060, 14500, 15060]


def test_a_listener_can_be_elsewhere(stack: ExitStack) -> None:
    reserved = reserve(stack, {"gateway": "192.0.2.7"})
    assert str(reserved["gateway"]) == "192.0.2.7:4500"
    assert reserved["proxy"].host == "127.0.9.2"


def test_when_all_are_taken_it_says_so(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_blocks", lambda: iter([(224, 0)]))
    reserve(stack)
    with pytest.raises(LocalError, match=r"no free block of addresses in 127\.0\.9\.0/24"):
        reserve(stack)
