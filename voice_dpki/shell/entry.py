"""Where every program begins: it loads its modules, and a signal to end during that ends it with one line.

Loading takes up to a second, and a KeyboardInterrupt raised in it may be lost or printed as a traceback. As nothing
has been started yet, the process can exit at once instead. This module is loaded first, and therefore imports
little.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

EXIT_INTERRUPTED = 130
"""Exit status after Ctrl-C, SIGTERM or a closed terminal, as in shells: 128 + SIGINT."""


def enter(module: str) -> int:
    """Load a program's `module` and run its `main`; return the exit status. `--version` needs no module."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        return _tell_version()
    with loading():
        main: Callable[[], int] = import_module(module).main
    return main()


@contextmanager
def loading() -> Iterator[None]:
    """End the process at once if it is told to end inside; signals that are ignored or handled stay so.

    Outside the main thread this does nothing, for Python handles signals in the main thread only.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _ENDING}
    taken = [number for number in _ENDING if before[number] in (signal.default_int_handler, signal.SIG_DFL)]
    for number in taken:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])


def program_name() -> str:
    """Return the name of this program, with which its messages begin."""
    return os.path.basename(sys.argv[0]) if sys.argv else "voice-dpki"


def _tell_version() -> int:
    from importlib.metadata import version

    from voice_dpki.shell.ending import guarded

    def tell() -> int:
        print(f"{program_name()} {version('voice-dpki')}", flush=True)
        return 0

    return guarded(tell)


def _end(number: int, frame: object) -> None:
    try:
        os.write(2, f"{program_name()}: interrupted before anything was started\n".encode())
    finally:
        os._exit(EXIT_INTERRUPTED)
