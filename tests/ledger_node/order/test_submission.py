"""The submission role of a node whose store is behind the ledger."""

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ledger_node.keep.chain import Chain, TxOutcome
from ledger_node.keep.store import Store
from ledger_node.order import submission
from ledger_node.order.orderer import RefusedByLedgerError, UnavailableError
from ledger_node.order.submission import Submission
from voice_dpki.ledger.refusals import Refusal
from voice_dpki.ledger.state import TxResult
from voice_dpki.x509.profile import digest_of


@pytest.fixture
def chain(network: Any, tmp_path: Path) -> Iterator[Chain]:
    chain = Chain(Store(tmp_path / "store", network.genesis), network.genesis)
    yield chain
    chain.close()


def endorsing(network: Any, chain: Chain) -> Submission:
    """The role of A, ordering at a ledger that has recorded whatever is handed to it."""
    refusal = Refusal.RECORDED
    recorded = TxOutcome(TxResult(refusal.code, refusal.kebab, refusal.sentence), None)

    async def order(_: bytes) -> TxOutcome:
        await asyncio.sleep(0)
        return recorded

    return Submission(chain, "Operator A", network.signer("Operator A"), order)


async def test_it_waits_until_its_store_has_the_certificate(network: Any, chain: Chain) -> None:
    der = network.certificate()
    steps = network.maker().steps([], [], [network.submission_of(der)], [])
    asked = asyncio.ensure_future(endorsing(network, chain).submit(der))
    for step in steps:
        await asyncio.sleep(0.01)
        assert not asked.done() or chain.height >= 3
        await chain.write(partial(chain.store.commit, step))
    recorded = await asyncio.wait_for(asked, 60)
    assert (recorded.digest, recorded.height, recorded.repeated) == (digest_of(der), 3, True)


async def test_it_does_not_know_where_its_store_stays_behind(
    network: Any, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission, "OWN_STORE_WAIT_S", 0.1)
    with pytest.raises(UnavailableError, match="yet to store"):
        await endorsing(network, chain).submit(network.certificate())


async def test_what_another_organisation_has_recorded_is_refused(network: Any, chain: Chain) -> None:
    der = network.certificate("Operator B")
    for step in network.maker().steps([network.submission_of(der, "Operator B")]):
        await chain.write(partial(chain.store.commit, step))
    with pytest.raises(RefusedByLedgerError):
        await endorsing(network, chain).submit(der)
