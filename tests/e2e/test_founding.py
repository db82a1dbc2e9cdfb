"""Three operators found a federation by the guides alone, and one loses its disk: three folders and namespaces."""

import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from ledger_node.command.config import load, read_genesis
from ledger_node.command.federation_folder import OperatorNode, nodes_in
from ledger_node.keep.store import Store
from tests.founders import Founders
from tests.guides import Reader, steps_of
from tests.present import present
from voice_dpki.shell.config import resolve

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
        asks = words[0] == "voice-dpki" or words[:2] == ["ledger-node", "votes"]
        return super().run(shlex.join([*within(self.number), *words]) if asks else command)

    @property
    def letter(self) -> str:
        return self.folder.name.upper()

    def votes(self) -> tuple[int, dict[str, str]]:
        """Return the block that the own node waits for, 0 if it does not tell, and each validator's last vote."""
        said = self.run(f"ledger-node votes --config operator-{self.folder.name}.toml")
        height = re.search(r"^Votes for block (\d+)", said)
        return int(height[1]) if height else 0, dict(re.findall(r"  ([0-9A-F]{40})  (\S+)", said))

    def records(self, name: str) -> None:
        """Make a signer and record its certificate."""
        self.run(f"ledger-node keys signer --member operator.toml --common-name {name} --out keys/{name}")
        named = f'--organization "Operator {self.letter}" --key keys/endorsing.pem'
        assert "1 recorded" in self.run(f"voice-dpki ledger submit {LEDGER} {named} keys/{name}.der")
        assert "valid" in self.run(f"voice-dpki ledger status {LEDGER} keys/{name}.der")

    async def is_level(self) -> bool:
        """Tell whether the own node proves what its operator recorded."""
        return "valid" in self.run(f"voice-dpki ledger status {LEDGER} keys/sti.der")

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
    with InNamespaces(nodes) as processes:
        for operator in operators:
            await reaches(operator.sees_all, "it runs")
            assert "Operator B" in operator.follow(members)
        for operator in operators:
            operator.records("sti")
        await loses_its_disk(processes, operators, nodes)
        for operator in operators:
            operator.records("later")
    assert [evidence_in(node) for node in nodes] == [0, 0, 0], "nobody signed twice"


async def loses_its_disk(
    processes: InNamespaces, operators: Sequence[Operator], nodes: Sequence[OperatorNode]
) -> None:
    """The last operator makes a backup, loses its disk, without which two of three stand still, and comes back."""
    *others, lost = operators
    steps = steps_of("backup.md")
    backup = next(step for step in steps if " backup " in step.command)
    votes = next(step for step in steps if " votes " in step.command)
    restore = next(step for step in steps if " --height " in step.command)
    lost.words |= {"net/follower.toml": "operator-c.toml"}
    lost.follow(backup)
    processes.kill(nodes[2])
    config = load(nodes[2].config)
    for data in (nodes[2].home / "data", resolve(nodes[2].config, config.node.data_dir)):
        data.rename(data.with_name(f"old-{data.name}"))
    await reaches(partial(stand_still, others), "both wait for the same block, and have each other's votes")
    for each in others:
        each.words |= {"net/operator-": "operator-"}
        assert "Votes for block" in each.follow(votes, check=False)
    last = others[0].votes()[0] - 1
    (own,) = {address for address, _ in others[0].votes()[1].items()} - {await own_of(each) for each in others}
    voted = max((vote for each in others if (vote := each.votes()[1][own]) != "none"), default="")
    lost.words |= {"--height 4": f"--height {last}", "--last-block 4": f"--last-block {last}"}
    lost.follow(replace(restore, command=restore.command + (f" --voted {voted}" if voted else "")))
    processes.start(nodes[2])
    for operator in operators:
        await reaches(operator.is_level, "the restored node is level again")


async def own_of(operator: Operator) -> str:
    """Return the address of an operator's validator, as it is shown."""
    said = operator.run("ledger-node keys show keys/validator.pub.pem")
    return present(re.search(r"validator address +([0-9A-F]{40})", said))[1]


async def stand_still(operators: Sequence[Operator]) -> bool:
    """Tell whether operators' nodes wait for the same block, each with the votes of all these operators."""
    found = [operator.votes() for operator in operators]
    own = [await own_of(operator) for operator in operators]
    same = len({height for height, _ in found}) == 1 and found[0][0] > 1
    return same and all(votes.get(address, "none") != "none" for _, votes in found for address in own)


def evidence_in(node: OperatorNode) -> int:
    """Count the pieces of evidence of misbehaviour in all blocks of a stopped node."""
    config = load(node.config)
    data_dir, genesis = resolve(node.config, config.node.data_dir), read_genesis(node.config, config)
    with closing(Store(data_dir, genesis, read_only=True)) as store:
        stored = [present(store.view.block(height)) for height in range(store.view.first, store.height + 1)]
    assert len(stored) > 5
    return sum(len(block.evidence) for block in stored)
