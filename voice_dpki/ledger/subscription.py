"""Knowing signers before they call: what was looked up once is held, and kept fresh by the ledger's changes.

A known certificate is answered for without asking the node, as long as the newest header is not too old. Every
change is told by the node in a way that it cannot keep one back (`voice_dpki.ledger.changes`): what it touches is
dropped at once and looked up again. When the connection breaks, the next question takes up where the last answer
ended, or starts afresh where the node cannot tell any more.
"""
# ruff: noqa: TID251 - this is a shell: it waits, and runs as a task

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from voice_dpki.ledger.answers import MAX_BATCH, InquiryError, Resolution
from voice_dpki.ledger.changes import Holdings
from voice_dpki.ledger.client import LedgerClient
from voice_dpki.ledger.clock import ClockError
from voice_dpki.names import CertDigest

log = logging.getLogger(__name__)

MAX_ENTRIES = 10_000
"""Certificates that are held: about 30 MB."""

COMPARE_S = 60.0
"""How often the newest header is held to those of the witnesses."""

WAIT_S = 10.0
"""How long the node may keep the question for changes; it answers at its next header, heartbeats included."""

RETRY_S = (0.05, 0.2, 0.5, 1.0)
"""Pauses after one failure, two, and so on; the last one stays."""


class Subscription:
    """Looks certificates up with `client`, holding what was found; `run` keeps that fresh."""

    def __init__(
        self,
        client: LedgerClient,
        *,
        max_entries: int = MAX_ENTRIES,
        witnesses: Sequence[LedgerClient] = (),
        compare_s: float = COMPARE_S,
    ) -> None:
        """`witnesses` ask other nodes: whose node is cut off, or lies, can be shown another history than others."""
        self._client = client
        self._witnesses = witnesses
        self._compare_s = compare_s
        self._holdings = Holdings(max_entries)

    async def look_up(self, digest: CertDigest) -> Resolution:
        """Return what the ledger proves about a certificate, from what is held if that is not too old.

        Raises InquiryError where it has to be asked and proves nothing.
        """
        held = self.held(digest)
        if held is not None:
            return held
        found = await self._client.resolve(digest)
        self._holdings.put(found)
        return found

    def held(self, digest: CertDigest) -> Resolution | None:
        """Return what is held about a certificate, unless it is too old to be relied on."""
        if self._client.fork is not None:
            return None
        try:
            now_s = self._client.clock.checked_s()
        except ClockError:
            return None
        held = self._holdings.get(digest, now_s)
        return held if held is not None and held.age_s <= self._client.max_age_s else None

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follow the changes while the context lasts; raises at its end what that failed with, if it did."""
        tasks = [asyncio.create_task(self.run()), asyncio.create_task(self._compared())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(outcome, Exception):
                    raise outcome

    async def run(self) -> None:
        """Follow the changes until cancelled."""
        failures = 0
        while True:
            try:
                await self._advance()
                failures = 0
            except InquiryError as error:
                if failures == 0:
                    log.warning("changes are not heard of", extra={"fields": {"reason": str(error)}})
                await asyncio.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])
                failures += 1

    async def _compared(self) -> None:
        await compare(self._client, self._witnesses, self._compare_s)

    async def _advance(self) -> None:
        """Wait for the next header, and look up again what it changes."""
        header, changed = await self._client.changes(self._holdings.header, wait_s=WAIT_S)
        dropped = self._holdings.advance(header, changed)
        for start in range(0, len(dropped), MAX_BATCH):
            await self._renew(dropped[start : start + MAX_BATCH])

    async def _renew(self, old: Sequence[Resolution]) -> None:
        found = await self._client.resolve_all([resolution.digest for resolution in old])
        for before, now in zip(old, found, strict=True):
            self._holdings.put(replace(now, certificate=before.certificate))


async def compare(client: LedgerClient, witnesses: Sequence[LedgerClient], every_s: float = COMPARE_S) -> None:
    """Hold a client's newest header to those of witnesses, now and then, until cancelled; the log tells."""
    while witnesses:
        await asyncio.sleep(every_s)
        for witness in witnesses:
            try:
                await client.compare(witness)
            except InquiryError as error:
                log.warning("witness does not agree", extra={"fields": {"reason": str(error)}})
