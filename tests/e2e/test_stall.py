"""Four validators, of which two stop: the others tell how long no block has come, and whose votes are missing."""

from pathlib import Path

import httpx

from ledger_node.command.federation import Processes
from ledger_node.command.federation_folder import OperatorNode, provision

from .operators import reaches, require_cometbft
from .versions import all_at


async def test_the_others_name_those_who_do_not_vote(tmp_path: Path) -> None:
    require_cometbft()
    nodes = provision(tmp_path / "net", 4, "127.0.38")
    here, lost = nodes[0], nodes[2:]
    with Processes(nodes) as processes:
        await processes.ready()
        await all_at(nodes, 3)
        assert await _said(here) == ""
        for node in lost:
            processes.kill(node)
        await reaches(lambda: _says(here, "2 of 4 validators"), "the stall is told")
        said = await _said(here)
        assert said.startswith("no block for ")
        assert [node.organization in said for node in nodes] == [False, False, True, True], said
        async with httpx.AsyncClient(trust_env=False) as client:
            metrics = (await client.get(f"{here.url}/metrics")).text
        (line,) = [line for line in metrics.splitlines() if line.startswith("voice_dpki_ledger_stalled_seconds ")]
        assert float(line.split()[1]) >= 30
        for node in lost:
            processes.start(node)
        await reaches(lambda: _says(here, ""), "blocks come again")


async def _says(node: OperatorNode, what: str) -> bool:
    said = await _said(node)
    return what in said if what else not said


async def _said(node: OperatorNode) -> str:
    """Return what a node's health says of blocks that do not come."""
    async with httpx.AsyncClient(trust_env=False) as client:
        notes = (await client.get(f"{node.url}/healthz")).json().get("notes", [])
    return next((note for note in notes if note.startswith("no block")), "")
