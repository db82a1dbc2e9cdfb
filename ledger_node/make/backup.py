"""Backups of a node's store, and the guard that keeps a restored node from signing anything twice.

A backup holds the ledger alone: no key, and nothing of CometBFT's. A validator on CometBFT fetches the ledger from
its peers; it needs its key back, and must not vote again where it has voted before.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import lmdb
import msgspec

from ledger_node.keep.integrity import check_store
from ledger_node.keep.mapped import copy
from ledger_node.keep.store import DATA_FILE, UNFINISHED_FILE, Store, StoreError
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.ledger.genesis import Genesis
from voice_dpki.shell.files import make_folder, write_private
from voice_dpki.wire.bounded import fetch_body
from voice_dpki.wire.ledger.client import NodeInfo

MAX_ANSWER_BYTES = 64 * 1024
TIMEOUT_S = 10.0

MARGIN = 10
"""Blocks added to the highest one that a peer has stored: the peer can have decided more, and voted on another."""

MAX_HEIGHT = 10**15
"""Largest height accepted from a peer; no ledger has so many blocks."""

MAX_ROUND = 2**31 - 1
PREVOTE, PRECOMMIT = 2, 3
"""CometBFT's numbers of the steps in which a validator votes."""

SIGNED_FILE = Path("data") / "priv_validator_state.json"
"""In CometBFT's home: the last height at which the validator signed. It signs nothing below."""


@dataclass(frozen=True, slots=True)
class Voted:
    """A vote of a validator: the round, and the step as CometBFT counts it."""

    round: int
    step: int


def back_up(data_dir: Path, genesis: Genesis, out: Path) -> str:
    """Copy the store in `data_dir`, of a node that may be running, into `out`; return what a check of it says.

    Raises LocalError where there is no store, or the copy is not sound.
    """
    if not (data_dir / DATA_FILE).exists():
        raise LocalError(f"{data_dir}: there is no store here to back up")
    try:
        copy(data_dir / DATA_FILE, out / DATA_FILE)
    except (OSError, lmdb.Error) as error:
        raise LocalError(f"{out}: the store could not be copied here: {error}") from None
    return check_store(out, genesis, whole=True)


def restore(backup: Path, data_dir: Path, genesis: Genesis, heights: Sequence[int]) -> str:
    """Put a backup where a node has no store; return what a check of it says.

    `heights` are those that other nodes have, for a node that makes blocks itself: it must not make others at
    heights at which it has signed some. Raises LocalError.
    """
    if (data_dir / DATA_FILE).exists():
        raise LocalError(f"{data_dir}: there is a store here already: move it away first")
    said = check_store(backup, genesis, whole=True)
    if said == "no store yet":
        raise LocalError(f"{backup}: there is no backup here")
    _check_newest(backup, genesis, heights)
    try:
        make_folder(data_dir, 0o700)
        (data_dir / UNFINISHED_FILE).unlink(missing_ok=True)
        copy(backup / DATA_FILE, data_dir / UNFINISHED_FILE)
        (data_dir / UNFINISHED_FILE).rename(data_dir / DATA_FILE)
    except (OSError, lmdb.Error) as error:
        raise LocalError(f"{data_dir}: the backup could not be copied here: {error}") from None
    return said


def _check_newest(backup: Path, genesis: Genesis, heights: Sequence[int]) -> None:
    """Raise LocalError if another node has blocks that the backup lacks."""
    store = Store(backup, genesis, read_only=True)
    height = store.height
    store.close()
    if any(other > height for other in heights):
        raise StoreError(
            f"{backup}: the backup ends at block {height}, and another node has block {max(heights)}: an engine "
            "that went on from here would sign other blocks in the place of those. Restore a backup of that node "
            "instead"
        )


def resume_validator(home: Path, last: int, heights: Sequence[int], voted: Voted | None) -> None:
    """Let the validator in CometBFT's `home` vote for the block after `last`, at which a federation stands still.

    `voted` is the last of its votes for that block that another node has. This is for a ledger that its absence
    stops: the operators say that no node has a later block, and which votes of it their nodes have. Raises
    LocalError where a node has a later block, or the validator is known to have signed later.
    """
    if any(height > last for height in heights):
        raise LocalError(f"another node has block {max(heights)}: the ledger does not stand still at block {last}")
    file = home / SIGNED_FILE
    begins = (last + 1, voted.round, voted.step) if voted else (last, MAX_ROUND, PRECOMMIT)
    try:
        known = json.loads(file.read_bytes()) if file.exists() else {}
        if known.get("signature") and _place(known) > begins:
            raise LocalError(f"{file}: the validator has signed at block {known['height']} here: leave it as it is")
        make_folder(file.parent, 0o700)
        state = {"height": str(begins[0]), "round": begins[1], "step": begins[2]}
        write_private(file, json.dumps(state).encode("ascii"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LocalError(f"{file}: cannot be read or written: {error}") from None


def _place(state: dict[str, Any]) -> tuple[int, int, int]:
    return int(state["height"]), int(state["round"]), int(state["step"])


def ask_heights(urls: Sequence[str], genesis: Genesis) -> list[int]:
    """Ask nodes of the ledger for the height of their newest block; raises LocalError if one does not tell."""
    return [_height(url, genesis) for url in urls]


def _height(url: str, genesis: Genesis) -> int:
    try:
        with httpx.Client(base_url=url, timeout=TIMEOUT_S, trust_env=False) as client:
            data = fetch_body(client, "/ledger/v1/node", max_bytes=MAX_ANSWER_BYTES, within_s=TIMEOUT_S)
        info = msgspec.json.decode(data, type=NodeInfo)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, MalformedError) as error:
        raise LocalError(f"{url}: the node does not tell its height: {error}") from None
    if info.chain_id != genesis.chain_id:
        raise LocalError(f"{url}: this is a node of another ledger")
    if not 0 <= info.height <= MAX_HEIGHT:
        raise LocalError(f"{url}: no ledger has {info.height} blocks")
    return info.height


def guard_validator(home: Path, heights: Sequence[int]) -> int:
    """Have the validator in CometBFT's `home` sign nothing up to what others have; return where it begins.

    What it knows to have signed is never lowered. Raises LocalError.
    """
    file = home / SIGNED_FILE
    begins = max(heights) + MARGIN
    try:
        signed = int(json.loads(file.read_bytes())["height"]) if file.exists() else 0
        if signed >= begins:
            return signed
        make_folder(file.parent, 0o700)
        write_private(file, json.dumps({"height": str(begins), "round": 0, "step": 0}).encode("ascii"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LocalError(f"{file}: cannot be read or written: {error}") from None
    return begins
