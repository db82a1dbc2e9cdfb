"""Whoever had a small disk is back on the machine's own mounts afterwards."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.disks import small_disk


@pytest.fixture
def lasting_thread() -> Iterator[Callable[[], None]]:
    """Starts a thread that lasts as long as the test."""
    threads, end = [], threading.Event()

    def start() -> None:
        threads.append(threading.Thread(target=end.wait))
        threads[-1].start()

    yield start
    end.set()
    for thread in threads:
        thread.join()


def test_a_thread_that_outlives_the_disk_keeps_nobody_on_it(
    disk: Callable[[int], Path], tmp_path: Path, lasting_thread: Callable[[], None]
) -> None:
    disk(64)  # skips the test where nothing can be mounted
    here, mounts = Path.cwd(), Path("/proc/thread-self/ns/mnt").readlink()
    with small_disk(tmp_path / "another", 64) as another:
        lasting_thread()
        assert another.is_mount()
    assert not another.is_mount()
    assert Path("/proc/thread-self/ns/mnt").readlink() == mounts
    assert Path.cwd() == here
