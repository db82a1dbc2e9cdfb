"""The CometBFT program: finding it, writing its configuration and keys, running it beside the application.

CometBFT keeps a home folder with config/ and data/. Each start writes config/ anew from the ledger node's own
configuration, so that there is one place to change settings; only the keys that a node made for itself are kept.
CometBFT alone writes data/, except for the first record of what the validator has signed.
"""

import asyncio
import json
import shutil
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from voice_dpki.errors import LocalError
from voice_dpki.ledger.header import Validator
from voice_dpki.ledger.transactions import MAX_TRANSACTION_BYTES
from voice_dpki.shell.config import Config, Listen, to_toml
from voice_dpki.shell.files import make_folder, write_file, write_private
from voice_dpki.shell.tether import tied_program

VERSION = "0.38.25"
"""The only version of CometBFT that the ledger runs on; validators of one chain upgrade together."""

PROGRAM = "cometbft"
INSTALL = "ledger-node install-cometbft"

Milliseconds = Annotated[int, msgspec.Meta(ge=1, le=60_000)]

RPC_PORT = 26657
P2P_PORT = 26656

STOP_S = 10.0
"""How long CometBFT may take to stop before it is killed."""


SNAPSHOT_BLOCKS = 1000
"""Number of blocks between snapshots unless the configuration says otherwise."""

KEPT_SNAPSHOTS = 2
"""Number of snapshots kept: the newest, and the one before, which other nodes may still be fetching."""


class Timeouts(Config, frozen=True, kw_only=True):
    """Consensus timeouts in milliseconds, measured with four validators on two cores (docs/adr).

    Of n validators, one that is down delays every nth block, its turn to propose, by `propose` and `precommit`.
    With CometBFT's own 3 s and 1 s, a revocation would then take seconds to be in force. Each further round of the
    same height waits `delta` longer, so that slow networks reach agreement too.
    """

    propose: Milliseconds = 300
    prevote: Milliseconds = 100
    precommit: Milliseconds = 100
    commit: Milliseconds = 50
    delta: Milliseconds = 200


class StateSync(Config, frozen=True, kw_only=True):
    """Start from another node's snapshot, not the first block; `trust_*` must come from a trusted source."""

    rpc_servers: Annotated[tuple[str, ...], msgspec.Meta(min_length=2)]
    """RPC URLs of two or more nodes of different operators, which are checked against one another."""
    trust_height: Annotated[int, msgspec.Meta(ge=1)]
    trust_hash: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Fa-f]{64}\Z")]
    """Hash of the header at that height."""


