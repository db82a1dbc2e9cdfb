"""The ledger, as its members' administrators use it: what they record or change, and when others know of it."""
# ruff: noqa: TID251 - this is a shell: it asks nodes, and waits

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from voice_dpki.effects import SystemClock
from voice_dpki.errors import LocalError
from voice_dpki.ledger.client import LedgerClient, Receipt
from voice_dpki.ledger.genesis import Genesis
from voice_dpki.ledger.records import CertStatus
from voice_dpki.names import CertDigest, Height
from voice_dpki.shell.ledger import LedgerAccess

HEIGHT_TIMEOUT_S = 10.0
"""For a node to reach a block that another one knows of."""

_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class SubmissionNode:
    """A node that endorses for its member, and the token by which it knows the administrator."""

    url: str
    token: str


class Administration:
    """Changes one ledger, and returns when that is done."""

    def __init__(self, genesis: Genesis) -> None:
        self._genesis = genesis

    def record(self, submissions: Iterable[tuple[SubmissionNode, bytes]]) -> Height:
        """Have certificates recorded, all at once; returns the height by which all are. Raises SubmissionError."""

        async def submit(node: SubmissionNode, der: bytes) -> Receipt:
            async with self._client(node.url) as client:
                return await client.submit(der, node.token)

        async def submit_all() -> list[Receipt]:
            return await asyncio.gather(*(submit(node, der) for node, der in submissions))

        return max(receipt.height for receipt in asyncio.run(submit_all()))

    def change(self, node: SubmissionNode, digest: CertDigest, status: CertStatus, reason: str) -> Height:
        """Have a certificate revoked, suspended or resumed (VALID); returns the height. Raises SubmissionError."""

        async def change() -> Receipt:
            async with self._client(node.url) as client:
                return await client.change_status(digest, status, reason, node.token)

        return asyncio.run(change()).height

    def wait_for(self, height: Height, urls: Mapping[str, str]) -> None:
        """Wait until the nodes at `urls`, by name, have reached `height`; raises LocalError or InquiryError."""

        async def reach(name: str, url: str) -> None:
            deadline = time.monotonic() + HEIGHT_TIMEOUT_S
            async with self._client(url) as client:
                while (await client.node_info()).height < height:
                    if time.monotonic() > deadline:
                        raise LocalError(f"{name} has not reached height {height}")
                    await asyncio.sleep(_POLL_S)

        async def reach_all() -> None:
            await asyncio.gather(*(reach(name, url) for name, url in urls.items()))

        asyncio.run(reach_all())

    def _client(self, url: str) -> LedgerClient:
        return LedgerAccess(url, self._genesis).client(SystemClock())
