"""Three operators, of whom one loses its disk: the ledger stands still, and goes on after the documented way."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ledger_node.abci.cometbft import node_id
from ledger_node.command.backups import _ask_votes
from ledger_node.command.config import load, read_validator_key
from ledger_node.command.federation import Processes, agree
from ledger_node.command.federation_folder import OperatorNode, provision
from ledger_node.command.main import main
from ledger_node.make.backup import SIGNED_FILE
from tests.guides import Reader, plain, steps_of
from tests.present import present
from voice_dpki.ledger.genesis import load_genesis
from voice_dpki.ledger.records import CertStatus
from voice_dpki.x509.profile import digest_of

from .operators import blocks, certificate, reaches, require_cometbft, status, submit
from .versions import all_at, height_of

NETWORK = "127.0.34"


@pytest.mark.timeout(600)
async def test_the_ledger_goes_on_after_the_documented_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    require_cometbft()
    nodes = provision(tmp_path / "net", 3, NETWORK)
    others, lost = nodes[:2], nodes[2]
    genesis = load_genesis((tmp_path / "net" / "genesis.json").read_bytes())
    peers = [word for node in others for word in ("--peer", node.url)]
    with Processes(nodes) as processes:
        await processes.ready()
        await all_at(nodes, 3)
        processes.kill(lost)
        shutil.rmtree(lost.home / "data")
        shutil.rmtree(lost.config.with_name(f"data-{lost.name}"))
        await reaches(lambda: _stand_still(others), "both wait for the block after the same one")
        last = await height_of(others[0])
        assert main(["restore", "--config", str(lost.config), *peers]) == 0
        assert "that block never comes: see --last-block" in capsys.readouterr().out
        too_low = ["restore", "--config", str(lost.config), *peers, "--last-block", str(last - 1)]
        assert main(too_low) == 2
        assert f"another node has block {last}" in capsys.readouterr().err
        voted = [await _vote_of(node, lost) for node in others]
        given = max((vote for vote in voted if vote), default=None)
        steps = [step for step in steps_of("backup.md") if re.search("votes|--last-block", step.command)]
        shown, restore = steps[
            :2
        ]  # what comes then is for nodes that cannot reach each other, and tested elsewhere
        reader = Reader(tmp_path, _words(others, lost, last))
        assert plain(reader.follow(shown, check=False)).startswith("Votes for block N, which has not come yet:\n")
        reader.follow(replace(restore, command=restore.command + (f" --voted {given}" if given else "")))
        processes.start(lost)
        assert await submit(others[0], der := certificate(others[0], "after the halt"))
        await agree(nodes)
        assert await status(lost, genesis, digest_of(der)) is CertStatus.VALID
        for node in nodes:
            assert not [block for block in await blocks(node) if block.evidence], "nobody signed twice"
        assert len(json.loads((lost.home / SIGNED_FILE).read_bytes())["signature"]) > 80, "it votes"


def _words(others: list[OperatorNode], lost: OperatorNode, last: int) -> dict[str, str]:
    """Return what these operators write for the words of the guide."""
    urls = {f"http://127.0.0.1:2668{at}": node.url for at, node in enumerate(others)}
    return {**urls, "--last-block 4": f"--last-block {last}"}


async def _stand_still(nodes: list[OperatorNode]) -> bool:
    """Tell whether nodes have each other's votes for the same block, and still not the block."""
    found = [await _ask_votes(present(load(node.config).cometbft).rpc) for node in nodes]
    own = [_address(node) for node in nodes]
    return len({height for height, _ in found}) == 1 and all(votes[each] for _, votes in found for each in own)


def _address(node: OperatorNode) -> str:
    """Return the address of a node's validator."""
    return node_id(read_validator_key(node.config.parent / "keys" / f"validator-{node.name}-1.pem")).upper()


async def _vote_of(node: OperatorNode, lost: OperatorNode) -> str | None:
    """Return the last vote of the lost validator that a node has."""
    _, votes = await _ask_votes(present(load(node.config).cometbft).rpc)
    given = votes[_address(lost)]
    return given[-1] if given else None
