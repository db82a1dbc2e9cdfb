"""A federation goes over to this version, validator by validator, while certificates are recorded."""

import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from ledger_node.command.federation import agree, node_info
from ledger_node.command.federation_folder import OperatorNode, provision
from tests.present import present
from voice_dpki.ledger.genesis import load_genesis

from .operators import at, load, lost, more, reaches, require_cometbft
from .releases import Mixed, from_history

NETWORK = "127.0.8"
EARLIER = "9d92fb7"
"""The version that is upgraded from, a commit of this project."""

MEANWHILE = 15
"""Certificates that are recorded before, during and after each restart."""

pytestmark = [pytest.mark.timeout(180), pytest.mark.undescribed]


class Upgrade(Mixed):
    """Runs the code in the folder `earlier` until a node is upgraded."""

    def __init__(self, nodes: Sequence[OperatorNode], earlier: Path | None) -> None:
        super().__init__(nodes, dict.fromkeys((node.name for node in nodes), earlier))
        self._configurations = {node.name: node.config.read_text() for node in nodes}
        if earlier is not None:
            for node in nodes:
                node.config.write_text(_without_new_keys(self._configurations[node.name]))

    def upgrade(self, node: OperatorNode) -> None:
        """Start a stopped node in this version, with the keys that its operator adds to the configuration."""
        node.config.write_text(self._configurations[node.name])
        self.start_on(node, None)


NEW_KEYS = ("admitted", "allow_duplicate_ip")
"""Of the configuration: the earlier version does not know them and would not start."""


def _without_new_keys(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(NEW_KEYS))


@pytest.fixture
def earlier(tmp_path: Path) -> Path | None:
    """The earlier version's code from the repository's history; None where this copy has no such history."""
    return from_history(EARLIER, tmp_path / "earlier")


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
