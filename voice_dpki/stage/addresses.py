"""Addresses of a demonstration: loopback addresses and ports that nothing else on this machine uses.

Each actor has an address of its own and its protocol's own port, so that captures look as in the field and
every tool decodes it. Several demonstrations on one machine take different blocks of one network. A bound socket
reserves the block; the system releases it even if the demonstration is killed.
"""

import errno
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from voice_dpki.errors import LocalError

_BLOCK_SIZE = 16
_PORT_SHIFTS = (0, 10_000, 20_000)
"""Added to all ports, tried in turn: another program may hold a port on all addresses, or it needs privileges."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where an actor listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class AddressPlan:
    """The addresses that one kind of demonstration needs.

    Blocks lie in `network`, the first three numbers of its addresses. `lock_port` reserves a block, so each kind of
    demonstration has its own. `listeners` maps a listener to the last number of its address within the block, from
    2 to 15, and its port.
    """

    network: str
    lock_port: int
    listeners: Mapping[str, tuple[int, int]]

    def within(self, block: int, shift: int) -> dict[str, Address]:
        """Return each listener's address in the block that begins at `block`, with `shift` added to the ports."""
        return {
            listener: Address(f"{self.network}.{block + number}", port + shift)
            for listener, (number, port) in self.listeners.items()
        }


class Addresses:
    """A block of addresses, reserved until `close`. Raises LocalError if none is free."""

    def __init__(self, plan: AddressPlan, elsewhere: Mapping[str, str] | None = None) -> None:
        """Reserve a block; `elsewhere` gives listeners that are not on loopback another host."""
        for block, shift in _blocks():
            lock = _bound(Address(f"{plan.network}.{block + 1}", plan.lock_port), socket.SOCK_STREAM, again=False)
            if lock is None:
                continue
            planned = plan.within(block, shift)
            if all(_is_free(address) for address in planned.values()):
                self._lock = lock
                self._planned = planned
                for listener, host in (elsewhere or {}).items():
                    planned[listener] = replace(planned[listener], host=host)
                return
            lock.close()
        raise LocalError(
            f"no free block of addresses in {plan.network}.0/24: too many demonstrations run on this machine"
        )

    def __getitem__(self, listener: str) -> Address:
        return self._planned[listener]

    def close(self) -> None:
        """Release the block."""
        self._lock.close()


def _blocks() -> Iterator[tuple[int, int]]:
    for shift in _PORT_SHIFTS:
        for block in range(0, 256 - _BLOCK_SIZE, _BLOCK_SIZE):
            yield block, shift


def _is_free(address: Address) -> bool:
    sockets = [_bound(address, kind, again=kind is socket.SOCK_STREAM) for kind in _KINDS]
    for bound in sockets:
        if bound is not None:
            bound.close()
    return None not in sockets


_KINDS = (socket.SOCK_STREAM, socket.SOCK_DGRAM)


def _bound(address: Address, kind: socket.SocketKind, *, again: bool) -> socket.socket | None:
    """Return a bound socket, or None if the address is in use.

    With `again` the address counts as free when only connections in TIME_WAIT are left, as it does for servers.
    """
    bound = socket.socket(socket.AF_INET, kind)
    if again:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((address.host, address.port))
    except OSError as error:
        bound.close()
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise LocalError(
                f"{address.host}: {error.strerror}; a demonstration needs the loopback addresses 127.0.0.0/8"
            ) from None
        return None
    return bound
