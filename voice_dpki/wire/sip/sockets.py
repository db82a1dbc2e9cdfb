"""The sockets of a SIP element: UDP and TCP at one port, and TLS at another (RFC 3261 §18.2.1).

They may be bound by one process and used by another, so that a new process of a service goes on where another ends:
what arrives meanwhile waits in the sockets.
"""

import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from voice_dpki.errors import LocalError
from voice_dpki.sip.hop import Hop

_BIND_TRIES: Final = 20


@dataclass(frozen=True, slots=True)
class Sockets:
    """Bound sockets, on which nobody listens yet."""

    udp: socket.socket
    tcp: socket.socket
    tls: socket.socket | None

    @classmethod
    def bind(cls, host: str, port: int, tls_port: int | None = None) -> "Sockets":
        """Bind UDP and TCP to the same port, and with `tls_port` TLS to that one; 0 chooses a free port.

        Raises LocalError.
        """
        try:
            udp, tcp = _bind_both(host, port)
        except OSError as error:
            where = Hop("udp", host, port).address
            raise LocalError(f"cannot listen for SIP on {where}: {error.strerror}") from None
        try:
            tls = None if tls_port is None else _bind(host, tls_port, socket.SOCK_STREAM)
        except OSError as error:
            udp.close()
            tcp.close()
            where = Hop("tls", host, tls_port or 0).address
            raise LocalError(f"cannot listen for SIP over TLS on {where}: {error.strerror}") from None
        return cls(udp, tcp, tls)

    @classmethod
    def of(cls, sockets: Sequence[socket.socket]) -> "Sockets":
        """Return the sockets of which `all` has given these."""
        udp, tcp, *tls = sockets
        return cls(udp, tcp, tls[0] if tls else None)

    @property
    def all(self) -> tuple[socket.socket, ...]:
        """The sockets in a fixed order."""
        return (self.udp, self.tcp) if self.tls is None else (self.udp, self.tcp, self.tls)

    def close(self) -> None:
        """Close the sockets."""
        for each in self.all:
            each.close()


def _bind_both(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """Bind UDP and TCP to the same port, which for port 0 may take several tries; raises OSError."""
    for _ in range(0 if port else _BIND_TRIES - 1):
        with suppress(OSError):
            return _bind_pair(host, port)
    return _bind_pair(host, port)


def _bind_pair(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    udp = _bind(host, port, socket.SOCK_DGRAM)
    try:
        return udp, _bind(host, udp.getsockname()[1], socket.SOCK_STREAM)
    except OSError:
        udp.close()
        raise


def _bind(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    """Bind one socket; raises OSError."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
    try:
        if kind is socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if sock.family is socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock
