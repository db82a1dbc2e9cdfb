"""A cache of certificates that follows the ledger's changes, so that known signers need no inquiry during a call.

A held certificate is served without a request to the node, as long as the newest header is not too old. The node
reports changes in a form from which it cannot withhold any (`voice_dpki.ledger.changes`). A resolution that a
change touches is dropped at once and looked up again. After a broken connection, the next request continues from
the last answer, or starts anew if the node does not know the changes since then.
"""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from voice_dpki.ledger.answer_forms import MAX_BATCH, MAX_LEAVES
from voice_dpki.ledger.answers import InquiryError, Resolution
from voice_dpki.ledger.changes import Holdings
from voice_dpki.ledger.clock import ClockError
from voice_dpki.ledger.held_leaves import HeldLeaves
from voice_dpki.ledger.held_numbers import NUMBER_LEAF, number_key
from voice_dpki.ledger.standing import with_number
from voice_dpki.names import CertDigest, Height, Tn
from voice_dpki.wire.ledger.client import LedgerClient
from voice_dpki.wire.seldom import Seldom
from voice_dpki.wire.tasks import running
from voice_dpki.x509.recorded import RecordedCertificate

log = logging.getLogger(__name__)

MAX_NUMBERS = 100_000
"""Held leaves of numbers: about 30 MB."""

MAX_ENTRIES = 10_000
"""Held certificates: about 30 MB."""

COMPARE_S = 60.0
"""How often the newest header is compared with those of the witnesses."""

WAIT_S = 10.0
"""How long the node may delay its answer about changes. It answers at its next header, including heartbeats."""

RETRY_S = (0.05, 0.2, 0.5, 1.0)
"""Pauses after one failure, two, and so on; the last is used for all later ones."""


