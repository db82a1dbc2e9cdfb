"""Control over strongSwan's IKE SAs by VICI. The `vici` package is imported only when it is used."""

import asyncio
import importlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from segw_agent.live_log import LiveSa, Standing
from voice_dpki.errors import LocalError
from voice_dpki.ikev2.events import SaName

log = logging.getLogger(__name__)

TIMEOUT_S = 2.0
POLL_S = 0.25
"""Timeout of one wait for an event, and so the longest that a listener takes to stop."""

RETRY_S = 1.0

ROOM_S = 0.005
"""Pause until charon's backlog is looked at again: it has room for fewer connections than there are commands."""

ESTABLISHED = {b"ESTABLISHED", b"REKEYING"}
"""States of an SA whose peer has authenticated itself, as charon writes them."""

COMMANDS = 32
"""Commands to end an SA that are in flight at the same time: VICI ends SAs by name or number, one with each."""


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
    """SaControl over charon's VICI socket; each call blocks a thread of its own. Close it with `close`."""

    def __init__(self, path: Path) -> None:
        """Raise LocalError if the `vici` package is missing."""
        try:
            self._vici: Any = importlib.import_module("vici")
        except ImportError:
            raise LocalError("ending strongSwan's SAs needs the Python package vici: pip install vici") from None
        self._path = path
        self._ending = ThreadPoolExecutor(COMMANDS, thread_name_prefix="vici")
        self._kept: list[socket.socket] = []
        """Connections that no command uses now: at most as many as there are threads."""
        self._tried = asyncio.Event()

    def close(self) -> None:
        """Close the connections that were kept; commands may still be given."""
        while self._kept:
            self._kept.pop().close()

    async def end(self, sa: LiveSa, reason: str) -> bool:
        """Terminate an SA; return False if charon has none of that name."""
        return await asyncio.get_running_loop().run_in_executor(self._ending, self._end, sa)

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

    def _end(self, sa: LiveSa) -> bool:
        return bool(self._reusing(lambda session: self._end_by(session, sa)))

    def _end_by(self, session: Any, sa: LiveSa) -> bool:
        # Listing by number avoids listing all SAs. The name must match too: after a restart, charon may use the
        # number for another SA.
        numbered = _listed(session, {"ike-id": str(sa.unique_id)})
        standing = numbered.get(sa.name) or _listed(session).get(sa.name)
        if standing is None:
            return False
        # Do not wait for the peer's answer: charon sends the deletion, and forgets the SA in any case.
        list(session.terminate({"ike-id": str(standing.unique_id), "force": "yes", "timeout": "-1"}))
        return True

    def _list(self) -> dict[SaName, Standing]:
        found: dict[SaName, Standing] = self._call(_listed)
        return found

    def _reusing(self, use: Callable[[Any], Any]) -> Any:
        """Do something over a connection that is kept: charon is slow to accept many, and they come in bursts."""
        with suppress(IndexError):
            kept = self._kept.pop()
            try:
                return self._used(kept, use)
            except LocalError:
                pass  # charon may have been started again since; if not, the new connection tells
        return self._used(self._connected(), use)

    def _used(self, connection: socket.socket, use: Callable[[Any], Any]) -> Any:
        """Use a connection, and keep it if nothing went wrong."""
        try:
            with self._errors():
                result = use(self._vici.Session(connection))
        except BaseException:
            connection.close()
            raise
        self._kept.append(connection)
        return result

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
        new = True
        # Its end uses the connection, and may fail: closed here, it does so where errors are handled.
        with closing(session.listen(["ike-rekey", "ike-updown"], timeout=POLL_S)) as events:
            for _, message in events:
                if stop.is_set():
                    return
                if new:  # the events are registered by now, so an SA that changes after the listing is not missed
                    loop.call_soon_threadsafe(heard.reconcile, self._list())
                    loop.call_soon_threadsafe(self._tried.set)
                    new = False
                _report(message or {}, loop, heard)


def _connect(connection: socket.socket, path: Path, timeout_s: float) -> None:
    """Connect, waiting for room in charon's backlog, which is short; raises OSError."""
    end_s = time.monotonic() + timeout_s
    while True:
        try:
            return connection.connect(str(path))
        except BlockingIOError:
            if time.monotonic() >= end_s:
                raise
            time.sleep(ROOM_S)


def _listed(session: Any, which: Mapping[str, str] | None = None) -> dict[SaName, Standing]:
    """Return charon's SAs, all of them or those that `which` describes."""
    found: dict[SaName, Standing] = {}
    for entry in session.list_sas(which):
        for sa in entry.values():
            name, unique_id = _named(sa)
            remote_id = sa.get("remote-id", b"").decode("utf-8", "replace")
            found[name] = Standing(unique_id, remote_id, sa["state"] in ESTABLISHED)
    return found


def _report(message: Mapping[str, Any], loop: asyncio.AbstractEventLoop, heard: SaEvents) -> None:
    for sa in message.values():
        if isinstance(sa, dict) and "old" in sa:
            (_, old_id), (name, new_id) = _named(sa["old"]), _named(sa["new"])
            log.info("SA rekeyed", extra={"fields": {"sa": str(name)}})
            loop.call_soon_threadsafe(heard.renamed, old_id, name, new_id)
        elif isinstance(sa, dict):
            take = heard.established if "up" in message else heard.remove
            loop.call_soon_threadsafe(take, _named(sa)[0])


def _named(sa: dict[str, Any]) -> tuple[SaName, int]:
    spi_i, spi_r = (bytes.fromhex(sa[f"{side}-spi"].decode("ascii")) for side in ("initiator", "responder"))
    return SaName(spi_i, spi_r), int(sa["uniqueid"])
