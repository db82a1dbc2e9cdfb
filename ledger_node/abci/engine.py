"""The engine on CometBFT: orders transactions among the operators' validators.

CometBFT runs as a child process; the application answers it over a socket in the node's folder. When one of them
ends, so does the other: a validator without its application must not vote, and an application without CometBFT is
stale.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar
from weakref import WeakValueDictionary

from ledger_node.abci.abci_pb2 import CheckTx, Query
from ledger_node.abci.application import CODESPACE, Application
from ledger_node.abci.beginning import Beginning
from ledger_node.abci.cometbft import LOG_FILE, Home, inspecting, running
from ledger_node.abci.peer_count import PeerCount
from ledger_node.abci.peers import FILTER, Peers
from ledger_node.abci.pool import FULL
from ledger_node.abci.rpc import IN_CACHE, RETRY_S, Broadcaster, Rpc, RpcError
from ledger_node.abci.server import Handlers, serve_abci
from ledger_node.abci.snapshots import Restoration, Snapshots
from ledger_node.abci.stall import MissingVotes
from ledger_node.abci.tail import Tail
from ledger_node.abci.window import Window
from ledger_node.keep.chain import Chain, TxOutcome
from ledger_node.order.engine import MAX_WAITING
from ledger_node.order.orderer import BusyError, UnavailableError
from ledger_node.order.stall import Stall
from ledger_node.order.verifier import Verifier, running_verifier
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.ledger.activation import rules_at, scheduled, version_at
from voice_dpki.ledger.block import NO_EVIDENCE_HASH
from voice_dpki.ledger.evidence import Evidence
from voice_dpki.ledger.header import SignedHeader
from voice_dpki.ledger.rules import MissingRulesError
from voice_dpki.ledger.state import Outcome, TxResult, check, check_sender
from voice_dpki.ledger.transactions import canonical
from voice_dpki.names import Height
from voice_dpki.shell.limits import TooManyError
from voice_dpki.wire.tasks import first_of

log = logging.getLogger(__name__)

_T = TypeVar("_T")

START_TIMEOUT_S = 60.0
"""How long CometBFT may take to serve what it has stored."""

SUBMIT_TIMEOUT_S = 20.0
"""How long a sender waits for its transaction's block, for instance while too few validators are up."""


