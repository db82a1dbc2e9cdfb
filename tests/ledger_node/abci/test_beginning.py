"""A node without blocks says what it waits for, and tries snapshots again; its CometBFT's RPC is a double."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ledger_node.abci import beginning
from ledger_node.abci.abci_pb2 import OfferSnapshot, Snapshot
from ledger_node.abci.beginning import Beginning
from ledger_node.abci.cometbft import CometbftSection, StateSync
from ledger_node.abci.rpc import Rpc
from ledger_node.abci.snapshots import Restoration
from voice_dpki.shell.config import Listen
from voice_dpki.shell.http import HttpApp, Request, Response, Route, json_response, serve
from voice_dpki.shortfalls import SHORTFALLS

PEER = "0123456789abcdef0123456789abcdef01234567@192.0.2.1:26656"
SYNC = StateSync(
    rpc_servers=("http://192.0.2.1:26657", "http://192.0.2.2:26657"), trust_height=7, trust_hash="00" * 32
)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beginning, "LOOK_S", 0.01)
    monkeypatch.setattr(beginning, "PATIENCE_S", 0.05)


class Watched:
    """A node without blocks that is connected to `peers` others."""

    def __init__(self, peers: int, sync: StateSync | None = None, configured: tuple[str, ...] = (PEER,)) -> None:
        self.chain: Any = SimpleNamespace(height=0)
        self.restoration = Restoration("test", lambda *_: None)
        self.settings = CometbftSection(home="home", peers=configured, state_sync=sync)
        self.peers = peers

    async def answer(self, request: Request) -> Response:
        (asked,) = json.loads(request.body)
        assert asked["method"] == "net_info"
        return json_response(200, {"jsonrpc": "2.0", "id": asked["id"], "result": {"n_peers": str(self.peers)}})

    async def run(self, until: Any) -> Beginning:
        """Watch until `until` ends, or the watch does."""
        app = HttpApp([Route("POST", "/", self.answer)])
        async with serve(app, Listen(port=0)) as port, Rpc(Listen(port=port)) as rpc:
            watch = Beginning(self.chain, rpc, self.restoration, self.settings)
            tasks = {asyncio.ensure_future(watch.run()), asyncio.ensure_future(until(watch))}
            done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            for task in done:
                task.result()
            return watch


async def noted(watch: Beginning) -> None:
    while not watch.shortfall():
        await asyncio.sleep(0.01)


async def never(_: Beginning) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (Watched(0), "none of the 1 configured peers lets this node connect"),
        (Watched(2), "connected to 2 nodes: a new ledger begins once more than two thirds of its validators run"),
        (Watched(2, SYNC), "begins with a snapshot, and got none so far"),
        (Watched(0, configured=()), "connected to 0 nodes: a new ledger begins"),
    ],
)
async def test_it_says_what_it_waits_for(node: Watched, said: str) -> None:
    watch = await node.run(noted)
    assert said in watch.shortfall()
    assert watch.shortfall() in SHORTFALLS.notes()
    node.chain.height = 1
    assert not watch.shortfall()


async def test_cometbft_is_to_begin_anew_when_no_snapshot_comes() -> None:
    watch = await Watched(2, SYNC).run(never)
    assert "192.0.2.1:26657 and http://192.0.2.2:26657 must be reachable" in watch.shortfall()


async def test_not_while_chunks_come_nor_without_state_sync() -> None:
    node = Watched(2, SYNC)

    async def offers(watch: Beginning) -> None:
        for _turn in range(50):
            await asyncio.sleep(0.01)
            node.restoration.offer_snapshot(OfferSnapshot.Request(snapshot=Snapshot(format=1), app_hash=b""))

    await node.run(offers)
    assert node.restoration.progress == (50, 0), "the watch has not ended"

    async def long(watch: Beginning) -> None:
        await asyncio.sleep(0.5)

    assert "a new ledger begins" in (await Watched(2).run(long)).shortfall()


async def test_a_cometbft_that_ended_is_started_again_while_there_is_no_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(beginning, "PAUSE_S", 0.01)
    (tmp_path / "log").write_text("x" * 5000 + "\nERROR: no witnesses connected\n")
    node, rpc = Watched(2, SYNC), Rpc(Listen(port=1))
    watch = Beginning(node.chain, rpc, node.restoration, node.settings)
    with caplog.at_level("WARNING"):
        assert await watch.try_again(tmp_path / "log")
        assert await watch.try_again(tmp_path / "nothing")
    reasons = [record.__dict__["fields"]["reason"] for record in caplog.records]
    assert reasons == ["CometBFT ended: ERROR: no witnesses connected", "CometBFT ended: "]
    node.chain.height = 1
    assert not await watch.try_again(tmp_path / "log")
    other = Watched(2)
    assert not await Beginning(other.chain, rpc, other.restoration, other.settings).try_again(tmp_path / "log")
