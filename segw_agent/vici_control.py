"""Control over strongSwan's IKE SAs by VICI. The `vici` package is imported only when it is used."""

import asyncio
import importlib
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from segw_agent.live_log import LiveSa, Standing
from segw_agent.vici_ender import Outcome, ViciEnder, listed, named
from voice_dpki.errors import LocalError
from voice_dpki.ikev2.events import SaName
from voice_dpki.wire.tasks import Background

log = logging.getLogger(__name__)

TIMEOUT_S = 2.0

ANSWER_S = 10.0
"""How long charon may take for the next SA of a list, or the next end: it is slow when it has thousands of SAs."""

POLL_S = 0.25
"""Timeout of one wait for an event, and so the longest that a listener takes to stop."""

RETRY_S = 1.0

ROOM_S = 0.005
"""Pause before a retry to connect: charon's backlog has room for fewer connections than there are commands."""

MAX_TOGETHER = 128
"""SAs that charon is told to end in one batch, before their outcomes are checked."""


class SaEvents(Protocol):
    """The receiver of charon's events about its SAs."""

    def renamed(self, unique_id: int, new: SaName, new_id: int) -> None:
        """Take the number of an SA that charon has rekeyed, and its new SPIs and number."""
        ...

    def established(self, name: SaName) -> None:
        """Take the name of an SA whose peer has authenticated itself."""
        ...

    def remove(self, name: SaName) -> None:
        """Take the name of an SA that is gone."""
        ...

    def reconcile(self, standing: Mapping[SaName, Standing]) -> None:
        """Take all of charon's SAs, after a time in which events may have been missed."""
        ...