class CometbftSection(Config, frozen=True, kw_only=True):
    """`[cometbft]` of a node's configuration. File names are relative to the configuration's folder."""

    home: str
    """CometBFT's folder, made if it is missing."""
    rpc: Listen = Listen(port=RPC_PORT)
    p2p: Listen = Listen(port=P2P_PORT)
    peers: tuple[Annotated[str, msgspec.Meta(pattern=r"(?a)^[0-9a-f]{40}@[^\s,]+:[0-9]+\Z")], ...] = ()
    """The other nodes: `id@host:port`; `ledger-node id` prints a node's id."""
    admitted: str | None = None
    """File of further nodes that may connect: one `id@address` a line, read again when it changes."""
    filter_peers: bool = True
    """Whether to refuse nodes that are not listed; false is safe only where no stranger reaches the network."""
    allow_duplicate_ip: bool = False
    """Whether several nodes may connect from one address; if false, all but the first are refused."""
    validator_key: str | None = None
    """Ed25519 key in PEM; a node without one does not vote."""
    signer: Listen | None = None
    """Where CometBFT waits for a remote signer that has the validator's key, such as tmkms, instead of the file."""
    node_key: str | None = None
    """Ed25519 key in PEM by which peers know the node; without it, the node makes one in `home`."""
    heartbeat_s: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 5
    timeouts: Timeouts = Timeouts()
    snapshot_blocks: Annotated[int, msgspec.Meta(ge=0)] = SNAPSHOT_BLOCKS
    """Number of blocks between snapshots for other nodes; 0 for none."""
    state_sync: StateSync | None = None
    metrics: Listen | None = None
    """Where CometBFT serves its own metrics, in Prometheus' format; nowhere without it."""

    def __post_init__(self) -> None:
        """Raise ValueError for a listener open to strangers, for two keys, or for peers refused as duplicates."""
        if not (self.rpc.is_loopback or self.rpc.insecure):
            raise ValueError(
                f"rpc: CometBFT's RPC takes anything from anybody, and others can reach {self.rpc.host}: use "
                "127.0.0.1, or insecure = true in rpc where a firewall protects it"
            )
        if self.metrics and not (self.metrics.is_loopback or self.metrics.insecure):
            raise ValueError(
                f"metrics: CometBFT serves them to anybody, and others can reach {self.metrics.host}: use "
                "127.0.0.1, or insecure = true in metrics where a firewall protects it"
            )
        if self.signer and self.validator_key:
            raise ValueError("signer: the remote signer has the validator's key, so leave validator_key out")
        if self.signer and not (self.signer.is_loopback or self.signer.insecure):
            raise ValueError(
                f"signer: CometBFT takes anybody for its signer, and others can reach {self.signer.host}: use "
                "127.0.0.1 and a tunnel, or insecure = true in signer where a firewall protects it"
            )
        hosts = [peer.partition("@")[2].rpartition(":")[0] for peer in self.peers]
        twice = sorted({host for host in hosts if hosts.count(host) > 1})
        if twice and not self.allow_duplicate_ip:
            raise ValueError(
                f"peers: two nodes are at {twice[0]}, and the second would be refused: give each an address of its "
                "own, or set allow_duplicate_ip = true"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """One CometBFT node: its folder, its settings, and its validator key, None if it does not vote."""

    folder: Path
    name: str
    genesis: bytes
    settings: CometbftSection
    validator_key: Ed25519PrivateKey | None = None
    node_key: Ed25519PrivateKey | None = None
    """The key that `settings.node_key` names; None if the node makes its own."""
    admitted: Path | None = None
    """The file that `settings.admitted` names."""

    @property
    def socket(self) -> Path:
        """The Unix socket on which the application is served."""
        return self.folder / "abci.sock"

    @property
    def has_state(self) -> bool:
        """Whether CometBFT has run in this home before."""
        return (self.folder / "data" / "state.db").exists()

    def write(self) -> None:
        """Write the files that CometBFT reads at its start; an existing record of what it has signed is kept."""
        config, data = self.folder / "config", self.folder / "data"
        for folder in (config, data):
            make_folder(folder, 0o700)
        write_file(config / "config.toml", to_toml(self._settings()).encode("utf-8"))
        write_file(config / "genesis.json", self.genesis)
        key = self.validator_key or _own_key(config / "observer_key.json")
        write_private(config / "priv_validator_key.json", _indented(key_json(key)))
        state = data / "priv_validator_state.json"
        if not state.exists():
            write_private(state, _indented({"height": "0", "round": 0, "step": 0}))
        if self.node_key is None:
            node_key(self.folder)
        else:
            write_private(config / NODE_KEY_FILE, _indented(key_json(self.node_key)))

    def _settings(self) -> Mapping[str, object]:
        settings, times = self.settings, self.settings.timeouts
        return {
            "proxy_app": f"unix://{self.socket}",
            "moniker": self.name,
            "log_level": "error",
            "priv_validator_laddr": _address(settings.signer) if settings.signer else "",
            "filter_peers": settings.filter_peers,
            "rpc": {
                "laddr": _address(settings.rpc),
                "max_open_connections": MAX_RPC_CONNECTIONS,
                "max_subscription_clients": 0,
                "max_header_bytes": MAX_RPC_HEADER_BYTES,
                "max_request_batch_size": MAX_RPC_BATCH,
                "max_body_bytes": 4 * MAX_RPC_BATCH * MAX_TRANSACTION_BYTES,
            },
            "p2p": {
                "laddr": _address(settings.p2p),
                "persistent_peers": ",".join(settings.peers),
                "persistent_peers_max_dial_period": "2s",
                "addr_book_strict": False,
                "allow_duplicate_ip": settings.allow_duplicate_ip,
                "max_num_inbound_peers": MAX_INBOUND_PEERS + len(settings.peers),
                "max_num_outbound_peers": 0,
                "handshake_timeout": "3s",
                "dial_timeout": "3s",
                "max_packet_msg_payload_size": 1024,
                "pex": False,
                "flush_throttle_timeout": "5ms",
                "send_rate": _P2P_BYTES_PER_S,
                "recv_rate": _P2P_BYTES_PER_S,
            },
            "mempool": {
                "size": MEMPOOL_TRANSACTIONS,
                "cache_size": 2 * MEMPOOL_TRANSACTIONS,
                "max_tx_bytes": MAX_TRANSACTION_BYTES,
                "max_txs_bytes": MEMPOOL_TRANSACTIONS * MAX_TRANSACTION_BYTES,
            },
            "consensus": {
                "timeout_propose": f"{times.propose}ms",
                "timeout_prevote": f"{times.prevote}ms",
                "timeout_precommit": f"{times.precommit}ms",
                "timeout_commit": f"{times.commit}ms",
                "timeout_propose_delta": f"{times.delta}ms",
                "timeout_prevote_delta": f"{times.delta}ms",
                "timeout_precommit_delta": f"{times.delta}ms",
                "create_empty_blocks": False,
                "create_empty_blocks_interval": f"{settings.heartbeat_s}s",
                "peer_gossip_sleep_duration": "5ms",
            },
            "statesync": _state_sync(settings.state_sync),
            "storage": {"discard_abci_responses": True},
            "tx_index": {"indexer": "null"},
            "instrumentation": _instrumentation(settings.metrics),
        }


LOG_FILE = "cometbft.log"

NODE_KEY_FILE = "node_key.json"
"""In CometBFT's config: the key by which peers know the node."""

MAX_RPC_BATCH = 256
"""Calls in one JSON-RPC batch."""

MAX_RPC_CONNECTIONS = 64
"""Most RPC connections: the ledger node uses a few, and operators' tools some more."""

MAX_METRICS_CONNECTIONS = 8
"""Most connections to CometBFT's own metrics."""

MAX_RPC_HEADER_BYTES = 16 * 1024

MAX_INBOUND_PEERS = 40
"""Most inbound peers besides the configured ones; connections not yet judged count too."""

_P2P_BYTES_PER_S = 50_000_000
MEMPOOL_TRANSACTIONS = 5_000
"""Most transactions in the mempool: fewer than the verdicts that `voice_dpki.ledger.signatures` caches."""


def find() -> Path:
    """Return the path of CometBFT, from the virtual environment or the PATH.

    Raises LocalError, which says how to install it, where it is missing, does not run or is of another version.
    """
    beside = Path(sys.executable).parent / PROGRAM
    found = str(beside) if beside.exists() else shutil.which(PROGRAM)
    if found is None:
        raise LocalError(f"CometBFT v{VERSION} is not installed; install it: {INSTALL}")
    try:
        version = subprocess.run([found, "version"], capture_output=True, text=True, timeout=20, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        raise LocalError(f"{found}: does not run ({error}); install CometBFT again: {INSTALL}") from None
    if version.stdout.strip().lstrip("v") != VERSION:
        raise LocalError(
            f"{found}: this is CometBFT {version.stdout.strip()[:40]}, and the ledger runs on {VERSION}; "
            f"install it: {INSTALL}"
        )
    return Path(found)


def running(home: Home) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
    """Run CometBFT in its home, with its log there, until the context or this process ends; yield its process.

    The application must be served already. Raises LocalError where CometBFT is not installed.
    """
    return _running(home, "start")


def inspecting(home: Home) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
    """Have CometBFT serve at its RPC only what it has stored; otherwise as `running`.

    Needs no application. The home must have been started before.
    """
    return _running(home, "inspect")


@asynccontextmanager
async def _running(home: Home, command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    program = await asyncio.to_thread(find)
    await asyncio.to_thread(home.write)
    with (home.folder / LOG_FILE).open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *tied_program(program, (command, "--home", str(home.folder))),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C at a terminal goes to this process alone, which then stops CometBFT
        )
    try:
        yield process
    finally:
        await _stop(process)


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()


def node_key(folder: Path) -> Ed25519PrivateKey:
    """Return the key by which peers know the node in `folder`; the first call makes it."""
    return _own_key(folder / "config" / NODE_KEY_FILE)


def node_id(key: Ed25519PrivateKey) -> str:
    """Return the name of a node to its peers, as `node_id_of`."""
    return node_id_of(key.public_key().public_bytes_raw())


def node_id_of(public_key: bytes) -> str:
    """Return the name of a node to its peers: the address of its public key, 40 hexadecimal digits."""
    return Validator(public_key, 1).address.hex()


def key_json(key: Ed25519PrivateKey) -> dict[str, object]:
    """Return a key in the form of CometBFT's key files."""
    seed, public = key.private_bytes_raw(), key.public_key().public_bytes_raw()
    return {
        "address": Validator(public, 1).address.hex().upper(),
        "pub_key": {"type": "tendermint/PubKeyEd25519", "value": b64encode(public).decode("ascii")},
        "priv_key": {"type": "tendermint/PrivKeyEd25519", "value": b64encode(seed + public).decode("ascii")},
    }


def _instrumentation(metrics: Listen | None) -> dict[str, object]:
    if metrics is None:
        return {"prometheus": False}
    return {
        "prometheus": True,
        "prometheus_listen_addr": _host_port(metrics),
        "max_open_connections": MAX_METRICS_CONNECTIONS,
    }


def _state_sync(settings: StateSync | None) -> dict[str, object]:
    if settings is None:
        return {"enable": False}
    return {
        "enable": True,
        "rpc_servers": ",".join(settings.rpc_servers),
        "trust_height": settings.trust_height,
        "trust_hash": settings.trust_hash,
        "trust_period": "336h",
        "discovery_time": "5s",
    }


def _own_key(path: Path) -> Ed25519PrivateKey:
    """Load the key that the node made for itself, or make one."""
    if path.exists():
        value = json.loads(path.read_bytes())["priv_key"]["value"]
        return Ed25519PrivateKey.from_private_bytes(b64decode(value)[:32])
    key = Ed25519PrivateKey.generate()
    make_folder(path.parent, 0o700)
    write_private(path, _indented(key_json(key)))
    return key


def _indented(value: object) -> bytes:
    return json.dumps(value, indent=2).encode("ascii")


def _address(listen: Listen) -> str:
    return f"tcp://{_host_port(listen)}"


def _host_port(listen: Listen) -> str:
    """Return the address as Go reads it: IPv6 in brackets."""
    return f"[{listen.host}]:{listen.port}" if ":" in listen.host else f"{listen.host}:{listen.port}"
