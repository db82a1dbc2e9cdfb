"""What a process knows of being one of several workers (`voice_dpki.shell.workers`)."""

import os
from contextlib import suppress
from typing import Final

MAX_WORKERS: Final = 64
WORKER: Final = "VOICE_DPKI_WORKER"
"""The environment variable that tells a worker its number."""
SOCKET: Final = "VOICE_DPKI_SOCKET"
"""The one that tells it the descriptor of the bound socket that it serves on, as those after it will."""
SUCCESSOR: Final = "VOICE_DPKI_SUCCESSOR"
"""The one that a worker has which takes another's place: the descriptor of a pipe that says when it can."""


def is_worker() -> bool:
    """Tell whether this process is one of several workers."""
    return WORKER in os.environ


def is_first() -> bool:
    """Tell whether this process does what one alone may do: it is worker 0, or there are no others."""
    return os.environ.get(WORKER, "0") == "0"


def is_successor() -> bool:
    """Tell whether another process still has this worker's place, and gives it up once this one can serve."""
    return SUCCESSOR in os.environ


def handed_socket() -> int | None:
    """Return the descriptor of the socket that this worker was given, None without one."""
    return int(os.environ[SOCKET]) if SOCKET in os.environ else None


def take_over() -> None:
    """Say that this worker serves, so that its predecessor may go; said once, and only by a successor."""
    pipe = os.environ.get(SUCCESSOR)
    if pipe is None or _Place.taken:
        return
    _Place.taken = True
    with suppress(OSError):  # the supervisor has given up, and ends this process
        os.write(int(pipe), b"1")
    os.close(int(pipe))


class _Place:
    """What became of this worker's place."""

    taken = False
    retires = False


def retire() -> None:
    """Note that another process serves in this one's place."""
    _Place.retires = True


def retires() -> bool:
    """Tell whether this process ends because another one serves in its place."""
    return _Place.retires
