"""Validators that are killed while all of them record certificates, which nothing may lose."""

import contextlib
from collections.abc import Iterator
from functools import partial

from ledger_node.command.federation import Processes, agree
from ledger_node.command.federation_folder import OperatorNode
from voice_dpki.ledger.genesis import Genesis

from .operators import at, load, lost, more, reaches
from .versions import height_of


async def kill_under_load(nodes: list[OperatorNode], processes: Processes, genesis: Genesis, kills: int) -> int:
    """Kill one validator after the other while all record, and hold all of them to all that was acknowledged.

    Returns how many certificates that was.
    """
    async with load(nodes) as acknowledged:
        for kill in range(kills):
            victim, others = nodes[kill % 4], [node for number, node in enumerate(nodes) if number != kill % 4]
            with killed(processes, [victim]):
                before = len(acknowledged)
                await reaches(partial(more, acknowledged, before + 20), "the others record certificates")
            height = await height_of(others[0])
            await reaches(partial(at, victim, height), "it has caught up")
    await agree(nodes)
    assert [await lost(node, genesis, acknowledged) for node in nodes] == [0] * len(nodes)
    return len(acknowledged)


@contextlib.contextmanager
def killed(processes: Processes, victims: list[OperatorNode]) -> Iterator[None]:
    """Kill nodes, and start them again at the end, whatever becomes of the test."""
    for node in victims:
        processes.kill(node)
    try:
        yield
    finally:
        for node in victims:
            processes.start(node)
