"""A validator that proposes what others refuse: failing batches, a repetition, a signature in another form."""

from dataclasses import replace
from pathlib import Path

import pytest

from ledger_node.command.federation import agree
from voice_dpki.ledger.activation import notice
from voice_dpki.ledger.kind import Endorsement
from voice_dpki.ledger.transactions import Batch, Submit, Transaction, endorse

from .operators import blocks, certificate, load, lost, require_cometbft
from .releases import Mixed, altered
from .versions import Federation, all_at

FIRST = 24
"""The first block of version 2."""

BATCHES = 60
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ANSWER = "return PrepareProposal.Response(transactions=proposed.block.transactions)"

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


def rogue_code(folder: Path, tricks: Path) -> Path:
    """Return code that adds to each proposal one kind of the transactions in the files of a folder, by turns."""
    files = f"sorted(__import__('pathlib').Path({str(tricks)!r}).glob(f'{{request.height // 4 % 3}}-*'))"
    added = f"[each.read_bytes() for each in {files}]"
    instead = ANSWER.replace("proposed.block.transactions", f"[*proposed.block.transactions, *{added}]")
    return altered(folder, ("ledger_node/abci/application.py", ANSWER, instead))


def failing(federation: Federation) -> list[bytes]:
    """Return batches of the rogue with a certificate that is another operator's."""
    other, rogue = federation.nodes[0], federation.nodes[3]
    theirs, chain_id = certificate(other, "theirs"), federation.genesis.chain_id
    pairs = [(certificate(rogue, "own"), theirs) for _ in range(BATCHES)]
    return [federation.endorsed(Batch(chain_id, rogue.organization, pair)) for pair in pairs]


def variant(raw: bytes) -> bytes:
    """Return a transaction with (r, n - s) for its signature (r, s), which anybody can make."""
    transaction = Transaction.parse(raw)
    (made,) = transaction.endorsements
    s = P256_ORDER - int.from_bytes(made.signature[32:], "big")
    other = Endorsement(made.key_id, made.signature[:32] + s.to_bytes(32, "big"))
    return replace(transaction, endorsements=(other,)).serialize()


async def test_what_fails_fills_blocks_of_version_1_and_enters_none_of_version_2(tmp_path: Path) -> None:
    require_cometbft()
    federation = Federation(tmp_path / "net", "127.0.25", notice(2, FIRST))
    *others, rogue = nodes = federation.nodes
    folder = tmp_path / "tricks"
    submit = Submit(federation.genesis.chain_id, others[0].organization, certificate(others[0], "once"))
    once = endorse(submit, [federation.keys[submit.by]])
    with Mixed(nodes, {rogue.name: rogue_code(tmp_path / "code", folder)}) as processes:
        await processes.ready()
        await federation.send(once)
        kinds = [failing(federation), [once], [variant(once)]]  # apart, or one would hide that another may enter
        prepared = tmp_path / "prepared"
        prepared.mkdir()
        for kind, raws in enumerate(kinds):
            for number, raw in enumerate(raws):
                (prepared / f"{kind}-{number:03}").write_bytes(raw)
        prepared.rename(folder)
        async with load(others[:1]) as acknowledged:
            await all_at(others, FIRST + 16)
        await agree(nodes)
        found = await blocks(others[1])
        assert [await lost(node, federation.genesis, acknowledged) for node in nodes] == [0] * 4
    for tricks in kinds:
        held = [sum(raw in tricks for raw in block.transactions) for block in found]
        assert max(held[: FIRST - 1]) == len(tricks), "by version 1 all of them, when it is the rogue's turn"
        assert not any(held[FIRST - 1 :]), "by version 2 none"
    rounds = [block.signed_header.commit.round for block in found[FIRST - 1 :]]
    assert any(rounds), "its proposals were refused, and the next round went on"
