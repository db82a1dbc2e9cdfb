"""A node that joins before there is a snapshot: it says so, tries again, and begins once there is one."""

from functools import partial
from pathlib import Path

import pytest

from ledger_node.abci.cometbft import node_id, node_key
from ledger_node.command.federation import Processes, agree
from ledger_node.command.federation_folder import ADMITTED_FILE, OperatorNode, provision
from ledger_node.make.join import join

from .operators import answers, host, load, reaches, require_cometbft
from .versions import all_at, health

NETWORK = "127.0.33"


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_snapshots_are_tried_again_until_there_is_one(tmp_path: Path) -> None:
    require_cometbft()
    folder = tmp_path / "net"
    nodes = provision(folder, 4, NETWORK)
    for node in nodes:
        node.config.write_text(node.config.read_text().replace("[cometbft]\n", "[cometbft]\nsnapshot_blocks = 0\n"))
    with Processes(nodes) as processes:
        await processes.ready()
        await all_at(nodes, 3)
        made = join(
            folder / "genesis.json",
            folder / "joiner",
            name="joiner",
            host=f"{NETWORK}.21",
            peers=[f"{node_id(node_key(node.home))}@{host(node)}:26656" for node in nodes],
            rpc_servers=[f"http://{host(node)}:26657" for node in nodes[:2]],
        )
        joiner = OperatorNode(made.config, "nobody", f"http://{NETWORK}.21:26680", "")
        with Processes([joiner]) as joining:
            await reaches(
                lambda: _logged(joiner, "none of the 4 configured peers lets this node connect"), "said so"
            )
            with (folder / ADMITTED_FILE).open("a") as admitted:
                admitted.write(f"{made.peer.partition('@')[0]}@127.0.0.1\n")
            await reaches(lambda: _logged(joiner, "begins with a snapshot, and got none so far"), "said so")
            assert "no block yet" in str(await health(joiner))
            await reaches(lambda: _logged(joiner, "snapshots are tried again"), "it tries again")
            for node in nodes:
                processes.kill(node)
                text = node.config.read_text().replace("snapshot_blocks = 0", "snapshot_blocks = 5")
                node.config.write_text(text)
                processes.start(node)
                await reaches(partial(answers, node), "it is back")
            async with load(nodes[1:2]):
                await joining.ready()
                await agree([*nodes, joiner])
            assert "no block yet" not in str(await health(joiner))


async def _logged(node: OperatorNode, text: str) -> bool:
    return node.log.exists() and text in node.log.read_text()
