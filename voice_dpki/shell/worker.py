"""What a process knows of being one of several workers (`voice_dpki.shell.workers`)."""

import os
from typing import Final

MAX_WORKERS: Final = 64
WORKER: Final = "VOICE_DPKI_WORKER"
"""The environment variable that tells a worker its number."""


def is_worker() -> bool:
    """Tell whether this process is one of several workers."""
    return WORKER in os.environ


def is_first() -> bool:
    """Tell whether this process does what one alone may do: it is worker 0, or there are no others."""
    return os.environ.get(WORKER, "0") == "0"
