"""Validators that are killed a hundred times under load, while all nodes remove old blocks: `make soak`."""

import os
import time
from pathlib import Path

import httpx
import pytest

from ledger_node.command.federation import Processes
from ledger_node.command.federation_folder import OperatorNode, provision
from voice_dpki.ledger.genesis import load_genesis

from .killing import kill_under_load
from .operators import require_cometbft

KILLS = int(os.environ.get("SOAK_KILLS", "100"))

KEPT = 100
"""Blocks that each node keeps: more than are made while a validator is down, and fewer than in the campaign."""


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_validators_killed_a_hundred_times_lose_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    require_cometbft()
    nodes = provision(tmp_path / "net", 4, "127.0.45")
    for node in nodes:
        text = node.config.read_text().replace("[cometbft]\n", "[cometbft]\nsnapshot_blocks = 20\n")
        node.config.write_text(f"{text}\n[keep]\ndays = 0\nblocks = {KEPT}\n")
    genesis = load_genesis((tmp_path / "net" / "genesis.json").read_bytes())
    began = time.monotonic()
    with Processes(nodes) as processes:
        await processes.ready()
        count = await kill_under_load(nodes, processes, genesis, KILLS)
        for node in nodes:
            assert await _has_removed_blocks(node), "retention was on"
    with capsys.disabled():
        print(
            f"\n{KILLS} kills in {time.monotonic() - began:.0f} s; {count} acknowledged, and proved by all four "
            f"nodes, which kept {KEPT} blocks"
        )


async def _has_removed_blocks(node: OperatorNode) -> bool:
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(f"{node.url}/ledger/v1/blocks/1")).status_code == 410
