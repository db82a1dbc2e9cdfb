"""What strangers may ask of a node costs them what it costs the node, and keeps nobody else waiting."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from ledger_node.answer.api import Api
from ledger_node.answer.catalogue import Catalogue
from ledger_node.answer.feed import Feed
from ledger_node.keep.chain import Chain
from ledger_node.keep.store import Store
from voice_dpki.effects import SystemClock
from voice_dpki.shell.config import Listen
from voice_dpki.shell.http import serve
from voice_dpki.shell.limits import Limits
from voice_dpki.shell.reload import Live
from voice_dpki.shell.trace import Tracer

NAMES = [f"{number:064x}" for number in range(1000)]
BATCH = {"digests": NAMES}
STATUS = f"status/{NAMES[0]}"


@pytest.fixture
def chain(network: Any, tmp_path: Path) -> Iterator[Chain]:
    store = Store(tmp_path / "data", network.genesis)
    for step in network.maker().steps([network.submission_of(network.certificate())], [], []):
        store.commit(step)
    chain = Chain(store, network.genesis)
    yield chain
    chain.close()


class NoOrderer:
    """Takes no transactions."""

    async def submit(self, raw: bytes) -> Any:
        raise AssertionError

    async def run(self) -> None:
        raise AssertionError


@asynccontextmanager
async def node(chain: Chain, folder: Path, bounds: Limits | None = None) -> AsyncIterator[str]:
    api = Api(
        chain,
        name="priced",
        role="engine",
        folder=folder,
        orderer=NoOrderer(),
        feed=Feed(chain),
        submission=None,
        tokens=Live(()),
        clock=SystemClock(),
        tracer=Tracer(None, "priced"),
    )
    async with serve(api.app(), Listen(port=0), limits=bounds) as port:
        yield f"http://127.0.0.1:{port}/ledger/v1/"


def client(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, trust_env=False, timeout=60)


async def test_a_search_whose_client_has_gone_is_not_made(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One runs and cannot be stopped; those that wait for it end with their connections, and free their places."""
    begun, go_on, real, asked = threading.Event(), threading.Event(), Catalogue.search, []

    def search(self: Catalogue, subject: str | None, organization: str | None) -> dict[str, object]:
        asked.append(subject)
        begun.set()
        assert go_on.wait(60)
        return real(self, subject, organization)

    monkeypatch.setattr(Catalogue, "search", search)
    async with node(chain, tmp_path) as url:
        port = int(httpx.URL(url).port or 0)
        streams = []
        for number in range(5):
            streams.append(await asyncio.open_connection("127.0.0.1", port))
            streams[-1][1].write(b"GET /ledger/v1/search?subject=%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
            if number == 0:
                await asyncio.to_thread(begun.wait, 60)
        async with client(url) as other:
            for _ in range(20):  # the server reads the five before it sees them go
                assert (await other.get(STATUS)).status_code == 200
            for _, writer in streams:
                writer.transport.abort()
            for _ in range(20):
                assert (await other.get(STATUS)).status_code == 200
            go_on.set()
            answer = await other.get("search?subject=last")
    assert (answer.status_code, asked) == (200, ["0", "last"])


async def test_a_status_does_not_wait_for_the_lists_of_others(chain: Chain, tmp_path: Path) -> None:
    """Ten lists that are asked for before it take longer than the status."""
    async with node(chain, tmp_path) as url, client(url) as attacker, client(url) as victim:
        await victim.get("node")
        lists = [asyncio.create_task(attacker.post("statuses", json=BATCH)) for _ in range(10)]
        await asyncio.wait(lists, return_when=asyncio.FIRST_COMPLETED)
        assert (await victim.get(STATUS)).status_code == 200
        assert sum(each.done() for each in lists) < 5
        assert {answer.status_code for answer in await asyncio.gather(*lists)} == {200}


@pytest.mark.parametrize(
    ("path", "body", "retry_after_s"),
    [("statuses", json.dumps(BATCH).encode(), 8), ("transactions", bytes(60_000), 1)],
)
async def test_requests_cost_what_is_in_them(
    chain: Chain, tmp_path: Path, path: str, body: bytes, retry_after_s: int
) -> None:
    """A client that may have little waits the longer, the more it asked for."""
    async with node(chain, tmp_path, Limits(cost_s=100)) as url, client(url) as asker:
        await asker.post(path, content=body)
        answer = await asker.get(STATUS)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= retry_after_s


async def test_small_lists_cost_little(chain: Chain, tmp_path: Path) -> None:
    async with node(chain, tmp_path, Limits(cost_s=100)) as url, client(url) as asker:
        for path, body in (("statuses", {"digests": NAMES[:10]}), ("leaves", {"keys": NAMES[:64]})):
            assert (await asker.post(path, json=body)).status_code == 200
        assert (await asker.get(STATUS)).status_code == 200


async def test_blocks_end_where_the_client_may_have_no_more(chain: Chain, tmp_path: Path) -> None:
    async with node(chain, tmp_path, Limits(cost_s=1)) as url, client(url) as asker:
        heights = [len((await asker.get("blocks?count=64")).json().get("blocks", ())) for _ in range(12)]
        assert heights[0] == chain.height
        assert heights[-1] == 0
