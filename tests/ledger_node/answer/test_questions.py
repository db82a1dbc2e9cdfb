"""Every kind of leaf can be asked for at a node, at the edge and over ABCI, and the edge knows all questions."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ledger_node.answer.api import Api
from ledger_node.answer.edge import Edge
from ledger_node.answer.feed import Feed
from ledger_node.keep.chain import Chain
from ledger_node.keep.store import Store
from voice_dpki.effects import SystemClock
from voice_dpki.ledger.header import SignedHeader
from voice_dpki.ledger.leaf import Leaf
from voice_dpki.ledger.proof import Proof, verify_absence
from voice_dpki.ledger.state import LEAVES
from voice_dpki.shell.config import Listen
from voice_dpki.shell.http import Route, serve
from voice_dpki.shell.trace import Tracer
from voice_dpki.wire.http_client import HttpClient
from voice_dpki.wire.ledger.client import LedgerClient

LOOKUPS = [leaf for leaf in LEAVES if leaf.lookup]
OF_THE_CHAIN = {("GET", "blocks"), ("GET", "blocks/{height}"), ("POST", "transactions")}
"""What an edge, which has no chain, leaves to nodes with a store."""

NOBODY = "00" * 32
"""A name and a hash that nothing has."""


@pytest.fixture
def api(network: Any, tmp_path: Path) -> Iterator[Api]:
    store = Store(tmp_path / "data", network.genesis)
    for step in network.maker().steps([network.submission_of(network.certificate())], [], []):
        store.commit(step)
    chain = Chain(store, network.genesis)
    parts: Any = {"orderer": None, "submission": None, "tokens": (), "tracer": Tracer(None, "asked")}
    yield Api(chain, name="asked", role="engine", folder=tmp_path, feed=Feed(chain), clock=SystemClock(), **parts)
    chain.close()


def paths(routes: list[Route]) -> set[tuple[str, str]]:
    return {(route.method, route.pattern.removeprefix("/ledger/v1/")) for route in routes}


async def test_the_edge_has_every_route_of_a_node_but_those_of_the_chain(network: Any, api: Api) -> None:
    url = "http://127.0.0.1:9"
    upstream = HttpClient(url, timeout_s=1, max_answer_bytes=1)
    async with LedgerClient.of_genesis(url, network.genesis) as client:
        parts: Any = {"name": "edge", "chain_id": "", "max_entries": 1, "tracer": Tracer(None, "edge")}
        edge = Edge(client, upstream, clock=SystemClock(), **parts)
        assert paths(api.routes()) - paths(edge.routes()) == OF_THE_CHAIN
        assert paths(edge.routes()) <= paths(api.routes())
    await upstream.aclose()


@pytest.mark.parametrize("leaf", LOOKUPS, ids=lambda leaf: leaf.kind)
async def test_a_node_proves_that_a_leaf_is_absent(api: Api, leaf: Leaf[Any]) -> None:
    assert leaf.lookup is not None
    argument, nobody = leaf.lookup.argument, "9" * 15 if leaf.kind == "number" else NOBODY
    async with serve(api.app(), Listen(port=0)) as port, httpx.AsyncClient(trust_env=False) as client:
        url = f"http://127.0.0.1:{port}/ledger/v1/{leaf.lookup.path}"
        answer = (await client.get(f"{url}/{nobody}")).json()
        assert (await client.get(f"{url}/{nobody}0")).status_code == 400
    header = SignedHeader.from_json(answer["signed_header"]).header
    said = answer.get(leaf.kind, answer)
    assert (answer[argument.name], said["record"], answer["height"]) == (nobody, None, header.height)
    key = leaf.key(argument.of_text(nobody))
    verify_absence(header.app_hash, key, Proof.parse(base64.b64decode(said["proof"])))
