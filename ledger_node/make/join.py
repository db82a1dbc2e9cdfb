"""`ledger-node join`: keys and configuration with which an operator's new node joins a running federation.

The genesis file is the root of trust and must come from a trusted source. Given the RPC of two nodes or more, the
new node starts from a snapshot. The header that it trusts for this is verified here from the genesis, or is the
checkpoint that other operators gave (docs/adr/0013).
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec

from ledger_node.abci.cometbft import P2P_PORT, node_id_of
from ledger_node.make.keys import KeyKind, make_key, read_ed25519_public
from ledger_node.make.node_file import ADMITTED, node_sections
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.ledger.directory import MAX_VALIDATORS
from voice_dpki.ledger.genesis import Genesis
from voice_dpki.ledger.header import Header, SignedHeader, ValidatorSet
from voice_dpki.ledger.light import LightError
from voice_dpki.shell.config import to_toml
from voice_dpki.shell.files import make_folder, write_file
from voice_dpki.shell.ledger import read_genesis
from voice_dpki.wire.bounded import fetch_body
from voice_dpki.wire.ledger.client import light_client

TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 1024 * 1024

_PAGE = 100
"""The most that one answer of CometBFT's RPC has; it divides MAX_VALIDATORS."""

_CHECKPOINT = re.compile(r"[1-9][0-9]{0,14}:[0-9A-Fa-f]{64}\Z")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}\Z")

EXAMPLE = """\
ledger-node keys new node --out keys/node.pem
ledger-node keys show keys/node.pub.pem
ledger-node join --genesis genesis.json --name operator-c --host 192.0.2.3 --out node --node-key keys/node.pem \\
    --peer 0123456789abcdef0123456789abcdef01234567@192.0.2.1:26656 \\
    --rpc http://192.0.2.1:26657 --rpc http://192.0.2.2:26657
ledger-node start --config node/operator-c.toml

With --checkpoint HEIGHT:HASH, a header that other operators vouch for, the node does not depend on the keys of the
genesis's validators having been kept safe ever since. At an operator's node, HASH is
signed_header.commit.block_id.hash of /ledger/v1/headers/HEIGHT; take a header of the last days.

First the other operators admit the node: each adds the line NODE-ID@192.0.2.3, with the id that `keys show` prints,
to the file that `admitted` in its configuration names. Those whose --rpc it uses open that port to it meanwhile:
their own address and insecure = true in `rpc`, behind what `ledger-node firewall` prints, which lets admitted nodes
through to it. Without --rpc, `join` can make the node's key and print the line itself.

Then the node follows. It votes from the block after which the federation has admitted its validator key: name the
file that this command prints in `validators` of the member's file that is proposed
(voice-dpki ledger propose --help).
"""


@dataclass(frozen=True, slots=True)
class Joined:
    """The new node's configuration and peer address, and the file of its validator's public key for a proposal."""

    config: Path
    peer: str
    validator_key: Path
    trusted_height: int | None = None
    """Height of the header that the node begins from with a snapshot; None if it fetches all blocks."""


def join(
    genesis_file: Path,
    folder: Path,
    *,
    name: str,
    host: str,
    peers: Sequence[str],
    rpc_servers: Sequence[str],
    checkpoint: str | None = None,
    node_key: Path | None = None,
    state: Path | None = None,
) -> Joined:
    """Make keys and a configuration in `folder`, which must be new or empty.

    `node_key` is a key that the other operators know already; without one, one is made. The node's data will be in
    `folder` too, unless `state` names another.

    Raises LocalError for a bad name, a folder that is not empty or a file that is no genesis, and if the first RPC
    server has no header that the genesis proves, or not the checkpoint's.
    """
    if not _NAME.match(name):
        raise LocalError(
            "a node's name has small letters, digits and hyphens, at most 40: its files are named by it"
        )
    genesis = read_genesis(genesis_file)
    if folder.exists() and any(folder.iterdir()):
        raise LocalError(f"{folder}: there is something in it already; name a new folder")
    known = None if node_key is None else read_ed25519_public(node_key, "node's key")
    trusted = _trusted(genesis, rpc_servers, checkpoint)
    make_folder(folder / "keys", 0o700)
    write_file(folder / "genesis.json", genesis_file.read_bytes())
    public = make_key(KeyKind.VALIDATOR, folder / "keys" / f"validator-{name}.pem")
    own_key = f"keys/node-{name}.pem" if node_key is None else str(node_key.resolve())
    node = known or read_ed25519_public(make_key(KeyKind.NODE, folder / own_key))
    write_file(folder / "admitted", ADMITTED.encode("utf-8"))
    config = folder / f"{name}.toml"
    state_sync = None if trusted is None else _state_sync(rpc_servers, trusted)
    keys = f"keys/validator-{name}.pem", own_key
    sections = node_sections(name, host, peers, *keys, state_sync, state=state)
    write_file(config, to_toml(sections).encode("utf-8"))
    return Joined(
        config,
        f"{node_id_of(node.public_bytes_raw())}@{host}:{P2P_PORT}",
        public,
        None if trusted is None else trusted.height,
    )


