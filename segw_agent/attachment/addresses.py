"""Addresses of one run: loopback addresses and ports that no other run on this machine uses.

IKE uses its own ports 500 and 4500 where that is allowed, so that a capture looks like one from the field. A bound
socket reserves a block of addresses; the system releases it even if the run is killed.
"""

import socket
from collections.abc import Iterator, Mapping

from voice_dpki.errors import LocalError
from voice_dpki.ikev2.events import Address

_LOCK_PORT = 5058
_BLOCK_SIZE = 16
_HIGH_PORTS = 10_000
"""Added to IKE's ports if they cannot be bound, for instance because those below 1024 need privileges."""

_HTTP: Mapping[str, tuple[int, int]] = {"engine": (2, 8084), "ledger-a": (3, 8083), "ledger-v": (4, 8083)}
_IKE: Mapping[str, int] = {"gateway": 5, "device": 6}
"""Actor to the offset of its address in the block; `_HTTP` has the port, too."""


class Addresses:
    """A block of addresses, reserved until `close`. Raises LocalError if none is free."""

    def __init__(self, hosts: Mapping[str, str] | None = None) -> None:
        """Reserve a block; `hosts` replaces the loopback addresses of the gateway or the device."""
        for shift, block in _blocks():
            lock = _bound(Address(f"127.0.1.{block + 1}", _LOCK_PORT), socket.SOCK_STREAM)
            if lock is None:
                continue
            self._http = {
                actor: Address(f"127.0.1.{block + octet}", port) for actor, (octet, port) in _HTTP.items()
            }
            self._hosts = {actor: f"127.0.1.{block + octet}" for actor, octet in _IKE.items()}
            elsewhere = {actor: host for actor, host in (hosts or {}).items() if actor in _IKE}
            self.ike_port, self.nat_port = 500 + shift, 4500 + shift
            if self._are_free():
                self._lock = lock
                self._hosts |= elsewhere
                return
            lock.close()
        raise LocalError("no free block of addresses in 127.0.1.0/24: too many runs on this machine")

    def http(self, actor: str) -> Address:
        """Return the address at which a ledger node listens."""
        return self._http[actor]

    def host(self, actor: str) -> str:
        """Return the address of the gateway or the device."""
        return self._hosts[actor]

    def close(self) -> None:
        """Release the block."""
        self._lock.close()

    def _are_free(self) -> bool:
        ports = (self.ike_port, self.nat_port)
        wanted = [(Address(host, port), socket.SOCK_DGRAM) for host in self._hosts.values() for port in ports]
        wanted += [(address, socket.SOCK_STREAM) for address in self._http.values()]
        sockets = [_bound(address, kind) for address, kind in wanted]
        for bound in sockets:
            if bound is not None:
                bound.close()
        return None not in sockets


def _blocks() -> Iterator[tuple[int, int]]:
    for shift in (0, _HIGH_PORTS):
        for block in range(0, 256 - _BLOCK_SIZE, _BLOCK_SIZE):
            yield shift, block


def _bound(address: Address, kind: socket.SocketKind) -> socket.socket | None:
    """Return a bound socket, or None if the address cannot be bound."""
    bound = socket.socket(socket.AF_INET, kind)
    if kind is socket.SOCK_STREAM and address.port != _LOCK_PORT:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError:
        bound.close()
        return None
    return bound
