"""The application's own bounds, each by its number, and what it answers on both sides of it."""

from typing import Any

import pytest

from ledger_node.abci.abci_pb2 import (
    CheckTx,
    FinalizeBlock,
    Info,
    InitChain,
    ProcessProposal,
    PublicKey,
    Query,
    ValidatorPower,
)
from ledger_node.abci.application import _affordable
from voice_dpki.errors import LocalError
from voice_dpki.ledger.activation import notice
from voice_dpki.ledger.genesis import dump_genesis, load_genesis
from voice_dpki.ledger.state import Block, apply, check, check_sender
from voice_dpki.names import Height

from .conftest import CHAIN, START_S, Federation, Node, at, make_node


def test_a_proposal_has_at_most_500_transactions() -> None:
    for count in (499, 500, 501):
        assert len(_affordable([b"x"] * count, 10**9)) == min(count, 500)
    assert _affordable([], 10**9) == []


def test_a_proposal_has_32_to_256_kilobytes(node: Node) -> None:
    application = node.application
    assert application._affordable_bytes == 32 * 1024
    for size, affordable in (
        (0, 32),
        (15, 32),
        (16, 32),
        (17, 34),
        (127, 254),
        (128, 256),
        (129, 256),
        (1000, 256),
    ):
        application._pace(Block(Height(1), 0, (bytes(size * 512), bytes(size * 512))), 0)
        assert application._affordable_bytes == affordable * 1024, size
    # After several rounds it is half of the block before this one, whatever this one has.
    application._pace(Block(Height(1), 0, (bytes(100 * 1024),)), 0)
    application._pace(Block(Height(2), 0, (bytes(10),)), 1)
    assert application._affordable_bytes == 50 * 1024
    application._pace(Block(Height(3), 0, (bytes(100 * 1024),)), 2)
    assert application._affordable_bytes == 32 * 1024


def test_every_method_has_its_handler(node: Node) -> None:
    application = node.application
    names = [
        "info",
        "init_chain",
        "query",
        "check_tx",
        "prepare_proposal",
        "process_proposal",
        "finalize_block",
        "commit",
    ]
    assert list(application.handlers) == names
    assert all(handler == getattr(application, name) for name, handler in application.handlers.items())


def test_what_the_state_is_called(node: Node) -> None:
    before = node.application.info(Info.Request())
    assert (before.data, before.app_version, before.last_block_height, before.last_block_app_hash) == (
        "voice-dpki", 1, 0, b""
    )  # fmt: skip


@pytest.mark.parametrize(
    "change", ["chain", "key", "power", "one less", "one more", "height 0", "height 2", "nothing"]
)
def test_another_genesis_than_this_nodes(federation: Federation, node: Node, change: str) -> None:
    chain = "other" if change == "chain" else federation.genesis.chain_id
    request = InitChain.Request(chain_id=chain, initial_height=int(change[-1]) if "height" in change else 1)
    keys = sorted(federation.validators.values())
    if change == "one less":
        keys.pop()
    elif change == "one more":
        keys.append(bytes(32))
    elif change == "key":
        keys[0] = bytes(32)
    for number, key in enumerate(keys):
        power = 2 if change == "power" and number == 0 else 1
        request.validators.append(ValidatorPower(public_key=PublicKey(ed25519=key), power=power))
    if change == "nothing":
        assert node.application.init_chain(request).app_hash == federation.genesis.outcome().app_hash
        return
    with pytest.raises(LocalError, match="another genesis"):
        node.application.init_chain(request)


@pytest.mark.parametrize("height", [0, 2, 3])
def test_only_the_next_block_is_executed(node: Node, height: int) -> None:
    with pytest.raises(LocalError, match=f"^block {height} came where 1 is the next one$"):
        node.application.finalize_block(FinalizeBlock.Request(height=height, time=at(1)))
    assert node.progress == []


@pytest.fixture
def judged(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> tuple[Node, list[Any]]:
    """A node of version 2, under which blocks take nothing bad, and the checks by which it judges."""
    members = [*federation.genesis.members, notice(2, 1)]
    node = make_node(load_genesis(dump_genesis(CHAIN, START_S * 10**9, members)))
    checks: list[Any] = []
    judge = node.application.judge

    def listen(by: Any, raw: bytes) -> Any:
        checks.append(by)
        return judge(by, raw)

    monkeypatch.setattr(node.application, "judge", listen)
    return node, checks


def test_the_first_20_in_line_are_judged_anew_after_each_block(
    federation: Federation, judged: tuple[Node, list[Any]]
) -> None:
    node, checks = judged
    raw = federation.submission()
    for height in (1, 2):
        node.decide(height, [])
    for height in (3, 4):
        checks.clear()
        for _ in range(22):
            request = CheckTx.Request(transaction=raw, occasion=CheckTx.RECHECK)
            assert node.application.check_tx(request).code == 0
        assert checks == [check] * 20, "no member has changed, so that the others stay as they are"
        node.decide(height, [])


def test_before_the_first_block_and_after_a_change_of_members_all_senders_are_judged(
    federation: Federation, judged: tuple[Node, list[Any]]
) -> None:
    node, checks = judged
    for _ in range(22):
        node.application.check_tx(CheckTx.Request(transaction=federation.submission(), occasion=CheckTx.RECHECK))
    assert checks == [check] * 20 + [check_sender] * 2


@pytest.mark.parametrize("occasion", [CheckTx.NEW, 2, 7])
def test_only_a_recheck_is_one(federation: Federation, node: Node, occasion: Any) -> None:
    """Of an occasion that is not known, a transaction is taken for a new one, and verified."""
    raw = federation.submission()
    node.application.check_tx(CheckTx.Request(transaction=raw, occasion=occasion))
    assert (node.application._rechecked, node.application._pool.is_empty) == (0, False)


def test_the_last_four_proposals_of_a_height_are_kept(
    federation: Federation, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    executed: list[Block] = []

    def counting(view: Any, block: Block) -> Any:
        executed.append(block)
        return apply(view, block)

    monkeypatch.setattr("ledger_node.abci.application.apply", counting)
    blocks = [Block(Height(1), START_S + number, ()) for number in range(5)]
    for block in blocks:
        node.application._execute(block)
    assert executed == blocks
    for block in blocks[1:]:
        node.application._execute(block)
    assert executed == blocks
    node.application._execute(blocks[0])
    assert executed == [*blocks, blocks[0]]
    # One that is proposed again is the latest, and what is decided ends all of them.
    node.application._remember(blocks[3], node.application._execute(blocks[3]))
    assert list(node.application._executions) == [blocks[2], blocks[4], blocks[0], blocks[3]]
    node.decide(1, [])
    assert not node.application._executions


def test_a_proposal_of_the_largest_size_is_judged(
    federation: Federation, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger_node.abci.application.MAX_TRANSACTIONS", 2)
    raws = [federation.submission() for _ in range(3)]
    for count, verdict in ((2, ProcessProposal.ACCEPT), (3, ProcessProposal.REJECT)):
        request = ProcessProposal.Request(height=1, time=at(1), transactions=raws[:count])
        assert node.application.process_proposal(request).verdict == verdict


def test_a_query_that_cannot_be_answered_says_so(node: Node) -> None:
    for path in ("/", "certificates", "/nothing"):
        answer = node.application.query(Query.Request(path=path, data=bytes(32)))
        assert (answer.code, answer.codespace, answer.height, answer.key) == (1, "voice-dpki", 0, b"")
        assert answer.log == "no such path, or data that it does not take"
    node.decide(1, [])
    assert node.application.query(Query.Request(path="/certificates", data=bytes(32))).height == 1
