"""Several processes for one service: a supervisor starts workers, which share the address and the metrics.

    supervisor: program start --config FILE        validates the configuration, serves nothing
      worker 0: the same command                   with WORKER=0 in its environment
      worker 1: the same command                   with WORKER=1

Each worker is the whole service. The kernel spreads new connections over their sockets (SO_REUSEPORT). Signals to
the supervisor reach all workers, and they end when it does, however it ends. A worker that ends unexpectedly is
replaced. SIGUSR2 replaces all, one after the other, while clients are served (docs/reload.md): the new process gets
the sockets of its predecessor, so nothing that waits in them is lost, and the predecessor ends once the new one
serves. Work that only one process may do, such as writing a file that all read or serving SIP, worker 0 does.
"""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from time import monotonic
from typing import Protocol

from voice_dpki.errors import LocalError
from voice_dpki.shell.config import Listen
from voice_dpki.shell.ending import EXIT_HARMFUL_AGAIN, EXIT_USAGE
from voice_dpki.shell.http import bind
from voice_dpki.shell.log import LogConfig, setup_logging
from voice_dpki.shell.notify import reloading
from voice_dpki.shell.program import run
from voice_dpki.shell.stir_sip import SipSection
from voice_dpki.shell.tether import tied_module
from voice_dpki.shell.worker import SIP_SOCKETS, SOCKET, SUCCESSOR, WORKER
from voice_dpki.shell.worker_counts import WorkerCounts, metrics_folder
from voice_dpki.shell.worker_signs import WorkerSigns
from voice_dpki.wire.sip.sockets import Sockets
from voice_dpki.wire.tasks import running

log = logging.getLogger(__name__)

AGAIN_S = (0.1, 1.0, 5.0, 30.0)
"""Pauses before a worker is replaced: the first after one that ran for LASTED_S, the next ones after failures."""
LASTED_S = 60.0
"""Run time of a worker from which on the next one is started after the first pause."""
READY_S = 60.0
"""Timeout for a process that is to replace a worker until it serves."""
RETIRE_S = 20.0
"""Timeout for a replaced worker to answer what it has accepted."""

Process = asyncio.subprocess.Process


class Shared(Protocol):
    """The part of a service's configuration that is about its workers."""

    @property
    def workers(self) -> int:
        """The number of workers."""
        ...

    @property
    def listen(self) -> Listen:
        """The address that they share."""
        ...

    @property
    def sip(self) -> SipSection | None:
        """Where one of them serves SIP."""
        ...

    @property
    def log(self) -> LogConfig:
        """How they log."""
        ...


def supervise(name: str, config: Shared, module: str, path: Path) -> int:
    """Run the workers of the service `name`, each `module start` with the configuration at `path`.

    Returns the exit status when they have ended. Raises LocalError if the address is not free.
    """
    setup_logging(name, config.log)
    check_free(config.listen)
    with metrics_folder() as folder:
        command = tied_module(module, ["start", "--config", str(path)])
        workers = _Workers(command, folder, config.listen, config.workers, config.sip)
        return run(workers.run, lives=workers.serves)


def check_free(listen: Listen) -> None:
    """Check that nobody else serves at an address, which workers could then share unnoticed; raises LocalError."""
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listen.host, listen.port))
        except OSError as error:
            raise LocalError(f"cannot listen on {listen.host}:{listen.port}: {error.strerror}") from None


class _Slot:
    """A place for one worker after the other, with the sockets that each hands to the next.

    They are bound here, but only a worker listens on them: no client waits in vain.
    """

    def __init__(self, number: int, listen: Listen, sip: SipSection | None) -> None:
        """Bind the sockets; raises LocalError."""
        self.number = number
        self._listen, self._sip = listen, sip
        self._held: dict[str, Sequence[socket.socket]] = {}
        """By the environment variable that names them to a worker."""
        self.hold()
        self.process: Process | None = None
        """The process that serves here."""
        self.began_s = 0.0
        self.has_served = False
        """Whether a process has ever been ready here."""

    @property
    def descriptors(self) -> dict[str, tuple[int, ...]]:
        """Descriptors of the bound sockets, by the environment variable that names them to a worker."""
        return {name: tuple(each.fileno() for each in sockets) for name, sockets in self._held.items()}

    def take(self, process: Process) -> None:
        """Have a process serve here from now on."""
        self.process, self.began_s = process, monotonic()

    def vacate(self) -> None:
        """Close the sockets: the worker has ended unexpectedly, and clients go to others until the next begins."""
        self.process = None
        self.close()

    def hold(self) -> None:
        """Bind the sockets unless they are bound; raises LocalError."""
        if SOCKET not in self._held:
            self._held[SOCKET] = [bind(self._listen, shared=True)]
        if SIP_SOCKETS not in self._held and (sip := self._sip) is not None:
            tls_port = sip.tls.port if sip.tls else None
            self._held[SIP_SOCKETS] = Sockets.bind(sip.listen.host, sip.listen.port, tls_port).all

    def close(self) -> None:
        """Close the sockets."""
        for sockets in self._held.values():
            for each in sockets:
                each.close()
        self._held.clear()


