"""A follower that is lied to: what does not verify is refused, and what contradicts the state ends the node."""

import asyncio
import gzip
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ledger_node.command.sending import Sender
from ledger_node.keep.chain import Chain
from ledger_node.keep.store import Store
from ledger_node.order import follower as module
from ledger_node.order.follower import (
    MAX_SUBMITTING,
    SUBMIT_TIMEOUT_S,
    Follower,
)
from ledger_node.order.orderer import MAX_OUTCOME_BYTES, BusyError, UnavailableError
from tests.double_signing import signed_twice
from voice_dpki.effects import SystemClock
from voice_dpki.errors import PeerError
from voice_dpki.ledger.block import ExecTxResult
from voice_dpki.ledger.evidence import DuplicateVote
from voice_dpki.ledger.replica import SignedBlock


class Source:
    """Serves blocks as an engine would, changed on the way by `lie`."""

    def __init__(self, blocks: list[SignedBlock]) -> None:
        self.blocks = blocks
        self.lie: Callable[[list[Any]], Any] | None = None
        self.refusals = 0
        """Requests that are told to come again in a second; transactions all are."""

    def answer(self, path: str) -> bytes:
        first = int(parse_qs(urlsplit(path).query)["from"][0])
        blocks: Any = [block.to_json() for block in self.blocks]
        if self.lie is not None:
            blocks = self.lie(blocks)
        return blocks if isinstance(blocks, bytes) else json.dumps({"blocks": blocks[first - 1 :]}).encode()

    @contextmanager
    def served(self) -> Iterator[str]:
        source = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                self.refuse()

            def refuse(self) -> None:
                self.send_response(429)
                self.send_header("retry-after", "1")
                self.send_header("content-length", "0")
                self.end_headers()

            def do_GET(self) -> None:
                if source.refusals:
                    source.refusals -= 1
                    self.refuse()
                    return
                body = source.answer(self.path)
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()


@pytest.fixture
def maker(network: Any) -> Any:
    return network.maker()


@pytest.fixture
def blocks(network: Any, maker: Any) -> list[SignedBlock]:
    """An empty block, one that records a certificate, and the one that proves it."""
    made = []
    for transactions in ([], [network.submission_of(network.certificate())], []):
        made.append(maker.block(*transactions))
        maker.take(made[-1])
    return made


def drop_transactions(blocks: list[Any]) -> Any:
    blocks[1]["transactions"] = []
    return blocks


def repeat_transactions(blocks: list[Any]) -> Any:
    blocks[1]["transactions"] *= 2
    return blocks


def change_a_transaction(blocks: list[Any]) -> Any:
    blocks[1]["transactions"] = ["AAAA"]
    return blocks


def leave_out_a_block(blocks: list[Any]) -> Any:
    return [blocks[0], blocks[2]]


def repeat_a_block(blocks: list[Any]) -> Any:
    return [blocks[0], blocks[0]]


def set_in_header(name: str, value: Any) -> Callable[[list[Any]], Any]:
    def lie(blocks: list[Any]) -> Any:
        blocks[2]["signed_header"]["header"][name] = value
        return blocks

    return lie


def forge_a_signature(blocks: list[Any]) -> Any:
    votes = blocks[2]["signed_header"]["commit"]["signatures"]
    votes[0]["signature"], votes[1]["signature"] = votes[1]["signature"], votes[0]["signature"]
    return blocks


def leave_out_a_vote(blocks: list[Any]) -> Any:
    absent = {
        "block_id_flag": 1,
        "validator_address": "",
        "timestamp": "0001-01-01T00:00:00Z",
        "signature": None,
    }
    blocks[2]["signed_header"]["commit"]["signatures"][0] = absent
    return blocks


def garbage(_blocks: list[Any]) -> bytes:
    return b'{"blocks": [{"\xff": 1}]}'


def no_blocks_at_all(_blocks: list[Any]) -> bytes:
    return b"[]"


def too_much(_blocks: list[Any]) -> bytes:
    return b" " * (17 * 1024 * 1024)


@pytest.mark.parametrize(
    ("lie", "height"),
    [
        (drop_transactions, 1),
        (repeat_transactions, 1),
        (change_a_transaction, 1),
        (leave_out_a_block, 1),
        (repeat_a_block, 1),
        (set_in_header("app_hash", "00" * 32), 1),
        (set_in_header("time", "2030-01-01T00:00:00Z"), 1),
        (set_in_header("chain_id", "other"), 1),
        (forge_a_signature, 1),
        (leave_out_a_vote, 1),
        (garbage, 0),
        (no_blocks_at_all, 0),
        (too_much, 0),
    ],
)
def test_a_lie_is_refused_until_the_truth_is_told(
    network: Any, blocks: list[SignedBlock], lie: Callable[[list[Any]], Any], height: int
) -> None:
    source = Source(blocks)
    source.lie = lie
    with source.served() as url:
        follower = network.follower("a", url).launch()
        follower.says("block refused")
        assert follower.info()["height"] == height
        source.lie = None
        follower.reaches(3)
        follower.kill()


