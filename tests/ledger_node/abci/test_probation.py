"""Who signed the last block, as CometBFT tells it and as the store keeps it, while validators are on probation."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger_node.abci.abci_pb2 import (
    CommitInfo,
    ExtendedCommitInfo,
    ExtendedVoteInfo,
    FinalizeBlock,
    PrepareProposal,
    ProcessProposal,
    Validator,
    VoteInfo,
)
from ledger_node.abci.application import Application
from ledger_node.abci.tail import Tail
from ledger_node.keep.store import Store
from ledger_node.order.verifier import Verifier
from tests.ledger.test_governance import GENESIS, Ledger, member
from tests.ledger.test_rules import B, C, decided, version_3, version_4
from tests.present import present
from tests.validator_keys import validator_key
from voice_dpki.errors import MalformedError
from voice_dpki.ledger import header
from voice_dpki.ledger.block import NextBlock, SignFunction
from voice_dpki.ledger.header import SignedHeader
from voice_dpki.ledger.probation import FULL_POWER, NEEDED
from voice_dpki.ledger.proposals import SetMember
from voice_dpki.ledger.state import Block, apply
from voice_dpki.names import Height

from .conftest import MemoryLedger, at

NEW = validator_key(5)
ADDRESSES = [header.Validator(validator_key(number), 1).address for number in (1, 2, 3, 4, 5)]
FLAGS = (2, 3, 1, 2, 2)
"""The second one votes for no block, and the third one does not vote."""

VOTES = list(zip(ADDRESSES, FLAGS, strict=True))
TOLD = CommitInfo(votes=[VoteInfo(validator=Validator(address=each), block_id_flag=flag) for each, flag in VOTES])
TO_PROPOSER = ExtendedCommitInfo(
    votes=[ExtendedVoteInfo(validator=Validator(address=each), block_id_flag=flag) for each, flag in VOTES]
)


def application(ledger: Ledger) -> Application:
    held = MemoryLedger(ledger.state, Height(ledger.height), ledger.time_s)
    return Application(GENESIS, held, Verifier())


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[Block]:
    blocks: list[Block] = []

    def counting(view: Any, block: Block) -> Any:
        blocks.append(block)
        return apply(view, block)

    monkeypatch.setattr("ledger_node.abci.application.apply", counting)
    return blocks


def test_the_last_commit_is_told_in_three_forms_and_executed_once(executed: list[Block]) -> None:
    ledger = version_4()
    assert decided(ledger, SetMember(member("Operator E", 5), None), B, C)
    node, height = application(ledger), ledger.height + 1
    proposal = PrepareProposal.Request(
        max_bytes=10**6, height=height, time=at(height), local_last_commit=TO_PROPOSER
    )
    assert list(node.prepare_proposal(proposal).transactions) == []
    judged = ProcessProposal.Request(height=height, time=at(height), proposed_last_commit=TOLD)
    assert node.process_proposal(judged).verdict == ProcessProposal.ACCEPT
    node.finalize_block(FinalizeBlock.Request(height=height, time=at(height), decided_last_commit=TOLD))
    assert [block.signers for block in executed] == [(ADDRESSES[0], ADDRESSES[3], ADDRESSES[4])]


def test_it_does_not_matter_while_nobody_is_on_probation(executed: list[Block]) -> None:
    for ledger in (version_3(), version_4()):
        node, height = application(ledger), ledger.height + 1
        node.finalize_block(FinalizeBlock.Request(height=height, time=at(height), decided_last_commit=TOLD))
    assert [block.signers for block in executed] == [(), ()]


def test_cometbft_is_told_of_full_power() -> None:
    ledger = version_4()
    assert decided(ledger, SetMember(member("Operator E", 5), None), B, C)
    for _ in range(NEEDED - 1):
        ledger.block(signers=(ADDRESSES[4],))
    height = ledger.height + 1
    request = FinalizeBlock.Request(height=height, time=at(height), decided_last_commit=TOLD)
    updates = application(ledger).finalize_block(request).validator_updates
    assert [(each.public_key.ed25519, each.power) for each in updates] == [(NEW, FULL_POWER)]


class Decided:
    """Two blocks of CometBFT's. The second holds a commit with one vote less than the newest one for the first."""

    def __init__(self, federation: Any, tail: Tail) -> None:
        genesis = federation.genesis
        signers: dict[bytes, SignFunction] = {
            address: Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big")).sign
            for number, address in enumerate(ADDRESSES[:2], 1)
        }
        parts: dict[str, Any] = {
            "chain_id": genesis.chain_id,
            "transactions": (),
            "app_hash": genesis.outcome().app_hash,
            "last_results": [],
            "validators": genesis.validators,
            "next_validators": genesis.validators,
        }
        first = NextBlock(previous=None, time_ns=genesis.time_ns, **parts)
        self.newest, self.held = first.seal(signers), first.seal({ADDRESSES[0]: signers[ADDRESSES[0]]})
        second = NextBlock(previous=self.held, time_ns=genesis.time_ns + 10**9, **parts)
        self.second: SignedHeader = second.seal(signers)
        for height, voters in ((1, ()), (2, (ADDRESSES[0],))):
            block = Block(Height(height), genesis.time_ns // 10**9 + height - 1, (), signers=voters)
            tail.commit(block, apply(tail.view, block))


@pytest.fixture
def store(federation: Any, tmp_path: Path) -> Any:
    store = Store(tmp_path / "store", federation.genesis)
    yield store
    store.close()


@pytest.fixture
def tail(federation: Any, store: Store) -> Any:
    tail = Tail(store, federation.genesis)
    yield tail
    tail.close()


def test_a_block_is_stored_with_the_commit_that_it_holds(federation: Any, store: Store, tail: Tail) -> None:
    decided = Decided(federation, tail)
    headers = {1: decided.newest, 2: decided.second}
    assert tail.wanted_commits(headers) == [1]
    assert [each.block.height for each in present(tail.step(headers)).executed] == [1], "the other one has to wait"
    headers[1] = decided.held
    assert tail.wanted_commits(headers) == []
    store.commit(present(tail.step(headers)))
    stored = present(store.view.block(2)).signed_block()
    assert stored.last_commit == decided.held.commit
    assert stored.content().signers == (ADDRESSES[0],)
    assert present(store.view.block(1)).signed_block().last_commit is None


def test_a_commit_with_other_voters_than_were_told_of_is_not_stored(federation: Any, tail: Tail) -> None:
    decided = Decided(federation, tail)
    block, outcome = tail._blocks[1]
    tail._blocks[1] = replace(block, signers=(ADDRESSES[1],)), outcome
    with pytest.raises(MalformedError, match="other votes"):
        tail.step({1: decided.held, 2: decided.second})