class _Workers:
    """The workers of one service."""

    def __init__(
        self, command: Sequence[str], folder: Path, listen: Listen, count: int, sip: SipSection | None = None
    ) -> None:
        """Reserve memory and bind sockets for `count` workers, of which the first serves SIP; raises LocalError."""
        self._command, self._folder = command, folder
        self._counts = WorkerCounts(folder, count)
        self._names: dict[Process, str] = {}
        """The names under which processes count; an entry lasts until `_forget`."""
        self._slots = [_Slot(number, listen, sip if number == 0 else None) for number in range(count)]
        self._others: set[Process] = set()
        """Processes that are starting to replace another, or end because they were replaced."""
        self._ready: set[Process] = set()
        """Processes that have reported that they serve."""
        self._unread: set[Process] = set()
        """Processes that were starting at the last SIGHUP: sent once they serve, as it would end them before."""
        self._replacing: asyncio.Task[None] | None = None
        self._is_asked = False
        """Whether a requested replacement of all workers has not begun yet."""
        self._stops = False
        self._status = 0

    async def run(self, stop: asyncio.Event) -> int:
        """Keep the workers running until `stop`, and return when all have ended."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        with closing(WorkerSigns(len(self._slots), self._folder, self._serves_at)) as signs:
            loop.add_signal_handler(signal.SIGUSR2, self._replace, signs)
            async with running(signs.watch(self._kill)):
                return await self._run(signs, stop)

    def serves(self) -> bool:
        """Tell whether at least one worker serves."""
        return any(slot.process in self._ready for slot in self._slots)

    async def _run(self, signs: WorkerSigns, stop: asyncio.Event) -> int:
        keeping = [asyncio.create_task(self._keep(slot, signs, stop)) for slot in self._slots]
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([stopping, *keeping], return_when=asyncio.FIRST_COMPLETED)
            stop.set()  # who keeps a worker ends before only by an error that nobody has foreseen
            self._stop()
            await asyncio.gather(*keeping, return_exceptions=True)
        finally:  # a second signal cancels this
            stopping.cancel()
            self._tell(signal.SIGKILL)
            left = [process.wait() for process in self._processes()]
            await asyncio.gather(*keeping, *left, return_exceptions=True)
            for slot in self._slots:
                slot.close()
        for each in keeping:
            each.result()
        return self._status

    async def _keep(self, slot: _Slot, signs: WorkerSigns, stop: asyncio.Event) -> None:
        """Run one worker, and the next one when it has ended unexpectedly or could not begin, until `stop`."""
        failures = 0
        while not stop.is_set():
            try:
                status = await self._run_one(slot, signs)
            except (LocalError, OSError) as error:  # the address or the memory may come back
                fields: dict[str, object] = {"reason": str(error)}
                event, has_lasted = "a worker cannot begin", False
            else:
                if stop.is_set():
                    return
                is_hopeless = status == EXIT_USAGE and not slot.has_served
                if status == EXIT_HARMFUL_AGAIN or is_hopeless:  # it has said why; the next would say the same
                    self._status = status
                    stop.set()
                    return
                fields, event = {"status": status}, "a worker has ended"
                has_lasted = monotonic() - slot.began_s >= LASTED_S
            failures = 0 if has_lasted else failures + 1
            pause_s = AGAIN_S[min(failures, len(AGAIN_S) - 1)]
            log.error(event, extra={"fields": {"worker": slot.number, **fields, "again_in_s": pause_s}})
            await _passed(stop, pause_s)

    async def _run_one(self, slot: _Slot, signs: WorkerSigns) -> int:
        """Run a worker and its replacements until one has ended unexpectedly; return its exit status.

        Raises LocalError or OSError if it cannot begin.
        """
        if slot.process is None:
            slot.take(await self._begin(slot, signs))
        status = None
        while (process := slot.process) is not None and status is None:
            ended = await process.wait()
            if slot.process is process:  # no other has taken its place
                status = ended
                self._forget(process)
        assert process is not None
        assert status is not None
        signs.forget(slot.number)
        slot.vacate()
        return status

    async def _begin(self, slot: _Slot, signs: WorkerSigns, pipe: int | None = None) -> Process:
        """Start a worker; with `pipe`, one that replaces another and reports there that it serves.

        Raises LocalError or OSError.
        """
        slot.hold()
        handed = slot.descriptors | ({} if pipe is None else {SUCCESSOR: (pipe,)})
        told = {name: ",".join(map(str, descriptors)) for name, descriptors in handed.items()}
        environment = {**signs.environment(slot.number), WORKER: str(slot.number), **told}
        counts_as = self._counts.take(slot.number)
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                env={**environment, **self._counts.environment(counts_as)},
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=[each for descriptors in handed.values() for each in descriptors],
            )
        except BaseException:
            self._counts.give_back(counts_as)
            raise
        self._names[process] = counts_as
        if self._stops:
            process.terminate()
        return process

    def _replace(self, signs: WorkerSigns) -> None:
        """Replace all workers by new processes; if that is going on, do it once more afterwards.

        The files may have changed since the first of the new processes read them.
        """
        self._is_asked = not self._stops
        if self._is_asked and (self._replacing is None or self._replacing.done()):
            self._replacing = asyncio.create_task(self._replace_while_asked(signs))

    async def _replace_while_asked(self, signs: WorkerSigns) -> None:
        while self._is_asked and not self._stops:
            self._is_asked = False
            await self._replace_all(signs)

    async def _replace_all(self, signs: WorkerSigns) -> None:
        """Replace one worker after the other. One that cannot be replaced goes on, and so do those after it."""
        for slot in self._slots:
            try:
                await self._replace_one(slot, signs)
            except (LocalError, OSError) as error:
                fields = {"worker": slot.number, "reason": str(error)}
                log.error("a worker is not replaced", extra={"fields": fields})
                return
        log.info("all workers are replaced", extra={"fields": {"workers": len(self._slots)}})

    async def _replace_one(self, slot: _Slot, signs: WorkerSigns) -> None:
        """Start a process, and end its predecessor once it serves; raises LocalError if it does not serve."""
        before = slot.process
        reading, writing = os.pipe()
        try:
            process = await self._begin(slot, signs, writing)
        except (LocalError, OSError):
            os.close(reading)
            raise
        finally:
            os.close(writing)
        async with self._besides(process):
            is_serving = await _said(reading, READY_S)
            if not is_serving or before is None or slot.process is not before:
                process.kill()
                raise LocalError("the new process does not serve: its log says why")
            slot.take(process)
            self._is_ready(process)
        async with self._besides(before):
            before.send_signal(signal.SIGUSR1)
            if not await _ended(before, RETIRE_S):
                before.kill()

    @asynccontextmanager
    async def _besides(self, process: Process) -> AsyncIterator[None]:
        """Count a process among the others while the context lasts; if it has no slot then, wait until it ends."""
        self._others.add(process)
        try:
            yield
        finally:
            if all(slot.process is not process for slot in self._slots):
                await process.wait()
                self._forget(process)
            self._others.discard(process)

    def _serves_at(self, number: int) -> None:
        """Note that the worker of a number has reported that it serves."""
        slot = self._slots[number]
        if slot.process is not None:
            slot.has_served = True
            self._is_ready(slot.process)

    def _is_ready(self, process: Process) -> None:
        self._ready.add(process)
        if process in self._unread:
            self._unread.discard(process)
            _send(process, signal.SIGHUP)

    def _forget(self, process: Process) -> None:
        """Release the name of a process that has ended, and forget its state."""
        if (name := self._names.pop(process, None)) is not None:
            self._counts.give_back(name)
        self._ready.discard(process)
        self._unread.discard(process)

    def _stop(self) -> None:
        self._stops = True
        self._tell(signal.SIGTERM)

    def _hang_up(self) -> None:
        """Have all workers reload their configuration; those that are starting do so once they serve."""
        with reloading():
            self._unread.update(process for process in self._processes() if process not in self._ready)
            for process in self._ready:
                _send(process, signal.SIGHUP)

    def _kill(self, number: int) -> None:
        if process := self._slots[number].process:
            process.kill()

    def _tell(self, number: signal.Signals) -> None:
        """Send a signal to all workers."""
        for process in self._processes():
            _send(process, number)

    def _processes(self) -> list[Process]:
        """Return all processes that have not been forgotten: those of the slots and the others."""
        found = {*self._others, *(slot.process for slot in self._slots)}
        return [process for process in found if process is not None]


def _send(process: Process, number: signal.Signals) -> None:
    if process.returncode is None:
        process.send_signal(number)


async def _said(pipe: int, within_s: float) -> bool:
    """Tell whether a process writes into a pipe within a time, before it closes the pipe; close our end."""
    heard, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(pipe, heard.set)
    try:
        await _passed(heard, within_s)
        return heard.is_set() and bool(os.read(pipe, 1))
    finally:
        loop.remove_reader(pipe)
        os.close(pipe)


async def _ended(process: Process, within_s: float) -> bool:
    """Tell whether a process ends within a time."""
    try:
        async with asyncio.timeout(within_s):
            await process.wait()
    except TimeoutError:
        return False
    return True


async def _passed(stop: asyncio.Event, within_s: float) -> None:
    """Wait until `stop`, or for a time."""
    try:
        async with asyncio.timeout(within_s):
            await stop.wait()
    except TimeoutError:
        return
