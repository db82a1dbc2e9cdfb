"""Ctrl-C, SIGTERM and a closed terminal, for commands: all three raise KeyboardInterrupt, and none is lost.

Services handle the signals in their event loop instead (`voice_dpki.shell.program.run`).
"""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

STOPS = (signal.SIGTERM, signal.SIGHUP)
"""Signals that end a command, beside SIGINT. SIGHUP comes when the terminal is closed, unless nohup ignores it."""

_AGAIN_S = 0.05


@contextmanager
def interruptible() -> Iterator[None]:
    """Make SIGTERM and SIGHUP act like Ctrl-C inside the context, so that started programs are stopped.

    Outside the main thread this does nothing, for Python handles signals in the main thread only.
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
    """Defer Ctrl-C, SIGTERM and SIGHUP inside the context, while programs are stopped.

    Use it for a short and bounded time only. A deferred signal raises KeyboardInterrupt at the end, unless another
    exception is propagating.
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


IN_LOOP_S = 3.0
"""How long work in a library may block an event loop, as when a service reloads its configuration."""


def interruptibly(work: Callable[[], T]) -> T:
    """Do work that may block in a library: from the main thread in another one, so that signals are handled.

    Raises what the work raises, KeyboardInterrupt, and TimeoutError if it would block an event loop for more than
    IN_LOOP_S; after these two the program ends without waiting for the work.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    done: Future[T] = Future()
    threading.Thread(target=_do, args=(work, done), name="interruptible", daemon=True).start()
    try:
        return done.result(IN_LOOP_S if _runs_a_loop() else None)
    except (KeyboardInterrupt, TimeoutError):
        leave_behind(lambda: not done.done())
        raise


def _runs_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _do(work: Callable[[], T], done: "Future[T]") -> None:
    try:
        done.set_result(work())
    except BaseException as error:  # whoever waits raises it
        done.set_exception(error)


def leave_behind(is_busy: Callable[[], bool]) -> None:
    """Have the program exit without joining a thread that cannot be stopped, if `is_busy` is true then.

    Python joins its threads at exit, and the library that such a thread is in may wait for it in its destructors.
    """
    _LEFT_BEHIND.append(is_busy)


def is_left_behind() -> bool:
    """Tell whether a thread passed to `leave_behind` is still busy."""
    return any(is_busy() for is_busy in _LEFT_BEHIND)


_LEFT_BEHIND: list[Callable[[], bool]] = []


def _replaced(handler: "signal._HANDLER") -> dict[int, "signal._HANDLER"]:
    """Set a handler for each signal that has a Python handler now; return the previous handlers."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    found = {int(number): signal.getsignal(number) for number in (signal.SIGINT, *STOPS)}
    ours = {number: each for number, each in found.items() if not isinstance(each, int | signal.Handlers | None)}
    for number in ours:
        signal.signal(number, handler)
    return dict(ours)


def _interrupt(number: int, frame: object) -> None:
    """Act like Ctrl-C: inside asyncio.run the work is cancelled, elsewhere KeyboardInterrupt is raised."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):
        raise KeyboardInterrupt
    handler(signal.SIGINT, None)


@contextmanager
def lost_ones_repeated() -> Iterator[None]:
    """Interrupt again if the exception was raised in a place where Python drops it, such as a finalizer.

    A program in the background ignores SIGINT, so there only SIGTERM or SIGHUP can have raised it.
    """
    hook = sys.unraisablehook
    number = signal.SIGTERM if signal.getsignal(signal.SIGINT) is signal.SIG_IGN else signal.SIGINT

    def again(unraisable: "sys.UnraisableHookArgs") -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            hook(unraisable)
            return
        timer = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number))
        timer.daemon = True
        timer.start()

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = hook
