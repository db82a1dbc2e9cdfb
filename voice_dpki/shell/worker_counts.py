"""Metrics that the workers of a service share: files in memory, whose space is reserved before a worker starts.

A worker maps its files into its memory, and SIGBUS ends it if there is no space for a page. Each process counts
under a name. When it has ended, the next one in its place takes over its name and its files, so that their number
does not grow with each replacement.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

from voice_dpki.errors import LocalError
from voice_dpki.metrics import COUNTS_AS
from voice_dpki.shell.metrics import forget_process

METRICS_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable that names the folder in which the workers count, for prometheus_client."""
RESERVED_BYTES: Final = {"counter": 262_144, "histogram": 131_072, "gauge_livemax": 65_536, "gauge_livemin": 65_536}
"""Bytes reserved for a worker, by the library's kinds of files; a few tens of thousands are used."""


@contextmanager
def metrics_folder() -> Iterator[Path]:
    """Make a folder for the metrics of all workers, in memory if possible; remove it at the end."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
    within = memory if os.access(memory, os.W_OK | os.X_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="voice-dpki-metrics-", dir=within))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class WorkerCounts:
    """The names under which the processes of a service count in a folder."""

    def __init__(self, folder: Path, workers: int) -> None:
        """Reserve the space of all workers; raises LocalError."""
        self._folder = folder
        self._taken: set[str] = set()
        for number in range(workers):
            self._reserve(f"{number}-0")

    def take(self, number: int) -> str:
        """Return a name for a process in the place `number`, with space reserved; raises LocalError."""
        name = next(each for each in (f"{number}-{turn}" for turn in count()) if each not in self._taken)
        self._reserve(name)
        self._taken.add(name)
        return name

    def environment(self, name: str) -> dict[str, str]:
        """Return the variables of a process that counts under a name."""
        return {METRICS_FOLDER: str(self._folder), COUNTS_AS: name}

    def give_back(self, name: str) -> None:
        """Take back the name of a process that has ended: what it has counted still counts, but not its gauges."""
        self._taken.discard(name)
        forget_process(name, self._folder)

    def _reserve(self, name: str) -> None:
        for kind, size in RESERVED_BYTES.items():
            try:
                with (self._folder / f"{kind}_{name}.db").open("ab") as file:
                    os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                needed = sum(RESERVED_BYTES.values()) // 1024
                raise LocalError(
                    f"{self._folder}: each worker needs {needed} KiB there for its metrics, and the same again "
                    f"while it is replaced: {error.strerror}"
                ) from None
