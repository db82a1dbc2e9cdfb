"""A network partition between four validators, each in a network namespace of its own: no fork, and it heals."""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ledger_node.abci.cometbft import find
from ledger_node.command.federation import agree, node_info
from ledger_node.command.federation_folder import OperatorNode, provision
from voice_dpki.effects import SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.ledger.genesis import load_genesis
from voice_dpki.ledger.records import CertStatus
from voice_dpki.wire.ledger.client import LedgerClient
from voice_dpki.x509.keys import generate_es256
from voice_dpki.x509.profile import build_certificate, digest_of

from .namespaces import NETWORK, InNamespaces, Network
from .operators import reaches

PARTITION_S = 8.0

pytestmark = [pytest.mark.timeout(180), pytest.mark.netns]


@pytest.fixture
def network() -> Iterator[Network]:
    try:
        find()
    except LocalError as error:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(str(error))
    network = Network(4)
    yield network
    network.remove()


async def submit(node: OperatorNode, der: bytes, timeout_s: float) -> bool:
    async with httpx.AsyncClient(timeout=timeout_s, trust_env=False) as client:
        headers = {"Authorization": f"Bearer {node.token}"}
        try:
            return (await client.post(f"{node.url}/ledger/v1/submissions", content=der, headers=headers)).is_success
        except httpx.HTTPError:
            return False


async def test_a_partition_stops_writes_and_heals_without_a_fork(network: Network, tmp_path: Path) -> None:
    nodes = provision(tmp_path / "net", 4, NETWORK)
    genesis = load_genesis((tmp_path / "net" / "genesis.json").read_bytes())
    now_s = int(time.time())
    der = build_certificate(
        generate_es256(),
        organization=nodes[0].organization,
        common_name="during the partition",
        not_before_s=now_s - 60,
        not_after_s=now_s + 86_400,
        random=SystemRandom(),
    )
    with InNamespaces(nodes) as processes:
        await processes.ready()
        for number in (3, 4):
            network.attach(number, "b")
        began = time.monotonic()
        assert not await submit(nodes[0], der, PARTITION_S - 1)
        assert await node_info(nodes[1]) is not None, "inquiry goes on"
        await asyncio.sleep(max(0.0, began + PARTITION_S - time.monotonic()))
        for number in (3, 4):
            network.attach(number, "a")
        await reaches(lambda: submit(nodes[0], der, 2), "the certificate is recorded once the network is whole")
        await agree(nodes)
        for node in nodes:
            async with LedgerClient.of_genesis(node.url, genesis, timeout_s=10) as client:
                found = await client.resolve(digest_of(der), with_certificate=False)
            assert found.status is CertStatus.VALID, "one header chain, proved from the genesis at every node"
