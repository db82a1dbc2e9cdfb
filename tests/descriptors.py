"""File descriptors of processes: when none are left (EMFILE), and what they refer to."""

import os
import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Leave this process `count` more file descriptors while the context lasts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + count + 2, hard))
        taken: list[int] = []
        stack.callback(_close, taken)
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        assert len(taken) >= count
        _close([taken.pop() for _ in range(count)])
        yield


def _close(taken: list[int]) -> None:
    for each in taken:
        os.close(each)


def sockets_open() -> int:
    """Return how many sockets this process has open."""
    return sum(target.startswith("socket:") for target in open_files())


def open_files(process: int | str = "self") -> list[str]:
    """Return what a process, by default this one, has open: paths, and names such as "socket:[4711]"."""
    folder = f"/proc/{process}/fd"
    targets = []
    for name in os.listdir(folder):
        with suppress(FileNotFoundError):  # closed since it was listed
            targets.append(os.readlink(f"{folder}/{name}"))
    return targets
