"""Four validators on CometBFT: one loses its disk, all remove old blocks, and others can still join."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ledger_node.abci.cometbft import node_id, node_key
from ledger_node.command.federation import Processes, agree, node_info
from ledger_node.command.federation_folder import ADMITTED_FILE, OperatorNode, provision
from ledger_node.make.join import join
from tests.present import present
from voice_dpki.ledger.genesis import Genesis, load_genesis
from voice_dpki.ledger.records import CertStatus
from voice_dpki.ledger.replica import SignedBlock
from voice_dpki.x509.profile import digest_of

from .operators import answers, blocks, certificate, host, reaches, require_cometbft, status, submit

NETWORK = "127.0.7"
WINDOW = 100
WINDOWS = 4
SNAPSHOT_BLOCKS = 20
KEEP = f"\n[keep]\ndays = 0\nblocks = {WINDOW}\n"

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_cometbft()
    return tmp_path_factory.mktemp("y") / "net"


@pytest.fixture(scope="module")
def nodes(folder: Path) -> list[OperatorNode]:
    nodes = provision(folder, 4, NETWORK)
    for node in nodes:
        text = node.config.read_text()
        small = text.replace("[cometbft]\n", f"[cometbft]\nsnapshot_blocks = {SNAPSHOT_BLOCKS}\n")
        node.config.write_text(small + KEEP)
    return nodes


@pytest.fixture(scope="module")
def genesis(folder: Path, nodes: list[OperatorNode]) -> Genesis:
    return load_genesis((folder / "genesis.json").read_bytes())


@pytest.fixture(scope="module")
def processes(nodes: list[OperatorNode]) -> Iterator[Processes]:
    with Processes(nodes) as processes:
        asyncio.run(processes.ready())
        yield processes


async def earliest(node: OperatorNode) -> int:
    """Ask a node's CometBFT for the lowest block that it has."""
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"http://{host(node)}:26657/status")
    return int(answer.json()["result"]["sync_info"]["earliest_block_height"])


async def height(node: OperatorNode) -> int:
    return present(await node_info(node)).height


def address_of(folder: Path, node: OperatorNode) -> bytes:
    """Return the address of a node's validator."""
    home = folder / f"cometbft-{node.name}" / "config" / "priv_validator_key.json"
    return bytes.fromhex(json.loads(home.read_bytes())["address"])


def signers(block: SignedBlock) -> set[bytes]:
    """Return the addresses of those that signed a block."""
    return {vote.validator_address for vote in block.signed_header.commit.signatures}


async def code(node: OperatorNode, path: str) -> int:
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(f"{node.url}/ledger/v1/{path}")).status_code


def damaged(data: Path, node: OperatorNode) -> None:
    """Damage a node's store, and see that the node does not start and what it advises."""
    file = data / "ledger.mdb"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    command = [str(Path(sys.executable).with_name("ledger-node")), "start", "--config", str(node.config)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    advice = "with [cometbft] move the `data` in its `home` away as well, and run `ledger-node restore --peer URL`"
    assert advice in done.stderr, done.stderr


async def test_a_validator_that_lost_its_disk_comes_back_and_signs_nothing_twice(
    nodes: list[OperatorNode], processes: Processes, genesis: Genesis, folder: Path
) -> None:
    lost, others = nodes[3], nodes[:3]
    address = address_of(folder, lost)
    assert await submit(lost, certificate(lost, "before"))
    processes.kill(lost)
    last = await height(others[0])
    damaged(folder / f"data-{lost.name}", lost)
    for own in (folder / f"data-{lost.name}", folder / f"cometbft-{lost.name}" / "data"):
        own.rename(own.with_name(f"{own.name}-damaged"))  # as the node advises
    peers = [word for node in others for word in ("--peer", node.url)]
    program = str(Path(sys.executable).with_name("ledger-node"))
    command = [program, "restore", "--config", str(lost.config), *peers]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    begins = int(said.split("before block ")[1].split(";")[0])
    processes.start(lost)
    await reaches(lambda: answers(lost), "it is back")
    await agree(nodes)
    assert await height(others[0]) < begins
    while await height(others[0]) < begins + 15:
        assert await submit(others[0], certificate(others[0], "meanwhile"))
    await agree(nodes)
    signed = {block.height for block in await blocks(others[0]) if address in signers(block)}
    assert not {number for number in signed if last + 1 < number < begins}
    assert max(signed) >= begins
    assert not [block.height for block in await blocks(others[0]) if block.evidence]


async def test_old_blocks_go_at_all_and_certificates_stay(
    nodes: list[OperatorNode], processes: Processes, genesis: Genesis
) -> None:
    ders = [certificate(nodes[0], "at the beginning")]
    assert await submit(nodes[0], ders[0])
    while await height(nodes[0]) < WINDOWS * WINDOW:
        ders.append(certificate(nodes[0], "later"))
        assert await submit(nodes[0], ders[-1])
    await agree(nodes)
    for node in nodes:
        lowest = await earliest(node)
        assert await height(node) - WINDOW - 20 <= lowest <= await height(node) - WINDOW + 1
        assert [await code(node, f"blocks/{number}") for number in (1, lowest + 20)] == [410, 200]
        for der in (ders[0], ders[-1]):
            assert await status(node, genesis, digest_of(der)) is CertStatus.VALID


async def test_a_node_that_restarts_goes_on(nodes: list[OperatorNode], processes: Processes) -> None:
    processes.kill(nodes[1])
    processes.start(nodes[1])
    await reaches(lambda: answers(nodes[1]), "it is back")
    assert await submit(nodes[1], certificate(nodes[1], "after the restart"))
    await agree(nodes)


async def test_a_node_joins_although_the_beginning_is_gone(
    nodes: list[OperatorNode], processes: Processes, genesis: Genesis, folder: Path
) -> None:
    der = certificate(nodes[0], "before it joins")
    assert await submit(nodes[0], der)
    made = join(
        folder / "genesis.json",
        folder / "joiner",
        name="joiner",
        host=f"{NETWORK}.21",
        peers=[f"{node_id(node_key(folder / f'cometbft-{node.name}'))}@{host(node)}:26656" for node in nodes],
        rpc_servers=[f"http://{host(node)}:26657" for node in nodes[:2]],
    )
    with (folder / ADMITTED_FILE).open("a") as admitted:
        admitted.write(f"{made.peer.partition('@')[0]}@127.0.0.1\n")
    joiner = OperatorNode(made.config, "nobody", f"http://{NETWORK}.21:26680", "")
    with Processes([joiner]) as joining:
        await joining.ready()
        await agree([*nodes, joiner])
        assert await status(joiner, genesis, digest_of(der)) is CertStatus.VALID
