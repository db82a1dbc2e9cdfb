"""The two ports of a call's media where there is no room for them: a sentence, and nothing left open."""

import errno
import gc
import os
import socket
import warnings
from typing import Any

import pytest

from tests.descriptors import descriptors_left, sockets_open
from voice_dpki.errors import LocalError
from voice_dpki.wire import media_ports
from voice_dpki.wire.media_ports import bind_pair, listen_pair

HOST = "127.0.0.1"


@pytest.mark.parametrize("left", [0, 1])
def test_a_process_without_descriptors_says_so_and_leaves_no_socket_open(left: int) -> None:
    before = sockets_open()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with descriptors_left(left), pytest.raises(LocalError, match=os.strerror(errno.EMFILE)):
            bind_pair(HOST)
        gc.collect()
    assert sockets_open() == before


def test_an_address_that_is_not_ours_is_said_at_once_with_its_reason() -> None:
    before = sockets_open()
    with pytest.raises(LocalError, match=f"192.0.2.1: {os.strerror(errno.EADDRNOTAVAIL)}"):
        bind_pair("192.0.2.1")
    assert sockets_open() == before


def test_a_pair_is_an_even_port_and_the_next() -> None:
    first, second = bind_pair(HOST)
    with first, second:
        port = first.getsockname()[1]
        assert (port % 2, second.getsockname()[1]) == (0, port + 1)


class Refusing(socket.socket):
    """A socket that cannot be had without blocking, as the event loop needs it."""

    def setblocking(self, flag: bool) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


async def test_what_cannot_be_listened_at_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second socket of the pair is refused by the event loop, and the first one is in use already."""
    before, first, second = sockets_open(), *bind_pair(HOST)

    def pair(_: str) -> Any:
        return first, Refusing(socket.AF_INET, socket.SOCK_DGRAM, fileno=second.detach())

    monkeypatch.setattr(media_ports, "bind_pair", pair)
    with pytest.raises(LocalError, match=os.strerror(errno.ENOMEM)):
        await listen_pair(HOST, lambda *_: None)
    assert sockets_open() == before
