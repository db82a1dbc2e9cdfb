"""Strangers at the validators' P2P ports, in network namespaces.

They open 400 silent connections at each, from 1 or 40 addresses. Each time a validator is killed and comes back. It
must find its peers and follow, and blocks go on. Without what refuses strangers it does not, which shows that the
attack is one.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from ledger_node.command.federation import agree, node_info
from ledger_node.command.federation_folder import ADMITTED_FILE, OperatorNode, provision
from tests.interop.strongswan.world import inside
from voice_dpki.stage.processes import Program

from .namespaces import NAME, NETWORK, InNamespaces, Network, ip
from .operators import answers, at, certificate, reaches, require_cometbft, submit

STRANGERS = 5
"""Number of the strangers' namespace; the validators' are 1 to 4."""

CONNECTIONS = 400
WITHOUT_S = 15.0
"""How long a validator without protection is watched: ten times what it takes to find its peers in peace."""

OPEN = "filter_peers = false\nallow_duplicate_ip = true\n"
"""CometBFT's configuration as it was when this attack was found."""

pytestmark = [pytest.mark.timeout(300), pytest.mark.netns, pytest.mark.long]


@pytest.fixture
def network() -> Iterator[Network]:
    require_cometbft()
    network = Network(STRANGERS)
    yield network
    network.remove()


def configured(folder: Path, settings: str = "") -> list[OperatorNode]:
    """Provision four operators; `settings` take the place of what the demonstration has."""
    nodes = provision(folder, 4, NETWORK)
    for node in nodes:
        text = node.config.read_text().replace("allow_duplicate_ip = false\n", settings)
        node.config.write_text(text)
    return nodes


