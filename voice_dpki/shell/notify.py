"""Notification of systemd about a service's state: ready, alive, reloading, stopping (sd_notify(3)).

Without NOTIFY_SOCKET in the environment, which systemd sets for units of Type=notify, nothing is sent. This is own
code, because PyPI's package for it is no longer than this, and unmaintained since 2017.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic_ns

from voice_dpki.shell.worker import take_over

log = logging.getLogger(__name__)

SOCKET = "NOTIFY_SOCKET"
WATCHDOG_US = "WATCHDOG_USEC"
WATCHDOG_PID = "WATCHDOG_PID"

READY = "READY=1"
ALIVE = "WATCHDOG=1"
STOPPING = "STOPPING=1"

MAX_BYTES = 4096
"""Longest message, as in systemd."""


def notify(*lines: str) -> None:
    """Send lines such as `READY=1` to systemd; a message that cannot be sent is logged, and lost."""
    address = os.environ.get(SOCKET, "")
    if address[:1] not in ("/", "@"):
        return
    message = "\n".join(lines).encode("utf-8")[:MAX_BYTES]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sending:
            sending.sendto(message, f"\0{address[1:]}" if address.startswith("@") else address)
    except OSError as error:
        log.warning("systemd cannot be told", extra={"fields": {"lines": lines, "reason": error.strerror}})


class _Told:
    """Notifications that this process has sent."""

    ready = False


def tell_ready(**addresses: str) -> None:
    """Report readiness and the addresses: to systemd, and from a worker to its supervisor."""
    take_over()
    _Told.ready = True
    told = ", ".join(f"{name} {address}" for name, address in addresses.items())
    notify(READY, f"STATUS=Ready: {told}")


@contextmanager
def reloading() -> Iterator[None]:
    """Report reloading at the beginning of the context, and readiness at its end.

    A service that is not ready yet reports nothing: systemd would take the end of the reload for readiness.
    """
    if not _Told.ready:
        yield
        return
    notify("RELOADING=1", f"MONOTONIC_USEC={monotonic_ns() // 1000}")
    try:
        yield
    finally:
        notify(READY)


def watchdog_s() -> float:
    """Return the watchdog timeout of this process in seconds; 0 if there is none."""
    of = os.environ.get(WATCHDOG_PID)
    expected_us = os.environ.get(WATCHDOG_US, "")
    if of not in (None, str(os.getpid())) or not (expected_us.isascii() and expected_us.isdigit()):
        return 0.0
    return int(expected_us) / 1e6


async def stay_alive(lives: Callable[[], bool] = lambda: True) -> None:
    """Send systemd's watchdog notifications while `lives` holds, until cancelled.

    An event loop that hangs sends none.
    """
    every_s = watchdog_s() / 2
    while every_s:
        if lives():
            notify(ALIVE)
        await asyncio.sleep(every_s)
