"""A network partition between four validators, each in a network namespace of its own: no fork, and it heals."""

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from ledger_node.abci.cometbft import find
from ledger_node.command.federation import Processes, agree, node_info
from ledger_node.command.federation_folder import OperatorNode, provision
from voice_dpki.effects import SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.ledger.genesis import load_genesis
from voice_dpki.ledger.records import CertStatus
from voice_dpki.stage.processes import Program
from voice_dpki.wire.ledger.client import LedgerClient
from voice_dpki.x509.keys import generate_es256
from voice_dpki.x509.profile import build_certificate, digest_of

from .operators import reaches

NETWORK = f"10.213.{os.getpid() % 250}"
"""Another one each time: what a killed run left behind must not take this run's packets."""

NAME = f"vd{os.getpid() % 10_000}"
"""Begins the names of interfaces (15 characters at most) and namespaces."""

PARTITION_S = 8.0

pytestmark = [pytest.mark.timeout(180), pytest.mark.netns]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Network:
    """A namespace for each node, all on one bridge; a second bridge takes those that are cut off."""

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes
        for bridge in ("a", "b"):
            ip("link", "add", f"{NAME}{bridge}", "type", "bridge")
            ip("link", "set", f"{NAME}{bridge}", "up")
        ip("address", "add", f"{NETWORK}.254/24", "dev", f"{NAME}a")
        for number in range(1, nodes + 1):
            space = f"{NAME}-{number}"
            ip("netns", "add", space)
            ip("link", "add", f"{NAME}o{number}", "type", "veth", "peer", "name", "eth0", "netns", space)
            ip("-n", space, "address", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
            ip("-n", space, "link", "set", "eth0", "up")
            ip("-n", space, "link", "set", "lo", "up")
            ip("link", "set", f"{NAME}o{number}", "up")
            self.attach(number, "a")

    def attach(self, number: int, bridge: str) -> None:
        """Put a node's cable into a bridge."""
        ip("link", "set", f"{NAME}o{number}", "master", f"{NAME}{bridge}")

    def remove(self) -> None:
        """Take it all down."""
        links = [f"{NAME}o{number}" for number in range(1, self.nodes + 1)] + [f"{NAME}a", f"{NAME}b"]
        spaces = [f"{NAME}-{number}" for number in range(1, self.nodes + 1)]
        for command in (*(["link", "del", link] for link in links), *(["netns", "del", space] for space in spaces)):
            subprocess.run(["ip", *command], check=False, capture_output=True)


class InNamespaces(Processes):
    """Starts each node in its namespace."""

    def program(self, node: OperatorNode) -> Program:
        number = ord(node.name[-1]) - ord("a") + 1
        return replace(super().program(node), within=("ip", "netns", "exec", f"{NAME}-{number}"))


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
