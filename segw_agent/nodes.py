"""The inquiry nodes, asked in their order within one deadline; nodes that failed lately are asked last.

One deadline covers all nodes, because a device's IKE_AUTH and strongSwan's plugin wait no longer. A node that hangs
gets only its share of the time, so that the next one can still answer.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from math import inf
from typing import Protocol, TypeVar

from voice_dpki.ledger.answers import InquiryCode, InquiryError
from voice_dpki.wire.ledger.client import LedgerClient

log = logging.getLogger(__name__)

AWAY_S = 30.0
"""How long after a failure a node is asked last."""

T = TypeVar("T")


class Steady(Protocol):
    """A monotonic clock."""

    def steady_s(self) -> float:
        """Return the time in seconds since an arbitrary moment."""
        ...


class Nodes:
    """The nodes of `clients`, by "host:port" and in their order."""

    def __init__(self, clients: Mapping[str, LedgerClient], clock: Steady, *, timeout_s: float) -> None:
        """Let an inquiry take at most `timeout_s`, however many nodes are asked."""
        self._clients, self._clock, self._timeout_s = clients, clock, timeout_s
        self._away_until_s: dict[str, float] = {}

    def __bool__(self) -> bool:
        return bool(self._clients)

    async def ask(
        self, ask: Callable[[str, LedgerClient], Awaitable[T]], failed: Callable[[InquiryError], None]
    ) -> T:
        """Ask one node after the other until one answers; calls `failed` with the error of each that does not.

        Raises the last node's InquiryError if none answers in time.
        """
        problem = InquiryError(
            InquiryCode.UNREACHABLE, "there is no inquiry node to ask, and no answer was stapled"
        )
        until_s = self._clock.steady_s() + self._timeout_s
        for address, share in self._shares():
            seconds = max(until_s - self._clock.steady_s(), 0.0) * share
            try:
                answer = await _within(ask(address, self._clients[address]), seconds)
            except InquiryError as error:
                problem = error
                failed(error)
                if error.code is InquiryCode.UNREACHABLE:
                    self._silent(address, error)
            else:
                self._answered(address)
                return answer
        raise problem

    def _shares(self) -> Iterator[tuple[str, float]]:
        """Yield each node to ask, and its share of the remaining time in seconds; the rest is for later nodes."""
        now_s = self._clock.steady_s()
        ordered = sorted(self._clients, key=lambda address: self._away_until_s.get(address, -inf) > now_s)
        for at, address in enumerate(ordered):
            yield address, 1 / (len(ordered) - at)

    def _silent(self, address: str, error: InquiryError) -> None:
        if address not in self._away_until_s:
            fields = {"node": address, "reason": str(error), "asked_last_for_s": AWAY_S}
            log.warning("inquiry node is silent", extra={"fields": fields})
        self._away_until_s[address] = self._clock.steady_s() + AWAY_S

    def _answered(self, address: str) -> None:
        if self._away_until_s.pop(address, None) is not None:
            log.info("inquiry node answers again", extra={"fields": {"node": address}})


async def _within(answer: Awaitable[T], seconds: float) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await answer
    except TimeoutError:
        raise InquiryError(InquiryCode.UNREACHABLE, "the inquiry node does not answer in time") from None
