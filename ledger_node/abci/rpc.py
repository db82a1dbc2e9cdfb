"""A client for the few methods of CometBFT's RPC that a node calls on its own CometBFT: JSON-RPC 2.0 over HTTP."""

import asyncio
import base64
import re
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import msgspec

from ledger_node.abci.cometbft import MAX_RPC_BATCH
from ledger_node.abci.evidence_json import parse_evidence_list
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.ledger.evidence import Evidence
from voice_dpki.ledger.header import SignedHeader
from voice_dpki.shell.config import Listen
from voice_dpki.wire.http_client import HttpClient, HttpError

TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 32 * 1024 * 1024
"""Enough for MAX_RPC_BATCH headers with commits of the largest validator set, and for a block with its evidence."""

RETRY_S = 0.1
"""Pause before a retry, for instance while CometBFT starts."""

NO_VOTE = "nil-Vote"
"""CometBFT's word for a vote that it does not have."""

IN_CACHE = "tx already exists in cache"
"""CometBFT's message for a transaction that it has seen before."""


_BITS = re.compile(r"BA\{\d+:([x_]*)\}", re.ASCII)
"""A bit array as CometBFT writes it (libs/bits), a character for each validator in the order of their set."""


class RpcError(LocalError):
    """CometBFT does not answer, or answers with an error."""


class Rpc:
    """A client of one CometBFT; use as an asynchronous context."""

    def __init__(self, listen: Listen) -> None:
        self._url = f"http://{listen.host}:{listen.port}"
        self._client = HttpClient(self._url, timeout_s=TIMEOUT_S, max_answer_bytes=MAX_ANSWER_BYTES)

    async def __aenter__(self) -> "Rpc":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def signed_headers(self, heights: Sequence[int]) -> dict[int, SignedHeader]:
        """Fetch the headers at the first MAX_RPC_BATCH of `heights`, each with its commit.

        Raises RpcError where a header is missing or CometBFT does not answer, and MalformedError for an answer of
        another form.
        """
        parameters = [{"height": str(height)} for height in heights[:MAX_RPC_BATCH]]
        results = [_result(answer) for answer in await self._batch("commit", parameters)]
        headers = (SignedHeader.from_json(_member(result, "signed_header")) for result in results)
        return {header.header.height: header for header in headers}

    async def evidence(self, heights: Sequence[int]) -> dict[int, tuple[Evidence, ...]]:
        """Fetch the evidence in the blocks at `heights`, one block after the other.

        Raises RpcError where a block is missing or CometBFT does not answer, and MalformedError for an answer of
        another form. Nothing is verified: the header's evidence_hash shows whether this is all the evidence.
        """
        answers = [await self._batch("block", [{"height": str(height)}]) for height in heights]
        blocks = [_member(_result(*answer), "block") for answer in answers]
        return {height: parse_evidence_list(block) for height, block in zip(heights, blocks, strict=True)}

    async def status(self) -> dict[str, Any]:
        """Fetch the node's own account of itself; raises RpcError."""
        return await self._call("status")

    async def next_version(self) -> tuple[int, int]:
        """Return the height of CometBFT's next block, and the `version.app` that it expects there.

        Raises RpcError, and MalformedError for an answer of another form.
        """
        answer = await self._call("consensus_params")
        version = _member(_member(answer, "consensus_params"), "version")
        return int(_member(answer, "block_height")), int(_member(version, "app"))

    async def peers(self) -> int:
        """Count the peers that the node is connected to; raises RpcError."""
        return int(_member(await self._call("net_info"), "n_peers"))

    async def votes(self) -> tuple[int, dict[str, list[str]]]:
        """Return the height being decided, and the votes for it that the node has, by validator address.

        A vote is written ROUND/prevote or ROUND/precommit, in voting order. Raises RpcError, and MalformedError
        for an answer of another form.
        """
        state = _member(await self._call("dump_consensus_state"), "round_state")
        addresses = [_member(each, "address") for each in _member(_member(state, "validators"), "validators")]
        found: dict[str, list[str]] = {address: [] for address in addresses}
        for of_round in _member(state, "votes"):
            for kind in ("prevote", "precommit"):
                for address, vote in zip(addresses, _member(of_round, f"{kind}s"), strict=True):
                    if vote != NO_VOTE:
                        found[address].append(f"{_member(of_round, 'round')}/{kind}")
        return int(_member(state, "height")), found

    async def voters(self) -> frozenset[int]:
        """Return which validators have voted in the next block's latest round, by their place in the set.

        Raises RpcError, and MalformedError for an answer of another form.
        """
        state = _member(await self._call("consensus_state"), "round_state")
        rounds = _member(state, "height_vote_set")
        if not isinstance(rounds, list):
            raise MalformedError("CometBFT's answer has no list of rounds")
        found = [_places(each, "prevotes") | _places(each, "precommits") for each in rounds]
        return next((places for places in reversed(found) if places), frozenset())

    async def broadcast(self, transactions: Sequence[bytes]) -> list[str]:
        """Hand at most MAX_RPC_BATCH transactions to the mempool; return for each why it was not taken, or "".

        Does not wait for CheckTx, which CometBFT runs at intervals of 20 ms, one after another. Raises RpcError if
        CometBFT does not answer; the mempool can hold some of them even then.
        """
        parameters = [{"tx": base64.b64encode(raw).decode("ascii")} for raw in transactions]
        answers = await self._batch("broadcast_tx_async", parameters)
        return [_reason(answer) if "error" in answer else "" for answer in answers]

    async def _call(self, method: str) -> dict[str, Any]:
        return _result(*await self._batch(method, [{}]))

    async def _batch(self, method: str, parameters: Sequence[dict[str, str]]) -> list[Any]:
        """Call a method once for each of `parameters`, in one request; the answers are in the same order."""
        if not parameters:
            return []
        calls = [
            {"jsonrpc": "2.0", "id": number, "method": method, "params": values}
            for number, values in enumerate(parameters)
        ]
        answers = await self._post(calls)
        # CometBFT answers a batch of one with an object, not a list.
        answers = answers if isinstance(answers, list) else [answers]
        by_number = {_member(answer, "id"): answer for answer in answers}
        if by_number.keys() != set(range(len(calls))):
            raise RpcError(f"CometBFT did not answer each {method} of a batch")
        return [by_number[number] for number in range(len(calls))]

    async def _post(self, body: object) -> Any:
        try:
            answer = await self._client.request("POST", "/", msgspec.json.encode(body))
            return msgspec.json.decode(answer.body)
        except HttpError as error:
            raise RpcError(f"CometBFT does not answer at {self._url}: {error}") from None
        except msgspec.DecodeError:
            raise RpcError(f"CometBFT's answer at {self._url} is not JSON") from None


