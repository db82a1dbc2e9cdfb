"""What a node says of blocks that it has removed, to people, to light clients and to nodes that follow it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from ledger_node.answer.api import Api
from ledger_node.answer.feed import Feed
from ledger_node.keep.chain import Chain
from ledger_node.keep.retention import Retention
from ledger_node.keep.store import Store
from ledger_node.order.follower import Follower, GoneError
from voice_dpki.effects import SystemClock
from voice_dpki.ledger.answers import InquiryError
from voice_dpki.shell.config import Listen
from voice_dpki.shell.http import serve
from voice_dpki.shell.trace import Tracer
from voice_dpki.shortfalls import SHORTFALLS
from voice_dpki.wire.ledger.client import LedgerClient

ARCHIVE = "https://archive.a.example"
KEPT = 3


class Pruned:
    """A chain of which the last three blocks are kept."""

    def __init__(self, network: Any, folder: Path) -> None:
        self.genesis = network.genesis
        self.maker = network.maker()
        store = Store(folder / "data", network.genesis, retention=Retention(age_s=0, blocks=KEPT))
        self.chain = Chain(store, network.genesis)
        self.steps = self.maker.steps([network.submission_of(network.certificate())], [], [], [], [])
        for step in self.steps:
            store.commit(step)
        self.first = self.chain.height - KEPT + 1

    @asynccontextmanager
    async def served(self, history: str | None = ARCHIVE) -> AsyncIterator[str]:
        parts: Any = {"orderer": None, "submission": None, "tokens": (), "tracer": Tracer(None, "pruned")}
        where: Any = {"folder": Path(), "feed": Feed(self.chain), "clock": SystemClock(), "history": history}
        api = Api(self.chain, name="pruned", role="engine", **parts, **where)
        async with serve(api.app(), Listen(port=0)) as port:
            yield f"http://127.0.0.1:{port}"


@pytest.fixture
def pruned(network: Any, tmp_path: Path) -> Iterator[Pruned]:
    made = Pruned(network, tmp_path)
    yield made
    made.chain.close()


@pytest.mark.parametrize("path", ["blocks/{0}", "blocks?from={0}", "headers/{0}"])
async def test_a_removed_block_is_gone_and_the_answer_says_where_it_is(pruned: Pruned, path: str) -> None:
    async with pruned.served() as url, httpx.AsyncClient(base_url=f"{url}/ledger/v1/") as http:
        kept = await http.get(path.format(pruned.first))
        removed = await http.get(path.format(pruned.first - 1))
    assert (kept.status_code, removed.status_code) == (200, 410)
    assert removed.json()["detail"] == (
        f"this node keeps blocks from {pruned.first} on, and no longer block {pruned.first - 1}: ask {ARCHIVE}"
    )


async def test_without_an_archive_to_name_the_answer_says_what_to_look_for(pruned: Pruned) -> None:
    async with pruned.served(history=None) as url, httpx.AsyncClient(base_url=f"{url}/ledger/v1/") as http:
        assert (await http.get("blocks/1")).json()["detail"].endswith("ask a node that keeps the whole history")
        assert (await http.get("blocks/0")).status_code == 404
        assert (await http.get("headers/1000")).status_code == 404


async def test_a_light_client_is_told_that_its_header_is_too_old(pruned: Pruned) -> None:
    async with pruned.served() as url, LedgerClient.of_genesis(url, pruned.genesis) as client:
        assert (await client.light_block(pruned.first)).height == pruned.first
        with pytest.raises(InquiryError, match="no longer has a header as old"):
            await client.light_block(1)


async def test_a_new_follower_says_what_it_lacks_and_where_that_is(pruned: Pruned, tmp_path: Path) -> None:
    chain = Chain(Store(tmp_path / "new", pruned.genesis), pruned.genesis)
    async with pruned.served() as url:
        follower = Follower(chain, url, SystemClock())
        with pytest.raises(GoneError):
            await follower._fetch()
        work = asyncio.create_task(follower.run())
        async with asyncio.timeout(60):
            while not follower.shortfall():
                await asyncio.sleep(0.01)
        assert follower.shortfall().endswith(f"and no longer block 1: ask {ARCHIVE}")
        assert follower.shortfall() in SHORTFALLS.notes()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    chain.close()


async def test_a_follower_that_was_not_away_for_long_goes_on(pruned: Pruned, tmp_path: Path) -> None:
    chain = Chain(Store(tmp_path / "new", pruned.genesis), pruned.genesis)
    for step in pruned.steps:
        if all(executed.block.height < pruned.first for executed in step.executed):
            chain.store.commit(step)
    assert chain.height == pruned.first - 1
    async with pruned.served() as url:
        follower = Follower(chain, url, SystemClock())
        work = asyncio.create_task(follower.run())
        assert await chain.wait_for(pruned.chain.height, 60)
        assert follower.shortfall() == ""
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    chain.close()


def test_what_another_node_says_is_told_in_part_only() -> None:
    assert str(GoneError.of(b'{"detail": "' + b"x" * 1000 + b'"}')).count("x") < 320
    for nonsense in (b"", b"\xff", b"[]", b'{"detail": 1}'):
        assert str(GoneError.of(nonsense)).endswith("it does not say why")
