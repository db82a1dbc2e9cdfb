"""The gateway's own answer: fetched again and again, and stapled, so that a device need not ask for it."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack

from voice_dpki.effects import Clock
from voice_dpki.errors import PeerError
from voice_dpki.http_client import HttpClient, HttpError
from voice_dpki.ledger.answers import MAX_ANSWER_BYTES, AnswerVerifier
from voice_dpki.ledger.client import light_client
from voice_dpki.ledger.genesis import Genesis
from voice_dpki.names import CertDigest

log = logging.getLogger(__name__)

MAX_STAPLE_BYTES = 32_768
"""Largest answer that fits a notify beside all else; each validator adds about 200 bytes to the usual 3000."""


class Staple:
    """Keeps the newest answer about one certificate; `run` until cancelled."""

    def __init__(
        self,
        urls: Sequence[str],
        genesis: Genesis,
        digest: CertDigest,
        clock: Clock,
        *,
        max_age_s: float,
        every_s: float,
    ) -> None:
        self._urls = tuple(urls)
        self._digest, self._clock = digest, clock
        self._verifier = AnswerVerifier(light_client(genesis), max_age_s=max_age_s)
        self._max_age_s, self._every_s = max_age_s, every_s
        self._answer: bytes | None = None
        self._time_s = 0.0

    def answer(self) -> bytes | None:
        """Return the newest answer, None if there is none that a device would believe."""
        return self._answer if self._clock.now_s() - self._time_s <= self._max_age_s else None

    async def run(self) -> None:
        """Fetch until cancelled. Whatever the status is, it is the device's to judge."""
        failed = False
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(self._client(url)) for url in self._urls]
            while clients:
                problem = await self._fetch(clients)
                if problem is not None and not failed:
                    log.warning("own answer cannot be fetched", extra={"fields": {"reason": str(problem)}})
                failed = problem is not None
                await asyncio.sleep(self._every_s)

    def _client(self, url: str) -> HttpClient:
        return HttpClient(url, timeout_s=self._every_s, max_answer_bytes=MAX_ANSWER_BYTES)

    async def _fetch(self, clients: Sequence[HttpClient]) -> PeerError | None:
        """Ask the nodes in their order until one answers; returns what the last one failed with if none did."""
        problem = None
        for client in clients:
            try:
                data = await self._ask(client)
            except PeerError as error:
                problem = error
                continue
            self._answer = data if len(data) <= MAX_STAPLE_BYTES else None
            return None
        return problem

    async def _ask(self, client: HttpClient) -> bytes:
        least = self._verifier.latest_height
        answer = await client.request("GET", f"/ledger/v1/status/{self._digest.hex()}")
        if answer.status != 200:
            raise HttpError(f"the ledger node answers {answer.status}")
        now_s = self._clock.now_s()
        found = self._verifier.verify(answer.body, self._digest, now_s, min_height=least, with_certificate=False)
        self._time_s = found.time_s
        return answer.body
