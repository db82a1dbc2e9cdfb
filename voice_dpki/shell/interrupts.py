"""Ctrl-C, SIGTERM and a closed terminal, for commands: all three raise KeyboardInterrupt, and none is lost.

Services have a loop that heeds the signals (`voice_dpki.shell.program.run`).
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

STOPS = (signal.SIGTERM, signal.SIGHUP)
"""What ends a command beside SIGINT. SIGHUP comes when the terminal is closed, unless nohup has it ignored."""

_AGAIN_S = 0.05


@contextmanager
def interruptible() -> Iterator[None]:
    """Have SIGTERM and SIGHUP do inside what Ctrl-C does, so that what was started is stopped.

    In another thread than the main one nothing changes: Python hears signals in the main thread alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOPS}
    for number, handler in before.items():
        if handler is signal.SIG_DFL:
            signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C and its like back inside, where programs are stopped: for a short and bounded time only.

    What came meanwhile raises KeyboardInterrupt at the end, unless another exception is on its way.
    """
    held: list[int] = []
    before = _replaced(lambda number, frame: held.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if held:
        raise KeyboardInterrupt


def _replaced(handler: "signal._HANDLER") -> dict[int, "signal._HANDLER"]:
    """Set a handler where Python's own code handles the signal; returns the handlers that there were."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    found = {int(number): signal.getsignal(number) for number in (signal.SIGINT, *STOPS)}
    ours = {number: each for number, each in found.items() if not isinstance(each, int | signal.Handlers | None)}
    for number in ours:
        signal.signal(number, handler)
    return dict(ours)


def _interrupt(number: int, frame: object) -> None:
    """Do what Ctrl-C does: inside asyncio.run that cancels the work, and elsewhere it raises."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):
        raise KeyboardInterrupt
    handler(signal.SIGINT, None)


@contextmanager
def lost_ones_repeated() -> Iterator[None]:
    """Send SIGINT again when its exception was raised inside where Python drops it, as in a finalizer."""
    hook = sys.unraisablehook

    def again(unraisable: "sys.UnraisableHookArgs") -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            hook(unraisable)
            return
        timer = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), signal.SIGINT))
        timer.daemon = True
        timer.start()

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = hook
