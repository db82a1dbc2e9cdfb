"""Four operators replace keys of each kind, meet a stolen one and part with one of them, by docs/keys.md alone."""

import re
import shutil
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from ledger_node.command.federation import Processes, agree
from ledger_node.command.federation_folder import OperatorNode, nodes_in
from ledger_node.make.keys import read_ed25519_public
from tests.founders import Founders
from tests.guides import Reader, Step, steps_of
from tests.present import present
from voice_dpki.ledger.genesis import Genesis, load_genesis
from voice_dpki.ledger.members import MEMBER_LEAF, Member, member_key
from voice_dpki.wire.ledger.client import LedgerClient

from .operators import answers, certificate, reaches, require_cometbft, submit
from .versions import all_at

NETWORK = "127.0.32"
SAMPLE_PROPOSAL = "4356f2551a5a"
SAMPLE_ID = "a4fa6c5e530329fe700160d5624deb987d39ef96"


class Operators:
    """The operators, who do what each step says, and the ledger as their nodes prove it."""

    def __init__(self, founders: Founders, processes: Processes, nodes: list[OperatorNode]) -> None:
        self.processes = processes
        self.nodes = nodes
        self.readers = {
            letter: Reader(founder.folder, {"http://127.0.0.1:26680": url})
            for letter, founder, url in zip("ABCD", founders.readers, founders.urls, strict=True)
        }
        self.genesis: Genesis = load_genesis((founders.readers[0].folder / "genesis.json").read_bytes())
        self.proposal = self.node_id = ""
        self.revision = 0

    async def member(self, letter: str) -> Member | None:
        """Return a member as the node of Operator B proves it."""
        async with LedgerClient.of_genesis(self.nodes[1].url, self.genesis, max_age_s=600, timeout_s=10) as client:
            (found,) = await client.read(MEMBER_LEAF, [member_key(f"Operator {letter}")])
        return found

    async def do(self, step: Step) -> None:
        """Do one step: wait for what its note says, and run it for each operator that the note names."""
        if step.note == "in effect" and step.begins:
            await self.takes_effect()
        if step.command.startswith("ledger-node start"):
            self.restart()
            await reaches(partial(answers, self.nodes[0]), "it is back")
            return
        for reader in self._who(step.note):
            self._run(reader, step)

    def _run(self, reader: Reader, step: Step) -> None:
        letter = reader.folder.name.upper()
        command = step.command.replace('"Operator B"', f'"Operator {letter}"')
        command = command.replace(SAMPLE_PROPOSAL, self.proposal).replace(SAMPLE_ID, self.node_id)
        command = command.replace("@192.0.2.1", "@127.0.0.1")  # from where nodes on one machine connect
        said = reader.follow(Step(command, step.shown, step.note))
        while "nothing was sent" in said:  # the node that has just been restarted signs no blocks yet
            time.sleep(1)
            said = reader.follow(Step(command, step.shown, step.note))
        if proposed := re.search(r"with your approval: ([0-9a-f]{64})", said):
            self.proposal = proposed[1]
        if shown := re.search(r"node id +([0-9a-f]{40})", said):
            self.node_id = shown[1]
        assert " vote " not in command or "Voted in block" in said, said
        assert " propose " not in command or proposed, said

    def _who(self, note: str) -> Sequence[Reader]:
        named = re.findall(r"\b([A-D])\b", note) if note.startswith("Operator") else "A"
        return [self.readers[letter] for letter in named]

    async def takes_effect(self) -> None:
        """Wait until the change of Operator A is in effect."""

        async def done() -> bool:
            member = await self.member("A")
            return member is not None and member.revision > self.revision and not member.suspended

        await reaches(done, "the change has taken effect")
        self.revision = present(await self.member("A")).revision

    def hand_over(self) -> None:
        """Give the member's file of Operator A, with its public keys, to Operator B."""
        own, other = self.readers["A"].folder, self.readers["B"].folder / "from-a"
        (other / "keys").mkdir(parents=True, exist_ok=True)
        shutil.copy(own / "operator.toml", other)
        for public in (own / "keys").glob("*.pub.pem"):
            shutil.copy(public, other / "keys")

    def restart(self) -> None:
        """Start the node of Operator A anew."""
        self.processes.kill(self.nodes[0])
        self.processes.start(self.nodes[0])


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_keys_are_replaced_by_the_guide(tmp_path: Path) -> None:
    require_cometbft()
    founders = Founders(tmp_path, 4, NETWORK, delay_s=2)
    founders.found(check=False)
    nodes = [node for reader in founders.readers for node in nodes_in(reader.folder)]
    with Processes(nodes) as processes:
        await processes.ready()
        await all_at(nodes, 2)
        operators = Operators(founders, processes, nodes)
        first, *steps = steps_of("keys.md")
        for reader in operators.readers.values():
            reader.follow(first)
        for step in steps:
            if "from-a/" in step.command:
                operators.hand_over()
            await operators.do(step)
        await reaches(lambda: _gone(operators), "Operator D has left")
        member = await operators.member("A")
        assert member is not None
        keys = operators.readers["A"].folder / "keys"
        assert member.validators == (read_ed25519_public(keys / "validator-3.pub.pem").public_bytes_raw(),)
        assert len(member.endorsing_keys) == 1
        await agree(nodes[:3])
        assert await submit(nodes[0], certificate(nodes[0], "under the newest key"))


async def _gone(operators: Operators) -> bool:
    return await operators.member("D") is None
