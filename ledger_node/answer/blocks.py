"""Blocks for followers, changes for subscribers, and transactions from anyone, over HTTP."""

import asyncio
from dataclasses import asdict

import msgspec

from ledger_node.answer.feed import Feed
from ledger_node.answer.inquiry import NoBlockError
from ledger_node.answer.questions import ONE_COST
from ledger_node.answer.requests import PrunedError, changes_after, guarded, parse_number, wait_s
from ledger_node.keep.chain import Chain
from ledger_node.keep.store import StoredBlock, StoreView
from ledger_node.order.orderer import Orderer
from voice_dpki.ledger.replica import content_json
from voice_dpki.ledger.transactions import MAX_TRANSACTION_BYTES
from voice_dpki.shell.http import Charge, Request, Response, Route, json_response, problem
from voice_dpki.shell.limits import TooManyError

MAX_BLOCKS = 64
MAX_BLOCKS_BYTES = 4 * 1024 * 1024
"""A list of blocks ends with the block that passes this size."""

BLOCKS_COST = 5
BLOCKS_OF_1_COST = 4
"""Number of blocks that cost 1 more."""
BYTES_OF_1_COST = 32 * 1024
"""Bytes of blocks or changes that cost 1 more, because they are encoded and sent."""
TRANSACTION_COST = 10
"""Cost of a transaction: its signature must be verified, even if it turns out to be false."""
TRANSACTION_BYTES_OF_1_COST = 256
"""Bytes of a transaction that cost 1 more, because the certificates in it are verified."""


def _price_of_transaction(request: Request) -> int:
    return len(request.body) // TRANSACTION_BYTES_OF_1_COST


class BlockRoutes:
    """The handlers for the chain itself, and their routes."""

    def __init__(self, chain: Chain, feed: Feed, orderer: Orderer, history: str | None = None) -> None:
        """Make the handlers; `history` is the URL of a node that has the blocks that this one removed."""
        self._chain = chain
        self._history = history
        self._feed = feed
        self._orderer = orderer
        self._sending = asyncio.Lock()
        """Held while a list of blocks is encoded, one list at a time."""

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("GET", "/ledger/v1/changes", guarded(self._changes), cost=ONE_COST, waits=True),
            Route("GET", "/ledger/v1/blocks", guarded(self._blocks), cost=BLOCKS_COST, waits=True),
            Route("GET", "/ledger/v1/blocks/{height}", guarded(self._block), cost=ONE_COST, waits=True),
            Route(
                "POST",
                "/ledger/v1/transactions",
                guarded(self._transaction),
                MAX_TRANSACTION_BYTES,
                TRANSACTION_COST,
                _price_of_transaction,
            ),
        ]

    async def _changes(self, request: Request) -> Response:
        root, height = changes_after(request)
        changes = await self._feed.changes(root, height, wait_s(request))
        if changes is None:
            raise NoBlockError("this node has no block yet; ask again in a moment")
        request.charge(len(changes) // BYTES_OF_1_COST)
        return Response(200, changes)

    async def _block(self, request: Request) -> Response:
        height = parse_number(request.path_args["height"], "height")
        await self._chain.wait_for(height, wait_s(request))
        with self._chain.snapshot() as view:
            block = view.block(height)
            self._check_kept(view, height)
        if block is None:
            return problem(404, "Not Found", f"there is no block {height} yet")
        request.charge(_size(block) // BYTES_OF_1_COST)
        return json_response(200, _block_json(block))

    async def _blocks(self, request: Request) -> Response:
        first = parse_number(request.query.get("from", "1"), "from")
        count = min(parse_number(request.query.get("count", "1"), "count"), MAX_BLOCKS)
        await self._chain.wait_for(first, wait_s(request))
        request.charge(count // BLOCKS_OF_1_COST)
        async with self._sending:
            return json_response(200, {"blocks": await self._encoded(first, count, request.charge)})

    async def _encoded(self, first: int, count: int, charge: Charge) -> list[msgspec.Raw]:
        """Encode blocks one at a time, until the client's limit or MAX_BLOCKS_BYTES is reached.

        Raises TooManyError if the limit does not even allow the first, and PrunedError if that was removed.
        """
        blocks: list[msgspec.Raw] = []
        size = 0
        with self._chain.snapshot() as view:
            self._check_kept(view, first)
            for height in range(first, first + count):
                block = view.block(height)
                if block is None or size > MAX_BLOCKS_BYTES:
                    break
                try:
                    charge(_size(block) // BYTES_OF_1_COST)
                except TooManyError:
                    if not blocks:
                        raise
                    break
                blocks.append(msgspec.Raw(msgspec.json.encode(_block_json(block))))
                size += _size(block)
                await asyncio.sleep(0)
        return blocks

    def _check_kept(self, view: StoreView, height: int) -> None:
        """Raise PrunedError if the block at `height` was there and was removed; there is none at 0."""
        if 0 < height < view.first:
            raise PrunedError.below(height, view.first, self._history)

    async def _transaction(self, request: Request) -> Response:
        verdict = await self._orderer.submit(request.body)
        return json_response(
            422 if verdict.result.code else 200, {**asdict(verdict.result), "height": verdict.height}
        )


def _size(block: StoredBlock) -> int:
    return sum(map(len, (*block.transactions, *block.evidence)))


def _block_json(block: StoredBlock) -> dict[str, object]:
    content: dict[str, object] = {**content_json(block.transactions, block.evidence)}
    if block.last_commit_json is not None:
        content["last_commit"] = msgspec.Raw(block.last_commit_json)
    return {"signed_header": msgspec.Raw(block.signed_header_json), **content}
