"""Of four operators one is lost for good: the others go on, and vote it out.

It is admitted again while its node does not run: the three go on, and it counts once it has signed.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from ledger_node.command.federation import Processes, agree
from ledger_node.command.federation_folder import OperatorNode
from tests.present import present
from voice_dpki.ledger.activation import notice
from voice_dpki.ledger.genesis import Genesis
from voice_dpki.ledger.members import MEMBER_LEAF, member_key
from voice_dpki.ledger.probation import FULL_POWER
from voice_dpki.ledger.proposals import RemoveMember, SetMember
from voice_dpki.wire.ledger.client import LedgerClient

from .operators import blocks, certificate, reaches, require_cometbft, submit
from .versions import Federation, all_at, begun, height_of

FIRST = 3
"""The first block of version 4, of which the genesis gives notice."""


async def powers_at(node: OperatorNode, genesis: Genesis) -> list[int]:
    """Return the power of each validator of a node's last block, as a light client proves it from the genesis."""
    async with LedgerClient.of_genesis(node.url, genesis, max_age_s=600, timeout_s=10) as client:
        await client.read(MEMBER_LEAF, [member_key("Operator A")])
        block = await client.light_block(await height_of(node))
    return [validator.power for validator in block.validators.validators]


async def has_powers(node: OperatorNode, genesis: Genesis, *powers: int) -> bool:
    return await powers_at(node, genesis) == [*powers]


@pytest.mark.timeout(300)
async def test_a_validator_that_does_not_run_stops_nobody(tmp_path: Path) -> None:
    require_cometbft()
    federation = Federation(tmp_path / "net", "127.0.44", notice(4, FIRST))
    genesis, (*three, fourth) = federation.genesis, federation.nodes
    here, follower = three[0], federation.follower("follower", 10)
    member = present(genesis.member("Operator D"))
    with Processes(three) as processes:
        await processes.ready()
        await begun(here, 4)
        assert await submit(here, certificate(here, "while the fourth is lost"))
        await federation.decide(RemoveMember("Operator D"))
        await reaches(partial(has_powers, here, genesis, *[FULL_POWER] * 3), "three validators are left")
        await federation.decide(SetMember(replace(member, revision=0), None))
        await reaches(partial(has_powers, here, genesis, *[FULL_POWER] * 3, 1), "the fourth is on probation")
        admitted = await height_of(here)
        assert await submit(here, certificate(here, "while the fourth is away"))
        await all_at([here], admitted + 2)
        assert await has_powers(here, genesis, *[FULL_POWER] * 3, 1), "it has signed nothing"
        processes.start(follower)
        processes.start(fourth)
        await reaches(partial(has_powers, here, genesis, *[FULL_POWER] * 4), "the fourth has signed enough")
        await agree([*federation.nodes, follower])
        counted = [block for block in await blocks(follower) if block.last_commit is not None]
        assert len(counted) >= 20, "a follower counts by the commits that come with the blocks"
        processes.kill(three[2])
        assert await submit(here, certificate(here, "while the third is away"))
