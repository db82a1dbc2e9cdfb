"""The embedded engine in this process: group commits, heartbeats, a clock that goes back, a full queue and disk."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from prometheus_client import REGISTRY

from ledger_node.command.config import read_validator_key
from ledger_node.keep.chain import Chain
from ledger_node.keep.integrity import check_store
from ledger_node.keep.retention import Retention
from ledger_node.keep.store import DATA_FILE, Store, StoreError, parse_signed_header
from ledger_node.order.engine import Engine
from ledger_node.order.orderer import BusyError
from tests.clocks import STEPS_S, SettableClock
from tests.disks import fill
from tests.present import present
from voice_dpki.effects import SystemClock
from voice_dpki.errors import LocalError
from voice_dpki.ledger.activation import notice
from voice_dpki.ledger.genesis import load_genesis
from voice_dpki.ledger.header import ValidatorSet
from voice_dpki.ledger.probation import FULL_POWER, NEEDED
from voice_dpki.ledger.proposals import SetMember, encode_change, proposal_id
from voice_dpki.ledger.transactions import Propose, Transaction, Vote, endorse
from voice_dpki.ledger.validators import validator_sets
from voice_dpki.shortfalls import SHORTFALLS
from voice_dpki.wire.ledger.client import light_client
from voice_dpki.x509.profile import digest_of


@pytest.fixture
def chain(network: Any, tmp_path: Path) -> Iterator[Chain]:
    chain = Chain(Store(tmp_path / "data", network.genesis), network.genesis)
    yield chain
    chain.close()


def make(network: Any, chain: Chain, clock: Any = None, heartbeat_s: float = 60) -> Engine:
    keys = [read_validator_key(path) for path in (network.folder / "keys").glob("validator-*.pem")]
    return Engine(chain, keys, clock or SystemClock(), heartbeat_s)


@asynccontextmanager
async def running(engine: Engine) -> AsyncIterator[None]:
    work = asyncio.create_task(engine.run())
    yield
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work


async def test_what_waits_is_committed_together(network: Any, chain: Chain) -> None:
    engine = make(network, chain)
    waiting = [asyncio.create_task(engine.submit(network.submission_of(network.certificate()))) for _ in range(20)]
    await asyncio.sleep(0)
    async with running(engine):
        verdicts = await asyncio.gather(*waiting)
        assert {(verdict.result.name, verdict.height) for verdict in verdicts} == {("ok", 2)}
        assert chain.height == 3
        again = await engine.submit(network.submission_of(network.certificate()))
        assert again.height == 4


async def test_heartbeats_prove_the_unchanged_state(network: Any, chain: Chain) -> None:
    async with running(make(network, chain, heartbeat_s=0.01)):
        assert await chain.wait_for(5, 60)
    with chain.snapshot() as view:
        hashes = {present(view.block(height)).signed_header().header.app_hash for height in range(1, 6)}
    assert hashes == {network.genesis.outcome().app_hash}


async def test_the_map_grows_while_certificates_come_in(
    network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger_node.keep.mapped.MAP_BYTES", 1 << 17)
    chain = Chain(Store(tmp_path / "small", network.genesis), network.genesis)
    submitted = [network.submission_of(network.certificate()) for _ in range(150)]
    engine = make(network, chain)
    async with running(engine):
        for begin in range(0, 150, 10):
            verdicts = await asyncio.gather(*(engine.submit(raw) for raw in submitted[begin : begin + 10]))
            assert {verdict.result.name for verdict in verdicts} == {"ok"}
    assert chain.store.view.count(b"certificates") == 150
    assert (tmp_path / "small" / DATA_FILE).stat().st_size > 2 * (1 << 17)
    chain.close()
    assert "all 150 certificates" in check_store(tmp_path / "small", network.genesis, whole=True)


async def test_an_idle_ledger_does_not_grow(network: Any, tmp_path: Path) -> None:
    window = 25
    store = Store(tmp_path / "kept", network.genesis, retention=Retention(age_s=0, blocks=window))
    chain, sizes = Chain(store, network.genesis), []
    engine = make(network, chain, heartbeat_s=0.001)
    recorded = asyncio.create_task(engine.submit(network.submission_of(network.certificate())))
    async with running(engine):
        assert (await recorded).result.name == "ok"
        for number in range(1, 7):
            assert await chain.wait_for(window * number, 60)
            sizes.append((tmp_path / "kept" / DATA_FILE).stat().st_size)
    with chain.snapshot() as view:
        assert (view.count(b"blocks"), view.first) == (window, chain.height - window + 1)
        assert view.count(b"certificates") == 1
    chain.close()
    assert len(set(sizes[2:])) == 1, sizes
    again = Chain(Store(tmp_path / "kept", network.genesis), network.genesis)
    async with running(make(network, again)):
        assert await again.wait_for(again.height + 1, 60)
    again.close()


async def test_times_rise_even_if_the_clock_goes_back(network: Any, chain: Chain) -> None:
    clock = SettableClock(network.genesis.time_ns / 1e9 + 3600)
    async with running(make(network, chain, clock, heartbeat_s=0.01)):
        for height in range(1, 7):
            assert await chain.wait_for(height, 60)
            clock.set(-height)
    with chain.snapshot() as view:
        times = [present(view.block(height)).signed_header().header.time_ns for height in range(1, 7)]
    assert times == sorted(set(times))


@pytest.mark.parametrize("step_s", STEPS_S)
async def test_no_block_is_made_by_a_clock_that_was_set(
    network: Any, chain: Chain, step_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block from the future could not be taken back, and would stop the ledger until its time has come."""
    monkeypatch.setattr("ledger_node.order.engine.CLOCK_WAIT_S", 0.01)
    clock = SettableClock(network.genesis.time_ns / 1e9 + 3600)
    engine = make(network, chain, clock, heartbeat_s=0.01)
    async with running(engine):
        assert await chain.wait_for(3, 60)
        clock.set(step_s)
        with pytest.raises(BusyError, match="no blocks are made: this machine's clock"):
            await engine.submit(network.submission_of(network.certificate()))
        await asyncio.sleep(0.05)  # one that was being made may still come
        height = chain.height
        await asyncio.sleep(0.1)
        assert chain.height == height
        clock.elapse(1)
        clock.set(0)
        assert (await engine.submit(network.submission_of(network.certificate()))).result.code == 0
    with chain.snapshot() as view:
        latest_s = present(view.block(chain.height)).signed_header().header.time_ns / 1e9
    assert latest_s <= clock.true_s + 0.001