_Queued = tuple[bytes, "asyncio.Future[str]"]


class Broadcaster:
    """Collects transactions that arrive together into one batch; `run` sends the batches."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc
        self._queue: deque[_Queued] = deque()
        self._filled = asyncio.Event()

    async def broadcast(self, transaction: bytes) -> str:
        """Hand over a transaction and wait until CometBFT answers; return why it was not taken, or ""."""
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._queue.append((transaction, future))
        self._filled.set()
        return await future

    async def run(self) -> None:
        """Send the queued transactions, batch after batch, until cancelled."""
        while True:
            await self._filled.wait()
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_RPC_BATCH))]
            if not self._queue:
                self._filled.clear()
            while not await self._send(batch):  # noqa: ASYNC110 - CometBFT has no event for being up
                await asyncio.sleep(RETRY_S)

    async def _send(self, batch: Sequence[_Queued]) -> bool:
        """Send the transactions of a batch whose senders still wait; return whether CometBFT answered."""
        wanted = [(transaction, future) for transaction, future in batch if not future.done()]
        try:
            answers = await self._rpc.broadcast([transaction for transaction, _ in wanted])
        except RpcError:
            return False
        for (_, future), answer in zip(wanted, answers, strict=True):
            if not future.done():
                future.set_result(answer)
        return True


def _places(votes: Any, what: str) -> frozenset[int]:
    """Return the places of those whose votes a round holds: a text such as `BA{4:xx_x} 3/4 = 0.75`."""
    match = _BITS.match(str(_member(votes, f"{what}_bit_array")))
    if match is None:
        raise MalformedError(f"CometBFT's answer has no {what}")
    return frozenset(place for place, bit in enumerate(match[1]) if bit == "x")


def _result(answer: Any) -> dict[str, Any]:
    if "error" in answer:
        raise RpcError(f"CometBFT refuses: {_reason(answer)}")
    result: dict[str, Any] = _member(answer, "result")
    return result


def _reason(answer: Any) -> str:
    error = _member(answer, "error")
    return str(error.get("data") or error.get("message"))[:200]


def _member(value: Any, name: str) -> Any:
    if not isinstance(value, dict) or name not in value:
        raise MalformedError(f"CometBFT's answer has no {name}")
    return value[name]
