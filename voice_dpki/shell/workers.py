"""Several processes for one service: a supervisor starts workers, which share the address and the metrics.

    supervisor: program start --config FILE        validates the configuration, serves nothing
      worker 0: the same command                   with WORKER=0 in its environment
      worker 1: the same command                   with WORKER=1

Each worker is the whole service. The kernel spreads new connections over their sockets (SO_REUSEPORT). Signals to
the supervisor reach all of them, and they end when it does, in whatever way. One that ends unasked is replaced.
What one process alone may do, such as writing a file that all read, worker 0 does.
"""

import asyncio
import logging
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Protocol

from voice_dpki.errors import LocalError
from voice_dpki.shell.config import Listen
from voice_dpki.shell.ending import EXIT_USAGE
from voice_dpki.shell.log import setup_logging
from voice_dpki.shell.metrics import forget_process
from voice_dpki.shell.notify import reloading
from voice_dpki.shell.program import run
from voice_dpki.shell.tether import tied_module
from voice_dpki.shell.worker import WORKER
from voice_dpki.shell.worker_signs import WorkerSigns
from voice_dpki.wire.tasks import running

log = logging.getLogger(__name__)

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable that names the folder in which the workers count, for prometheus_client."""
AGAIN_S = (0.1, 1.0, 5.0, 30.0)
"""Pauses before a worker is replaced: the first after one that has lasted, the next ones where they end at once."""
LASTED_S = 60.0
"""How long a worker must have run for the next one to be started after the first pause."""


class Shared(Protocol):
    """What the configuration of a service says of its workers."""

    @property
    def workers(self) -> int:
        """How many there are."""
        ...

    @property
    def listen(self) -> Listen:
        """The address that they share."""
        ...


def supervise(name: str, config: Shared, module: str, path: Path) -> int:
    """Run the workers of the service `name`, each `module start` with the configuration at `path`.

    Returns the exit status when they have ended. Raises LocalError if the address is not free.
    """
    setup_logging(name)
    check_free(config.listen)
    with _metrics_folder() as folder:
        workers = _Workers(tied_module(module, ["start", "--config", str(path)]), folder)
        return run(partial(workers.run, config.workers))


def check_free(listen: Listen) -> None:
    """Check that nobody else serves at an address, which workers could then share unnoticed; raises LocalError."""
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listen.host, listen.port))
        except OSError as error:
            raise LocalError(f"cannot listen on {listen.host}:{listen.port}: {error.strerror}") from None


@contextmanager
def _metrics_folder() -> Iterator[Path]:
    """Make a folder in memory, if there is such a one, where all workers count; remove it at the end."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
    within = memory if os.access(memory, os.W_OK | os.X_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="voice-dpki-metrics-", dir=within))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Workers:
    """The workers of one service."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self._command, self._folder = command, folder
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._stops = False
        self._status = 0

    async def run(self, count: int, stop: asyncio.Event) -> int:
        """Keep `count` workers running until `stop`, and return when all have ended."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hang_up)
        with closing(WorkerSigns(count, self._folder)) as signs:
            async with running(signs.watch(self._kill)):
                return await self._run(count, signs, stop)

    async def _run(self, count: int, signs: WorkerSigns, stop: asyncio.Event) -> int:
        keeping = [asyncio.create_task(self._keep(number, signs, stop)) for number in range(count)]
        try:
            await stop.wait()
            self._stop()
            await asyncio.gather(*keeping)
        finally:  # a second signal cancels this
            self._tell(signal.SIGKILL)
            await asyncio.gather(*keeping)
        return self._status

    async def _keep(self, number: int, signs: WorkerSigns, stop: asyncio.Event) -> None:
        """Run one worker, and the next one when it has ended unasked."""
        failures = 0
        while not stop.is_set():
            began_s = monotonic()
            status = await self._run_one(number, signs)
            if stop.is_set():
                return
            if status == EXIT_USAGE:  # it has said why; the next one would say the same
                self._status = status
                stop.set()
                return
            failures = 0 if monotonic() - began_s >= LASTED_S else failures + 1
            pause_s = AGAIN_S[min(failures, len(AGAIN_S) - 1)]
            fields = {"worker": number, "status": status, "again_in_s": pause_s}
            log.error("a worker has ended", extra={"fields": fields})
            await _passed(stop, pause_s)

    async def _run_one(self, number: int, signs: WorkerSigns) -> int:
        """Run a worker and return the status with which it ended."""
        environment = {**signs.environment(number), WORKER: str(number), METRICS_FOLDER: str(self._folder)}
        process = await asyncio.create_subprocess_exec(
            *self._command, env=environment, stdin=asyncio.subprocess.DEVNULL, start_new_session=True
        )
        self._running[number] = process
        if self._stops:
            process.terminate()
        try:
            return await process.wait()
        finally:
            del self._running[number]
            signs.forget(number)
            forget_process(process.pid, self._folder)

    def _stop(self) -> None:
        self._stops = True
        self._tell(signal.SIGTERM)

    def _hang_up(self) -> None:
        with reloading():
            self._tell(signal.SIGHUP)

    def _kill(self, number: int) -> None:
        if process := self._running.get(number):
            process.kill()

    def _tell(self, number: signal.Signals) -> None:
        """Send a signal to all workers."""
        for process in list(self._running.values()):
            if process.returncode is None:
                process.send_signal(number)


async def _passed(stop: asyncio.Event, within_s: float) -> None:
    """Wait until `stop`, or for a time."""
    try:
        async with asyncio.timeout(within_s):
            await stop.wait()
    except TimeoutError:
        return
