"""Sockets that a supervisor has bound and hands to its workers, one after the other (`voice_dpki.shell.workers`).

They have their addresses from the start of the service, whatever the configuration says now.
"""

import socket

from voice_dpki.errors import LocalError
from voice_dpki.shell.worker import SIP_SOCKETS, handed_sockets, is_worker
from voice_dpki.wire.sip.sockets import Sockets


def check_handed(sock: socket.socket, option: str, host: str, port: int) -> None:
    """Check that a handed socket is bound to the address that an option names now; port 0 is any.

    Otherwise close the socket and raise LocalError.
    """
    if not _is_at(sock, host, port):
        at_host, at_port = sock.getsockname()[:2]
        sock.close()
        raise LocalError(f"{option}: this service is at {at_host}:{at_port}, and {host}:{port} needs a restart")


def sip_sockets(host: str, port: int, tls_port: int | None) -> Sockets | None:
    """Return the sockets at which this process serves SIP, with `tls_port` also over TLS; None if it binds its own.

    Raises LocalError if a supervisor has handed over others than the configuration needs now.
    """
    if not is_worker():
        return None
    handed = handed_sockets(SIP_SOCKETS)
    if not handed:
        raise LocalError("sip: adding it needs a restart")
    sockets = Sockets.of(handed)
    try:
        if (sockets.tls is None) is not (tls_port is None):
            raise LocalError("sip.tls: adding or removing it needs a restart")
        check_handed(sockets.udp, "sip.listen", host, port)
        if sockets.tls is not None and tls_port is not None:
            check_handed(sockets.tls, "sip.tls", host, tls_port)
    except LocalError:
        sockets.close()
        raise
    return sockets


def check_no_sip() -> None:
    """Check that no sockets for SIP were handed to this process, which serves none; raises LocalError."""
    handed = handed_sockets(SIP_SOCKETS)
    for each in handed:
        each.close()
    if handed:
        raise LocalError("sip: removing it needs a restart")


def _is_at(sock: socket.socket, host: str, port: int) -> bool:
    """Tell whether a socket is bound to an address, whose host may be a name, and empty for all addresses."""
    any_host = socket.AI_PASSIVE if not host else 0
    bound = sock.getsockname()
    try:
        found = socket.getaddrinfo(host or None, port or bound[1], sock.family, socket.SOCK_STREAM, flags=any_host)
    except OSError:  # no such name, or none of this family
        return False
    return bound in [address for *_, address in found]