def accuse(maker: Any, signature: bytes | None = None) -> DuplicateVote:
    """Evidence against the first validator: both votes signed with its key, unless another signature is given."""
    address = maker.genesis.validators.addresses[0]
    sign = maker.signers[address] if signature is None else lambda _: signature
    return signed_twice(maker.genesis.chain_id, address, sign)


@pytest.mark.parametrize(("signature", "unproved"), [(None, 0), (bytes(64), 1)])
def test_evidence_is_followed_and_reported_even_where_its_signatures_do_not_verify(
    network: Any, maker: Any, signature: bytes | None, unproved: int
) -> None:
    """Two thirds vouch for it: who signs as only CometBFT accepts it could otherwise stop all who follow."""
    blocks = [maker.block(evidence=[accuse(maker, signature)])]
    maker.take(blocks[0])
    blocks.append(maker.block())
    with Source(blocks).served() as url:
        follower = network.follower("a", url).launch()
        follower.reaches(1)
        metrics = follower.http.get("/metrics").text
        assert "voice_dpki_ledger_validators_misbehaved_total 1.0" in metrics
        assert f"voice_dpki_ledger_evidence_unproved_total {unproved:.1f}" in metrics
        follower.says("validator-misbehaved")
        assert ("evidence-unproved" in follower.log.read_text()) == bool(unproved)


@pytest.mark.parametrize("evidence", [[], ["AAAA"], None])
def test_other_evidence_is_refused_until_the_right_one_comes(network: Any, maker: Any, evidence: Any) -> None:
    blocks = [maker.block(evidence=[accuse(maker)])]
    maker.take(blocks[0])
    blocks.append(maker.block())

    def lie(made: list[Any]) -> Any:
        made[0]["evidence"] = evidence if evidence is not None else made[0]["evidence"] * 2
        return made

    source = Source(blocks)
    source.lie = lie
    with source.served() as url:
        follower = network.follower("a", url).launch()
        follower.says("block refused")
        assert follower.info()["height"] == 0
        source.lie = None
        follower.reaches(1)


def test_a_block_whose_votes_do_not_suffice_is_taken_from_the_next_one(
    network: Any, blocks: list[SignedBlock]
) -> None:
    """One of two signatures does not verify, as a validator can make one that CometBFT takes (docs/adr/0006)."""

    def odd(made: list[Any]) -> Any:
        made[1]["signed_header"]["commit"]["signatures"][0]["signature"] = "A" * 86 + "=="
        return made

    source = Source(blocks[:2])
    source.lie = odd
    with source.served() as url:
        follower = network.follower("a", url).launch()
        follower.says("block refused")
        assert follower.info()["height"] == 1
        source.blocks = blocks
        follower.reaches(3)


def test_a_state_that_the_validators_agreed_on_and_we_did_not_compute(
    network: Any, maker: Any, blocks: list[SignedBlock]
) -> None:
    lies: list[dict[str, Any]] = [{"app_hash": bytes(32)}, {"last_results": [ExecTxResult(5)]}]
    for at, changes in enumerate(lies):
        with Source([*blocks, maker.block(**changes)]).served() as url:
            follower = network.follower(f"follower-{at}", url)
            assert "differs from the one that the validators agreed on" in follower.fails()


def test_a_history_without_the_checkpoint_ends_the_node(network: Any, blocks: list[SignedBlock]) -> None:
    """Its validators signed it: only the checkpoint tells it from the ledger's (docs/adr/0013)."""
    good = blocks[1].signed_header.header.hash().hex()
    for at, name in enumerate((good, "00" * 32)):
        with Source(blocks).served() as url:
            follower = network.follower(f"follower-{at}", url)
            line = f'[follow]\ncheckpoint = {{ height = 2, hash = "{name}" }}\n'
            follower.config.write_text(follower.config.read_text().replace("[follow]\n", line))
            if name == good:
                follower.launch().reaches(3)
                follower.kill()
                follower.config.write_text(follower.config.read_text().replace(good, "11" * 32))
            assert "is not that of the checkpoint" in follower.fails()


