"""The client of CometBFT's RPC, against a double that answers over HTTP as CometBFT v0.38 does."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ledger_node.abci.cometbft import MAX_RPC_BATCH
from ledger_node.abci.rpc import IN_CACHE, Broadcaster, Rpc, RpcError
from voice_dpki.errors import MalformedError
from voice_dpki.ledger.evidence import evidence_hash
from voice_dpki.ledger.header import Header
from voice_dpki.shell.config import Listen
from voice_dpki.shell.http import HttpApp, Request, Response, Route, serve

VECTORS = Path(__file__).parents[2] / "vectors" / "cometbft"
COMMIT = json.loads((VECTORS / "commit-5.json").read_text())
COMMIT = COMMIT.get("result", COMMIT)
HEIGHT = int(COMMIT["signed_header"]["header"]["height"])
PARAMETERS = {
    "block_height": "41",
    "consensus_params": {
        "block": {"max_bytes": "1048576", "max_gas": "-1"},
        "evidence": {"max_age_num_blocks": "100000", "max_age_duration": "172800000000000", "max_bytes": "1048576"},
        "validator": {"pub_key_types": ["ed25519"]},
        "version": {"app": "2"},
        "abci": {"vote_extensions_enable_height": "0"},
    },
}
BLOCK = json.loads((VECTORS / "evidence" / "block-prevotes.json").read_text())
ROUND_STATE = {
    "height": "5",
    "validators": {"validators": [{"address": "AA"}, {"address": "BB"}, {"address": "CC"}]},
    "votes": [
        {
            "round": 0,
            "prevotes": [
                "Vote{0:AA 5/00/SIGNED_MSG_TYPE_PREVOTE(Prevote) 000000000000 11 @ 2026}",
                "nil-Vote",
                "nil-Vote",
            ],
            "precommits": [
                "Vote{0:AA 5/00/SIGNED_MSG_TYPE_PRECOMMIT(Precommit) 0 11 @ 2026}",
                "nil-Vote",
                "nil-Vote",
            ],
        },
        {"round": 1, "prevotes": ["nil-Vote", "nil-Vote", "Vote{2:CC 5/01}"], "precommits": ["nil-Vote"] * 3},
    ],
}


def call(method: str, parameters: dict[str, str]) -> dict[str, Any]:
    """Answer one call as CometBFT does."""
    if method == "commit" and int(parameters["height"]) == HEIGHT:
        return {"result": COMMIT}
    if method == "block" and int(parameters["height"]) == HEIGHT:
        return {"result": BLOCK}
    if method == "consensus_params":
        return {"result": PARAMETERS}
    if method == "dump_consensus_state":
        return {"result": {"round_state": ROUND_STATE}}
    if method == "broadcast_tx_async":
        known = base64.b64decode(parameters["tx"]) == b"known"
        error = {"code": -32603, "message": "Internal error", "data": IN_CACHE}
        return {"error": error} if known else {"result": {"code": 0, "hash": ""}}
    return {"error": {"code": -32603, "message": "Internal error", "data": "height must be less"}}


def batch(body: bytes) -> Any:
    """Answer a batch; the answers to several calls come in any order, and the answer to one without a list."""
    calls = json.loads(body)
    answers = [{"jsonrpc": "2.0", "id": each["id"], **call(each["method"], each["params"])} for each in calls]
    return answers[::-1] if len(answers) > 1 else answers[0]


@asynccontextmanager
async def cometbft(answers: Callable[[bytes], Any] = batch, port: int = 0) -> AsyncIterator[Rpc]:
    async def answer(request: Request) -> Response:
        return Response(200, json.dumps(answers(request.body)).encode())

    app = HttpApp([Route("POST", "/", answer, 10**7)])
    async with serve(app, Listen(port=port)) as chosen, Rpc(Listen(port=chosen)) as rpc:
        yield rpc


async def test_headers_come_with_their_commits() -> None:
    async with cometbft() as rpc:
        assert await rpc.signed_headers([]) == {}
        headers = await rpc.signed_headers([HEIGHT])
        assert headers[HEIGHT].header.hash() == headers[HEIGHT].commit.block_id.hash
        with pytest.raises(RpcError, match="height must be less"):
            await rpc.signed_headers([HEIGHT, HEIGHT + 1])


async def test_the_next_block_comes_with_the_version_that_cometbft_expects_there() -> None:
    async with cometbft() as rpc:
        assert await rpc.next_version() == (41, 2)


async def test_evidence_comes_as_the_header_commits_to_it() -> None:
    async with cometbft() as rpc:
        assert await rpc.evidence([]) == {}
        evidence = (await rpc.evidence([HEIGHT]))[HEIGHT]
        assert evidence_hash(evidence) == Header.from_json(BLOCK["block"]["header"]).evidence_hash
        with pytest.raises(RpcError, match="height must be less"):
            await rpc.evidence([HEIGHT, HEIGHT + 1])


async def test_transactions_are_taken_or_not_each_for_itself() -> None:
    async with cometbft() as rpc:
        assert await rpc.broadcast([b"new", b"known", b"other"]) == ["", IN_CACHE, ""]


@pytest.mark.parametrize(
    "answer",
    [[], {}, 7, "text", None, {"id": 0}, {"id": 1, "result": {}}, {"id": 0, "result": {"signed_header": 3}}],
    ids=str,
)
async def test_other_answers_are_errors(answer: Any) -> None:
    async with cometbft(lambda _: answer) as rpc:
        for method in (rpc.signed_headers, rpc.evidence):
            with pytest.raises((RpcError, MalformedError)):
                await method([HEIGHT])


async def test_transactions_wait_for_cometbft_and_go_in_batches() -> None:
    sizes: list[int] = []

    def counting(body: bytes) -> Any:
        sizes.append(len(json.loads(body)))
        return batch(body)

    async with cometbft() as unused:
        port = int(str(unused._url).rpartition(":")[2])
    async with Rpc(Listen(port=port)) as rpc:
        broadcaster = Broadcaster(rpc)
        work = asyncio.create_task(broadcaster.run())
        waiting = [asyncio.create_task(broadcaster.broadcast(b"%d" % n)) for n in range(MAX_RPC_BATCH + 4)]
        given_up = waiting.pop()
        await asyncio.sleep(0)
        given_up.cancel()
        async with cometbft(counting, port):
            assert await asyncio.gather(*waiting) == [""] * len(waiting)
        work.cancel()
    assert max(sizes) <= MAX_RPC_BATCH
    assert sum(sizes) >= len(waiting)


async def test_the_votes_that_a_node_has_are_told_by_validator() -> None:
    async with cometbft() as rpc:
        assert await rpc.votes() == (5, {"AA": ["0/prevote", "0/precommit"], "BB": [], "CC": ["1/prevote"]})
