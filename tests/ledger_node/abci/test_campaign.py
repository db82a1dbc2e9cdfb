"""Fuzzing for a time: the ABCI calls into which peers' bytes come, on the node's own handlers and over its socket.

What a peer can choose: transactions (in the mempool and in proposals), snapshots and their chunks, its address and
id; and, over the RPC, queries. Nothing of it may raise, since CometBFT stops at an exception. A node that saw it
all must have the AppHash of a twin that saw the decided blocks alone.
"""

import asyncio
import base64
import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from ledger_node.abci import snapshots as snapshots_module
from ledger_node.abci.abci_pb2 import (
    ApplySnapshotChunk,
    CheckTx,
    Commit,
    FinalizeBlock,
    Flush,
    Info,
    LoadSnapshotChunk,
    OfferSnapshot,
    PrepareProposal,
    ProcessProposal,
    Query,
    Request,
    Response,
    Snapshot,
)
from ledger_node.abci.cometbft import CometbftSection, Home
from ledger_node.abci.engine import CometEngine
from ledger_node.abci.server import Handlers, encode, serve_abci
from ledger_node.abci.snapshots import FORMAT, Restoration
from ledger_node.keep.chain import Chain
from ledger_node.keep.store import Store
from tests.campaign import bent, campaign, rounds
from tests.ledger.conftest import START_S, Federation, make_federation
from tests.ledger.history import make
from voice_dpki.codec import cbor
from voice_dpki.ledger.state import Block, MemoryState, Outcome, apply
from voice_dpki.ledger.transactions import MAX_TRANSACTION_BYTES
from voice_dpki.ledger.tree import root
from voice_dpki.names import CertDigest, Height

from .test_server import Client, connect

PEER = f"{'a' * 40}@192.0.2.1:26656"
PATHS = (
    "/certificates",
    "/members",
    "/p2p/filter/addr/192.0.2.1:50000",
    "/p2p/filter/addr/[2001:db8::1]:1",
    f"/p2p/filter/id/{'a' * 40}",
    "/p2p/filter/",
    "/store",
    "",
)
HOUR_S = 3600
MAX_HEIGHT = 150
"""Then another node begins, so that rounds stay alike."""

BETWEEN = 12
"""Calls between two blocks."""

pytestmark = pytest.mark.timeout(3600)


@dataclass
class Twin:
    """A node that sees the decided blocks alone: the state machine itself."""

    state: MemoryState
    height: int = 0
    app_hash: bytes = b""

    def decide(self, transactions: Sequence[bytes]) -> Outcome:
        self.height += 1
        block = Block(Height(self.height), START_S + HOUR_S * self.height, tuple(transactions))
        outcome = apply(self.state, block)
        self.state.commit(outcome)
        self.app_hash = outcome.app_hash
        return outcome


@dataclass
class Peer:
    """Makes what peers may send: what is sound, what is bent, and what is neither."""

    federation: Federation
    sound: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        history = make(self.federation)
        self.sound = [_bytes(raw) for block in history["blocks"] for raw in block["transactions"]]

    def transaction(self, chance: random.Random) -> bytes:
        """Make a transaction, mostly one that is none."""
        match chance.randrange(6):
            case 0:
                return chance.choice(self.sound)
            case 1:
                return chance.randbytes(chance.choice((0, 1, 30, 3000)))
            case 2:
                return chance.choice(self.sound) + b"\x00" * chance.choice((1, MAX_TRANSACTION_BYTES))
            case 3:
                return cbor.encode([chance.randrange(2**64), b"", "x", [[[[]]]], None])
            case _:
                return bent(chance, chance.choice(self.sound), self.sound)

    def several(self, chance: random.Random) -> list[bytes]:
        """Make the transactions of a proposal, some of them twice."""
        count = chance.choice((0, 1, 2, 8))
        made = [self.transaction(chance) for _ in range(count)]
        return made + made[: chance.choice((0, 0, 1))]

    def requests(self, chance: random.Random, height: int) -> Request:
        """Make one call of CometBFT's with a peer's bytes in it."""
        time = Timestamp(seconds=START_S + HOUR_S * height, nanos=chance.randrange(10**9))
        several: dict[str, Any] = {"height": height, "time": time, "transactions": self.several(chance)}
        match chance.randrange(5):
            case 0:
                occasion = chance.choice((CheckTx.NEW, CheckTx.RECHECK))
                return Request(check_tx=CheckTx.Request(transaction=self.transaction(chance), occasion=occasion))
            case 1:
                return Request(prepare_proposal=PrepareProposal.Request(max_bytes=10**6, **several))
            case 2:
                return Request(process_proposal=ProcessProposal.Request(**several))
            case 3:
                request = LoadSnapshotChunk.Request(
                    height=chance.getrandbits(64), format=chance.randrange(4), chunk=chance.getrandbits(32)
                )
                return Request(load_snapshot_chunk=request)
            case _:
                return Request(query=self.query(chance))

    def query(self, chance: random.Random) -> Query.Request:
        """Make a query, with data that its path takes or not."""
        path = chance.choice(PATHS)
        if chance.random() < 0.5:
            path = bent(chance, path.encode()).decode("utf-8", "replace")
        data = chance.choice((b"", bytes(32), chance.randbytes(32), "Operator Å".encode(), chance.randbytes(40)))
        return Query.Request(
            path=path, data=data, height=chance.randrange(-2, 2**62), prove=bool(chance.randrange(2))
        )