class Subscription:
    """A cache of the certificates that `client` looks up. `run` keeps it fresh."""

    def __init__(
        self,
        client: LedgerClient,
        *,
        max_entries: int = MAX_ENTRIES,
        witnesses: Sequence[LedgerClient] = (),
        compare_s: float = COMPARE_S,
    ) -> None:
        """`witnesses` are clients of other nodes.

        With one node only, a lying or isolated node could show this subscriber another history than others see.
        """
        self._client = client
        self._witnesses = witnesses
        self._compare_s = compare_s
        self._holdings = Holdings(max_entries)
        self._leaves = HeldLeaves(MAX_NUMBERS)
        self._faults = Seldom(log)

    async def look_up(self, digest: CertDigest) -> Resolution:
        """Return what the ledger proves about a certificate, from the cache if that is not too old.

        Raises InquiryError if the node must be asked and gives no reliable answer.
        """
        held = self.held(digest)
        if held is not None:
            return held
        found = await self._client.resolve(digest)
        self._holdings.put(found)
        return found

    def held(self, digest: CertDigest) -> Resolution | None:
        """Return what is held about a certificate; None if nothing is, if it is too old, or if our clock is wrong.

        Returns None also after a fork.
        """
        if self._client.fork is not None:
            return None
        try:
            now_s = self._client.clock.checked_s()
        except ClockError:
            return None
        held = self._holdings.get(digest, now_s)
        return held if held is not None and held.age_s <= self._client.max_age_s else None

    def age_s(self) -> float:
        """Return how old the newest header is, in seconds: infinite without one, or while our clock is wrong."""
        header = self._holdings.header
        try:
            return math.inf if header is None else header.age_s(self._client.clock.checked_s())
        except ClockError:
            return math.inf

    def lacking(self) -> str:
        """Return in a sentence why the cache cannot be used now; empty if it can."""
        age_s, most_s = self.age_s(), self._client.max_age_s
        if self._client.fork is not None:
            return "the ledger's validators contradict themselves"
        if self._holdings.header is None:
            return "the ledger has not been heard yet"
        if age_s > most_s:
            return f"the newest header of the ledger is {age_s:.0f} s old, and {most_s:g} s are allowed"
        return ""

    def recorded(self, digest: CertDigest) -> RecordedCertificate | None:
        """Return the result of `held` in the form for judging a certificate."""
        if self._client.fork is not None:
            return None
        try:
            now_s = self._client.clock.checked_s()
        except ClockError:
            return None
        return self._holdings.recorded(digest, now_s, self._client.max_age_s)

    def with_numbers(self, recorded: RecordedCertificate, numbers: Iterable[Tn]) -> RecordedCertificate | None:
        """Return a certificate with the cached holders of numbers that its member may hold singly.

        Returns None if the node must be asked for one of them.
        """
        if (waiting := _unsettled(recorded, numbers)) and not self._is_fresh():
            return None
        for tn in waiting:
            held = self._leaves.get(number_key(tn))
            if held is None:
                return None
            recorded = self._with_number(recorded, tn, held.value)
        return recorded

    async def ask_numbers(self, recorded: RecordedCertificate, numbers: Iterable[Tn]) -> RecordedCertificate:
        """Return the result of `with_numbers`, with an inquiry at the node if it is needed; raises InquiryError."""
        waiting = _unsettled(recorded, numbers)
        known = self.with_numbers(recorded, waiting)
        if known is not None:
            return known
        keys = [number_key(tn) for tn in waiting]
        values, height = await self._client.proved_leaves(keys)
        for tn, key, value in zip(waiting, keys, values, strict=True):
            recorded = self._with_number(recorded, tn, value)
            self._leaves.put(key, value, height)
        return recorded

    def _with_number(self, recorded: RecordedCertificate, tn: Tn, value: bytes | None) -> RecordedCertificate:
        holder = None if value is None else self._client.parsed(NUMBER_LEAF, value)
        return with_number(recorded, tn, holder)

    def _is_fresh(self) -> bool:
        """Tell whether the cache can be used: the newest header is recent, and there is no fork or wrong clock."""
        header = self._holdings.header
        if self._client.fork is not None or header is None:
            return False
        try:
            return header.age_s(self._client.clock.checked_s()) <= self._client.max_age_s
        except ClockError:
            return False

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follow the changes while the context lasts; at its end, raise the error that stopped this, if any."""
        async with running(self.run(), self._compared()):
            yield

    async def run(self) -> None:
        """Follow the changes until cancelled. After a fault of our own, begin again with an empty cache."""
        failures = 0
        while True:
            try:
                await self._advance()
            except InquiryError as error:
                if failures == 0:
                    log.warning("changes are not heard of", extra={"fields": {"reason": str(error)}})
            except Exception as error:  # the task must go on, or the cache would stay out of use
                self._holdings.clear()  # a change may have been applied in part
                self._leaves.clear()
                self._faults.error("changes could not be taken in", error)
            else:
                failures = 0
                continue
            await asyncio.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])
            failures += 1

    async def _compared(self) -> None:
        await compare(self._client, self._witnesses, self._compare_s)

    async def _advance(self) -> None:
        """Wait for the next header, and look up again the certificates that it affects."""
        header, changed = await self._client.changes(self._holdings.header, wait_s=WAIT_S)
        self._leaves.advance(Height(header.height), changed)
        dropped = self._holdings.advance(header, changed)
        for start in range(0, len(dropped), MAX_BATCH):
            await self._renew(dropped[start : start + MAX_BATCH])

    async def _renew(self, old: Sequence[Resolution]) -> None:
        found = await self._client.resolve_all([resolution.digest for resolution in old])
        for before, now in zip(old, found, strict=True):
            self._holdings.put(replace(now, certificate=before.certificate))


def _unsettled(recorded: RecordedCertificate, numbers: Iterable[Tn]) -> list[Tn]:
    """Return the numbers whose holders must be looked up before the certificate can be used for them."""
    allotment = recorded.allotment
    if allotment is None:
        return []
    return sorted({tn for tn in numbers if not allotment.is_settled(tn)})[:MAX_LEAVES]


async def compare(client: LedgerClient, witnesses: Sequence[LedgerClient], every_s: float = COMPARE_S) -> None:
    """Compare a client's newest header with those of witnesses every `every_s`, until cancelled.

    A disagreement is logged, and so is a witness that does not answer. Returns at once without witnesses.
    """
    while witnesses:
        await asyncio.sleep(every_s)
        for witness in witnesses:
            try:
                await client.compare(witness)
            except InquiryError as error:
                log.warning("witness does not agree", extra={"fields": {"reason": str(error)}})
            except Exception:  # a fault of our own must not end the comparisons
                log.exception("headers could not be compared")
