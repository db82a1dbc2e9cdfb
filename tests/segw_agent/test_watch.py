"""What is held while the ledger's changes are heard of: dropped at a change, not relied on in silence."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest

from segw_agent.attachment.network import Testbed
from segw_agent.attachment.site import VENDOR
from segw_agent.watch import Watch
from voice_dpki.effects import SystemClock
from voice_dpki.ledger.clock import LedgerClock
from voice_dpki.ledger.genesis import load_genesis
from voice_dpki.ledger.records import CertStatus
from voice_dpki.stage.site import Credential
from voice_dpki.wire.ledger.client import LedgerClient

BOUND_S = 1.0


def client_of(testbed: Testbed, url: str | None = None) -> LedgerClient:
    genesis = load_genesis(testbed.site.genesis.read_bytes())
    return LedgerClient.of_genesis(url or f"http://{testbed.addresses['ledger-a']}", genesis, timeout_s=0.5)


def recorded(testbed: Testbed, name: str) -> Credential:
    credential = testbed.site.credential(name, f"{name}.vendor.example", VENDOR)
    testbed.record(credential)
    return credential


@pytest.fixture
async def clients(testbed: Testbed) -> AsyncIterator[list[LedgerClient]]:
    """A node that is not there, and one that is."""
    made = [client_of(testbed, "http://127.0.0.1:9"), client_of(testbed)]
    yield made
    for client in made:
        await client.aclose()


async def until(condition: object) -> None:
    async with asyncio.timeout(60):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.02)


async def test_held_until_it_changes(testbed: Testbed, clients: list[LedgerClient]) -> None:
    one = await asyncio.to_thread(recorded, testbed, "watch1")
    other = await asyncio.to_thread(recorded, testbed, "watch2")
    watch = Watch(clients, clients[1].clock, bound_s=BOUND_S, max_age_s=30, max_entries=10)
    assert watch.held(one.digest) is None
    async with asyncio.TaskGroup() as group:
        task = group.create_task(watch.run())
        await until(watch.is_fresh)
        assert await watch.next_change() is None
        for credential in (one, other):
            watch.hold(await clients[1].resolve(credential.digest, with_certificate=False))
        assert watch.held(one.digest)
        await asyncio.to_thread(testbed.change, one, CertStatus.SUSPENDED, "certificateHold")
        changed = await watch.next_change()
        assert changed is not None
        assert one.digest in changed
        assert watch.held(one.digest) is None
        assert watch.held(other.digest)
        await asyncio.to_thread(testbed.freeze, "ledger-a")
        try:
            await until(lambda: not watch.is_fresh())
            assert watch.held(other.digest) is None
        finally:
            testbed.thaw("ledger-a")
        await until(watch.is_fresh)
        task.cancel()


async def test_without_nodes_nothing_is_held() -> None:
    watch = Watch([], LedgerClock(SystemClock(), 0), bound_s=BOUND_S, max_age_s=30, max_entries=10)
    await watch.run()
    assert not watch.is_fresh()


class FaultyClient:
    """Answers the second time; the first time, something of ours fails."""

    fork = None

    def __init__(self) -> None:
        self.calls = 0

    async def changes(self, since: object, *, wait_s: float) -> tuple[object, None]:
        self.calls += 1
        if self.calls == 2:
            raise OSError("Stale file handle")
        await asyncio.sleep(0.01)
        return SimpleNamespace(height=self.calls, age_s=lambda now_s: 0.0), None


async def test_a_fault_of_our_own_ends_no_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segw_agent.watch.RETRY_S", 0.01)
    client = FaultyClient()
    clock = LedgerClock(SystemClock(), 0)
    watch = Watch([client], clock, bound_s=60, max_age_s=30, max_entries=10)  # type: ignore[list-item]
    task = asyncio.create_task(watch.run())
    try:
        await until(lambda: client.calls == 2)
        assert not watch.is_fresh()
        await until(lambda: client.calls > 3)
        assert watch.is_fresh()
        assert await watch.next_change() is None
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
