"""The gateway's own answer: fetched again and again, and stapled, so that a device need not ask for it."""

import asyncio
import logging
from collections.abc import Sequence

from voice_dpki.effects import Clock
from voice_dpki.ledger.answers import InquiryError
from voice_dpki.ledger.client import LedgerClient
from voice_dpki.names import CertDigest

log = logging.getLogger(__name__)

MAX_STAPLE_BYTES = 32_768
"""Largest answer that fits a notify beside all else; each validator adds about 200 bytes to the usual 3000."""


class Staple:
    """Keeps the newest answer about one certificate; `run` until cancelled."""

    def __init__(
        self, clients: Sequence[LedgerClient], digest: CertDigest, clock: Clock, *, max_age_s: float, every_s: float
    ) -> None:
        self._clients, self._digest, self._clock = clients, digest, clock
        self._max_age_s, self._every_s = max_age_s, every_s
        self._answer: bytes | None = None
        self._time_s = 0.0

    def answer(self) -> bytes | None:
        """Return the newest answer, None if there is none that a device would believe."""
        return self._answer if self._clock.now_s() - self._time_s <= self._max_age_s else None

    async def run(self) -> None:
        """Fetch until cancelled. Whatever the status is, it is the device's to judge."""
        failed = False
        while self._clients:
            problem = await self._fetch()
            if problem is not None and not failed:
                log.warning("own answer cannot be fetched", extra={"fields": {"reason": str(problem)}})
            failed = problem is not None
            await asyncio.sleep(self._every_s)

    async def _fetch(self) -> InquiryError | None:
        """Ask the nodes in their order until one answers; returns what the last one failed with if none did."""
        problem = None
        for client in self._clients:
            try:
                found, data = await client.resolve_raw(self._digest, with_certificate=False)
            except InquiryError as error:
                problem = error
                continue
            self._answer, self._time_s = (data if len(data) <= MAX_STAPLE_BYTES else None), found.time_s
            return None
        return problem
