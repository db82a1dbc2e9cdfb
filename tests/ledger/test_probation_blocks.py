"""Blocks while a validator is on probation: another node counts by the commits in them, and checks those."""

import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.present import present
from tests.validator_keys import validator_key
from voice_dpki.ledger.activation import notice, version_at
from voice_dpki.ledger.block import NextBlock
from voice_dpki.ledger.genesis import Genesis, dump_genesis, load_genesis
from voice_dpki.ledger.header import Validator
from voice_dpki.ledger.probation import FULL_POWER, NEEDED, WINDOW, on_probation
from voice_dpki.ledger.proposals import SetMember, encode_change
from voice_dpki.ledger.replica import BlockError, Replica, SignedBlock
from voice_dpki.ledger.transactions import Propose, endorse
from voice_dpki.ledger.validators import validator_sets
from voice_dpki.wire.ledger.client import light_client

from .test_governance import CHAIN, KEYS, MEMBERS, PARAMETERS, START_S, member, vote

A, B, C = (each.organization for each in MEMBERS[:3])
SIGNERS = {
    Validator(validator_key(number), 1).address: Ed25519PrivateKey.from_private_bytes(
        number.to_bytes(32, "big")
    ).sign
    for number in range(1, 6)
}
NEW = Validator(validator_key(5), 1).address


class Chain:
    """A chain under version 4 that admits a fifth validator; all sign."""

    def __init__(self) -> None:
        members = [*MEMBERS, notice(4, 2)]
        parameters = replace(PARAMETERS, delay_s=0)
        self.genesis: Genesis = load_genesis(dump_genesis(CHAIN, START_S * 10**9, members, parameters=parameters))
        self.state = self.genesis.initial_state()
        self.replica = Replica(self.state, None)
        self.blocks: list[SignedBlock] = []

    def add(self, *transactions: bytes) -> None:
        replica = self.replica
        height = replica.next_height
        validators, following = validator_sets(replica.state)
        made = NextBlock(
            chain_id=CHAIN,
            previous=replica.last,
            time_ns=(START_S + 10 * height) * 10**9,
            transactions=transactions,
            app_hash=replica.app_hash,
            last_results=replica.last_results,
            validators=validators,
            next_validators=following,
            consensus_hash=self.genesis.consensus_hash(),
            version_app=version_at(replica.state, height),
        )
        last_commit = present(replica.last).commit if on_probation(replica.state) else None
        block = SignedBlock(made.seal(SIGNERS), transactions, last_commit=last_commit)
        for executed in replica.take(block).executed:
            self.state.commit(executed.outcome)
        self.blocks.append(block)


@pytest.fixture(scope="module")
def chain() -> Chain:
    chain = Chain()
    chain.add()
    change = encode_change(SetMember(member("Operator E", 5), None))
    proposal = endorse(Propose(CHAIN, A, START_S + 900, change), [KEYS[A]])
    chain.add(proposal, vote(proposal, B), vote(proposal, C))
    for _ in range(WINDOW + 10):
        chain.add()
    return chain


def copies(chain: Chain) -> list[SignedBlock]:
    """Return the blocks as another node reads them."""
    return [SignedBlock.from_json(json.dumps(block.to_json()).encode()) for block in chain.blocks]


def follow(chain: Chain, blocks: list[SignedBlock]) -> Replica:
    """Take blocks as a follower does, each after the light client's check of its header."""
    state, light = chain.genesis.initial_state(), light_client(chain.genesis)
    replica = Replica(state, None)
    for block in blocks:
        light.verify(block.signed_header, validator_sets(replica.state)[0], block.header.time_ns / 1e9)
        for executed in replica.take(block).executed:
            state.commit(executed.outcome)
    return replica


def test_a_follower_and_a_light_client_come_to_the_same_powers(chain: Chain) -> None:
    replica = follow(chain, copies(chain))
    assert replica.app_hash == chain.replica.app_hash
    sets = [validator_sets(replica.state)[1]]
    assert [each.power for each in sets[0].validators] == [FULL_POWER] * 5
    with_commit = [block for block in chain.blocks if block.last_commit is not None]
    assert len(with_commit) == NEEDED + 2, "for two blocks it was no validator yet"


def test_blocks_carry_no_commit_before_and_after(chain: Chain) -> None:
    found = [block.last_commit is not None for block in chain.blocks]
    assert (found[:3], found[-5:]) == ([False] * 3, [False] * 5)
    assert "last_commit" not in chain.blocks[0].to_json()


@pytest.mark.parametrize(("what", "why"), [("left out", "lacks the commit"), ("with a vote less", "not the one")])
def test_a_block_without_its_last_commit_is_not_taken(chain: Chain, what: str, why: str) -> None:
    blocks = copies(chain)
    at = next(number for number, block in enumerate(blocks) if block.last_commit is not None)
    held: Any = blocks[at].last_commit
    fewer = replace(held, signatures=held.signatures[:-1])
    replica = follow(chain, blocks[:at])
    with pytest.raises(BlockError, match=why):
        replica.take(replace(blocks[at], last_commit=None if what == "left out" else fewer))
    replica.take(blocks[at])
