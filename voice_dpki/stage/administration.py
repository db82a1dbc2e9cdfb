"""Administration of the ledger: record certificates, change their status, and wait until other nodes know."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from voice_dpki.effects import SystemClock
from voice_dpki.errors import LocalError
from voice_dpki.ledger.genesis import Genesis
from voice_dpki.ledger.records import CertStatus
from voice_dpki.names import CertDigest, Height
from voice_dpki.shell.again import SeldomTell, again
from voice_dpki.shell.ledger import LedgerAccess
from voice_dpki.stage.patience import STALLED_S
from voice_dpki.wire.ledger.client import LedgerClient, Receipt

T = TypeVar("T")

_POLL_S = 0.02

_LOOK_S = 0.2
"""How often to call the check while requests are under way."""


@dataclass(frozen=True, slots=True)
class SubmissionNode:
    """A node that endorses for its member, and the token that authenticates the administrator to it."""

    url: str
    token: str


class Administration:
    """An administrator of one ledger; each method returns when its work is done.

    `check` raises if further waiting is useless, for instance because a node has ended. The method then raises the
    same exception.
    """

    def __init__(self, genesis: Genesis, check: Callable[[], None] = lambda: None) -> None:
        self._genesis = genesis
        self._check = check
        self._tell = SeldomTell()

    def record(self, submissions: Iterable[tuple[SubmissionNode, bytes]]) -> Height:
        """Record certificates at the same time; return the height by which all are recorded.

        Raises SubmissionError.
        """

        async def submit(node: SubmissionNode, der: bytes) -> Receipt:
            async with self._client(node.url) as client:
                return await again(partial(client.submit, der, node.token), self._tell)

        async def submit_all() -> list[Receipt]:
            return await asyncio.gather(*(submit(node, der) for node, der in submissions))

        return max(receipt.height for receipt in self._run(submit_all()))

    def change(self, node: SubmissionNode, digest: CertDigest, status: CertStatus, reason: str) -> Height:
        """Revoke, suspend or resume (VALID) a certificate; return the change's height. Raises SubmissionError."""

        async def change() -> Receipt:
            async with self._client(node.url) as client:
                return await again(partial(client.change_status, digest, status, reason, node.token), self._tell)

        return self._run(change()).height

    def wait_for(self, height: Height, urls: Mapping[str, str]) -> None:
        """Wait until the nodes at `urls`, by name, have reached `height`; raises LocalError or InquiryError."""

        async def reach(name: str, url: str) -> None:
            at, since_s = -1, time.monotonic()
            async with self._client(url) as client:
                while (now_at := (await again(client.node_info, self._tell)).height) < height:
                    if now_at > at:
                        at, since_s = now_at, time.monotonic()
                    elif time.monotonic() - since_s > STALLED_S:
                        raise LocalError(f"{name} stands at height {at}, and has not reached height {height}")
                    await asyncio.sleep(_POLL_S)

        async def reach_all() -> None:
            await asyncio.gather(*(reach(name, url) for name, url in urls.items()))

        self._run(reach_all())

    def _run(self, work: Coroutine[object, object, T]) -> T:
        """Run `work`, and cancel it if the check raises."""

        async def watched() -> T:
            working = asyncio.ensure_future(work)
            try:
                while not (await asyncio.wait({working}, timeout=_LOOK_S))[0]:
                    self._check()
                if working.exception() is not None:
                    self._check()  # a node's end explains more than its failure to answer
                return working.result()
            finally:
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)

        return asyncio.run(watched())

    def _client(self, url: str) -> LedgerClient:
        return LedgerAccess(url, self._genesis).client(SystemClock())
