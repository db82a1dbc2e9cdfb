"""Addresses of a testbed: loopback addresses and ports that no other testbed on this machine uses.

Each operator has an address of its own, and SIP uses port 5060, so that a capture looks like one from the field and
every tool decodes it. Several testbeds on one machine take different blocks of 127.0.0.0/24. A bound socket
reserves the block; the system releases it even if the testbed is killed.
"""

import errno
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from voice_dpki.errors import LocalError

SIP_PORT = 5060
_LOCK_PORT = 5059
_BLOCK_SIZE = 16
_PORT_SHIFTS = (0, 10_000, 20_000)
"""Added to all ports, tried in turn: another program may hold SIP's port on all addresses."""

_OPERATORS: Mapping[str, int] = {"a": 2, "b": 3, "c": 8, "d": 9}
_SERVICES: Mapping[str, int] = {
    "proxy": SIP_PORT,
    "authn": 8081,
    "verify": 8082,
    "ledger": 8083,
    "validator": 8084,
    "cometbft-rpc": 8085,
    "cometbft-p2p": 8086,
}

LISTENERS: Mapping[str, tuple[int, int]] = {
    "engine": (4, 8084),
    "path": (5, SIP_PORT),
    "caller": (6, SIP_PORT),
    "callee": (7, SIP_PORT),
    **{
        f"{service}-{letter}": (octet, port)
        for letter, octet in _OPERATORS.items()
        for service, port in _SERVICES.items()
    },
}
"""Listener (an actor, or one of CometBFT's two) to the last octet of its address within the block, and its port."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where an actor listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Addresses:
    """A block of addresses, reserved until `close`. Raises LocalError if none is free."""

    def __init__(self) -> None:
        for shift, block in _blocks():
            lock = _bound(f"127.0.0.{block + 1}", _LOCK_PORT, socket.SOCK_STREAM)
            if lock is None:
                continue
            planned = {
                actor: Address(f"127.0.0.{block + octet}", port + shift)
                for actor, (octet, port) in LISTENERS.items()
            }
            if all(_is_free(address) for address in planned.values()):
                self._planned = planned
                self._lock = lock
                return
            lock.close()
        raise LocalError("no free block of addresses in 127.0.0.0/24: too many testbeds run on this machine")

    def __getitem__(self, actor: str) -> Address:
        return self._planned[actor]

    def close(self) -> None:
        """Release the block."""
        self._lock.close()


def _blocks() -> Iterator[tuple[int, int]]:
    for shift in _PORT_SHIFTS:
        for block in range(0, 256 - _BLOCK_SIZE, _BLOCK_SIZE):
            yield shift, block


def _is_free(address: Address) -> bool:
    sockets = [_bound(address.host, address.port, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)]
    for bound in sockets:
        if bound is not None:
            bound.close()
    return None not in sockets


def _bound(host: str, port: int, kind: socket.SocketKind) -> socket.socket | None:
    """Return a bound socket, or None if the address is in use."""
    bound = socket.socket(socket.AF_INET, kind)
    if kind is socket.SOCK_STREAM and port != _LOCK_PORT:
        # As servers do, so that an earlier run's connections in TIME_WAIT do not count.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise LocalError(
                f"{host}: {error.strerror}; a testbed needs the loopback addresses 127.0.0.0/8"
            ) from None
        return None
    return bound