class CometEngine:
    """Orders transactions over CometBFT; `run` does the work, `submit` needs it to be running."""

    def __init__(self, chain: Chain, home: Home) -> None:
        self._chain = chain
        self._home = home
        self._peers = Peers(home.settings.peers, home.admitted)
        self._tail = Tail(chain.store, chain.genesis)
        self._verifier = Verifier()
        self._application = Application(chain.genesis, self._tail, self._verifier, on_progress=self._progressed)
        self._snapshots = Snapshots(home.folder / "snapshots")
        self._restoration = Restoration(chain.genesis.chain_id, self._restore)
        self._snapshot_height = self._tail.height
        self._rpc = Rpc(home.settings.rpc)
        self._beginning = Beginning(chain, self._rpc, self._restoration, home.settings)
        self._stall = Stall(chain, home.settings.heartbeat_s, MissingVotes(chain, self._rpc).tell)
        self._broadcaster = Broadcaster(self._rpc)
        self.peer_count = PeerCount(len(home.settings.peers))
        self._window = Window()
        self._waiting: WeakValueDictionary[bytes, asyncio.Future[TxOutcome]] = WeakValueDictionary()
        """Futures of verdicts by the transaction's SHA-256; each lives as long as one of its senders holds it."""
        self._height = Height(0)
        self._headers: dict[int, SignedHeader] = {}
        self._news = asyncio.Event()
        self._outdated = asyncio.Event()
        """Set once the next block follows rules that this release lacks."""

    async def submit(self, raw: bytes) -> TxOutcome:
        """Order a transaction and return once its block is stored durably here; or refuse it without a block.

        A signature in a non-canonical form is first brought into the canonical one.

        Raises BusyError when the backlog is full or CometBFT does not take the transaction, and TooManyError when
        its member has used its share of the mempool. Raises UnavailableError when no block holds it within
        SUBMIT_TIMEOUT_S; a later block can still hold it.
        """
        raw = canonical(raw)
        try:
            async with asyncio.timeout(SUBMIT_TIMEOUT_S):
                refused = await self._refusal(raw)
                return TxOutcome(refused, None) if refused else await self._order(raw)
        except TimeoutError:
            raise UnavailableError("the validators agree on no block in time; repeat the request") from None

    async def _refusal(self, raw: bytes) -> TxResult | None:
        """Judge a transaction as if it came first in the next block; return the refusal, or None if it is sound.

        Raises BusyError when the backlog is full.
        """
        result = self._application.judge(check_sender, raw)
        if not result.code:
            self._check_room()
            await self._verifier.verify(raw)
            result = self._application.judge(check, raw)
        return result if result.code else None

    async def _order(self, raw: bytes) -> TxOutcome:
        self._check_room()
        answer = self._waiting.setdefault(hashlib.sha256(raw).digest(), asyncio.get_running_loop().create_future())
        async with self._window.room(len(raw)):
            not_taken = await self._broadcaster.broadcast(raw)
            if not_taken and not_taken != IN_CACHE:
                raise BusyError(f"CometBFT takes no transaction now: {not_taken}")
            return await asyncio.shield(answer)

    async def run(self) -> None:
        """Run CometBFT and serve it until cancelled.

        Raises LocalError when CometBFT, the application or the verifying process ends, and where CometBFT's state
        cannot go on. Raises MissingRulesError before the first block that this release cannot judge.
        """
        self._check_rules()
        await self._check_home()
        await self._peers.resolve()
        try:
            async with (
                self._rpc,
                running_verifier(self._verifier),
                serve_abci(self._handlers(), self._home.socket) as failed,
            ):
                while True:
                    await self._run_cometbft(failed)
        finally:
            self._tail.close()

    async def _run_cometbft(self, failed: asyncio.Event) -> None:
        """Run CometBFT and the tasks around it until it must be restarted; raises as `run`."""
        async with running(self._home) as process:
            await first_of(
                self._beginning.run(),
                self._stall.run(),
                self.peer_count.run(self._rpc),
                self._broadcaster.run(),
                self._settle(),
                self._peers.run(),
                self._fail_after(self._outdated.wait(), "this release is outdated"),
                self._fail_after(failed.wait(), "the ledger application failed"),
                self._process_ended(process),
                self._fail_after(self._verifier.ended.wait(), "the process that verifies certificates ended"),
            )

    def _handlers(self) -> Handlers:
        own: Handlers = {"check_tx": self._check_tx, "query": self._query}
        return self._application.handlers | self._snapshots.handlers | self._restoration.handlers | own

    def _check_tx(self, request: CheckTx.Request) -> CheckTx.Response:
        """Judge a transaction for the mempool; if it is refused, answer the senders that wait for it."""
        response = self._application.check_tx(request)
        if response.code == FULL.code:
            self._fail(request.transaction, TooManyError(FULL.detail, 1))
        elif response.code:
            self._answer(request.transaction, TxOutcome(self._application.judge(check, request.transaction), None))
        return response

    def _query(self, request: Query.Request) -> Query.Response:
        """Answer a query about the state, or whether a peer may connect."""
        if not request.path.startswith(FILTER):
            return self._application.query(request)
        refusal = self._peers.refusal(request.path)
        return Query.Response(code=1, codespace=CODESPACE, log=refusal) if refusal else Query.Response()

    def _answer(self, raw: bytes, verdict: TxOutcome) -> None:
        answer = self._waiting.get(hashlib.sha256(raw).digest())
        if answer is not None and not answer.done():
            answer.set_result(verdict)

    def _fail(self, raw: bytes, error: Exception) -> None:
        answer = self._waiting.get(hashlib.sha256(raw).digest())
        if answer is not None and not answer.done():
            answer.set_exception(error)

    def _check_room(self) -> None:
        if max(len(self._waiting), self._verifier.backlog) >= MAX_WAITING:
            raise BusyError("too many transactions are waiting for a block; repeat this one in a moment")

    def _progressed(self, height: Height) -> None:
        """Note that CometBFT has the header at `height`; its block may not be committed yet."""
        self._height = height
        self._news.set()
        try:
            self._check_rules()
        except MissingRulesError:
            self._outdated.set()

    def _check_rules(self) -> None:
        """Raise MissingRulesError if this release lacks the rules of the block after the last committed one."""
        rules_at(self._tail.view, self._tail.height + 1)

    async def _check_home(self) -> None:
        """Raise LocalError if a release that knows no versions of the rules ran CometBFT into one that it lacks.

        It did not tell CometBFT of that version, which therefore refuses the version's first block for ever. The
        store ends before that block, so a version is still to begin there.
        """
        if scheduled(self._tail.view, self._tail.height) is None or not self._home.has_state:
            return
        async with inspecting(self._home), Rpc(self._home.settings.rpc) as rpc:
            height, told = await _answered(rpc.next_version)
        if told < version_at(self._tail.view, height):
            raise LocalError(
                f"from block {height} on the ledger follows other rules, of which the release that ran here before "
                f"did not tell CometBFT. Remove this node's data_dir and all in {self._home.folder / 'data'} "
                "except priv_validator_state.json, and start again: the node fetches all blocks from its peers"
            )

    async def _settle(self) -> None:
        """Store blocks as soon as CometBFT gives the headers that prove them."""
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                while await self._store():
                    pass
            except (RpcError, MalformedError) as error:
                log.info("header-missing", extra={"fields": {"reason": str(error)}})
                await asyncio.sleep(RETRY_S)
                self._news.set()

    async def _store(self) -> bool:
        """Store every block that can be proved now; return whether there was one."""
        wanted = self._tail.wanted_headers(self._height)
        missing = [height for height in wanted if height not in self._headers]
        self._headers |= await self._rpc.signed_headers(missing)
        self._headers |= await self._rpc.signed_headers(self._tail.wanted_commits(self._headers))
        step = self._tail.step(self._headers, await self._evidence())
        if step is None:
            return False
        self._headers = {step.tip.header.height: step.tip}
        await self._chain.write(lambda: self._chain.store.commit(step))
        for settled in self._tail.stored():
            self._answer(settled.transaction, TxOutcome(settled.result, settled.height))
        await self._take_snapshot()
        return True

    async def _evidence(self) -> dict[int, tuple[Evidence, ...]]:
        """Fetch the evidence of the few blocks that have some; ABCI tells only which validators it convicts."""
        headers = (signed.header for signed in self._headers.values())
        return await self._rpc.evidence([each.height for each in headers if each.evidence_hash != NO_EVIDENCE_HASH])

    async def _take_snapshot(self) -> None:
        """Take a snapshot every `snapshot_blocks` blocks; blocks decided in the meantime are stored afterwards."""
        every, height = self._home.settings.snapshot_blocks, self._chain.height
        if not every or height // every == self._snapshot_height // every:
            return
        self._snapshot_height = height
        try:
            await self._chain.write(self._write_snapshot)
        except OSError as error:
            log.warning("no-snapshot", extra={"fields": {"reason": str(error)}})

    def _write_snapshot(self) -> None:
        with self._chain.snapshot() as view:
            self._snapshots.take(view)

    def _restore(self, height: Height, outcome: Outcome) -> None:
        """Store a state restored from a snapshot, not in the writer's thread: no other write can come before it."""
        self._chain.store.restore(height, outcome)
        self._tail.stored()

    async def _process_ended(self, process: asyncio.subprocess.Process) -> None:
        """Raise LocalError when CometBFT ends; return instead if it could find a snapshot after a restart."""
        await process.wait()
        if not await self._beginning.try_again(self._home.folder / LOG_FILE):
            await self._fail_after(process.wait(), "CometBFT ended")

    async def _fail_after(self, end: Awaitable[object], what: str) -> None:
        await end
        self._check_rules()
        raise LocalError(f"{what}; this node's log and {self._home.folder / LOG_FILE} say why")


async def _answered(ask: Callable[[], Awaitable[_T]]) -> _T:
    """Call a CometBFT that is starting until it answers; raises RpcError if it does not within START_TIMEOUT_S."""
    end_s = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            return await ask()
        except RpcError:
            if time.monotonic() > end_s:
                raise
            await asyncio.sleep(RETRY_S)
