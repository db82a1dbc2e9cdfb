"""Configuration of `ledger-node start`."""

from pathlib import Path
from typing import Annotated

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger_node.abci.cometbft import KEPT_SNAPSHOTS, CometbftSection, node_key
from ledger_node.answer.ready import DEFAULT_BLOCK_AGE_S
from ledger_node.keep.retention import DAY_S, KEPT_BLOCKS, KEPT_DAYS, Retention
from ledger_node.make.founding import check_signed, read_genesis_bytes
from voice_dpki.errors import LocalError
from voice_dpki.ledger.genesis import Genesis
from voice_dpki.shell import ledger
from voice_dpki.shell.config import Config, Listen, PositiveSeconds, TraceConfig, load_config, resolve
from voice_dpki.shell.credentials import read_ed25519
from voice_dpki.shell.limits import Limits
from voice_dpki.shell.log import LogConfig
from voice_dpki.shell.reload import RELOADABLE
from voice_dpki.shell.tls import ClientTls, ServerTls

MAX_DAYS = 36_500
"""Longest time that blocks are kept, unless all are: a hundred years."""

EXAMPLE = """\
[node]
name = "operator-a"
data_dir = "data"                          # made if it is not there
genesis = "genesis.json"
signatures = "signatures"                  # the operators', on the genesis; left out: nobody need have signed it
# max_block_age_s = 60                     # /readyz fails while the newest block is older

[listen]
host = "127.0.0.1"
port = 26680

[engine]                                   # this node orders transactions; or:
validator_keys = ["keys/validator-1.pem"]
heartbeat_s = 5.0

# [follow]                                 # this node replays, and verifies, another's blocks
# url = "http://127.0.0.1:26680"
# checkpoint = { height = 1200, hash = "5f1c.." }   # a header that operators vouch for: docs/adr/0013
# tls = { certificate = "tls/b.pem", key = "tls/b-key.pem", servers = ["tls/a.pem"] }   # url is then https

# [edge]                                   # this node keeps proofs of another, and no state of its own
# url = "http://127.0.0.1:26680"
# witnesses = []                           # other operators' nodes, whose headers must be the same
# max_entries = 100000                     # certificates, about 5 kB each; tls as in [follow]

# [cometbft]                               # this node orders transactions with other operators' nodes
# home = "cometbft"
# rpc = { host = "127.0.0.1", port = 26657 }
# metrics = { host = "127.0.0.1", port = 26660 }   # CometBFT's own, for Prometheus; left out: nowhere
# p2p = { host = "127.0.0.1", port = 26656 }
# peers = ["ID@HOST:26656"]                # the others; `ledger-node id` prints a node's
# admitted = "admitted"                    # further nodes that may connect, "ID@ADDRESS" a line; it may change
# validator_key = "keys/validator-1.pem"   # left out: it does not vote
# signer = { host = "127.0.0.1", port = 26659 }    # or a remote signer has that key: docs/remote-signer.md
# node_key = "keys/node.pem"               # the node's name to its peers; left out: made in `home`

[submission]                               # if it endorses for a member
organization = "Operator A"
endorsing_key = "keys/endorsing.pem"
tokens = "tokens"                          # one bearer token a line; SIGHUP reads it again

# [tls]                                    # needed with [submission] where others can reach the address
# certificate = "tls/a.pem"                # `ledger-node certificate` makes both
# key = "tls/a-key.pem"
# clients = ["tls/clients"]                # certificates, or folders of them, whose holders may connect

# [keep]                                   # blocks that are older, and below the newest ones, are removed
# days = 30                                # light clients need 15
# blocks = 10000
# history = "https://archive.a.example"    # a node that keeps all, which this one names when asked for older ones
# archive = true                           # this node keeps all

# [limits]                                 # for each client address; more gets 429 with Retry-After
# cost_s = 10000                           # a second: a status inquiry costs 1, a transaction 10, a search 200
# concurrent = 256                         # requests under way
# connections = 256

# [log]                                    # to standard error; level: debug, info, warning or error
# level = "info"                           # SIGHUP reads it again
# form = "json"                             # or "text"

# [trace]
# file = "trace.jsonl"
"""


class NodeSection(Config, frozen=True, kw_only=True):
    """Who the node is and where it keeps its store."""

    name: str
    data_dir: str
    genesis: str
    signatures: str | None = None
    """Folder of the operators' signatures on the genesis; the node starts only if all have signed."""
    max_block_age_s: PositiveSeconds = DEFAULT_BLOCK_AGE_S
    """How old the newest block may be for /readyz."""


class EngineSection(Config, frozen=True, kw_only=True):
    """The embedded engine: keys with more than two thirds of the validators' power, and the heartbeat interval."""

    validator_keys: list[str]
    heartbeat_s: PositiveSeconds = 5.0


class Checkpoint(Config, frozen=True, kw_only=True):
    """Height and hash of a header that a trustworthy source vouches for."""

    height: Annotated[int, msgspec.Meta(ge=1)]
    hash: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Fa-f]{64}\Z")]


