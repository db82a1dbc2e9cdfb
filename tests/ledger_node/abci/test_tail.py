"""Blocks between CometBFT's decision and the store: the state after them, and when they are stored."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ledger_node.abci import tail as tail_module
from ledger_node.abci.tail import Tail
from ledger_node.keep.retention import Retention
from ledger_node.keep.store import Store
from tests.double_signing import signed_twice
from tests.present import present
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.ledger.block import NextBlock
from voice_dpki.ledger.evidence import Evidence, misbehaving
from voice_dpki.ledger.header import SignedHeader, Validator
from voice_dpki.ledger.owners import owner_of
from voice_dpki.ledger.state import Block, apply
from voice_dpki.names import CertDigest, Height
from voice_dpki.x509.profile import digest_of

START_S = 1_790_000_000


class Chain:
    """Decides blocks as CometBFT does, and makes their headers."""

    def __init__(self, federation: Any, tail: Tail) -> None:
        self.genesis = federation.genesis
        self.tail = tail
        self.headers: dict[int, SignedHeader] = {}
        self.app_hash = self.genesis.outcome().app_hash

    def decide(self, *transactions: bytes, evidence: tuple[Evidence, ...] = ()) -> Height:
        height = Height(self.tail.height + 1)
        block = Block(height, START_S + height, transactions, misbehaving(evidence))
        following = NextBlock(
            chain_id=self.genesis.chain_id,
            previous=self.headers.get(height - 1),
            time_ns=block.time_s * 10**9,
            transactions=transactions,
            app_hash=self.app_hash,
            last_results=[],
            validators=self.genesis.validators,
            next_validators=self.genesis.validators,
            evidence=evidence,
        )
        self.headers[height] = following.seal({})
        outcome = apply(self.tail.view, block)
        self.app_hash = outcome.app_hash
        self.tail.commit(block, outcome)
        return height


@pytest.fixture
def store(federation: Any, tmp_path: Path) -> Any:
    store = Store(tmp_path / "store", federation.genesis)
    yield store
    store.close()


@pytest.fixture
def chain(federation: Any, store: Store) -> Any:
    tail = Tail(store, federation.genesis)
    yield Chain(federation, tail)
    tail.close()


def test_the_state_runs_ahead_of_the_store(federation: Any, store: Store, chain: Chain) -> None:
    certificate = federation.certificate()
    assert (chain.tail.height, chain.tail.time_s) == (0, START_S)
    chain.decide(federation.submission(certificate))
    assert (chain.tail.height, chain.tail.time_s) == (1, START_S + 1)
    record = chain.tail.view.record(digest_of(certificate))
    assert record is not None
    assert owner_of(chain.tail.view, record.key_id) == "Operator A"
    assert chain.tail.view.member("Operator B") is not None
    assert store.view.record(digest_of(certificate)) is None
    chain.decide(federation.revocation(certificate))
    assert present(chain.tail.view.record(digest_of(certificate))).status == "revoked"


def test_a_block_is_stored_with_the_next_header(federation: Any, store: Store, chain: Chain) -> None:
    certificate = federation.certificate()
    transaction = federation.submission(certificate)
    chain.decide(transaction)
    assert list(chain.tail.wanted_headers(Height(1))) == [], "its own header does not prove it"
    chain.decide()
    assert list(chain.tail.wanted_headers(Height(2))) == [1, 2]
    assert chain.tail.step({1: chain.headers[1]}) is None
    step = present(chain.tail.step(chain.headers))
    assert [executed.block.height for executed in step.executed] == [1, 2]
    assert step.tip == chain.headers[2]
    store.commit(step)
    (settled,) = chain.tail.stored()
    assert (settled.transaction, settled.result.code, settled.height) == (transaction, 0, 1)
    assert (chain.tail.height, store.view.height) == (2, 2)
    assert store.view.record(digest_of(certificate)) is not None
    assert present(store.view.block(1)).transactions == (transaction,)


def test_an_idle_block_proves_itself(store: Store, chain: Chain) -> None:
    chain.decide()
    assert list(chain.tail.wanted_headers(Height(1))) == [1]
    store.commit(present(chain.tail.step(chain.headers)))
    assert chain.tail.stored() == []
    assert (chain.tail.height, chain.tail.time_s, store.view.height) == (1, START_S + 1, 1)


def test_blocks_decided_meanwhile_stay_in_the_state(federation: Any, store: Store, chain: Chain) -> None:
    first, second = federation.certificate(), federation.certificate()
    chain.decide(federation.submission(first))
    chain.decide(federation.submission(second))
    store.commit(present(chain.tail.step(chain.headers)))
    assert len(chain.tail.stored()) == 1
    assert (store.view.height, chain.tail.height) == (1, 2)
    for der in (first, second):
        assert chain.tail.view.record(digest_of(der)) is not None
    chain.decide(federation.revocation(second))
    chain.decide()
    store.commit(present(chain.tail.step(chain.headers)))
    assert [settled.height for settled in chain.tail.stored()] == [2, 3]
    assert present(store.view.record(digest_of(second))).status == "revoked"


def test_a_tail_begins_where_the_store_ends(federation: Any, store: Store, chain: Chain) -> None:
    chain.decide(federation.submission())
    chain.decide()
    store.commit(present(chain.tail.step(chain.headers)))
    again = Tail(store, federation.genesis)
    assert (again.height, again.time_s) == (2, START_S + 2)
    assert again.view.record(CertDigest(bytes(32))) is None
    again.close()


def test_evidence_is_stored_with_its_block(federation: Any, store: Store, chain: Chain) -> None:
    address = Validator(federation.validators["Operator B"], 1).address
    evidence = signed_twice(federation.genesis.chain_id, address, lambda _: bytes(64))
    chain.decide(evidence=(evidence,))
    chain.decide()
    for wrong in ((), (evidence, evidence), (replace(evidence, total_power=3),)):
        with pytest.raises(MalformedError, match="the evidence of block 1 is not what"):
            chain.tail.step(chain.headers, {1: wrong})
    store.commit(present(chain.tail.step(chain.headers, {1: (evidence,)})))
    assert present(store.view.block(1)).signed_block().evidence == (evidence,)
    assert present(store.view.member("Operator B")).validators == ()


def test_a_wrong_header_stores_nothing(federation: Any, chain: Chain) -> None:
    chain.decide(federation.submission())
    chain.decide(federation.submission())
    assert chain.tail.step({1: chain.headers[1], 2: chain.headers[1]}) is None


def test_too_many_waiting_blocks_are_an_error(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_module, "MAX_BLOCKS", 2)
    chain.decide()
    chain.decide()
    with pytest.raises(LocalError, match="lags more than 2 blocks"):
        chain.decide()


@pytest.mark.parametrize(("retention", "first"), [(Retention(age_s=0, blocks=2), 4), (None, 0)])
def test_what_the_store_removes_may_cometbft_remove(
    federation: Any, tmp_path: Path, retention: Retention | None, first: int
) -> None:
    store = Store(tmp_path / "store", federation.genesis, retention=retention)
    tail = Tail(store, federation.genesis)
    chain = Chain(federation, tail)
    assert tail.first == min(first, 1)
    for _ in range(5):
        chain.decide()
        store.commit(present(tail.step(chain.headers)))
        tail.stored()
    for _ in range(3):
        chain.decide()
    assert (tail.first, tail.height) == (first, 8), "CometBFT keeps what the store has yet to take"
    tail.close()
    store.close()
