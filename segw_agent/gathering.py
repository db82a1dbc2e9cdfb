"""Batching of inquiries to one node: those made close together share a request.

After a power cut all devices of a gateway reattach at once, and a request about each would cost the agent more than
all the rest of its work. A single inquiry is sent without delay; those of one turn of the event loop form a batch.
"""

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from voice_dpki.ledger.answers import InquiryError, Resolution
from voice_dpki.names import CertDigest
from voice_dpki.wire.http_client import HttpUnreachableError
from voice_dpki.wire.ledger.client import LedgerClient, NodeSilentError
from voice_dpki.wire.tasks import Background

log = logging.getLogger(__name__)

PAUSE_S = 0.005
"""Shortest time from an answer to the next request. Inquiries made meanwhile wait for that request."""

PATIENCE_S = 0.1
"""Longest wait for an answer before the next request is sent: a lost answer must not delay all others."""

MAX_TOGETHER = 64
"""Certificates in one request: as many as strongSwan has threads. An answer takes a few milliseconds to verify."""


Asked: TypeAlias = "Mapping[CertDigest, asyncio.Future[Resolution]]"
"""The certificates of one request, each with the future of its inquiries."""


class Gathering:
    """Inquiries at the node of one client."""

    def __init__(self, client: LedgerClient) -> None:
        self._client = client
        self._under_way = 0
        self._next_s = 0.0
        """Earliest time of the next request, by the event loop's clock; an answer can move it forward."""
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: dict[CertDigest, asyncio.Future[Resolution]] = {}
        self._background = Background(log)

    async def aclose(self) -> None:
        """End the inquiries in progress."""
        if self._timer is not None:
            self._timer.cancel()
        await self._background.close()
        _fail(self._waiting.values(), None)

    async def resolve(self, digest: CertDigest) -> Resolution:
        """Ask for a certificate's status, record and member; raises InquiryError.

        A caller that is cancelled does not affect others that wait for the same answer.
        """
        return await asyncio.shield(self._queued(digest))

    def _queued(self, digest: CertDigest) -> "asyncio.Future[Resolution]":
        waiting = self._waiting.get(digest)
        if waiting is None:
            waiting = self._waiting[digest] = asyncio.get_running_loop().create_future()
        if self._timer is None:
            self._schedule()
        return waiting

    def _schedule(self) -> None:
        """Set the timer for the next request, if inquiries wait for it.

        It is due in the event loop's next turn at the earliest, so that all inquiries of this turn share it.
        """
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(self._next_s, self._ask) if self._waiting else None

    def _ask(self) -> None:
        self._timer = None
        digests = list(self._waiting)[:MAX_TOGETHER]
        self._background.run(self._answer({digest: self._waiting.pop(digest) for digest in digests}))

    async def _answer(self, asked: Asked) -> None:
        """Send one request to the node, and pass the answer or the error to all waiting callers."""
        try:
            with self._counted():
                found = await self._found(list(asked))
        except InquiryError as error:
            if len(asked) == 1 or isinstance(error, NodeSilentError):
                _fail(asked.values(), error)
            else:  # the node may lack an answer about another certificate of the batch
                await self._answer_each(asked)
        except BaseException:
            _fail(asked.values(), None)
            raise
        else:
            for resolution, waiting in zip(found, asked.values(), strict=True):
                waiting.set_result(resolution)

    async def _answer_each(self, asked: Asked) -> None:
        try:
            await asyncio.gather(*(self._answer({digest: waiting}) for digest, waiting in asked.items()))
        finally:
            _fail((waiting for waiting in asked.values() if not waiting.done()), None)

    async def _found(self, digests: Sequence[CertDigest]) -> Sequence[Resolution]:
        if len(digests) == 1:  # less work for the node than a list of one
            return [await self._client.resolve(digests[0], with_certificate=False)]
        return await self._client.resolve_all(digests)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        self._under_way += 1
        self._next_s = loop.time() + PATIENCE_S
        try:
            yield
        finally:
            self._under_way -= 1
            self._next_s = loop.time() + PAUSE_S
            self._schedule()


def _fail(waiting: Iterable["asyncio.Future[Resolution]"], error: InquiryError | None) -> None:
    """Fail all waiting callers with the node's error; without one, with NodeSilentError."""
    ended = NodeSilentError(HttpUnreachableError("the inquiry has ended without an answer"))
    for each in waiting:
        each.set_exception(error or ended)
        each.exception()  # all callers may have been cancelled
