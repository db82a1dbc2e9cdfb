"""Following the ledger's changes: what was proved about certificates is held, and known to hold still.

Each change is told by the node in a way that it cannot keep one back (`voice_dpki.ledger.changes`). A node can only
fall silent: then, within the bound, nothing that is held is relied on any more.
"""

import asyncio
import logging
from collections.abc import Sequence
from math import inf

from voice_dpki.ledger.answers import InquiryCode, InquiryError, Resolution
from voice_dpki.ledger.changes import Holdings
from voice_dpki.ledger.client import LedgerClient
from voice_dpki.ledger.clock import ClockError, LedgerClock
from voice_dpki.names import CertDigest

log = logging.getLogger(__name__)

MAX_NEWS = 100_000
"""Changed keys that are kept for whoever asks what has changed; more are told as "it may be anything"."""

RETRY_S = 0.2


class Watch:
    """Follows the first node that answers; `run` until cancelled. Without nodes nothing is ever held."""

    def __init__(
        self,
        clients: Sequence[LedgerClient],
        clock: LedgerClock,
        *,
        bound_s: float,
        max_age_s: float,
        max_entries: int,
    ) -> None:
        """Nothing is fresh if no node was heard within `bound_s` or the newest block is older than `max_age_s`."""
        self._clients, self.clock = clients, clock
        self._bound_s, self._max_age_s = bound_s, max_age_s
        self._holdings = Holdings(max_entries)
        self._heard_s = -inf
        self._news: set[bytes] = set()
        self._any_changed = False
        self._woken = asyncio.Event()

    def is_fresh(self) -> bool:
        """Whether what is held can be relied on now."""
        return self._fresh_s() is not None

    def _fresh_s(self) -> float | None:
        """Return the time if what is held can be relied on at it."""
        header = self._holdings.header
        if header is None or any(client.fork is not None for client in self._clients):
            return None
        try:
            now_s = self.clock.checked_s()
        except ClockError:
            return None
        heard = self.clock.steady_s() - self._heard_s <= self._bound_s
        return now_s if heard and header.age_s(now_s) <= self._max_age_s else None

    def held(self, digest: CertDigest) -> Resolution | None:
        """Return what is held about a certificate, with the status of now; None if it must be asked about."""
        now_s = self._fresh_s()
        return None if now_s is None else self._holdings.get(digest, now_s)

    def hold(self, resolution: Resolution) -> None:
        """Hold what an answer proved."""
        self._holdings.put(resolution)

    async def next_change(self) -> "frozenset[bytes] | None":
        """Wait until something has changed; returns the keys of leaves that may have: None if it may be any."""
        await self._woken.wait()
        self._woken.clear()
        news, any_changed = frozenset(self._news), self._any_changed
        self._news.clear()
        self._any_changed = False
        return None if any_changed else news

    async def run(self) -> None:
        """Follow until cancelled; a node that fails is left for the next one."""
        at, failed = 0, False
        while self._clients:
            try:
                await self._follow(self._clients[at])
                failed = False
            except InquiryError as error:
                if not failed:
                    log.warning("changes are not heard of", extra={"fields": {"reason": str(error)}})
                failed = True
                at = (at + 1) % len(self._clients)
                await asyncio.sleep(RETRY_S)

    async def _follow(self, client: LedgerClient) -> None:
        """Hear once what is new: at the latest after half the bound, so that silence is noticed within it."""
        before = self._holdings.header
        header, changed = await client.changes(before, wait_s=self._bound_s / 2)
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
