"""`ledger-node backup`, `restore` and `check`."""

import asyncio
import re
from argparse import ArgumentTypeError, Namespace
from pathlib import Path

from ledger_node.abci.rpc import Rpc
from ledger_node.command import config as configuration
from ledger_node.command.session import Commands
from ledger_node.keep.integrity import check_store
from ledger_node.make.backup import (
    MAX_HEIGHT,
    PRECOMMIT,
    PREVOTE,
    Voted,
    ask_heights,
    back_up,
    guard_validator,
    restore,
    resume_validator,
)
from voice_dpki.errors import LocalError
from voice_dpki.shell.config import Listen, resolve
from voice_dpki.shell.options import whole_number
from voice_dpki.shell.output import new_folder

BACKUP = """\
Copy a node's store into a new folder while the node runs, and check the copy. A backup holds the ledger, which is
public; it holds no keys. docs/backup.md says what else to keep.
"""

RESTORE = """\
Make a stopped node whose store is lost ready to start.

  ledger-node restore --config net/follower.toml --from backup
  ledger-node restore --config net/engine.toml   --from backup --peer http://127.0.0.1:26681
  ledger-node restore --config net/validator.toml --peer https://b.example:26680 --peer https://c.example:26680

A node that follows, or has the embedded engine, gets the backup as store. A validator on CometBFT takes none: it
fetches the ledger from its peers. The nodes named by --peer are asked for their height, so that nothing is signed
twice: an engine whose backup is older is refused, and a validator signs nothing before a block that nobody has yet.

If the ledger stands still because this validator is missing, that block never comes. Then each of the other
operators runs ledger-node votes. When all agree on the last block, HEIGHT, and none has a vote of this validator:

  ledger-node restore --config net/validator.toml --peer https://b.example:26680 ... --last-block HEIGHT

Where some have its votes, add the last of them, as `votes` prints it: --voted ROUND/STEP.

A node whose HTTP is for its own machine cannot be asked with --peer. Its operator runs ledger-node votes there, and
tells the block before the one that it names: --height HEIGHT.
"""


def add_to(commands: Commands) -> None:
    """Add the commands to the program."""
    check = commands.add_parser("check", help="look at every block and certificate in a stopped node's store")
    check.set_defaults(run=_check)
    backup = commands.add_parser("backup", help="copy a node's store while it runs", description=BACKUP)
    backup.add_argument("--out", type=Path, required=True, help="a new folder")
    backup.set_defaults(run=_backup)
    back = commands.add_parser(
        "restore", help="make a node whose store is lost ready to start", description=RESTORE
    )
    back.add_argument("--from", dest="backup", type=Path, metavar="FOLDER", help="a backup")
    back.add_argument("--peer", action="append", default=[], metavar="URL", help="another node of the ledger")
    back.add_argument(
        "--height",
        type=whole_number(1, MAX_HEIGHT),
        action="append",
        default=[],
        help="the newest block of another node that cannot be asked from here, as its operator says",
    )
    back.set_defaults(run=_restore)
    back.add_argument(
        "--last-block", type=whole_number(1, MAX_HEIGHT), metavar="HEIGHT", help="where the ledger stands still"
    )
    back.add_argument(
        "--voted", type=_voted, metavar="ROUND/STEP", help="its last vote that `votes` shows elsewhere"
    )
    votes = commands.add_parser("votes", help="tell which votes for the next block a running node has")
    votes.set_defaults(run=_votes)
    for command in (check, backup, back, votes):
        command.add_argument("--config", type=Path, required=True, help="the node's configuration, TOML")


def _check(options: Namespace) -> int:
    config = configuration.load(options.config)
    genesis = configuration.read_genesis(options.config, config)
    print(check_store(resolve(options.config, config.node.data_dir), genesis, whole=True))
    return 0


def _backup(options: Namespace) -> int:
    config = configuration.load(options.config)
    genesis = configuration.read_genesis(options.config, config)
    with new_folder(options.out):
        print(back_up(resolve(options.config, config.node.data_dir), genesis, options.out))
    return 0


def _restore(options: Namespace) -> int:
    config = configuration.load(options.config)
    genesis = configuration.read_genesis(options.config, config)
    if config.follow is None and not options.peer and not options.height:
        raise LocalError(
            "this node signs: name other nodes with --peer, or their heights with --height, so that nothing is "
            "signed twice"
        )
    heights = [*ask_heights(options.peer, genesis), *options.height]
    if config.cometbft is not None:
        return _guard(options, config.cometbft.home, heights)
    if options.last_block is not None or options.voted is not None:
        raise LocalError("--last-block and --voted are for a validator on CometBFT")
    if config.edge is not None or options.backup is None:
        raise LocalError("name the backup with --from; an [edge] node needs none")
    print(restore(options.backup, resolve(options.config, config.node.data_dir), genesis, heights))
    return 0


def _guard(options: Namespace, home: str, heights: list[int]) -> int:
    if options.backup is not None:
        raise LocalError("a node with [cometbft] fetches the ledger from its peers: leave out --from")
    if options.last_block is not None:
        resume_validator(resolve(options.config, home), options.last_block, heights, options.voted)
        print(
            f"The validator votes for block {options.last_block + 1}, and for nothing that it has voted on before."
        )
        return 0
    if options.voted is not None:
        raise LocalError("--voted goes with --last-block")
    begins = guard_validator(resolve(options.config, home), heights)
    print(f"The validator signs nothing before block {begins}; the other nodes have block {max(heights)}.")
    print("If the ledger stands still without this validator, that block never comes: see --last-block.")
    return 0


def _voted(text: str) -> Voted:
    match = re.fullmatch(r"([0-9]{1,9})/(prevote|precommit)", text, re.ASCII)
    if match is None:
        raise ArgumentTypeError("give ROUND/prevote or ROUND/precommit, as ledger-node votes prints it")
    return Voted(int(match[1]), PREVOTE if match[2] == "prevote" else PRECOMMIT)


def _votes(options: Namespace) -> int:
    config = configuration.load(options.config)
    if config.cometbft is None:
        raise LocalError(f"{options.config}: this node does not run CometBFT")
    height, votes = asyncio.run(_ask_votes(config.cometbft.rpc))
    print(f"Votes for block {height}, which has not come yet:")
    for address, given in votes.items():
        print(f"  {address}  {given[-1] if given else 'none'}")
    return 0


async def _ask_votes(rpc: Listen) -> tuple[int, dict[str, list[str]]]:
    async with Rpc(rpc) as client:
        return await client.votes()