@pytest.fixture(scope="module")
def peer() -> Peer:
    return Peer(make_federation())


@pytest.fixture
def new_node(peer: Peer, tmp_path: Path) -> Iterator[Any]:
    """Make nodes: what `CometEngine` would serve, over a store of its own."""
    chains: list[Chain] = []

    def new() -> Handlers:
        genesis, folder = peer.federation.genesis, tmp_path / str(len(chains))
        chain = Chain(Store(folder, genesis), genesis)
        chains.append(chain)
        settings = CometbftSection(home="home", peers=(PEER,))
        home = Home(folder=folder, name="a", genesis=peer.federation.genesis_json, settings=settings)
        return CometEngine(chain, home)._handlers()

    yield new
    for chain in chains:
        chain.close()


def test_the_sound_ones_are_taken(peer: Peer, new_node: Any) -> None:
    """What the campaigns bend is sound, or they would find nothing."""
    handlers, twin = new_node(), Twin(peer.federation.genesis.initial_state())
    taken = [handlers["check_tx"](CheckTx.Request(transaction=raw)).code == 0 for raw in peer.sound]
    assert sum(taken) > len(taken) / 2
    results = twin.decide(peer.sound[:20]).results
    assert sum(result.code == 0 for result in results) > 5


@campaign
async def test_whatever_peers_send_a_node_has_the_state_of_its_twin(
    peer: Peer, new_node: Any, request: pytest.FixtureRequest
) -> None:
    handlers, twin = new_node(), Twin(peer.federation.genesis.initial_state())
    for chance in rounds(request):
        if twin.height >= MAX_HEIGHT:
            handlers, twin = new_node(), Twin(peer.federation.genesis.initial_state())
        for _ in range(BETWEEN):
            call = peer.requests(chance, twin.height + 1)
            kind = call.WhichOneof("value")
            answer = handlers[kind](getattr(call, kind))
            if kind == "prepare_proposal":
                check_proposal(handlers, call.prepare_proposal, answer)
        decided = peer.several(chance)
        outcome = twin.decide(decided)
        finalized = handlers["finalize_block"](finalize(twin.height, decided))
        handlers["commit"](Commit.Request())
        assert finalized.app_hash == outcome.app_hash
        assert [item.code for item in finalized.results] == [item.code for item in outcome.results]
        assert handlers["info"](Info.Request()).last_block_app_hash == twin.app_hash


def check_proposal(handlers: Handlers, call: PrepareProposal.Request, answer: Any) -> None:
    """What a node proposes is of what it was given, and any other node accepts it."""
    assert set(answer.transactions) <= set(call.transactions)
    judged = ProcessProposal.Request(height=call.height, time=call.time, transactions=answer.transactions)
    verdict: Any = handlers["process_proposal"](judged)
    assert verdict.verdict == ProcessProposal.ACCEPT


def finalize(height: int, transactions: Sequence[bytes]) -> FinalizeBlock.Request:
    time = Timestamp(seconds=START_S + HOUR_S * height)
    return FinalizeBlock.Request(height=height, time=time, transactions=transactions)


