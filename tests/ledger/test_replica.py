"""A replica takes what follows and proves itself, and nothing else."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.errors import MalformedError
from voice_dpki.ledger import tree
from voice_dpki.ledger.block import ExecTxResult
from voice_dpki.ledger.header import BlockId, PartSetHeader
from voice_dpki.ledger.replica import BlockError, DivergenceError, Replica, SignedBlock
from voice_dpki.ledger.validators import validator_sets
from voice_dpki.wire.ledger.client import light_client
from voice_dpki.x509.profile import digest_of


def test_what_a_block_did_is_stored_with_the_header_that_proves_it(federation: Any, chain: Any) -> None:
    chain.take(chain.next_block())
    before = tree.root(chain.state)
    step = chain.take(chain.next_block(federation.submission(federation.certificate())))
    assert step.executed == ()
    assert tree.root(chain.state) == step.tip.header.app_hash == before
    step = chain.take(chain.next_block())
    assert [executed.block.height for executed in step.executed] == [2, 3]
    assert tree.root(chain.state) == step.tip.header.app_hash != before


def test_blocks_that_all_change_the_state_prove_one_another(federation: Any, chain: Any) -> None:
    ders = [federation.certificate() for _ in range(4)]
    for der in ders:
        step = chain.take(chain.next_block(federation.submission(der)))
        assert tree.root(chain.state) == step.tip.header.app_hash
    assert [len(step.executed) for step in chain.steps] == [0, 1, 1, 1]
    assert chain.state.record(digest_of(ders[2]))
    assert not chain.state.record(digest_of(ders[3]))


def test_a_refused_transaction_has_its_code_in_the_next_header(federation: Any, chain: Any) -> None:
    step = chain.take(chain.next_block(b"nonsense"))
    assert [executed.outcome.results[0].code for executed in step.executed] == [2]
    with pytest.raises(DivergenceError):
        chain.replica.take(chain.next_block(last_results=[]))
    chain.take(chain.next_block())


def test_another_replica_and_the_light_client_follow(federation: Any, chain: Any) -> None:
    der = federation.certificate()
    chain.add([federation.submission(der)])
    chain.add([federation.change(digest_of(der), "revoked", 0), b"nonsense"])
    state, light = federation.state(), light_client(federation.genesis)
    replica = Replica(state, None)
    for block in chain.blocks:
        copy = SignedBlock.from_json(json.dumps(block.to_json()).encode())
        assert copy == block
        light.verify(copy.signed_header, None, copy.header.time_ns / 1e9)
        for executed in replica.take(copy).executed:
            state.commit(executed.outcome)
    assert state == chain.state


def test_a_replica_goes_on_after_a_restart(federation: Any, chain: Any) -> None:
    chain.take(chain.next_block(b"nonsense"))
    chain.replica = Replica(chain.state, chain.replica.last, [2])
    chain.add([federation.submission(federation.certificate())])
    assert len(chain.state.certificates) == 1


def test_refuses_a_block_that_does_not_follow(federation: Any, chain: Any) -> None:
    first = chain.next_block()
    chain.take(first)
    honest = chain.next_block(federation.submission(federation.certificate()))
    other = replace(chain.replica.last, commit=replace(chain.replica.last.commit, block_id=_other_id(first)))
    for block, match in (
        (first, "height"),
        (chain.next_block(previous=other), "before it"),
        (SignedBlock(honest.signed_header, ()), "transactions"),
        (SignedBlock(honest.signed_header, (honest.transactions[0] + b"\0",)), "transactions"),
        (SignedBlock(honest.signed_header, honest.transactions * 2), "transactions"),
    ):
        with pytest.raises(BlockError, match=match):
            chain.replica.take(block)
    chain.take(honest)


def test_misbehaving_validators_need_evidence_and_lose_their_keys(federation: Any, chain: Any) -> None:
    guilty, innocent = chain.double_signing(0), chain.double_signing(1)
    block, honest = chain.next_block(evidence=[guilty]), chain.next_block()
    for header, evidence in (
        (honest.signed_header, (guilty,)),
        (block.signed_header, ()),
        (block.signed_header, (innocent,)),
        (block.signed_header, (guilty, guilty)),
        (block.signed_header, (guilty, innocent)),
    ):
        with pytest.raises(BlockError, match="evidence"):
            chain.replica.take(SignedBlock(header, (), evidence))
    copy = SignedBlock.from_json(json.dumps(block.to_json()).encode())
    assert copy == block
    chain.replica.take(copy)
    following, later = validator_sets(chain.replica.state)
    assert (len(following.validators), later.addresses) == (2, innocent.misbehaving)


def _other_id(block: SignedBlock) -> BlockId:
    return BlockId(block.header.hash()[::-1], PartSetHeader(1, bytes(32)))


def test_stops_where_the_header_names_another_version_of_the_rules(chain: Any) -> None:
    with pytest.raises(DivergenceError, match="names version 2 of the rules, and the state before it says 1"):
        chain.take(chain.next_block(version_app=2))
    chain.take(chain.next_block(version_app=1))


def test_stops_where_the_validators_agreed_on_another_state(federation: Any, chain: Any) -> None:
    chain.take(chain.next_block(federation.submission(federation.certificate())))
    for block in (
        chain.next_block(app_hash=bytes(32)),
        chain.next_block(app_hash=tree.root(chain.state)),
        chain.next_block(last_results=[ExecTxResult(1)]),
    ):
        with pytest.raises(DivergenceError, match="after block 1"):
            chain.replica.take(block)
    chain.take(chain.next_block())


@given(st.binary(max_size=50))
def test_any_bytes_are_a_block_or_raise(data: bytes) -> None:
    with pytest.raises(MalformedError):
        SignedBlock.from_json(data)


@pytest.mark.parametrize(
    "changes",
    [
        {"transactions": "x"},
        {"transactions": ["?"]},
        {"transactions": ["AAAA"] * 1001},
        {"signed_header": {}},
        {"evidence": "x"},
        {"evidence": ["?"]},
        {"evidence": ["AAAA"]},
        {"evidence": ["AAAA"] * 8193},
        {"evidence": ["A" * 1_000_000] * 2},
        {"x": 1},
    ],
)
def test_refuses_other_json(chain: Any, changes: dict[str, Any]) -> None:
    block = chain.next_block().to_json()
    with pytest.raises(MalformedError):
        SignedBlock.from_json(json.dumps(block | changes).encode())


def test_the_first_block_is_that_of_height_1(federation: Any) -> None:
    assert Replica(federation.state(), None).next_height == 1
