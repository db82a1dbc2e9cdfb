"""`voice-dpki federation`: several operators' validators on one machine, each with its own loopback address.

`federation up` makes in its folder what every operator would have on its own machine: keys, the common genesis, and
the configuration of one `ledger-node`. The processes are started as an operator would start them by hand.
"""

import asyncio
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import msgspec

from ledger_node.abci.cometbft import LOG_FILE, P2P_PORT, RPC_PORT, find, node_id, node_key
from ledger_node.command import config as configuration
from ledger_node.make.initialise import FIRST_PORT, initialise
from ledger_node.make.join import ADMITTED
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.errors import LocalError, PeerError
from voice_dpki.ledger.genesis import load_genesis
from voice_dpki.ledger.records import CertStatus
from voice_dpki.names import CertDigest
from voice_dpki.shell.again import BUSY, Pauses, Seldom, again, retry_after_s
from voice_dpki.shell.config import Listen, read_secret, resolve
from voice_dpki.shell.files import write_file
from voice_dpki.shell.interrupts import uninterrupted
from voice_dpki.shell.options import whole_number
from voice_dpki.shell.output import locked, new_folder
from voice_dpki.shell.program import Parser, run, unless_stopped
from voice_dpki.shell.tether import tied_module
from voice_dpki.stage.patience import Patience, Watched
from voice_dpki.wire.ledger.client import LedgerClient, NodeInfo
from voice_dpki.x509.keys import generate_es256
from voice_dpki.x509.profile import build_certificate, digest_of

CHAIN_ID = "voice-dpki-federation"
DEFAULT_OPERATORS = 4
MAX_OPERATORS = 26
MAX_CERTIFICATES = 10_000_000
NETWORK = "127.0.1"
"""The first three numbers of the nodes' loopback addresses; the last is the operator's number, from 1."""

ADMITTED_FILE = "admitted"
"""In the federation's folder: the file of further nodes that may connect, shared by all operators' nodes."""

DELAY_S = 5
"""How long before a voted change of members takes effect here; a demonstration cannot wait the default day."""

START_STALLED_S = 60.0
"""How long a start may go without any node's progress; all count, because three may need the fourth for a block."""

STOP_TIMEOUT_S = 20.0
AGREE_STALLED_S = 30.0
"""How long nodes may disagree without the lowest of them gaining a block."""

CONNECTIONS_PER_NODE = 64
"""Submissions that `federation check` has open at one node at the same time."""

_TELL = Seldom()

_NUMBERS = (("493023125000", 1000), ("442079460000", 1000), ("33199000000", 10000))
"""Ranges of the first operators, which regulators reserve for fiction; the others get North American ranges."""

DESCRIPTION = """\
Several operators' validators on this machine, as one federation. Each operator has a ledger node with its own
CometBFT, keys and loopback address, and trusts none of the others.

  voice-dpki federation up --operators 4              # until Ctrl-C
  voice-dpki federation check --certificates 10000    # records certificates, compares all nodes, stops

CometBFT is needed; `make cometbft` installs it.
"""


@dataclass(frozen=True, slots=True)
class OperatorNode:
    """One operator's node: its configuration, and what its clients need to reach it."""

    config: Path
    organization: str
    url: str
    token: str

    @property
    def name(self) -> str:
        """Name of the node and of its files."""
        return self.config.stem

    @property
    def log(self) -> Path:
        """Where its process writes its log."""
        return self.config.with_suffix(".log")


def provision(folder: Path, operators: int, network: str = NETWORK) -> list[OperatorNode]:
    """Make a federation in `folder`, which must be new or empty, and return its nodes.

    Raises LocalError for a number of operators outside 1 to MAX_OPERATORS, or where files cannot be made.
    """
    if not 1 <= operators <= MAX_OPERATORS:
        raise LocalError(f"a federation on one machine has 1 to {MAX_OPERATORS} operators")
    with new_folder(folder):
        _provision(folder, operators, network)
    return nodes_in(folder)