@campaign
async def test_over_the_socket_all_is_answered_in_order_and_bad_frames_end_their_connection_alone(
    peer: Peer, new_node: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """CometBFT frames what peers send, so bad frames are not theirs; still they get no other answer than that."""
    async with AsyncExitStack() as opened:
        talk = await Talk.begin(opened, peer, new_node(), tmp_path / "s")
        for chance in rounds(request):
            if talk.twin.height >= MAX_HEIGHT:
                await opened.aclose()
                talk = await Talk.begin(opened, peer, new_node(), tmp_path / "s")
            await talk.round(peer, chance)


@dataclass
class Talk:
    """A node behind its socket, CometBFT's connections to it, and its twin."""

    path: Path
    twin: Twin
    failed: asyncio.Event
    consensus: Client
    mempool: Client
    queries: Client

    @classmethod
    async def begin(cls, opened: AsyncExitStack, peer: Peer, handlers: Handlers, path: Path) -> "Talk":
        failed = await opened.enter_async_context(serve_abci(handlers, path))
        clients = [await connect(path) for _ in range(3)]
        for client in clients:
            opened.callback(client.writer.close)
        return cls(path, Twin(peer.federation.genesis.initial_state()), failed, *clients)

    async def round(self, peer: Peer, chance: random.Random) -> None:
        """Say what peers sent, decide a block, and say something that is no frame."""
        calls = [peer.requests(chance, self.twin.height + 1) for _ in range(BETWEEN)]
        for client, kinds in (
            (self.mempool, ("check_tx",)),
            (self.queries, ("query", "load_snapshot_chunk")),
            (self.consensus, ("prepare_proposal", "process_proposal")),
        ):
            mine = [call for call in calls if call.WhichOneof("value") in kinds]
            await exchange(client, [*mine, Request(flush=Flush.Request())], chance)
        decided = peer.several(chance)
        following = Request(finalize_block=finalize(self.twin.height + 1, decided))
        block = [following, Request(commit=Commit.Request()), Request(info=Info.Request())]
        answers = await exchange(self.consensus, block, chance)
        assert answers[0].finalize_block.app_hash == self.twin.decide(decided).app_hash
        assert answers[2].info.last_block_app_hash == self.twin.app_hash
        assert not self.failed.is_set()
        await bad_frames(self.path, chance, [encode(call) for call in calls])
        self.failed.clear()


async def exchange(client: Client, calls: Sequence[Request], chance: random.Random) -> list[Response]:
    """Send requests in pieces and read as many answers of the same kinds."""
    octets = b"".join(map(encode, calls))
    while octets:
        size = chance.choice((1, 7, 1000, len(octets)))
        client.writer.write(octets[:size])
        octets = octets[size:]
        await asyncio.sleep(0)
    answers = [await client.response() for _ in calls]
    assert [each.WhichOneof("value") for each in answers] == [each.WhichOneof("value") for each in calls]
    return answers


async def bad_frames(path: Path, chance: random.Random, frames: Sequence[bytes]) -> None:
    """Bend frames that change nothing; the server answers, or says why it does not and closes."""
    client = await connect(path)
    client.writer.write(bent(chance, b"".join(frames), frames))
    client.writer.write_eof()
    kinds: list[str | None] = []
    try:
        while True:
            kinds.append((await client.response()).WhichOneof("value"))
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    assert "exception" not in kinds[:-1], "nothing follows an exception"
    client.writer.close()


@campaign
def test_no_snapshot_of_a_liars_is_restored(
    peer: Peer, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = Twin(peer.federation.genesis.initial_state())
    twin.decide(peer.sound)
    chunks, app_hash = honest_chunks(twin.state, 1500), root(twin.state)
    assert len(chunks) > 4
    monkeypatch.setattr(snapshots_module, "MAX_CHUNKS", 64)
    for chance in rounds(request):
        restored: list[Outcome] = []
        restoration = Restoration(peer.federation.genesis.chain_id, _keeper(restored))
        lies = [bent(chance, each, chunks) if chance.random() < 0.3 else each for each in chunks]
        if chance.random() < 0.3:
            chance.shuffle(lies)
        told = description(lies)
        if chance.random() < 0.2:
            told.metadata = bent(chance, told.metadata)
            told.hash = chance.choice((told.hash, hashlib.sha256(told.metadata).digest()))
        restoration.offer_snapshot(OfferSnapshot.Request(snapshot=told, app_hash=app_hash))
        for index in chance.choices(range(len(lies) + 2), k=chance.randrange(12)) + list(range(len(lies))):
            data = lies[index] if index < len(lies) and chance.random() < 0.95 else chance.randbytes(40)
            restoration.apply_snapshot_chunk(
                ApplySnapshotChunk.Request(index=index, chunk=data, sender=chance.choice(("", "peer")))
            )
        count = len(restored)
        offered = restoration.offer_snapshot(OfferSnapshot.Request(snapshot=description(chunks), app_hash=app_hash))
        assert offered.verdict == OfferSnapshot.ACCEPT
        for index, data in enumerate(chunks):
            restoration.apply_snapshot_chunk(ApplySnapshotChunk.Request(index=index, chunk=data, sender="honest"))
        assert len(restored) == count + 1, "after all lies the honest one is restored"
        assert all(outcome.app_hash == app_hash for outcome in restored)


def honest_chunks(state: MemoryState, size: int) -> list[bytes]:
    """Write a state as `Snapshots` would, in small chunks."""
    entries = [[key, value, state.certificates.get(CertDigest(key))] for key, value in sorted(state.leaves.items())]
    chunks: list[list[Any]] = [[]]
    for entry in entries:
        if len(cbor.encode(chunks[-1])) > size:
            chunks.append([])
        chunks[-1].append(entry)
    return [cbor.encode(chunk) for chunk in chunks]


def description(chunks: Sequence[bytes]) -> Snapshot:
    metadata = cbor.encode([hashlib.sha256(chunk).digest() for chunk in chunks])
    return Snapshot(
        height=1, format=FORMAT, chunks=len(chunks), hash=hashlib.sha256(metadata).digest(), metadata=metadata
    )


def _keeper(restored: list[Outcome]) -> Callable[[Height, Outcome], None]:
    return lambda _, outcome: restored.append(outcome)


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)