def _trusted(genesis: Genesis, rpc_servers: Sequence[str], checkpoint: str | None) -> Header | None:
    if not rpc_servers:
        if checkpoint is not None:
            raise LocalError("a checkpoint is where the node begins with a snapshot: give --rpc of two nodes too")
        return None
    if checkpoint is None:
        return trusted_header(genesis, rpc_servers[0])
    return checkpoint_header(genesis, rpc_servers[0], checkpoint)


def checkpoint_header(genesis: Genesis, url: str, checkpoint: str) -> Header:
    """Fetch the header of a checkpoint, HEIGHT:HASH, from a node's RPC; raises LocalError where it has another."""
    if not _CHECKPOINT.match(checkpoint):
        raise LocalError("a checkpoint is a height, a colon, and the header's hash in 64 hexadecimal digits")
    height, _, name = checkpoint.partition(":")
    header = _fetched(url, f"/commit?height={height}").header
    if (header.height, header.hash().hex(), header.chain_id) != (int(height), name.lower(), genesis.chain_id):
        raise LocalError(f"{url}: the header there at {height} is not the checkpoint's: ask both sides why")
    return header


def _fetched(url: str, path: str) -> SignedHeader:
    try:
        with httpx.Client(base_url=url, timeout=TIMEOUT_S, trust_env=False) as client:
            return SignedHeader.from_json(_result(client, path)["signed_header"])
    except (httpx.HTTPError, httpx.InvalidURL, msgspec.MsgspecError, KeyError, MalformedError) as error:
        raise LocalError(f"{url}: no such header there: {error}") from None


def trusted_header(genesis: Genesis, url: str) -> Header:
    """Fetch the newest header from a node's RPC and verify it from the genesis; raises LocalError."""
    try:
        with httpx.Client(base_url=url, timeout=TIMEOUT_S, trust_env=False) as client:
            signed = SignedHeader.from_json(_result(client, "/commit")["signed_header"])
            validators = _validators(client, signed.header.height)
        return light_client(genesis).verify(signed, validators, time.time())
    except (httpx.HTTPError, httpx.InvalidURL, msgspec.MsgspecError, KeyError, MalformedError, LightError) as error:
        raise LocalError(f"{url}: no header there that the genesis proves: {error}") from None


def _validators(client: httpx.Client, height: int) -> ValidatorSet:
    """Fetch the validators of a height, in pages, as CometBFT gives at most 100 at once; raises MalformedError.

    More than the ledger may have are not read.
    """
    found: list[object] = []
    for page in range(1, MAX_VALIDATORS // _PAGE + 1):
        path = f"/validators?height={height}&page={page}&per_page={_PAGE}"
        told = msgspec.convert(_result(client, path), _Page, strict=False)
        found += told.validators
        if len(found) >= told.total:
            return ValidatorSet.from_json({"validators": found})
    raise MalformedError(f"the node has more than {MAX_VALIDATORS} validators")


class _Page(msgspec.Struct):
    """A part of the answer to `/validators`; `total` is a text of digits."""

    validators: list[dict[str, Any]]
    total: int


class _RpcResult(msgspec.Struct):
    result: dict[str, Any]


def _result(client: httpx.Client, path: str) -> dict[str, Any]:
    data = fetch_body(client, path, max_bytes=MAX_ANSWER_BYTES, within_s=TIMEOUT_S)
    return msgspec.json.decode(data, type=_RpcResult).result


def _state_sync(rpc_servers: Sequence[str], trusted: Header) -> dict[str, object]:
    return {
        "rpc_servers": list(rpc_servers),
        "trust_height": trusted.height,
        "trust_hash": trusted.hash().hex(),
    }