def _provision(folder: Path, operators: int, network: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as wanted:
        wanted.write(_members(operators))
        wanted.flush()
        engine, *configs = initialise(Path(wanted.name), folder, SystemClock())
    engine.unlink()
    addresses = {config: f"{network}.{number}" for number, config in enumerate(configs, 1)}
    ids = {config: node_id(node_key(_home(config))) for config in configs}
    for config in configs:
        peers = [f"{ids[peer]}@{addresses[peer]}:{P2P_PORT}" for peer in configs if peer != config]
        write_file(config, _configuration(config.stem, addresses[config], peers).encode("utf-8"))
    write_file(folder / ADMITTED_FILE, ADMITTED.encode("utf-8"))


def nodes_in(folder: Path) -> list[OperatorNode]:
    """Return the nodes of the federation in `folder`, none if there is none; raises LocalError if it is damaged."""
    return [_node(config) for config in sorted(folder.glob("operator-*.toml"))]


class Processes:
    """The running nodes of a federation; use as a context, which stops them all at its end."""

    def __init__(self, nodes: Sequence[OperatorNode]) -> None:
        self._nodes = nodes
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Processes":
        """Start all nodes."""
        for node in self._nodes:
            self.start(node)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop all nodes and wait until they have ended; Ctrl-C does not cut this short."""
        with uninterrupted():
            self._stop()

    def _stop(self) -> None:
        for process in self._running.values():
            process.send_signal(signal.SIGTERM)
        for process in self._running.values():
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def command(self, node: OperatorNode) -> list[str]:
        """Return the command that runs a node; the node ends when this process does."""
        return tied_module("ledger_node", ("start", "--config", str(node.config)))

    def start(self, node: OperatorNode) -> int:
        """Start one node and return its process id."""
        with node.log.open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                self.command(node), stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
            )
        self._running[node.name] = process
        return process.pid

    def pids(self, node: OperatorNode) -> tuple[int, ...]:
        """Return the process ids of a node: the ledger node's, and its CometBFT's."""
        pid = self._running[node.name].pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return (pid, *map(int, children))

    def kill(self, node: OperatorNode) -> None:
        """Kill a node and its CometBFT with SIGKILL, and wait until the node has ended."""
        for pid in self.pids(node):
            os.kill(pid, signal.SIGKILL)
        self._running.pop(node.name).wait()

    def check(self) -> None:
        """Raise LocalError if one of the nodes has ended."""
        for name, process in self._running.items():
            if process.poll() is not None:
                node = next(node for node in self._nodes if node.name == name)
                last = (node.log.read_text(errors="replace").splitlines() or ["it said nothing"])[-1]
                raise LocalError(f"{name} ended with status {process.returncode}: {last}; see {node.log}")

    async def ready(self) -> None:
        """Wait until every node has a block; raises LocalError if one does not come up."""
        for node in self._nodes:
            await self._ready(node)

    def _watched(self, node: OperatorNode) -> Watched:
        return Watched(self._running[node.name].pid, (node.log, _home(node.config) / LOG_FILE))

    async def _ready(self, node: OperatorNode) -> None:
        patience = Patience(
            [self._watched(each) for each in self._nodes if each.name in self._running], START_STALLED_S
        )
        while not (info := await node_info(node)) or info.height < 1:
            self.check()
            if why := patience.exhausted():
                raise LocalError(f"{node.name} has made no block: {why}; see {node.log}")
            await asyncio.sleep(0.05)


async def node_info(node: OperatorNode) -> NodeInfo | None:
    """Return what a node says of itself, None if it does not answer."""
    async with httpx.AsyncClient(base_url=node.url, timeout=5, trust_env=False) as client:
        try:
            return msgspec.json.decode((await client.get("/ledger/v1/node")).content, type=NodeInfo)
        except (httpx.HTTPError, msgspec.MsgspecError):
            return None


async def record(nodes: Sequence[OperatorNode], count: int) -> list[CertDigest]:
    """Have each operator record its share of `count` new certificates, and return their H(CERT).

    Raises PeerError where a node refuses one or stays busy or unreachable.
    """
    shares = [range(at, count, len(nodes)) for at in range(len(nodes))]
    found = await asyncio.gather(*(_record_at(node, share) for node, share in zip(nodes, shares, strict=True)))
    return [digest for digests in found for digest in digests]


async def _record_at(node: OperatorNode, numbers: Iterable[int]) -> list[CertDigest]:
    left = iter(numbers)
    # All clients share a context without trusted certificates: making one for each takes 20 ms, and nothing here
    # is TLS. Each client has one connection, because httpx scans all idle connections of a client for each request.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    async def worker() -> list[CertDigest]:
        async with httpx.AsyncClient(timeout=60, trust_env=False, verify=context) as client:
            return [await _record(client, node, number) for number in left]

    found = await asyncio.gather(*(worker() for _ in range(CONNECTIONS_PER_NODE)))
    return [digest for digests in found for digest in digests]


async def agree(nodes: Sequence[OperatorNode]) -> str:
    """Wait until all nodes have the same AppHash and return it; raises LocalError if they come no nearer to one."""
    least, since_s = -1, time.monotonic()
    while True:
        infos = await asyncio.gather(*(node_info(node) for node in nodes))
        hashes = {info.app_hash if info else "no answer" for info in infos}
        if len(hashes) == 1 and (found := hashes.pop()) != "no answer":
            return found
        lowest = min(info.height if info else -1 for info in infos)
        if lowest > least and len({info.height if info else -1 for info in infos}) > 1:
            least, since_s = lowest, time.monotonic()
        if time.monotonic() - since_s > AGREE_STALLED_S:
            raise LocalError(f"the nodes do not agree: {', '.join(sorted(hashes))}")
        await asyncio.sleep(0.1)


def command(arguments: list[str]) -> int:
    """Run a federation of several operators' validators on this machine."""
    options = _parser().parse_args(arguments)
    find()
    return run(lambda stop: _run(options, stop), hangup_stops=True)


def _parser() -> Parser:
    parser = Parser(prog="voice-dpki federation", description=DESCRIPTION)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    up = commands.add_parser("up", help="start all nodes and keep them running until Ctrl-C")
    up.set_defaults(work=_up)
    check = commands.add_parser("check", help="record certificates through all nodes, compare them, and stop")
    certificates = whole_number(1, MAX_CERTIFICATES)
    check.add_argument("--certificates", type=certificates, default=1000, help="how many (default: %(default)s)")
    check.set_defaults(work=_check)
    for each in (up, check):
        each.add_argument(
            "--operators",
            type=whole_number(1, MAX_OPERATORS),
            help=f"how many (default: {DEFAULT_OPERATORS}, or those there are)",
        )
        each.add_argument(
            "--folder",
            type=Path,
            default=Path("out/federation"),
            help="keeps keys and stores; one that is new or empty gets a new federation (default: %(default)s)",
        )
    return parser


async def _run(options: Namespace, stop: asyncio.Event) -> None:
    """Start the federation, made first if the folder holds none, and do the command's work."""
    nodes = nodes_in(options.folder) or provision(options.folder, options.operators or DEFAULT_OPERATORS)
    if options.operators not in (None, len(nodes)):
        raise LocalError(f"{options.folder}: holds a federation of {len(nodes)} operators; name another folder")
    with ExitStack() as stack:
        stack.enter_context(locked(options.folder))
        print(f"Starting {len(nodes)} operators' nodes (folder {options.folder}) ...", flush=True)
        processes = stack.enter_context(Processes(nodes))
        await unless_stopped(processes.ready(), stop)
        for node in nodes:
            print(f"  {node.organization:<12} {node.url}   {node.config}")
        await options.work(options, nodes, processes, stop)


async def _up(_: Namespace, nodes: Sequence[OperatorNode], processes: Processes, stop: asyncio.Event) -> None:
    print("All are up. Try:")
    print(f"  curl {nodes[0].url}/ledger/v1/node")
    print("Ctrl-C stops them.", flush=True)
    while not stop.is_set():
        processes.check()
        try:
            await asyncio.wait_for(stop.wait(), 1)
        except TimeoutError:
            continue


async def _check(options: Namespace, nodes: Sequence[OperatorNode], _: Processes, stop: asyncio.Event) -> None:
    await unless_stopped(_check_nodes(options, nodes), stop)


async def _check_nodes(options: Namespace, nodes: Sequence[OperatorNode]) -> None:
    started = time.monotonic()
    digests = await record(nodes, options.certificates)
    seconds = time.monotonic() - started
    print(f"Recorded {len(digests)} certificates in {seconds:.1f} s ({len(digests) / seconds:.0f} a second).")
    print(f"AppHash at all {len(nodes)} nodes: {await agree(nodes)}")
    genesis = load_genesis((options.folder / "genesis.json").read_bytes())
    for node in nodes:
        async with LedgerClient.of_genesis(node.url, genesis) as client:
            found = await again(partial(client.resolve, digests[-1], with_certificate=False), _TELL)
        if found.status is not CertStatus.VALID:
            raise PeerError(f"{node.name} does not know a certificate that was recorded")
        print(f"{node.organization}: H(CERT) {digests[-1].hex()[:12]}.. is valid, proved at height {found.height}")


async def _record(client: httpx.AsyncClient, node: OperatorNode, number: int) -> CertDigest:
    now_s = int(time.time())
    certificate = build_certificate(
        generate_es256(),
        organization=node.organization,
        common_name=f"certificate {number}",
        not_before_s=now_s - 3600,
        not_after_s=now_s + 30 * 86_400,
        random=SystemRandom(),
    )
    await _submit(client, node, certificate)
    return digest_of(certificate)


async def _submit(client: httpx.AsyncClient, node: OperatorNode, certificate: bytes) -> None:
    """Submit a certificate, with retries while the node is busy or unreachable.

    Raises PeerError where the node refuses it, and when the retries are used up.
    """
    pauses = Pauses(_TELL)
    while True:
        busy, wished_s = False, 0.0
        try:
            answer = await client.post(
                f"{node.url}/ledger/v1/submissions",
                content=certificate,
                headers={"Authorization": f"Bearer {node.token}"},
            )
            if answer.status_code in (200, 201):
                return
            busy, why = answer.status_code in BUSY, answer.text[:200]
            wished_s = retry_after_s(answer.headers.get("retry-after", ""))
            if not busy:
                raise PeerError(f"{node.name} refuses a certificate: {why}")
        except httpx.HTTPError as error:
            why = str(error) or type(error).__name__
        if not await pauses.pause(f"{node.name} takes no certificate now: {why}", busy=busy, wished_s=wished_s):
            raise PeerError(f"{node.name} takes no certificate: {why}")


def _members(operators: int) -> str:
    parameters = f'chain_id = "{CHAIN_ID}"\n\n[parameters]\ndelay_s = {DELAY_S}\n'
    return parameters + "".join(_member(number) for number in range(operators))


def _member(number: int) -> str:
    letter = chr(ord("a") + number)
    start, count = _NUMBERS[number] if number < len(_NUMBERS) else (f"1{200 + number}5550100", 100)
    return f"""
[[members]]
organization = "Operator {letter.upper()}"
kind = "operator"
domains = ["{letter}.example"]
ranges = [{{ start = "{start}", count = {count} }}]
validators = 1
"""


def _configuration(name: str, host: str, peers: Sequence[str]) -> str:
    """Return a node's configuration as TOML.

    An address outside loopback is set insecure, because its network exists for the test only. On loopback all nodes
    connect from one address, so duplicates are allowed: acceptable in a demonstration only.
    """
    loopback = Listen(host=host, port=0).is_loopback
    insecure, open_rpc = ("", "") if loopback else ("insecure = true\n", ", insecure = true")
    listed = "".join(f'  "{peer}",\n' for peer in peers)
    return f"""\
[node]
name = "{name}"
data_dir = "data-{name}"
genesis = "genesis.json"

[listen]
host = "{host}"
port = {FIRST_PORT}
{insecure}
[cometbft]
home = "cometbft-{name}"
rpc = {{ host = "{host}", port = {RPC_PORT}{open_rpc} }}
p2p = {{ host = "{host}", port = {P2P_PORT} }}
admitted = "{ADMITTED_FILE}"
allow_duplicate_ip = {str(loopback).lower()}
validator_key = "keys/validator-{name}-1.pem"
peers = [
{listed}]

[submission]
organization = "Operator {name[-1].upper()}"
endorsing_key = "keys/endorsing-{name}.pem"
tokens = "tokens-{name}"
"""


def _node(path: Path) -> OperatorNode:
    config = configuration.load(path)
    if config.submission is None:
        raise LocalError(f"{path}: a federation's node has the submission role")
    if config.cometbft is None:
        raise LocalError(f"{path.parent}: the making of this federation was broken off; remove the folder")
    token = read_secret(resolve(path, config.submission.tokens))
    return OperatorNode(path, config.submission.organization, _url(config.listen), token)


def _url(listen: Listen) -> str:
    return f"http://{listen.host}:{listen.port}"


def _home(config: Path) -> Path:
    return config.with_name(f"cometbft-{config.stem}")


if __name__ == "__main__":
    sys.exit(command(sys.argv[1:]))
