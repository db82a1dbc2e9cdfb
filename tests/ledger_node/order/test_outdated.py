"""The engine across versions of the rules, and a node whose release lacks the next one."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from ledger_node.command.config import read_validator_key
from ledger_node.keep.chain import Chain
from ledger_node.keep.store import FORMAT, FORMAT_WITH_RULES, Store
from ledger_node.order.engine import Engine
from ledger_node.order.orderer import UnavailableError
from ledger_node.order.outdated import OUTDATED, UntilOutdated
from tests.present import present
from voice_dpki.effects import SystemClock
from voice_dpki.ledger import rules
from voice_dpki.ledger.activation import notice
from voice_dpki.ledger.genesis import Genesis
from voice_dpki.ledger.refusals import Refusal
from voice_dpki.ledger.replica import DivergenceError, Replica
from voice_dpki.shortfalls import SHORTFALLS
from voice_dpki.wire.ledger.client import light_client

BEGINS = 4


def told(network: Any, version: int) -> Genesis:
    """Return the network's genesis with a notice: a version begins with block BEGINS."""
    genesis: Genesis = network.genesis
    return replace(genesis, members=(*genesis.members, notice(version, BEGINS)))


@contextlib.contextmanager
def opened(folder: Path, genesis: Genesis) -> Iterator[Chain]:
    chain = Chain(Store(folder, genesis), genesis)
    try:
        yield chain
    finally:
        chain.close()


@asynccontextmanager
async def ordering(network: Any, chain: Chain) -> AsyncIterator[UntilOutdated]:
    keys = [read_validator_key(path) for path in (network.folder / "keys").glob("validator-*.pem")]
    orderer = UntilOutdated(Engine(chain, keys, SystemClock(), 0.01), chain)
    work = asyncio.create_task(orderer.run())
    try:
        yield orderer
    finally:
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work


async def test_headers_name_the_version_that_their_block_follows(network: Any, tmp_path: Path) -> None:
    genesis = told(network, 2)
    with opened(tmp_path / "data", genesis) as chain:
        async with ordering(network, chain):
            assert await chain.wait_for(BEGINS + 3, 60)
        view = chain.store.view
        headers = [present(view.block(height)).signed_header() for height in range(1, BEGINS + 3)]
        assert [each.header.version_app for each in headers] == [1] * (BEGINS - 1) + [2] * 3
        assert view.get(b"meta", b"format") == FORMAT_WITH_RULES != FORMAT
        light = light_client(genesis)
        for each in headers:
            light.verify(each, genesis.validators, headers[-1].header.time_ns / 1e9)


async def test_of_two_that_exclude_each_other_one_enters_a_block_of_version_2(network: Any, tmp_path: Path) -> None:
    der = network.certificate()
    raws = [network.submission_of(der), network.submission_of(der)]
    with opened(tmp_path / "data", told(network, 2)) as chain:
        async with ordering(network, chain) as orderer:
            assert await chain.wait_for(BEGINS, 60)
            outcomes = await asyncio.gather(*map(orderer.submit, raws))
        names = sorted((outcome.result.name, outcome.height is not None) for outcome in outcomes)
        assert names == [(Refusal.RECORDED.kebab, False), ("ok", True)]
        heights = range(1, chain.height + 1)
        assert sum(len(present(chain.store.view.block(height)).transactions) for height in heights) == 1


async def test_a_node_without_the_next_version_stops_before_it_and_says_so(
    network: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sentence = f"from block {BEGINS} on the ledger follows version 9 of its rules"
    with caplog.at_level(logging.WARNING), opened(tmp_path / "data", told(network, 9)) as chain:
        async with ordering(network, chain) as orderer:
            assert any(sentence in note for note in SHORTFALLS.notes()), "before it is unhealthy, it says so"
            assert orderer.health().ok
            while orderer.health().ok:
                await asyncio.sleep(0.01)
            assert sentence in orderer.health().facts["detail"]
            with pytest.raises(UnavailableError, match=sentence):
                await orderer.submit(network.submission_of(network.certificate()))
            assert b"voice_dpki_ledger_outdated 1.0" in generate_latest()
        assert 1 <= chain.height < BEGINS
    OUTDATED.set(0)
    events = [record.message for record in caplog.records]
    assert events.count("release will be outdated") == 1
    assert events.count("release is outdated") == 1


async def test_a_release_with_the_version_goes_on_with_the_store_of_one_without(
    network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genesis = told(network, 2)
    with opened(tmp_path / "data", genesis) as chain, monkeypatch.context() as older:
        older.delitem(rules.BY_VERSION, 2)
        async with ordering(network, chain) as orderer:
            while orderer.health().ok:
                await asyncio.sleep(0.01)
    with opened(tmp_path / "data", genesis) as chain:
        async with ordering(network, chain) as orderer:
            assert await chain.wait_for(BEGINS + 2, 60)
            assert (await orderer.submit(network.submission_of(network.certificate()))).result.name == "ok"


def test_a_header_that_names_another_version_than_the_state_ends_a_replica(network: Any) -> None:
    genesis = network.genesis
    maker = network.maker()
    block = maker.block()
    header = replace(block.header, version_app=2)
    lying = replace(block, signed_header=replace(block.signed_header, header=header))
    with pytest.raises(DivergenceError, match="names version 2 of the rules, and the state before it says 1"):
        Replica(genesis.initial_state(), None).take(lying)
