"""Where every program begins: what it needs is loaded, and Ctrl-C during that ends it with one line.

Loading takes up to a second, and an exception may be lost in it, or be reported with a traceback. Nothing is
started yet, so that the process can end on the spot. This module is loaded first, and therefore imports little.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module

EXIT_INTERRUPTED = 130
"""Exit status after Ctrl-C, SIGTERM or a closed terminal, as shells have it: 128 + SIGINT."""


def enter(module: str) -> int:
    """Load a program's `module` and run its `main`; returns the exit status."""
    with loading():
        main: Callable[[], int] = import_module(module).main
    return main()


@contextmanager
def loading() -> Iterator[None]:
    """End the process at once if Ctrl-C is pressed inside; leave it ignored where whoever started us ignores it."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def program_name() -> str:
    """Name of this program, as messages begin with it."""
    return os.path.basename(sys.argv[0]) if sys.argv else "voice-dpki"


def _end(number: int, frame: object) -> None:
    try:
        os.write(2, f"{program_name()}: interrupted before anything was started\n".encode())
    finally:
        os._exit(EXIT_INTERRUPTED)