async def test_an_engine_that_makes_no_block_says_so(
    network: Any, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger_node.order.engine.CLOCK_WAIT_S", 0.01)
    monkeypatch.setattr("ledger_node.order.stall.LOOK_S", 0.01)
    monkeypatch.setattr("ledger_node.order.stall.SHORTEST_S", 0.2)
    clock = SettableClock(network.genesis.time_ns / 1e9 + 3600)
    engine = make(network, chain, clock, heartbeat_s=0.01)
    async with running(engine):
        assert await chain.wait_for(3, 60)
        assert notes() == []
        clock.set(-3600)
        while not notes():
            await asyncio.sleep(0.01)
        (note,) = notes()
        assert re.fullmatch(r"no block for \d+ s, for this machine's clock is .*", note), note
        assert present(REGISTRY.get_sample_value("voice_dpki_ledger_stalled_seconds")) >= 0.2
        clock.set(0)
        while notes():
            await asyncio.sleep(0.01)


def notes() -> list[str]:
    return [note for note in SHORTFALLS.notes() if note.startswith("no block")]


async def test_a_restarted_engine_waits_for_the_time_of_its_last_block(
    network: Any, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger_node.order.engine.CLOCK_WAIT_S", 0.01)
    clock = SettableClock(network.genesis.time_ns / 1e9 + 3600)
    async with running(make(network, chain, clock)):
        assert await chain.wait_for(1, 60)
    clock.set(-3600)
    async with running(make(network, chain, clock, heartbeat_s=0.01)):
        assert not await chain.wait_for(2, 0.1)
        clock.set(0)
        assert await chain.wait_for(2, 60)


async def test_a_full_queue_sends_away(network: Any, chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger_node.order.engine.MAX_WAITING", 2)
    engine = make(network, chain)
    waiting = [asyncio.create_task(engine.submit(network.submission_of(network.certificate()))) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(BusyError):
        await engine.submit(network.submission_of(network.certificate()))
    async with running(engine):
        assert {verdict.result.code for verdict in await asyncio.gather(*waiting)} == {0}


async def test_an_engine_that_stops_sends_away_all_who_wait(
    network: Any, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those in the block that is being made, those behind it, and those who come later."""
    monkeypatch.setattr("ledger_node.order.engine.MAX_BLOCK_TRANSACTIONS", 1)
    engine = make(network, chain)
    waiting = [asyncio.create_task(engine.submit(network.submission_of(network.certificate()))) for _ in range(3)]
    await asyncio.sleep(0)
    work = asyncio.create_task(engine.run())
    await asyncio.sleep(0)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    async with asyncio.timeout(60):
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(answer) for answer in answers] == [BusyError] * 3
        with pytest.raises(BusyError, match="stopping"):
            await engine.submit(network.submission_of(network.certificate()))


async def test_what_is_refused_makes_no_block(network: Any, chain: Chain) -> None:
    engine = make(network, chain)
    async with running(engine):
        assert await chain.wait_for(1, 60)
        verdict = await engine.submit(network.submission_of(network.certificate("Operator B")))
        assert (verdict.result.name, verdict.height, chain.height) == ("wrong-organization", None, 1)


async def test_a_full_disk_ends_the_engine_and_promises_nothing(network: Any, disk: Callable[[int], Path]) -> None:
    folder = disk(1024)
    small = Chain(Store(folder / "small", network.genesis), network.genesis)
    fill(folder, leave_kilobytes=200)
    engine = make(network, small)
    work = asyncio.create_task(engine.run())
    promised = 0
    with contextlib.suppress(BusyError):
        while not (await engine.submit(network.submission_of(network.certificate()))).result.code:
            promised += 1
    with pytest.raises(StoreError, match="Make room"):
        await work
    height, app_hash = small.height, small.store.view.get(b"meta", b"tip")
    small.close()
    again = Store(folder / "small", network.genesis, read_only=True)
    assert (again.height, again.view.get(b"meta", b"tip")) == (height, app_hash)
    assert again.view.count(b"certificates") == promised > 10
    again.close()


class Voted:
    """A ledger whose votes take effect at once, and a vote by which A gets a validator more.

    Under version 4 of the rules, which begins with the second block, A replaces its validator instead.
    """

    def __init__(self, network: Any, version: int = 1) -> None:
        form = json.loads((network.folder / "genesis.json").read_bytes())
        form["app_state"]["parameters"] = {"delay_s": 0, "delay_blocks": 1}
        if version > 1:
            told = notice(version, 2)
            form["app_state"]["members"].append({"organization": told.organization, "kind": told.kind})
        self.genesis = load_genesis(json.dumps(form).encode())
        new = Ed25519PrivateKey.generate()
        self.old_keys = [read_validator_key(path) for path in (network.folder / "keys").glob("validator-*.pem")]
        self.keys = [*self.old_keys, new]
        a = present(self.genesis.member("Operator A"))
        kept = a.validators if version < 4 else ()
        larger = replace(a, validators=(*kept, new.public_key().public_bytes_raw()))
        until_s = int(SystemClock().now_s()) + 3600
        propose = Propose(self.genesis.chain_id, "Operator A", until_s, encode_change(SetMember(larger, 0)))
        raw = endorse(propose, [network.signer("Operator A")])
        vote = Vote(self.genesis.chain_id, "Operator B", proposal_id(Transaction.parse(raw).body_bytes), True)
        self.transactions = (raw, endorse(vote, [network.signer("Operator B")]))

    @contextlib.contextmanager
    def chain(self, folder: Path) -> Iterator[Chain]:
        chain = Chain(Store(folder, self.genesis), self.genesis)
        yield chain
        chain.close()


async def test_the_engine_follows_changes_of_validators(network: Any, tmp_path: Path) -> None:
    """A third validator comes by vote, signs from the block after the next one on, and is proved to followers."""
    voted = Voted(network)
    with voted.chain(tmp_path / "voted") as chain:
        engine = Engine(chain, voted.keys, SystemClock(), heartbeat_s=0.01)
        async with running(engine):
            verdicts = [await engine.submit(raw) for raw in voted.transactions]
            assert [verdict.result.code for verdict in verdicts] == [0, 0]
            height = present(verdicts[1].height)
            assert await chain.wait_for(height + 5, 60)
        light, sizes = light_client(voted.genesis), []
        with chain.snapshot() as view:
            for at in range(1, view.height + 1):
                signed = present(view.block(at)).signed_header()
                kept = view.validators(signed.header.validators_hash)
                validators = ValidatorSet.from_json(json.loads(kept)) if kept else None
                light.verify(signed, validators, signed.header.time_ns / 1e9)
                sizes.append(len(signed.commit.signatures))
        assert sizes[height - 1 : height + 4] == [2, 2, 2, 3, 3]
    with voted.chain(tmp_path / "voted") as again:
        Engine(again, voted.keys, SystemClock(), 5)
        with pytest.raises(LocalError, match="two thirds"):
            Engine(again, voted.old_keys, SystemClock(), 5)


async def test_the_engine_ends_the_probation_of_who_signs(network: Any, tmp_path: Path) -> None:
    voted = Voted(network, version=4)
    with voted.chain(tmp_path / "voted") as chain:
        engine = Engine(chain, voted.keys, SystemClock(), heartbeat_s=0.01)
        async with running(engine):
            assert await chain.wait_for(3, 60)
            verdicts = [await engine.submit(raw) for raw in voted.transactions]
            assert [verdict.result.code for verdict in verdicts] == [0, 0]
            height = present(verdicts[1].height)
            assert await chain.wait_for(height + NEEDED + 6, 60)
        with chain.snapshot() as view:
            kept = [present(view.block(at)).signed_block() for at in range(1, view.height + 1)]
            assert {each.power for each in validator_sets(view)[1].validators} == {FULL_POWER}
        counted = [block for block in kept if block.last_commit is not None]
        assert counted[0].height == height + 2, "the change took effect in the block before"
        assert NEEDED + 2 <= len(counted) <= NEEDED + 3
    assert check_store(tmp_path / "voted", voted.genesis, whole=True)


@pytest.mark.parametrize("restart", [False, True])
async def test_an_empty_block_that_changes_the_state_is_made_once(
    network: Any, tmp_path: Path, restart: bool
) -> None:
    """After the vote the validators change with blocks that are empty; the next transaction comes amid them."""
    voted, der = Voted(network), network.certificate()
    light = light_client(voted.genesis)
    with voted.chain(tmp_path / "voted") as chain:
        engine = Engine(chain, voted.keys, SystemClock(), heartbeat_s=60)
        async with running(engine):
            for raw in voted.transactions:
                height = present((await engine.submit(raw)).height)
            tip = parse_signed_header(present(chain.store.view.tip_json))
            assert tip.header.height == chain.height + 1 == height + 1, "its header is known, and it is not stored"
            light.verify(tip, voted.genesis.validators, tip.header.time_ns / 1e9)
            if not restart:
                verdict = await engine.submit(network.submission_of(der))
        if not restart:
            assert present(chain.store.view.block(height + 1)).signed_header() == tip
            assert (verdict.result.code, chain.store.view.certificate(digest_of(der))) == (0, der)
            return
    with voted.chain(tmp_path / "voted") as again:
        engine = Engine(again, voted.keys, SystemClock(), heartbeat_s=60)
        async with running(engine):
            assert (await engine.submit(network.submission_of(der))).result.code == 0
        assert present(again.store.view.block(height + 1)).signed_header() == tip


async def test_a_store_with_only_the_header_of_a_block_with_transactions_makes_no_fork(
    network: Any, chain: Chain
) -> None:
    """Such is the store of a node that follows, between the block and the one after it."""
    maker = network.maker()
    chain.store.commit(maker.take(maker.block()))
    chain.store.commit(maker.take(maker.block(network.submission_of(network.certificate()))))
    assert chain.height == 1
    with pytest.raises(LocalError, match="block 2 is signed"):
        make(network, chain)


async def test_the_keys_must_be_the_validators(network: Any, chain: Chain) -> None:
    keys = [read_validator_key(path) for path in (network.folder / "keys").glob("validator-*.pem")]
    with pytest.raises(LocalError, match="two thirds"):
        Engine(chain, keys[:1], SystemClock(), 5)
