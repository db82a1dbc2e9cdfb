"""Four operators' validators as the tests of this folder use them: certificates, load, and what holds after it."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import msgspec
import pytest

from ledger_node.abci.cometbft import find
from ledger_node.command.federation import node_info
from ledger_node.command.federation_folder import OperatorNode
from voice_dpki.effects import SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.ledger.answer_forms import MAX_BATCH
from voice_dpki.ledger.answers import Resolution
from voice_dpki.ledger.genesis import Genesis
from voice_dpki.ledger.records import CertStatus
from voice_dpki.ledger.replica import SignedBlock
from voice_dpki.names import CertDigest
from voice_dpki.stage.patience import Patience, Watched, children
from voice_dpki.wire.ledger.client import LedgerClient
from voice_dpki.x509.keys import LocalSigner, generate_es256
from voice_dpki.x509.profile import build_certificate, digest_of

SENDERS = 3
"""Certificates on their way at the same time at each node, under load."""

DEADLINE_S = 60.0


def require_cometbft() -> None:
    """Skip where CometBFT is not installed; in CI, fail."""
    try:
        find()
    except LocalError as error:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(str(error))


def certificate(node: OperatorNode, name: str, key: LocalSigner | None = None) -> bytes:
    """Make a certificate of a node's operator, under a new key unless one is given."""
    now_s = int(time.time())
    return build_certificate(
        key or generate_es256(),
        organization=node.organization,
        common_name=name,
        not_before_s=now_s - 60,
        not_after_s=now_s + 86_400,
        random=SystemRandom(),
    )


async def submit(node: OperatorNode, der: bytes, timeout_s: float = 2 * DEADLINE_S) -> bool:
    """Submit a certificate; tell whether it was acknowledged."""
    async with httpx.AsyncClient(timeout=timeout_s, trust_env=False) as client:
        headers = {"Authorization": f"Bearer {node.token}"}
        try:
            answer = await client.post(f"{node.url}/ledger/v1/submissions", content=der, headers=headers)
        except httpx.HTTPError:
            return False
    assert answer.status_code in (200, 201, 503), answer.text
    return answer.is_success


async def status(node: OperatorNode, genesis: Genesis, digest: CertDigest) -> CertStatus:
    """Ask a node for a certificate's status, and verify the proof from the genesis."""
    async with LedgerClient.of_genesis(node.url, genesis, max_age_s=600, timeout_s=10) as client:
        return (await client.resolve(digest, with_certificate=False)).status


async def blocks(node: OperatorNode) -> list[SignedBlock]:
    """Fetch all blocks of a node."""
    found: list[SignedBlock] = []
    async with httpx.AsyncClient(base_url=node.url, trust_env=False) as client:
        while True:
            query = {"from": len(found) + 1, "count": 64}
            answer = await client.get("/ledger/v1/blocks", params=query)
            raws = msgspec.json.decode(answer.content, type=dict[str, list[msgspec.Raw]])["blocks"]
            if not raws:
                return found
            found += [SignedBlock.from_json(bytes(raw)) for raw in raws]


@contextlib.asynccontextmanager
async def load(nodes: list[OperatorNode]) -> AsyncIterator[list[CertDigest]]:
    """Submit certificates at all nodes until the context ends; the list grows with those acknowledged."""
    acknowledged: list[CertDigest] = []

    async def sender(node: OperatorNode) -> None:
        number = 0
        while True:
            der = certificate(node, f"load {number}")
            while not await submit(node, der):
                await asyncio.sleep(0.1)
            acknowledged.append(digest_of(der))
            number += 1

    tasks = [asyncio.create_task(sender(node)) for node in nodes for _ in range(SENDERS)]
    try:
        yield acknowledged
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results), results


async def reaches(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait until `condition()` holds, as long as the programs that this test has started get on."""
    patience = Patience([Watched(pid, ()) for pid in children(os.getpid())], DEADLINE_S)
    while not await condition():
        why = patience.exhausted()
        assert why is None, f"waited in vain until {what}: {why}"
        await asyncio.sleep(0.05)


async def lost(node: OperatorNode, genesis: Genesis, digests: list[CertDigest]) -> int:
    """Count the certificates that a node does not prove to be valid."""
    found: list[Resolution] = []
    async with LedgerClient.of_genesis(node.url, genesis, max_age_s=600, timeout_s=20) as client:
        for start in range(0, len(digests), MAX_BATCH):
            found += await client.resolve_all(digests[start : start + MAX_BATCH])
    return sum(resolution.status is not CertStatus.VALID for resolution in found)


def host(node: OperatorNode) -> str:
    return node.url.split("/")[2].partition(":")[0]


async def more(acknowledged: list[CertDigest], count: int) -> bool:
    return len(acknowledged) >= count


async def at(node: OperatorNode, height: int) -> bool:
    info = await node_info(node)
    return info is not None and info.height >= height


async def answers(node: OperatorNode) -> bool:
    return await node_info(node) is not None
