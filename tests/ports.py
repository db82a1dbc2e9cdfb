"""Ports for programs that tests start, where the program must be told its port."""

import random
import socket
from contextlib import ExitStack, suppress
from typing import Final

_PORTS: Final = range(15_000, 26_000)
"""Below those that Linux gives to connections (32768 to 60999), which may take a port before its program does."""
_TRIES: Final = 100

_RANDOM: Final = random.SystemRandom()  # others begin alike in all processes that run tests
_given: set[int] = set()


def free_port() -> int:
    """Return a port that is free for UDP and TCP on 127.0.0.1, and that this process has not returned before."""
    for _ in range(_TRIES):
        port = _RANDOM.choice(_PORTS)
        if port not in _given and _is_free(port):
            _given.add(port)
            return port
    raise AssertionError(f"no free port from {_PORTS.start} on in {_TRIES} tries")


def _is_free(port: int) -> bool:
    with ExitStack() as opened, suppress(OSError):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            opened.enter_context(socket.socket(socket.AF_INET, kind)).bind(("127.0.0.1", port))
        return True
    return False
