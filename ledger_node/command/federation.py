"""`voice-dpki federation`: several operators' validators on one machine, each with its own loopback address.

`federation up` makes in its folder what every operator would have on its own machine
(`ledger_node.command.federation_folder`), and starts the processes as an operator would start them by hand.
"""

import asyncio
import ssl
import sys
import time
from argparse import Namespace
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Self

import httpx
import msgspec

from ledger_node.abci.cometbft import LOG_FILE, find
from ledger_node.command.federation_folder import MAX_OPERATORS, OperatorNode, nodes_in, provision
from voice_dpki.effects import SystemRandom
from voice_dpki.errors import LocalError, PeerError
from voice_dpki.ledger.genesis import load_genesis
from voice_dpki.ledger.records import CertStatus
from voice_dpki.names import CertDigest
from voice_dpki.shell.again import BUSY, Pauses, SeldomTell, again, retry_after_s
from voice_dpki.shell.options import whole_number
from voice_dpki.shell.output import locked
from voice_dpki.shell.program import Parser, run, unless_stopped
from voice_dpki.shell.result import add_json, errors_in_json, print_result
from voice_dpki.stage.patience import Patience
from voice_dpki.stage.processes import Program, Running, stop_all
from voice_dpki.wire.ledger.client import LedgerClient, NodeInfo
from voice_dpki.x509.keys import generate_es256
from voice_dpki.x509.profile import build_certificate, digest_of

DEFAULT_OPERATORS = 4
MAX_CERTIFICATES = 10_000_000

START_STALLED_S = 60.0
"""How long a start may go without any node's progress; all count, because three may need the fourth for a block."""

STOP_TIMEOUT_S = 20.0
AGREE_STALLED_S = 30.0
"""How long nodes may disagree without the lowest of them gaining a block."""

CONNECTIONS_PER_NODE = 64
"""Submissions that `federation check` has open at one node at the same time."""

_TELL = SeldomTell()

DESCRIPTION = """\
Several operators' validators on this machine, as one federation. Each operator has a ledger node with its own
CometBFT, keys and loopback address, and trusts none of the others.

  voice-dpki federation up --operators 4              # until Ctrl-C
  voice-dpki federation check --certificates 10000    # records certificates, compares all nodes, stops

CometBFT is needed; `ledger-node install-cometbft` installs it.
"""


class Processes:
    """The running nodes of a federation; use as a context, which stops them all at its end."""

    def __init__(self, nodes: Sequence[OperatorNode]) -> None:
        self._nodes = nodes
        self._running: dict[str, Running] = {}

    def __enter__(self) -> Self:
        """Start all nodes."""
        for node in self._nodes:
            self.start(node)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop all nodes and wait until they have ended; Ctrl-C does not cut this short."""
        stop_all(self._running.values(), STOP_TIMEOUT_S)

    def program(self, node: OperatorNode) -> Program:
        """Return what runs a node. It writes no trace, and its CometBFT's log shows progress, too."""
        arguments, comet = ("start", "--config", str(node.config)), node.home / LOG_FILE
        return Program(node.name, "ledger_node", arguments, None, node.log, writes=(comet,), environment={})

    def start(self, node: OperatorNode) -> None:
        """Start one node."""
        self._running[node.name] = Running(self.program(node))

    def pids(self, node: OperatorNode) -> tuple[int, ...]:
        """Return the process ids of a node: the ledger node's, and its children's, CometBFT among them."""
        return self._running[node.name].pids

    def kill(self, node: OperatorNode) -> None:
        """Kill a node and its CometBFT with SIGKILL, and wait until the node has ended."""
        self._running.pop(node.name).kill()

    def check(self) -> None:
        """Raise ProcessError, with the end of its log, if one of the nodes has ended."""
        for running in self._running.values():
            running.check_running()

    async def ready(self) -> None:
        """Wait until every node has a block; raises LocalError if one does not come up."""
        for node in self._nodes:
            await self._ready(node)

    async def _ready(self, node: OperatorNode) -> None:
        patience = Patience([running.watched for running in self._running.values()], START_STALLED_S)
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
    with errors_in_json(options):
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
    add_json(check)
    up.set_defaults(json=False)
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
        progress = sys.stderr if options.json else sys.stdout
        print(f"Starting {len(nodes)} operators' nodes (folder {options.folder}) ...", file=progress, flush=True)
        processes = stack.enter_context(Processes(nodes))
        await unless_stopped(processes.ready(), stop)
        for node in nodes:
            print(f"  {node.organization:<12} {node.url}   {node.config}", file=progress)
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
    say = partial(print, file=sys.stderr if options.json else sys.stdout)
    say(f"Recorded {len(digests)} certificates in {seconds:.1f} s ({len(digests) / seconds:.0f} a second).")
    app_hash = await agree(nodes)
    say(f"AppHash at all {len(nodes)} nodes: {app_hash}")
    genesis, proved = load_genesis((options.folder / "genesis.json").read_bytes()), []
    for node in nodes:
        async with LedgerClient.of_genesis(node.url, genesis) as client:
            found = await again(partial(client.resolve, digests[-1], with_certificate=False), _TELL)
        if found.status is not CertStatus.VALID:
            raise PeerError(f"{node.name} does not know a certificate that was recorded")
        say(f"{node.organization}: H(CERT) {digests[-1].hex()[:12]}.. is valid, proved at height {found.height}")
        proved.append({"organization": node.organization, "url": node.url, "height": found.height})
    result = {"certificates": len(digests), "seconds": round(seconds, 3), "app_hash": app_hash}
    print_result(options, result | {"chain": genesis.chain_id, "digest": digests[-1].hex(), "nodes": proved})


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


if __name__ == "__main__":
    sys.exit(command(sys.argv[1:]))
