"""The stapled answer about the gateway's own certificate, so that a device need not ask an inquiry node."""

import asyncio
import logging
from collections.abc import Sequence
from math import inf

from segw_agent.way import find_way, header_of, with_way
from voice_dpki.ledger.answers import InquiryError
from voice_dpki.ledger.clock import ClockError, LedgerClock
from voice_dpki.ledger.genesis import Genesis
from voice_dpki.ledger.light import LightBlock
from voice_dpki.names import CertDigest
from voice_dpki.wire.ledger.client import LedgerClient

log = logging.getLogger(__name__)

MAX_STAPLE_BYTES = 32_768
"""Largest answer that fits a notify beside the rest of the message.

An answer has about 3000 bytes; each further validator adds about 200.
"""

AGAIN_S = 60.0
"""Pause before a failed search for a way is retried."""


class Staple:
    """The newest answer about one certificate, and the way to it from the genesis; `run` updates both."""

    def __init__(
        self,
        clients: Sequence[LedgerClient],
        digest: CertDigest,
        genesis: Genesis,
        clock: LedgerClock,
        *,
        max_age_s: float,
        every_s: float,
    ) -> None:
        self._clients, self._digest, self._genesis, self._clock = clients, digest, genesis, clock
        self._max_age_s, self._every_s = max_age_s, every_s
        self._answer: bytes | None = None
        self._time_s = 0.0
        self._way: tuple[LightBlock, ...] = ()
        self._way_to = genesis.validators.hash()
        """Hash of the validators that the way leads to."""
        self._again_s = -inf
        """No search for a way before this time, by the monotonic clock."""

    def answer(self) -> bytes | None:
        """Return the newest answer; None if there is none, or if it is too old for a device to accept."""
        try:
            return self._answer if self._clock.checked_s() - self._time_s <= self._max_age_s else None
        except ClockError:
            return None

    async def run(self) -> None:
        """Fetch at intervals until cancelled. The status in the answer is not checked: the device judges it."""
        failed = False
        while self._clients:
            problem = await self._fetch()
            if problem is not None and not failed:
                log.warning("own answer cannot be fetched", extra={"fields": {"reason": str(problem)}})
            failed = problem is not None
            await asyncio.sleep(self._every_s)

    async def _fetch(self) -> InquiryError | None:
        """Ask the nodes in their order until one answers; return the last node's error if none did."""
        problem = None
        for client in self._clients:
            try:
                found, data = await client.resolve_raw(self._digest, with_certificate=False)
                await self._lead(client, data)
            except InquiryError as error:
                problem = error
                continue
            stapled = with_way(data, self._way, MAX_STAPLE_BYTES)
            self._answer, self._time_s = (stapled if len(stapled) <= MAX_STAPLE_BYTES else None), found.time_s
            return None
        return problem

    async def _lead(self, client: LedgerClient, data: bytes) -> None:
        """Find the way to the answer's validators, unless the known one leads there."""
        target = header_of(data)
        now_s = self._clock.steady_s()
        if target.header.validators_hash == self._way_to or now_s < self._again_s:
            return
        try:
            self._way = await find_way(client, self._genesis, target, self._clock.checked_s())
            self._way_to = target.header.validators_hash
            log.info("validators have changed", extra={"fields": {"headers stapled": len(self._way)}})
        except (InquiryError, ClockError) as error:
            self._again_s = now_s + AGAIN_S
            log.warning("no way from the genesis to be stapled", extra={"fields": {"reason": str(error)}})
