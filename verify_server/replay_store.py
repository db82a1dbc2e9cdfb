"""A store of used tokens that several servers of one domain share, behind the memory in each process.

The process' own memory is asked first, and bounds what each signer may have in the store. A store that does not
answer is not asked again for RETRY_S. Until it answers, a replay cannot be told (docs/adr/0035), or the process'
own memory decides alone, as configured.
"""

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Literal, Protocol, TypeVar

from voice_dpki.effects import Clock, Random
from voice_dpki.errors import PeerError
from voice_dpki.metrics import counters, gauge
from voice_dpki.shell.readiness import Finding, failed_if, warned_if
from voice_dpki.shortfalls import SHORTFALLS
from voice_dpki.stir.replay import ReplayCache, Sighting, TokenUse, Uses
from voice_dpki.wire.tasks import running

log = logging.getLogger(__name__)

RETRY_S: Final = 1.0
"""How long a failed store is not asked, so that calls do not wait for it one after the other."""

WATCH_S: Final = 5.0
"""How often a failed store is probed without a call."""

UP = gauge("replay_store_up", "1 while the shared memory of used tokens answers; 0 also where none is configured.")
ASKED = counters(
    "replay_store_questions",
    "Uses of tokens of which the shared memory was asked, by what it knew.",
    sighting=(*(sighting.value for sighting in Sighting), "failed", "left alone"),
)

_OPEN: Final = (Sighting.NEW, Sighting.UNKNOWN)
"""Results of the process's own memory that leave the decision to the store."""

_T = TypeVar("_T")


class StoreError(PeerError):
    """The store did not answer, or gave an answer that cannot be used."""


class Link(Protocol):
    """A connection to a store; all its methods raise StoreError."""

    @property
    def since_s(self) -> float:
        """Since when the store has been keeping what it was given, by our wall clock; -inf before it was asked."""
        ...

    async def put(self, key: bytes, value: bytes, retention_s: float) -> bytes | None:
        """Store a value unless the key has one; return the key's earlier value, None if there was none."""
        ...

    async def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, None if it has none."""
        ...

    async def remove(self, key: bytes) -> None:
        """Remove a key."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class SharedReplays:
    """The memory of one process and the store behind it."""

    def __init__(
        self,
        cache: ReplayCache,
        link: Link,
        retention_s: float,
        clock: Clock,
        random: Random,
        when_down: Literal["no-validation", "local"] = "no-validation",
    ) -> None:
        self.cache, self._link, self._retention_s = cache, link, retention_s
        """`cache` is the memory in this process."""
        self._clock, self._random, self._when_down = clock, random, when_down
        self._left_alone_until_s = -math.inf
        self._fault = ""
        """Why the store does not answer; empty while it does."""
        SHORTFALLS.watch(self)

    async def settle(self, uses: Uses[_T]) -> _T:
        """Return what a judgement comes to by both memories."""
        try:
            use = next(uses)
            while True:
                use = uses.send(await self.claim(use))
        except StopIteration as done:
            value: _T = done.value
            return value

    async def claim(self, use: TokenUse) -> Sighting:
        """Tell what is known of a use, and remember a new one."""
        own = self.cache.look(use, self._clock.steady_s())
        if own in _OPEN:
            shared = await self._ask(use)
            if shared is not None:
                return self._noted(use, shared)
            if self._when_down == "no-validation":
                return Sighting.UNKNOWN
        self.cache.keep(use, own, self._clock.steady_s())
        return own

    def _noted(self, use: TokenUse, shared: Sighting) -> Sighting:
        """Remember a use in this process too if the store admits it; returns what the store has said."""
        if shared is Sighting.NEW or shared is Sighting.SAME_CALL:
            now_s = self._clock.steady_s()
            own = self.cache.look(use, now_s)  # another request of the same call may have come meanwhile
            self.cache.keep(use, Sighting.NEW if own in _OPEN else own, now_s)
        return shared

    async def check(self) -> None:
        """Send the store an inquiry, so that the log says at the start if it does not answer."""
        try:
            await self._link.get(b"start")
        except StoreError as error:
            self._fail(str(error))
        else:
            self._recover()

    async def watch(self) -> None:
        """Check a failed store every WATCH_S until cancelled: calls may stay away until it is ready again."""
        while True:
            await asyncio.sleep(WATCH_S)
            if self._fault:
                await self.check()

    def readiness(self) -> Finding:
        """Return whether the store answers; without it calls are verified only if the configuration says so."""
        return (warned_if if self._when_down == "local" else failed_if)(self.shortfall())

    async def _ask(self, use: TokenUse) -> Sighting | None:
        """Return what the store knows of a use; None if it does not answer."""
        if self._clock.steady_s() < self._left_alone_until_s:
            ASKED.labels("left alone").inc()
            return None
        try:
            sighting = await self._sighting(use)
        except StoreError as error:
            self._fail(str(error))
            return None
        self._recover()
        ASKED.labels(sighting.value).inc()
        return sighting

    async def _sighting(self, use: TokenUse) -> Sighting:
        """Return what the store knows of a use, which it remembers if it is new; raises StoreError."""
        value = b"c" + use.call if use.call else b"n" + self._random.token(8)
        if use.iat_s < self._link.since_s:
            before = await self._link.get(use.key)
        else:
            before = await self._link.put(use.key, value, self._retention_s)
            if before is None and use.iat_s < self._link.since_s:  # the store has just begun anew
                await self._link.remove(use.key)
        if before is None:
            return Sighting.UNKNOWN if use.iat_s < self._link.since_s else Sighting.NEW
        if before == value:
            return Sighting.SAME_CALL
        return Sighting.OTHER_CALL if before[:1] == value[:1] == b"c" else Sighting.REPEATED

    def _fail(self, why: str) -> None:
        self._left_alone_until_s = self._clock.steady_s() + RETRY_S
        ASKED.labels("failed").inc()
        UP.set(0)
        if not self._fault:
            log.error("the store of used signatures does not answer", extra={"fields": {"reason": why}})
        self._fault = why

    def _recover(self) -> None:
        UP.set(1)
        if self._fault:
            log.info("the store of used signatures answers again")
        self._fault = ""

    def shortfall(self) -> str:
        """Return a sentence for people while the store does not answer; otherwise an empty string."""
        if not self._fault:
            return ""
        what = "replays are told by this server's memory alone" if self._when_down == "local" else "no call passes"
        return f"the store of used signatures does not answer: {what}"


@asynccontextmanager
async def shared(replays: SharedReplays, link: Link) -> AsyncIterator[SharedReplays]:
    """Check the store, watch it while the context lasts, and close its connections at the end."""
    try:
        await replays.check()
        async with running(replays.watch()):
            yield replays
    finally:
        await link.close()
