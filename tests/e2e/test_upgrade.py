"""A federation goes over to this version, validator by validator, while certificates are recorded."""

import asyncio
import io
import signal
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ledger_node.command.federation import Processes, agree, node_info
from ledger_node.command.federation_folder import OperatorNode, provision
from tests.present import present
from voice_dpki.ledger.genesis import load_genesis
from voice_dpki.stage.processes import Program

from .operators import at, load, lost, more, reaches, require_cometbft

NETWORK = "127.0.8"
EARLIER = "9d92fb7"
"""The version that is upgraded from, a commit of this project."""

MEANWHILE = 15
"""Certificates that are recorded before, during and after each restart."""

STOP_TIMEOUT_S = 60.0

pytestmark = pytest.mark.timeout(180)


def within(earlier: Path) -> tuple[str, ...]:
    """Begin a command that shall find its code in a folder."""
    return ("env", f"--chdir={earlier}", f"PYTHONPATH={earlier}")


class Upgrade(Processes):
    """Runs the code in the folder `earlier` until a node is upgraded."""

    def __init__(self, nodes: Sequence[OperatorNode], earlier: Path | None) -> None:
        super().__init__(nodes)
        self._earlier = earlier
        self._upgraded: set[str] = set()
        self._configurations = {node.name: node.config.read_text() for node in nodes}
        if earlier is not None:
            for node in nodes:
                node.config.write_text(_without_new_keys(self._configurations[node.name]))

    def program(self, node: OperatorNode) -> Program:
        program = super().program(node)
        if self._earlier is None or node.name in self._upgraded:
            return program
        return replace(program, within=within(self._earlier), module="ledger_node.main")

    async def stop(self, node: OperatorNode) -> int:
        """End a node in order; returns its exit status."""
        running = self._running.pop(node.name)
        running.send(signal.SIGTERM)
        return await asyncio.to_thread(running.wait_end, STOP_TIMEOUT_S)

    def upgrade(self, node: OperatorNode) -> None:
        """Start a stopped node in this version, with the keys that its operator adds to the configuration."""
        node.config.write_text(self._configurations[node.name])
        self._upgraded.add(node.name)
        self.start(node)


NEW_KEYS = ("admitted", "allow_duplicate_ip")
"""Of the configuration: the earlier version does not know them and would not start."""


def _without_new_keys(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(NEW_KEYS))


@pytest.fixture
def earlier(tmp_path: Path) -> Path | None:
    """The earlier version's code from the repository's history; None where this copy has no such history."""
    command = ["git", "archive", EARLIER, "ledger_node", "voice_dpki"]
    try:
        found = subprocess.run(command, cwd=Path(__file__).parent.parents[1], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as archive:
        options: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(tmp_path / "earlier", **options)
    where = [*within(tmp_path / "earlier"), sys.executable, "-c", "import ledger_node; print(ledger_node.__file__)"]
    assert subprocess.check_output(where, text=True).startswith(str(tmp_path / "earlier")), "its code is what runs"
    return tmp_path / "earlier"


async def test_validators_are_upgraded_one_by_one_under_load(
    tmp_path_factory: pytest.TempPathFactory, earlier: Path | None
) -> None:
    """Without the repository's history it is a rolling restart in this version, and says so."""
    require_cometbft()
    folder = tmp_path_factory.mktemp("u") / "net"
    nodes = provision(folder, 4, NETWORK)
    genesis = load_genesis((folder / "genesis.json").read_bytes())
    with Upgrade(nodes, earlier) as processes:
        await processes.ready()
        async with load(nodes) as acknowledged:
            for number, node in enumerate(nodes):
                count = len(acknowledged)
                await reaches(partial(more, acknowledged, count + MEANWHILE), "all record certificates")
                assert await processes.stop(node) == 0
                count = len(acknowledged)
                await reaches(partial(more, acknowledged, count + MEANWHILE), "the others go on")
                processes.upgrade(node)
                height = present(await node_info(nodes[number - 1])).height
                await reaches(partial(at, node, height), "it has caught up")
            count = len(acknowledged)
            await reaches(lambda: more(acknowledged, count + MEANWHILE), "all record certificates in this version")
        await agree(nodes)
        assert [await lost(node, genesis, acknowledged) for node in nodes] == [0] * 4
        for node in nodes:
            assert "Traceback" not in node.log.read_text()
    for node in nodes:
        checked = subprocess.run(
            [sys.executable, "-m", "ledger_node", "check", "--config", node.config],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "looked at" in checked.stdout
    if earlier is None:
        pytest.skip(
            f"all restarted in this version and lost nothing, but there is no commit {EARLIER} to come from"
        )
