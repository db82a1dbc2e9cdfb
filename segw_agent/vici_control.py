"""Ending strongSwan's IKE SAs over VICI. The `vici` package is imported only when it is used."""

import asyncio
import importlib
import logging
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from segw_agent.live_log import LiveSa
from voice_dpki.errors import LocalError
from voice_dpki.ikev2.events import SaName

log = logging.getLogger(__name__)

TIMEOUT_S = 2.0
RETRY_S = 1.0

Renamed = Callable[[int, SaName, int], None]
"""Takes an SA's number, its new SPIs and its new number, after charon rekeyed it."""


class ViciControl:
    """SaControl over charon's VICI socket; each call is a connection of its own, made in a thread."""

    def __init__(self, path: Path) -> None:
        """Raise LocalError where the `vici` package is missing."""
        try:
            self._vici: Any = importlib.import_module("vici")
        except ImportError:
            raise LocalError("ending strongSwan's SAs needs the Python package vici: pip install vici") from None
        self._path = path

    async def end(self, sa: LiveSa, reason: str) -> bool:
        """Terminate an SA; False if charon has none by that name or number."""
        return await asyncio.to_thread(self._end, sa)

    async def standing(self) -> frozenset[SaName] | None:
        """Return all of charon's SAs."""
        return frozenset(await asyncio.to_thread(self._list))

    async def follow(self, renamed: Renamed) -> None:
        """Tell of rekeyed SAs until cancelled."""
        loop, stop = asyncio.get_running_loop(), threading.Event()
        try:
            await asyncio.to_thread(self._listen, loop, stop, renamed)
        finally:
            stop.set()

    def _end(self, sa: LiveSa) -> bool:
        known = self._list()
        number = known.get(sa.name)
        if number is None and sa.unique_id in known.values():
            number = sa.unique_id
        if number is None:
            return False
        # Without waiting for the peer's answer: charon tells it, and forgets the SA in any case.
        order = {"ike-id": str(number), "force": "yes", "timeout": "-1"}
        self._call(lambda session: list(session.terminate(order)))
        return True

    def _list(self) -> dict[SaName, int]:
        found: dict[SaName, int] = {}
        for entry in self._call(lambda session: list(session.list_sas())):
            found.update(_named(sa) for sa in entry.values())
        return found

    def _call(self, use: Callable[[Any], Any], timeout_s: float = TIMEOUT_S) -> Any:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout_s)
        errors = self._vici.exception
        try:
            connection.connect(str(self._path))
            return use(self._vici.Session(connection))
        except (OSError, ValueError, KeyError, errors.DeserializationException) as error:
            raise LocalError(f"{self._path}: charon does not answer: {error}") from None
        except (errors.SessionException, errors.CommandException) as error:
            raise LocalError(f"{self._path}: charon refuses: {error}") from None
        finally:
            connection.close()

    def _listen(self, loop: asyncio.AbstractEventLoop, stop: threading.Event, renamed: Renamed) -> None:
        def take(session: Any) -> None:
            for kind, message in session.listen(["ike-rekey"], timeout=TIMEOUT_S):
                if stop.is_set():
                    return
                if kind is None or message is None:
                    continue
                for name, sa in message.items():
                    if isinstance(sa, dict) and "old" in sa:
                        (_, old_id), (new, new_id) = _named(sa["old"]), _named(sa["new"])
                        log.info("SA rekeyed", extra={"fields": {"connection": name, "sa": str(new)}})
                        loop.call_soon_threadsafe(renamed, old_id, new, new_id)

        while not stop.wait(RETRY_S):
            try:
                self._call(take)
            except LocalError as error:
                log.warning("charon cannot be listened to", extra={"fields": {"reason": str(error)}})


def _named(sa: dict[str, Any]) -> tuple[SaName, int]:
    spi_i, spi_r = (bytes.fromhex(sa[f"{side}-spi"].decode("ascii")) for side in ("initiator", "responder"))
    return SaName(spi_i, spi_r), int(sa["uniqueid"])