def test_a_node_that_asks_for_a_pause_gets_it(network: Any, blocks: list[SignedBlock]) -> None:
    source = Source(blocks)
    source.refusals = 1
    with source.served() as url:
        follower = network.follower("a", url, "Operator B").start()  # it asks its source before it answers others
        follower.says("429")
        answer = follower.http.post("/ledger/v1/transactions", content=b"transaction")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        follower.reaches(3)


@asynccontextmanager
async def following(network: Any, folder: Path, answer: bytes, drop: bytes = b"") -> AsyncIterator[Follower]:
    """A follower of a node that says `answer`, then `drop` again and again, and never ends."""

    handlers: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.current_task())
        with closing(writer.transport), suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            while drop:
                writer.write(drop)
                await writer.drain()
                await asyncio.sleep(0.01)
            await reader.read()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    chain = Chain(Store(folder / "data", network.genesis), network.genesis)
    follower = Follower(chain, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", SystemClock())
    try:
        yield follower
    finally:
        await follower._http.aclose()
        server.close()
        for handler in filter(None, handlers):
            handler.cancel()
        await asyncio.gather(*filter(None, handlers), return_exceptions=True)
        chain.close()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"


async def test_a_silent_node_keeps_a_bounded_number_of_senders_waiting(network: Any, tmp_path: Path) -> None:
    async with following(network, tmp_path, b"") as follower:
        waiting = [asyncio.create_task(follower.submit(b"transaction")) for _ in range(MAX_SUBMITTING)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError, match="repeat"):
            await follower.submit(b"transaction")
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        one = asyncio.create_task(follower.submit(b"transaction"))
        await asyncio.sleep(0.05)
        assert not one.done()
        one.cancel()


async def test_an_answer_in_drops_ends(network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes well before the time-out of one read."""
    monkeypatch.setattr(module, "SUBMIT_TIMEOUT_S", 0.3)
    monkeypatch.setattr(module, "WAIT_MS", -4700)
    monkeypatch.setattr(module, "BLOCKS_S", 0.1)
    async with following(network, tmp_path, HEAD, b" ") as follower, asyncio.timeout(60):
        with pytest.raises(UnavailableError):
            await follower.submit(b"transaction")
        with pytest.raises(TimeoutError):
            await follower._fetch()


async def test_an_answer_without_end_is_not_read(network: Any, tmp_path: Path) -> None:
    async with following(network, tmp_path, HEAD + b" " * 2 * MAX_OUTCOME_BYTES) as follower:
        with pytest.raises(UnavailableError):
            async with asyncio.timeout(SUBMIT_TIMEOUT_S / 2):
                await follower.submit(b"transaction")


async def test_a_compressed_answer_is_not_unpacked(network: Any, tmp_path: Path) -> None:
    packed = gzip.compress(b'{"code":0,"name":"ok","detail":""}')
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    async with following(network, tmp_path, head + packed) as follower:
        with pytest.raises(UnavailableError):
            await follower.submit(b"transaction")


@pytest.mark.parametrize("drop", [b"", b" "])
async def test_the_commands_read_a_verdict_within_the_same_bounds(
    network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drop: bytes
) -> None:
    monkeypatch.setattr("voice_dpki.shell.again.RETRY_S", ())
    monkeypatch.setattr("ledger_node.command.sending.TIMEOUT_S", 0.3 if drop else 30.0)
    answer = HEAD if drop else HEAD + b" " * 2 * MAX_OUTCOME_BYTES
    async with following(network, tmp_path, answer, drop) as follower:
        async with Sender(str(follower._http.base_url)) as sender, asyncio.timeout(60):
            with pytest.raises(PeerError, match="more than was asked for" if not drop else "TimeoutError"):
                await sender.verdict(b"transaction")


def test_two_histories_end_the_node_and_are_kept_as_evidence(
    network: Any, maker: Any, blocks: list[SignedBlock]
) -> None:
    fourth, other = maker.block(), maker.block(time_ns=maker.replica.last.header.time_ns + 5)
    source = Source([*blocks, fourth])
    with source.served() as url:
        follower = network.follower("a", url).launch()
        follower.reaches(4)
        follower.kill()
        maker.replica.last = other.signed_header
        source.blocks = [*blocks, other, maker.block()]
        assert "contradict themselves" in follower.fails()
    (said,) = [line for line in follower.said if '"fork"' in line]
    evidence = json.loads(json.loads(said)["evidence"])
    assert evidence["trusted"]["header"]["height"] == "4"
    assert evidence["conflicting"]["header"]["height"] == "5"
