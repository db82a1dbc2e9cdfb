"""The state of a process that is one of several workers (`voice_dpki.shell.workers`)."""

import os
import socket
from contextlib import suppress
from typing import Final

MAX_WORKERS: Final = 64
WORKER: Final = "VOICE_DPKI_WORKER"
"""The environment variable that tells a worker its number."""
SOCKET: Final = "VOICE_DPKI_SOCKET"
"""The environment variable with the descriptor of the bound socket on which a worker serves."""
SIP_SOCKETS: Final = "VOICE_DPKI_SIP_SOCKETS"
"""The environment variable with the descriptors of the bound sockets for SIP, in the order of `Sockets.all`."""
SUCCESSOR: Final = "VOICE_DPKI_SUCCESSOR"
"""The environment variable of a successor: the descriptor of the pipe in which it reports that it serves."""


def is_worker() -> bool:
    """Tell whether this process is one of several workers."""
    return WORKER in os.environ


def is_first() -> bool:
    """Tell whether this process does what only one process may do: it is worker 0, or there are no others."""
    return os.environ.get(WORKER, "0") == "0"


def handed_sockets(variable: str) -> list[socket.socket]:
    """Return the sockets that this worker was given in SOCKET or SIP_SOCKETS; empty without any."""
    descriptors = os.environ.get(variable, "").split(",")
    return [socket.socket(fileno=os.dup(int(each))) for each in descriptors if each]


def take_over() -> None:
    """Report that this worker serves, so that its predecessor can end; done once, and only by a successor."""
    pipe = os.environ.get(SUCCESSOR)
    if pipe is None or _Place.taken:
        return
    _Place.taken = True
    with suppress(OSError):  # the supervisor has given up, and ends this process
        os.write(int(pipe), b"1")
    os.close(int(pipe))


class _Place:
    """The state of this worker's place."""

    taken = False
    retires = False


def retire() -> None:
    """Note that another process serves in this one's place."""
    _Place.retires = True


def retires() -> bool:
    """Tell whether this process ends because another one serves in its place."""
    return _Place.retires
