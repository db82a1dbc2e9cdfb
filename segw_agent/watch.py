"""A cache of proved answers about certificates, kept current by following the ledger's changes.

The node proves that its list of changes is complete, so it cannot hide one (`voice_dpki.ledger.changes`). It can
only fall silent, and then the cache is no longer used once the bound has passed.
"""

import asyncio
import logging
from collections.abc import Sequence
from math import inf

from voice_dpki.ledger.answers import InquiryCode, InquiryError, Resolution
from voice_dpki.ledger.changes import Holdings
from voice_dpki.ledger.clock import ClockError, LedgerClock
from voice_dpki.names import CertDigest
from voice_dpki.wire.ledger.client import LedgerClient
from voice_dpki.wire.seldom import Seldom

log = logging.getLogger(__name__)
_FAULTS = Seldom(log)

MAX_NEWS = 100_000
"""Changed keys that are kept until `next_change` takes them; beyond that, any key may have changed."""

RETRY_S = 0.2


class Watch:
    """The cache, kept current by `run` with the first node that answers. Without nodes it is never used."""

    def __init__(
        self,
        clients: Sequence[LedgerClient],
        clock: LedgerClock,
        *,
        bound_s: float,
        max_age_s: float,
        max_entries: int,
    ) -> None:
        """Make an empty cache of at most `max_entries`.

        It is not fresh if no node answered within `bound_s`, or if the newest block is older than `max_age_s`.
        """
        self._clients, self.clock = clients, clock
        self._max_age_s = max_age_s
        self.bound_s = bound_s
        """The cache is not fresh if no node answered within this time."""
        self._holdings = Holdings(max_entries)
        self._heard_s = -inf
        self._news: set[bytes] = set()
        self._any_changed = False
        self._woken = asyncio.Event()

    def is_fresh(self) -> bool:
        """Whether the cache can be relied on now."""
        return self._fresh_s() is not None

    def _fresh_s(self) -> float | None:
        """Return the current time, in Unix seconds, if the cache can be relied on now; None otherwise."""
        header = self._holdings.header
        if header is None or any(client.fork is not None for client in self._clients):
            return None
        try:
            now_s = self.clock.checked_s()
        except ClockError:
            return None
        heard = self.clock.steady_s() - self._heard_s <= self.bound_s
        return now_s if heard and header.age_s(now_s) <= self._max_age_s else None

    def held(self, digest: CertDigest) -> Resolution | None:
        """Return the cached answer about a certificate, with its present status; None if a node must be asked."""
        now_s = self._fresh_s()
        return None if now_s is None else self._holdings.get(digest, now_s)

    def hold(self, resolution: Resolution) -> None:
        """Cache what an answer proved."""
        self._holdings.put(resolution)

    async def next_change(self) -> "frozenset[bytes] | None":
        """Wait for a change; return the keys of the leaves that changed, or None if any of them may have."""
        await self._woken.wait()
        self._woken.clear()
        news, any_changed = frozenset(self._news), self._any_changed
        self._news.clear()
        self._any_changed = False
        return None if any_changed else news

    async def run(self) -> None:
        """Follow the changes until cancelled; when a node fails, go on with the next one.

        After a fault of our own, begin again with an empty cache, so that everything is checked again.
        """
        at, failed = 0, False
        while self._clients:
            try:
                await self._follow(self._clients[at])
            except InquiryError as error:
                if not failed:
                    log.warning("changes are not heard of", extra={"fields": {"reason": str(error)}})
            except Exception as error:  # the task must go on, or the agent would miss revocations
                self._holdings.clear()  # a change may have been applied in part
                _FAULTS.error("changes could not be taken in", error)
            else:
                failed = False
                continue
            failed = True
            at = (at + 1) % len(self._clients)
            await asyncio.sleep(RETRY_S)

    async def _follow(self, client: LedgerClient) -> None:
        """Fetch changes once; the node must answer within half the bound, so that a failure is noticed in time."""
        before = self._holdings.header
        header, changed = await client.changes(before, wait_s=self.bound_s / 2)
        self._heard_s = self.clock.steady_s()
        if before is not None and header.height < before.height:
            raise _behind(header.height, before.height)
        self._holdings.advance(header, changed)
        if changed is None or len(self._news) + len(changed) > MAX_NEWS:
            self._any_changed = True
            self._news.clear()
            self._woken.set()
        elif changed:
            self._news |= changed
            self._woken.set()


def _behind(height: int, known: int) -> InquiryError:
    return InquiryError(InquiryCode.STALE, f"the node is at height {height}, and {known} is known")