@contextmanager
def strangers(addresses: int) -> Iterator[Path]:
    """Attack all validators from so many addresses; yields the attacker's log."""
    sources = [f"{NETWORK}.{100 + number}" for number in range(addresses)]
    for source in sources:
        ip("-n", f"{NAME}-{STRANGERS}", "address", "replace", f"{source}/24", "dev", "eth0")
    command = [sys.executable, str(Path(__file__).with_name("strangers.py")), str(CONNECTIONS), ",".join(sources)]
    targets = ",".join(f"{NETWORK}.{number}" for number in range(1, 5))
    process = subprocess.Popen(
        ["ip", "netns", "exec", f"{NAME}-{STRANGERS}", *command, targets], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        process.stdout.readline()
        yield Path(f"/proc/{process.pid}")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def peers(number: int) -> int | None:
    """Count a node's peers, asked on its own machine; None while its CometBFT does not answer."""

    def ask() -> int | None:
        try:
            answer = httpx.get(f"http://{NETWORK}.{number}:26657/net_info", trust_env=False, timeout=5)
        except httpx.HTTPError:
            return None
        return int(answer.json()["result"]["n_peers"])

    return inside(f"{NAME}-{number}", ask)


async def has_peers(number: int, count: int) -> bool:
    return peers(number) == count


async def restarted_under_attack(processes: InNamespaces, nodes: Sequence[OperatorNode]) -> None:
    """Kill the last node and start it again; it finds its peers, follows, and blocks go on."""
    processes.kill(nodes[3])
    assert await submit(nodes[0], certificate(nodes[0], "while one is down"))
    info = await node_info(nodes[0])
    assert info is not None
    processes.start(nodes[3])
    await reaches(lambda: answers(nodes[3]), "the killed one answers")
    await reaches(lambda: at(nodes[3], info.height), "it has what it missed")
    assert await submit(nodes[3], certificate(nodes[3], "through the one that came back"))
    await agree(nodes)


@pytest.mark.parametrize("addresses", [1, 40])
async def test_strangers_take_no_places(network: Network, tmp_path: Path, addresses: int) -> None:
    nodes = configured(tmp_path / "net", "allow_duplicate_ip = false\n")
    with InNamespaces(nodes) as processes:
        await processes.ready()
        with strangers(addresses):
            await restarted_under_attack(processes, nodes)
            assert await refused(nodes[0]) > CONNECTIONS / 2


async def refused(node: OperatorNode) -> float:
    """Read the node's count of strangers."""
    async with httpx.AsyncClient(base_url=node.url, trust_env=False) as client:
        lines = (await client.get("/metrics")).text.splitlines()
    return sum(
        float(line.split()[1]) for line in lines if line.startswith('voice_dpki_peers_refused_total{by="addr"')
    )


@pytest.mark.parametrize("addresses", [1, 40])
async def test_without_a_filter_they_keep_a_validator_out(network: Network, tmp_path: Path, addresses: int) -> None:
    nodes = configured(tmp_path / "net", OPEN)
    with InNamespaces(nodes) as processes:
        await processes.ready()
        processes.kill(nodes[3])
        with strangers(addresses):
            began_s = time.monotonic()
            processes.start(nodes[3])
            await reaches(lambda: answers(nodes[3]), "it answers")
            counts: list[int | None] = []
            while time.monotonic() - began_s < WITHOUT_S:
                counts.append(peers(4))
                await asyncio.sleep(0.5)
    assert set(counts) - {None} == {0}, "it was up, and found nobody"


@pytest.mark.peer("nft")
async def test_the_firewall_does_not_answer_strangers_and_lets_members_through(
    network: Network, tmp_path: Path
) -> None:
    """With the rules alone: CometBFT itself is configured as it was when the attack was found."""
    nodes = configured(tmp_path / "net", OPEN)
    for number, node in enumerate(nodes, 1):
        command = [sys.executable, "-m", "ledger_node", "firewall", "--config", str(node.config)]
        rules = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        load_rules = ["ip", "netns", "exec", f"{NAME}-{number}", "nft", "-f", "-"]
        for _ in range(2):  # again, as after a change of peers
            subprocess.run(load_rules, input=rules, text=True, check=True)
    with InNamespaces(nodes) as processes:
        await processes.ready()
        with strangers(40):
            await restarted_under_attack(processes, nodes)
            await reaches(lambda: has_peers(4, 3), "it has found all its peers")


@pytest.mark.parametrize("allowed", [True, False])
async def test_of_two_validators_behind_one_address_only_one_is_connected_unless_that_is_allowed(
    network: Network, tmp_path: Path, allowed: bool
) -> None:
    """The fourth operator's node is on the third's machine, at other ports."""
    nodes = configured(tmp_path / "net", f"allow_duplicate_ip = {str(allowed).lower()}\n")
    nodes = move_to_third(nodes, tmp_path / "net" / ADMITTED_FILE)
    with OnThreeMachines(nodes) as processes:
        await processes.ready()
        if allowed:
            await reaches(lambda: has_peers(1, 3), "the first has found all three")
            return
        counts = []
        for _ in range(20):
            counts.append(peers(1))
            await asyncio.sleep(0.5)
        assert max(count for count in counts if count is not None) == 2, "the second, and one of the other two"


class OnThreeMachines(InNamespaces):
    """Starts the fourth node where the third is."""

    def program(self, node: OperatorNode) -> Program:
        program = super().program(node)
        return replace(
            program, within=tuple(f"{NAME}-3" if each == f"{NAME}-4" else each for each in program.within)
        )


def move_to_third(nodes: Sequence[OperatorNode], admitted: Path) -> list[OperatorNode]:
    """Give the fourth node the third's address and other ports; it dials the others, who have it in their list."""
    fourth = nodes[3]
    text = fourth.config.read_text().replace(f"{NETWORK}.4", f"{NETWORK}.3").replace("26680", "26690")
    own = text.partition("peers = [")
    ports = own[0].replace("26656", "26666").replace("26657", "26667")
    fourth.config.write_text(ports + own[1] + own[2])
    for node in nodes[:3]:
        lines = node.config.read_text().splitlines(keepends=True)
        (listed,) = [line for line in lines if f"@{NETWORK}.4:" in line]
        node.config.write_text("".join(line for line in lines if line != listed))
    admitted.write_text(f"{listed.strip().strip(',').strip(chr(34)).partition('@')[0]}@{NETWORK}.3\n")
    return [*nodes[:3], replace(fourth, url=f"http://{NETWORK}.3:26690")]
