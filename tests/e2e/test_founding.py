"""Three operators found a federation by the guide alone, in three folders and three network namespaces."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger_node.command.federation_folder import nodes_in
from tests.founders import Founders
from tests.guides import Reader

from .namespaces import NETWORK, InNamespaces, Network, within
from .operators import reaches, require_cometbft

pytestmark = [pytest.mark.timeout(300), pytest.mark.netns]

LEDGER = "--genesis genesis.json --url http://127.0.0.1:26680"


@pytest.fixture
def network() -> Iterator[Network]:
    require_cometbft()
    network = Network(3)
    yield network
    network.remove()


class Operator(Reader):
    """An operator whose programs all run in its own network namespace."""

    number = 0

    def run(self, command: str) -> str:
        """Run a command line; those of this process need no network."""
        words = shlex.split(command)
        return super().run(shlex.join([*within(self.number), *words]) if words[0] == "voice-dpki" else command)

    async def sees_all(self) -> bool:
        """Tell whether the own node proves all members; its first block has the time of the genesis."""
        said = self.run(f"voice-dpki ledger members {LEDGER}")
        return all(f"Operator {letter}" in said for letter in "ABC")


async def test_a_federation_founded_by_the_guide_records_certificates(network: Network, tmp_path: Path) -> None:
    founders = Founders(tmp_path, network=NETWORK)
    operators = [Operator(each.folder, each.words) for each in founders.readers]
    for number, operator in enumerate(operators, 1):
        operator.number = number
        operator.words.pop("http://127.0.0.1:26680")
    founders.readers = [*operators]
    start, members = founders.found()
    assert start.command == "ledger-node start --config operator-a.toml"
    nodes = [node for operator in operators for node in nodes_in(operator.folder)]
    assert {node.url for node in nodes} == {"http://127.0.0.1:26680"}, "HTTP is for each operator's own machine"
    with InNamespaces(nodes):
        for operator in operators:
            await reaches(operator.sees_all, "it runs")
            assert "Operator B" in operator.follow(members)
        for operator, letter in zip(operators, "ABC", strict=True):
            operator.run("ledger-node keys signer --member operator.toml --common-name sti --out keys/sti")
            named = f'--organization "Operator {letter}" --key keys/endorsing.pem'
            assert "1 recorded" in operator.run(f"voice-dpki ledger submit {LEDGER} {named} keys/sti.der")
            assert "valid" in operator.run(f"voice-dpki ledger status {LEDGER} keys/sti.der")
