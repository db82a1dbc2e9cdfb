"""`ledger-node backup`, `restore` and `check`."""

from argparse import Namespace
from pathlib import Path

from ledger_node.command import config as configuration
from ledger_node.command.session import Commands
from ledger_node.keep.integrity import check_store
from ledger_node.make.backup import ask_heights, back_up, guard_validator, restore
from voice_dpki.errors import LocalError
from voice_dpki.shell.config import resolve
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
    back.set_defaults(run=_restore)
    for command in (check, backup, back):
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
    if config.follow is None and not options.peer:
        raise LocalError("this node signs: name other nodes with --peer, so that nothing is signed twice")
    heights = ask_heights(options.peer, genesis)
    if config.cometbft is not None:
        return _guard(options, config.cometbft.home, heights)
    if config.edge is not None or options.backup is None:
        raise LocalError("name the backup with --from; an [edge] node needs none")
    print(restore(options.backup, resolve(options.config, config.node.data_dir), genesis, heights))
    return 0


def _guard(options: Namespace, home: str, heights: list[int]) -> int:
    if options.backup is not None:
        raise LocalError("a node with [cometbft] fetches the ledger from its peers: leave out --from")
    begins = guard_validator(resolve(options.config, home), heights)
    print(f"The validator signs nothing before block {begins}; the other nodes have block {max(heights)}.")
    return 0