class FollowSection(Config, frozen=True, kw_only=True):
    """Following another node's blocks."""

    url: str
    checkpoint: Checkpoint | None = None
    """Without a checkpoint, only the genesis anchors the ledger's past: see docs/adr/0013."""
    tls: ClientTls | None = None


class EdgeSection(Config, frozen=True, kw_only=True):
    """Answering from another node's proofs, without a state."""

    url: str
    witnesses: Annotated[tuple[str, ...], msgspec.Meta(max_length=16)] = ()
    """Asked once a minute, because an isolated or lying node could show this one a history of its own."""
    tls: ClientTls | None = None
    max_entries: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 100_000


class SubmissionSection(Config, frozen=True, kw_only=True):
    """Endorsing for one member, at the request of the holders of its tokens."""

    organization: str
    endorsing_key: str
    tokens: Annotated[str, RELOADABLE]


class KeepSection(Config, frozen=True, kw_only=True):
    """Which blocks the node keeps; nothing of the ledger's state is lost with the others."""

    archive: bool = False
    """Whether to keep all blocks."""
    days: Annotated[float, msgspec.Meta(ge=0, le=MAX_DAYS)] = KEPT_DAYS
    blocks: Annotated[int, msgspec.Meta(ge=100)] = KEPT_BLOCKS
    """Newest blocks that are kept whatever their age; with CometBFT those since the kept snapshots are, too."""
    history: str | None = None
    """URL of a node that keeps all blocks, for clients that ask this one for older blocks."""

    def __post_init__(self) -> None:
        """Raise ValueError for a node that keeps all blocks and also names an archive."""
        if self.archive and self.history:
            raise ValueError("history: with archive = true this node has all blocks itself")


class NodeConfig(Config, frozen=True, kw_only=True):
    """The whole configuration."""

    node: NodeSection
    listen: Listen
    engine: EngineSection | None = None
    follow: FollowSection | None = None
    cometbft: CometbftSection | None = None
    edge: EdgeSection | None = None
    submission: SubmissionSection | None = None
    tls: Annotated[ServerTls | None, RELOADABLE] = None
    keep: KeepSection | None = None
    limits: Limits = Limits()
    log: LogConfig = LogConfig()
    trace: TraceConfig | None = None


def load(path: Path) -> NodeConfig:
    """Read a configuration; raises LocalError, for instance unless it has exactly one source of blocks."""
    config = load_config(path, NodeConfig)
    sources = (config.engine, config.follow, config.cometbft, config.edge)
    if sum(section is not None for section in sources) != 1:
        raise LocalError(f"{path}: give exactly one of [engine], [follow], [cometbft] and [edge]")
    if config.edge is not None and config.submission is not None:
        raise LocalError(f"{path}: an [edge] node has no state, which [submission] needs")
    if config.edge is not None and config.keep is not None:
        raise LocalError(f"{path}: an [edge] node has no blocks, which [keep] is about")
    if config.submission is not None:
        config.listen.check_secrecy(path, "the tokens of [submission]", has_tls=config.tls is not None)
    return config


def retention(config: NodeConfig) -> Retention | None:
    """Return which blocks the node keeps; None if all.

    A node that begins with a snapshot needs the blocks after it from its peers, so they are kept in any case.
    """
    keep = config.keep or KeepSection()
    if keep.archive:
        return None
    since_snapshot = (KEPT_SNAPSHOTS + 1) * config.cometbft.snapshot_blocks if config.cometbft else 0
    return Retention(keep.days * DAY_S, max(keep.blocks, since_snapshot))


def folders(path: Path, config: NodeConfig) -> list[Path]:
    """Return the folders that grow of the node with the configuration at `path`, its store's first."""
    names = [config.node.data_dir, *([config.cometbft.home] if config.cometbft else [])]
    return [resolve(path, name) for name in names]


def read_genesis(config_path: Path, config: NodeConfig) -> Genesis:
    """Read the genesis that the configuration names; raises LocalError."""
    return ledger.read_genesis(resolve(config_path, config.node.genesis))


def check_signatures(config_path: Path, config: NodeConfig) -> None:
    """Raise LocalError if the configuration wants the operators' signatures, and one is missing or false."""
    if config.node.signatures is not None:
        data, _ = read_genesis_bytes(resolve(config_path, config.node.genesis))
        check_signed(data, resolve(config_path, config.node.signatures))


def read_validator_key(path: Path) -> Ed25519PrivateKey:
    """Read an Ed25519 private key in PEM; raises LocalError."""
    return read_ed25519(path, "validator key")


def read_node_key(path: Path, section: CometbftSection) -> Ed25519PrivateKey:
    """Return the key by which peers know the node of the configuration at `path`; raises LocalError.

    A node whose configuration names none makes one in CometBFT's folder.
    """
    if section.node_key is None:
        return node_key(resolve(path, section.home))
    return read_ed25519(resolve(path, section.node_key), "node key")
