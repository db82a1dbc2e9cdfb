"""The configuration of a new node on CometBFT, and the file of nodes that it admits."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ledger_node.abci.cometbft import P2P_PORT, RPC_PORT
from ledger_node.make.initialise import FIRST_PORT
from voice_dpki.shell.config import Listen

STATE_HELP: Final = "where the node will keep its data (default: beside its configuration)"

ADMITTED = """\
# Nodes that may connect, besides the configured peers: ID@ADDRESS or ID@NETWORK/BITS, one a line.
"""


def node_sections(
    name: str,
    host: str,
    peers: Sequence[str],
    validator_key: str | None,
    node_key: str,
    state_sync: dict[str, object] | None = None,
    *,
    state: Path | None = None,
) -> dict[str, dict[str, object]]:
    """Return the configuration's sections. CometBFT's RPC has no access control: only this machine reaches it.

    `state` is the folder of the node's data; without one, they are beside the configuration.
    """

    def place(what: str) -> str:
        return str(state.absolute() / what) if state else f"{what}-{name}"

    loopback = Listen(host=host, port=0).is_loopback
    cometbft: dict[str, object] = {
        "home": place("cometbft"),
        "admitted": "admitted",
        "validator_key": validator_key,
        "node_key": node_key,
        "peers": list(peers),
        "rpc": {"host": host if loopback else Listen(port=0).host, "port": RPC_PORT},
        "p2p": {"host": host, "port": P2P_PORT},
        "state_sync": state_sync,
    }
    return {
        "node": {"name": name, "data_dir": place("data"), "genesis": "genesis.json"},
        "listen": {"host": host, "port": FIRST_PORT},
        "cometbft": cometbft,
    }
