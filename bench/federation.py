"""Four operators' validators on this machine: throughput beside CometBFT's own application.

    python bench/federation.py [--certificates 4000]

Throughput: the same number of transactions of the same size goes to the mempools of four nodes, with CometBFT's
built-in key-value application and with the ledger; the time is until the last is in a block. First with one
certificate in a transaction, then with as many as `voice-dpki ledger submit` puts into one. For the ledger also
through the nodes' HTTP interface, where each request is answered when its block is durable and proved there.
"""

import argparse
import asyncio
import itertools
import secrets
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from ledger_node.abci.cometbft import MAX_RPC_BATCH, CometbftSection, Home, find
from ledger_node.abci.rpc import Rpc
from ledger_node.command import config as configuration
from ledger_node.command.federation import Processes
from ledger_node.command.federation_folder import OperatorNode, provision
from ledger_node.make.initialise import FIRST_PORT
from voice_dpki.effects import SystemRandom
from voice_dpki.ledger.genesis import load_genesis
from voice_dpki.ledger.transactions import Batch, Submit, endorse
from voice_dpki.shell.config import Listen, read_file, resolve
from voice_dpki.x509.keys import from_pem, generate_es256
from voice_dpki.x509.profile import build_certificate

NETWORK = "127.0.9"
OPERATORS = 4
SENDERS = 200
BATCH = 100
TIMEOUT_S = 120


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--certificates", type=int, default=4000)
    options = parser.parse_args()
    asyncio.run(measure(options.certificates))


async def measure(count: int) -> None:
    """Measure with one certificate in a transaction, then with many."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        nodes = provision(Path(name) / "ledger", OPERATORS, NETWORK)
        await throughput(nodes, Path(name) / "ledger", count, 1, SENDERS)
        await throughput(nodes, Path(name) / "ledger", 3 * count, BATCH, 6 * OPERATORS)


async def throughput(
    nodes: Sequence[OperatorNode], folder: Path, count: int, per_transaction: int, senders: int
) -> None:
    """Report certificates a second, `per_transaction` at a time, beside the key-value application's rate."""
    direct, over_http = (transactions(nodes, count, per_transaction) for _ in range(2))
    size = round(statistics.mean(map(len, direct)))
    what = f"{per_transaction} a transaction"
    with key_value_nodes(folder):
        padding = [b"%d=" % number + b"x" * (size - len(str(number)) - 1) for number in range(len(direct))]
        peer = await flood(padding)
    report(f"kvstore, transactions of {size} B", "transactions", peer, peer)
    with Processes(nodes) as processes:
        await processes.ready()
        wait_for_block()  # a node that starts again is ready by the blocks that it has, before its CometBFT answers
        rate = await flood(direct)
        report(f"ledger, {what}, to CometBFT", "certificates", rate * per_transaction, peer * per_transaction)
        rate, latencies = await post_all(over_http, senders)
        report(f"ledger, {what}, HTTP", "certificates", rate * per_transaction, peer * per_transaction)
        print(
            f"{'':40} {senders} senders, answered p50 {at(latencies, 0.5):.2f} s, p99 {at(latencies, 0.99):.2f} s"
        )


def transactions(nodes: Sequence[OperatorNode], count: int, per_transaction: int) -> list[bytes]:
    """Make endorsed submissions of `count` new certificates, in turn by each operator."""
    signers = [from_pem(read_file(_endorsing_key(node), "key")) for node in nodes]
    chain = load_genesis(nodes[0].config.with_name("genesis.json").read_bytes()).chain_id
    return [
        endorse(_body(chain, node, [certificate(node) for _ in range(per_transaction)]), [signer])
        for node, signer in itertools.islice(
            itertools.cycle(zip(nodes, signers, strict=True)), count // per_transaction
        )
    ]


def _body(chain: str, node: OperatorNode, certificates: Sequence[bytes]) -> Submit | Batch:
    if len(certificates) == 1:
        return Submit(chain, node.organization, certificates[0])
    return Batch(chain, node.organization, tuple(certificates))


def certificate(node: OperatorNode) -> bytes:
    """Make a certificate of the operator."""
    now_s = int(time.time())
    return build_certificate(
        generate_es256(),
        organization=node.organization,
        common_name=f"bench {secrets.token_hex(8)}",
        not_before_s=now_s - 60,
        not_after_s=now_s + 86_400,
        random=SystemRandom(),
    )


async def flood(raws: Sequence[bytes]) -> float:
    """Hand all transactions to the mempools; returns how many a second came into blocks."""
    hosts = [f"{NETWORK}.{number}" for number in range(1, OPERATORS + 1)]
    async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
        first = await height(client, hosts[0]) + 1
        started = time.monotonic()
        await asyncio.gather(*(hand_over(host, raws[at::OPERATORS]) for at, host in enumerate(hosts)))
        while await included(client, hosts[0], first) < len(raws):
            if time.monotonic() - started > TIMEOUT_S:
                raise SystemExit("not all transactions came into blocks")
            await asyncio.sleep(0.05)
    return len(raws) / (time.monotonic() - started)