class ViciControl:
    """SaControl over charon's VICI socket; blocking calls run in threads. Close it with `close`."""

    def __init__(self, path: Path) -> None:
        """Raise LocalError if the `vici` package is missing."""
        try:
            self._vici: Any = importlib.import_module("vici")
        except ImportError:
            raise LocalError("ending strongSwan's SAs needs the Python package vici: pip install vici") from None
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vici")
        self._marked: deque[tuple[LiveSa, asyncio.Future[bool]]] = deque()
        """SAs to end, each with the future of its outcome."""
        self._ender: ViciEnder | None = None
        """Kept between calls, because charon is slow to accept connections. Used only in the thread."""
        self._telling, self._background = False, Background(log)
        self._tried = asyncio.Event()
        self._again = threading.Event()
        """Set to request another report of all SAs."""

    def close(self) -> None:
        """Close the kept connection; later commands open another."""
        if self._ender is not None:
            with suppress(OSError):  # nothing waits for charon any longer
                self._ender.connection.shutdown(socket.SHUT_RDWR)
        self._thread.submit(self._forget_ender).result()

    async def end(self, sa: LiveSa, reason: str) -> bool:
        """Terminate an SA; return False if charon has none of that name."""
        ended = asyncio.get_running_loop().create_future()
        self._marked.append((sa, ended))
        if not self._telling:
            self._telling = True
            self._background.run(self._end_marked())
        return bool(await ended)

    async def _end_marked(self) -> None:
        """Have a thread end all marked SAs, including those marked meanwhile."""
        loop, reason = asyncio.get_running_loop(), "our agent stops"
        try:
            while self._marked:
                together = [self._marked.popleft() for _ in range(min(MAX_TOGETHER, len(self._marked)))]
                ended: dict[SaName, Outcome] = {}
                try:
                    await loop.run_in_executor(self._thread, self._end, [sa for sa, _ in together], ended)
                except LocalError as error:
                    reason = str(error)
                finally:  # deferred, so that the thread gets its next batch before these outcomes are reported
                    loop.call_soon(_report_ends, together, ended, reason)
        finally:
            self._telling = False

    async def standing(self) -> frozenset[SaName] | None:
        """Return all of charon's SAs."""
        return frozenset(await asyncio.to_thread(self._list))

    async def follow(self, heard: SaEvents) -> None:
        """Report SAs that are rekeyed or gone, until cancelled; on a new connection, report all SAs."""
        loop, stop = asyncio.get_running_loop(), threading.Event()
        try:
            await asyncio.to_thread(self._listen, loop, stop, heard)
        finally:
            stop.set()

    async def listening(self) -> None:
        """Wait until charon's events are received, or the first attempt to connect has failed."""
        await self._tried.wait()

    def report_all(self) -> None:
        """Have `follow` soon report all SAs again, for a receiver that has learned of others since."""
        self._again.set()

    def _end(self, sas: Sequence[LiveSa], ended: dict[SaName, Outcome]) -> None:
        """End SAs over the connection that is kept; if that fails, over a new one."""
        if self._ender is not None:
            with suppress(LocalError):  # charon may have restarted; if it is down, the new connection raises
                return self._end_over(self._ender, sas, ended)
        connection = self._connected()
        connection.settimeout(ANSWER_S)
        self._ender = ViciEnder(self._vici, connection)
        self._end_over(self._ender, [sa for sa in sas if sa.name not in ended], ended)

    def _end_over(self, ender: ViciEnder, sas: Sequence[LiveSa], ended: dict[SaName, Outcome]) -> None:
        try:
            with self._errors():
                ender.end(sas, ended)
        except BaseException:
            self._forget_ender()
            raise

    def _forget_ender(self) -> None:
        if self._ender is not None:
            self._ender.connection.close()
            self._ender = None

    def _list(self) -> dict[SaName, Standing]:
        found: dict[SaName, Standing] = self._call(listed)
        return found

    def _call(self, use: Callable[[Any], Any]) -> Any:
        with closing(self._connected()) as connection, self._errors():
            return use(self._vici.Session(connection))

    def _connected(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(TIMEOUT_S)
        try:
            with self._errors():
                _connect(connection, self._path, TIMEOUT_S)
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn the errors of charon and of its socket into LocalError."""
        errors = self._vici.exception
        try:
            yield
        except (OSError, ValueError, KeyError, errors.DeserializationException) as error:
            raise LocalError(f"{self._path}: charon does not answer: {error}") from None
        except (errors.SessionException, errors.CommandException) as error:
            raise LocalError(f"{self._path}: charon refuses: {error}") from None

    def _listen(self, loop: asyncio.AbstractEventLoop, stop: threading.Event, heard: SaEvents) -> None:
        """Listen in a thread, and reconnect after errors; events are passed on in the event loop."""
        silent = False
        while not stop.is_set():
            try:
                self._call(lambda session: self._hear(session, loop, stop, heard))
                silent = False
            except LocalError as error:
                if not silent and not stop.is_set():
                    log.warning("charon cannot be listened to", extra={"fields": {"reason": str(error)}})
                silent = True
            loop.call_soon_threadsafe(self._tried.set)
            stop.wait(RETRY_S)

    def _hear(self, session: Any, loop: asyncio.AbstractEventLoop, stop: threading.Event, heard: SaEvents) -> None:
        self._again.set()
        # Closing the generator uses the connection and can fail, so it is closed here, where errors are handled.
        with closing(session.listen(["ike-rekey", "ike-updown"], timeout=POLL_S)) as events:
            for _, message in events:
                if stop.is_set():
                    return
                if self._again.is_set():
                    # The events are registered by now, so an SA that changes after the listing is not missed.
                    self._again.clear()
                    loop.call_soon_threadsafe(heard.reconcile, self._list())
                    loop.call_soon_threadsafe(self._tried.set)
                _report(message or {}, loop, heard)


def _connect(connection: socket.socket, path: Path, timeout_s: float) -> None:
    """Connect, with retries while charon's short backlog is full; raises OSError."""
    end_s = time.monotonic() + timeout_s
    while True:
        try:
            return connection.connect(str(path))
        except BlockingIOError:
            if time.monotonic() >= end_s:
                raise
            time.sleep(ROOM_S)


def _report_ends(
    together: Iterable[tuple[LiveSa, "asyncio.Future[bool]"]], ended: Mapping[SaName, Outcome], reason: str
) -> None:
    """Set the waiting futures to their SAs' outcomes; those that `ended` lacks fail with `reason`."""
    for sa, waiting in together:
        outcome = ended.get(sa.name, LocalError(reason))
        if waiting.done():
            continue  # nobody waits any more
        if isinstance(outcome, LocalError):
            waiting.set_exception(outcome)
        else:
            waiting.set_result(outcome)


def _report(message: Mapping[str, Any], loop: asyncio.AbstractEventLoop, heard: SaEvents) -> None:
    for sa in message.values():
        if isinstance(sa, dict) and "old" in sa:
            (_, old_id), (name, new_id) = named(sa["old"]), named(sa["new"])
            log.info("SA rekeyed", extra={"fields": {"sa": str(name)}})
            loop.call_soon_threadsafe(heard.renamed, old_id, name, new_id)
        elif isinstance(sa, dict):
            take = heard.established if "up" in message else heard.remove
            loop.call_soon_threadsafe(take, named(sa)[0])
