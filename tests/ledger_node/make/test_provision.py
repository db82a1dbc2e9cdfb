"""The configurations of a federation on one machine."""

from pathlib import Path

import pytest

from ledger_node.command import config as configuration
from ledger_node.command.federation_folder import DELAY_S, nodes_in, provision
from voice_dpki.ledger.genesis import load_genesis
from voice_dpki.ledger.parameters import parameters_of


@pytest.mark.parametrize(("network", "insecure"), [("127.0.1", False), ("10.213.1", True)])
def test_a_demonstration_decides_in_seconds_and_takes_tokens_where_nobody_listens(
    tmp_path: Path, network: str, insecure: bool
) -> None:
    nodes = provision(tmp_path / "net", 3, network)
    assert nodes_in(tmp_path / "net") == nodes
    for node in nodes:
        listen = configuration.load(node.config).listen
        assert (listen.host.rpartition(".")[0], listen.insecure) == (network, insecure)
    genesis = load_genesis((tmp_path / "net" / "genesis.json").read_bytes())
    assert parameters_of(genesis.initial_state()).delay_s == DELAY_S