async def hand_over(host: str, raws: Sequence[bytes]) -> None:
    """Hand transactions to one node's mempool, one batch after the other."""
    async with Rpc(Listen(host=host, port=26657)) as rpc:
        for start in range(0, len(raws), MAX_RPC_BATCH):
            refused = [reason for reason in await rpc.broadcast(raws[start : start + MAX_RPC_BATCH]) if reason]
            if refused:
                raise SystemExit(f"the mempool refuses: {refused[0]}")


async def height(client: httpx.AsyncClient, host: str) -> int:
    """Ask for the newest block's height."""
    answer = await client.get(f"http://{host}:26657/status")
    return int(answer.json()["result"]["sync_info"]["latest_block_height"])


async def included(client: httpx.AsyncClient, host: str, first: int) -> int:
    """Count the transactions in blocks from height `first` on."""
    last, count = await height(client, host), 0
    for start in range(first, last + 1, 20):
        query = f"minHeight={start}&maxHeight={min(start + 19, last)}"
        metas = (await client.get(f"http://{host}:26657/blockchain?{query}")).json()["result"]["block_metas"]
        count += sum(int(meta["num_txs"]) for meta in metas)
    return count


async def post_all(raws: Sequence[bytes], senders: int) -> tuple[float, list[float]]:
    """Post each transaction to one of the nodes, `senders` at a time; returns the rate, and the time each took."""
    left = iter(enumerate(raws))
    latencies: list[float] = []

    async def sender(host: str) -> None:
        reader, writer = await asyncio.open_connection(host, FIRST_PORT)
        for _, raw in left:
            started = time.monotonic()
            head = f"POST /ledger/v1/transactions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(raw)}\r\n\r\n"
            writer.write(head.encode() + raw)
            answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            if not answer.startswith("http/1.1 200"):
                raise SystemExit(f"a node answers: {answer.splitlines()[0]}")
            await reader.readexactly(int(answer.partition("content-length:")[2].split()[0]))
            latencies.append(time.monotonic() - started)
        writer.close()

    started = time.monotonic()
    await asyncio.gather(*(sender(f"{NETWORK}.{number % OPERATORS + 1}") for number in range(senders)))
    return len(raws) / (time.monotonic() - started), latencies


@contextmanager
def key_value_nodes(folder: Path) -> Iterator[None]:
    """Run the same validators with CometBFT's own application, in homes of their own."""
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in _key_value_commands(folder)]
    try:
        wait_for_block()
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(20)


def wait_for_block() -> None:
    """Wait until the CometBFT of each node answers and has a block."""
    left = [f"http://{NETWORK}.{number}:26657/status" for number in range(1, OPERATORS + 1)]
    for _ in range(200):
        try:
            while left:
                answer = httpx.get(left[-1], trust_env=False).json()
                if int(answer["result"]["sync_info"]["latest_block_height"]) < 1:
                    break
                left.pop()
            else:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise SystemExit("a node's CometBFT does not answer")


def _key_value_commands(folder: Path) -> Iterator[list[str]]:
    for path in sorted(folder.glob("operator-*.toml")):
        config = configuration.load(path)
        section = config.cometbft
        assert isinstance(section, CometbftSection)
        assert section.validator_key is not None
        home = Home(
            folder=folder.parent / f"key-value-{path.stem}",
            name=path.stem,
            genesis=(folder / "genesis.json").read_bytes(),
            settings=section,
            validator_key=configuration.read_validator_key(resolve(path, section.validator_key)),
        )
        # The same node key, so that the peers' ids hold.
        node_key = folder / section.home / "config" / "node_key.json"
        (home.folder / "config").mkdir(parents=True, exist_ok=True)
        (home.folder / "config" / "node_key.json").write_bytes(node_key.read_bytes())
        home.write()
        settings = home.folder / "config" / "config.toml"
        settings.write_text(settings.read_text().replace(f"unix://{home.socket}", "kvstore"))
        yield [str(find()), "start", "--home", str(home.folder)]


def _endorsing_key(node: OperatorNode) -> Path:
    section = configuration.load(node.config).submission
    assert section is not None
    return resolve(node.config, section.endorsing_key)


def report(what: str, unit: str, rate: float, peer: float) -> None:
    """Print one rate and its ratio to the peer's."""
    print(f"{what:40} {rate:8.0f} {unit} a second   {rate / peer:5.2f} of kvstore", flush=True)


def at(values: Sequence[float], quantile: float) -> float:
    """Return a quantile."""
    return sorted(values)[min(len(values) - 1, int(len(values) * quantile))]


if __name__ == "__main__":
    main()
