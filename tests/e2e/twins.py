"""A node that runs with another one's validator key, which makes the validator sign twice."""

from dataclasses import replace

from ledger_node.abci.cometbft import node_id, node_key
from ledger_node.command.federation_folder import ADMITTED_FILE, OperatorNode

HOST = 9
"""Last number of the twin's loopback address."""


def make_twin(node: OperatorNode) -> OperatorNode:
    """Make a node with the validator key of `node`, which the others of its federation admit."""
    folder, (scheme, _, address) = node.config.parent, node.url.split("/")
    host = address.partition(":")[0]
    other = f"{host.rpartition('.')[0]}.{HOST}"
    text = node.config.read_text()
    for old, new in (
        (f'"{host}"', f'"{other}"'),
        (f'name = "{node.name}"', 'name = "twin"'),
        (f'"data-{node.name}"', '"data-twin"'),
        (f'"cometbft-{node.name}"', '"cometbft-twin"'),
    ):
        assert old in text
        text = text.replace(old, new)
    config, home = folder / "twin.toml", folder / "cometbft-twin"
    config.write_text(text)
    (home / "config").mkdir(parents=True)
    with (folder / ADMITTED_FILE).open("a") as admitted:
        admitted.write(f"{node_id(node_key(home))}@127.0.0.1\n")  # or the others would not listen to it
    return replace(node, config=config, url=f"{scheme}//{address.replace(host, other)}")
