"""Three operators found a federation by the guide's commands alone, each with its own keys in its own folder."""

from pathlib import Path

from ledger_node.command.federation import Processes
from ledger_node.command.federation_folder import nodes_in
from tests.founders import Founders
from voice_dpki.ledger.genesis import load_genesis
from voice_dpki.ledger.records import CertStatus
from voice_dpki.x509.profile import digest_of

from .operators import certificate, require_cometbft, status, submit
from .versions import all_at


async def test_a_federation_founded_by_the_guide_records_certificates(tmp_path: Path) -> None:
    require_cometbft()
    founders = Founders(tmp_path, network="127.0.31")
    start, members = founders.found()
    assert start.command == "ledger-node start --config operator-a.toml"
    nodes = [node for reader in founders.readers for node in nodes_in(reader.folder)]
    with Processes(nodes) as processes:
        await processes.ready()
        await all_at(nodes, 2)  # the first block has the time of the genesis
        for reader, node in zip(founders.readers, nodes, strict=True):
            said = reader.follow(members)
            assert all(f"Operator {letter}" in said for letter in "ABC"), said
            assert await submit(node, der := certificate(node, "device"))
            genesis = load_genesis((reader.folder / "genesis.json").read_bytes())
            assert await status(nodes[0], genesis, digest_of(der)) is CertStatus.VALID
