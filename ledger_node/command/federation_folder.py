"""The folder of a federation on one machine: what every operator would have on its own machine.

These are keys, the common genesis, and the configuration of one `ledger-node` with its own loopback address.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ledger_node.abci.cometbft import P2P_PORT, RPC_PORT, node_id, node_key
from ledger_node.command import config as configuration
from ledger_node.make.initialise import FIRST_PORT, initialise
from ledger_node.make.node_file import ADMITTED
from voice_dpki.effects import SystemClock
from voice_dpki.errors import LocalError
from voice_dpki.shell.config import Listen, read_secret, resolve
from voice_dpki.shell.files import write_file
from voice_dpki.shell.output import new_folder

CHAIN_ID = "voice-dpki-federation"
MAX_OPERATORS = 26
NETWORK = "127.0.1"
"""The first three numbers of the nodes' loopback addresses; the last is the operator's number, from 1."""

ADMITTED_FILE = "admitted"
"""In the federation's folder: the file of further nodes that may connect, shared by all operators' nodes."""

DELAY_S = 5
"""How long before a voted change of members takes effect here; a demonstration cannot wait the default day."""

_NUMBERS = (("493023125000", 1000), ("442079460000", 1000), ("33199000000", 10000))
"""Ranges of the first operators, which regulators reserve for fiction; the others get North American ranges."""


@dataclass(frozen=True, slots=True)
class OperatorNode:
    """One operator's node: its configuration, and what its clients need to reach it."""

    config: Path
    organization: str
    url: str
    token: str

    @property
    def name(self) -> str:
        """Name of the node and of its files."""
        return self.config.stem

    @property
    def home(self) -> Path:
        """The folder of its CometBFT."""
        return _home(self.config)

    @property
    def log(self) -> Path:
        """Where its process writes its log."""
        return self.config.with_suffix(".log")


def provision(folder: Path, operators: int, network: str = NETWORK) -> list[OperatorNode]:
    """Make a federation in `folder`, which must be new or empty, and return its nodes.

    Raises LocalError for a number of operators outside 1 to MAX_OPERATORS, or where files cannot be made.
    """
    if not 1 <= operators <= MAX_OPERATORS:
        raise LocalError(f"a federation on one machine has 1 to {MAX_OPERATORS} operators")
    with new_folder(folder):
        _provision(folder, operators, network)
    return nodes_in(folder)


def _provision(folder: Path, operators: int, network: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as wanted:
        wanted.write(_members(operators))
        wanted.flush()
        engine, *configs = initialise(Path(wanted.name), folder, SystemClock())
    engine.unlink()
    addresses = {config: f"{network}.{number}" for number, config in enumerate(configs, 1)}
    ids = {config: node_id(node_key(_home(config))) for config in configs}
    for config in configs:
        peers = [f"{ids[peer]}@{addresses[peer]}:{P2P_PORT}" for peer in configs if peer != config]
        write_file(config, _configuration(config.stem, addresses[config], peers).encode("utf-8"))
    write_file(folder / ADMITTED_FILE, ADMITTED.encode("utf-8"))


def nodes_in(folder: Path) -> list[OperatorNode]:
    """Return the nodes of the federation in `folder`, none if there is none; raises LocalError if it is damaged."""
    return [_node(config) for config in sorted(folder.glob("operator-*.toml"))]


def _members(operators: int) -> str:
    parameters = f'chain_id = "{CHAIN_ID}"\n\n[parameters]\ndelay_s = {DELAY_S}\n'
    return parameters + "".join(_member(number) for number in range(operators))


def _member(number: int) -> str:
    letter = chr(ord("a") + number)
    start, count = _NUMBERS[number] if number < len(_NUMBERS) else (f"1{200 + number}5550100", 100)
    return f"""
[[members]]
organization = "Operator {letter.upper()}"
kind = "operator"
domains = ["{letter}.example"]
ranges = [{{ start = "{start}", count = {count} }}]
validators = 1
"""


def _configuration(name: str, host: str, peers: Sequence[str]) -> str:
    """Return a node's configuration as TOML.

    An address outside loopback is set insecure, because its network exists for the test only. On loopback all nodes
    connect from one address, so duplicates are allowed: acceptable in a demonstration only.
    """
    loopback = Listen(host=host, port=0).is_loopback
    insecure, open_rpc = ("", "") if loopback else ("insecure = true\n", ", insecure = true")
    listed = "".join(f'  "{peer}",\n' for peer in peers)
    return f"""\
[node]
name = "{name}"
data_dir = "data-{name}"
genesis = "genesis.json"

[listen]
host = "{host}"
port = {FIRST_PORT}
{insecure}
[cometbft]
home = "cometbft-{name}"
rpc = {{ host = "{host}", port = {RPC_PORT}{open_rpc} }}
p2p = {{ host = "{host}", port = {P2P_PORT} }}
admitted = "{ADMITTED_FILE}"
allow_duplicate_ip = {str(loopback).lower()}
validator_key = "keys/validator-{name}-1.pem"
peers = [
{listed}]

[submission]
organization = "Operator {name[-1].upper()}"
endorsing_key = "keys/endorsing-{name}.pem"
tokens = "tokens-{name}"
"""


def _node(path: Path) -> OperatorNode:
    config = configuration.load(path)
    if config.submission is None:
        raise LocalError(f"{path}: a federation's node has the submission role")
    if config.cometbft is None:
        raise LocalError(f"{path.parent}: the making of this federation was broken off; remove the folder")
    token = read_secret(resolve(path, config.submission.tokens))
    return OperatorNode(path, config.submission.organization, _url(config.listen), token)


def _url(listen: Listen) -> str:
    return f"http://{listen.host}:{listen.port}"


def _home(config: Path) -> Path:
    return config.with_name(f"cometbft-{config.stem}")
