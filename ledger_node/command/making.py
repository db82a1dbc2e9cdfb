"""`ledger-node init` and `join`: what a node starts with, for a demonstration and for a running federation."""

from argparse import Namespace
from pathlib import Path

from ledger_node.abci.cometbft import SNAPSHOT_BLOCKS
from ledger_node.command.session import Commands
from ledger_node.make import initialise
from ledger_node.make import join as joining
from ledger_node.make.node_file import STATE_HELP
from voice_dpki.effects import SystemClock
from voice_dpki.shell.output import new_folder

INIT = f"""\
Make a new ledger for a demonstration or a test: one machine then holds the keys of all members, and whoever has
them is all of them. Operators who found a federation make their own keys each: docs/founding.md.

The list of members:

{initialise.EXAMPLE}"""


def add_to(commands: Commands) -> None:
    """Add the commands to the program."""
    init = commands.add_parser(
        "init", help="make a new ledger for a demonstration, with everybody's keys", description=INIT
    )
    init.add_argument("--members", type=Path, required=True, help="the list of members, TOML")
    init.add_argument("--out", type=Path, required=True, help="a new folder for keys, genesis and configurations")
    init.set_defaults(run=_init)
    join = commands.add_parser(
        "join",
        help="make a new node for a federation that is running",
        description=f"Make a new node for a federation that is running:\n\n{joining.EXAMPLE}",
    )
    join.add_argument("--genesis", type=Path, required=True, help="the federation's genesis, from a trusted place")
    join.add_argument("--name", required=True, help="name of the node and of its files")
    join.add_argument("--host", required=True, help="this machine's address, as the other nodes see it")
    join.add_argument("--peer", action="append", required=True, metavar="ID@HOST:PORT", help="a node to talk to")
    join.add_argument(
        "--rpc", action="append", metavar="URL", help="RPC of a node; with two, begin with a snapshot"
    )
    join.add_argument(
        "--checkpoint", metavar="HEIGHT:HASH", help="a header that other operators vouch for, to begin from"
    )
    join.add_argument(
        "--node-key",
        type=Path,
        metavar="FILE",
        help="the node's key, if the others know it already",
    )
    join.add_argument("--out", type=Path, required=True, help="a new folder for keys, genesis and configuration")
    join.add_argument("--state", type=Path, metavar="FOLDER", help=STATE_HELP)
    join.set_defaults(run=_join)


def _init(options: Namespace) -> int:
    with new_folder(options.out):
        made = initialise.initialise(options.members, options.out, SystemClock())
    print(f"Made {options.out / 'genesis.json'}, the keys of all members, and a configuration for each node.")
    print("This is for demonstrations: operators who found a federation make their own keys (docs/founding.md).")
    print("Start the nodes with:")
    for path in made:
        print(f"  ledger-node start --config {path}")
    return 0


def _join(options: Namespace) -> int:
    with new_folder(options.out):
        made = joining.join(
            options.genesis,
            options.out,
            name=options.name,
            host=options.host,
            peers=options.peer,
            rpc_servers=options.rpc or (),
            checkpoint=options.checkpoint,
            node_key=options.node_key,
            state=options.state,
        )
    print(f"Made {made.config} and its keys. For the other operators:")
    print(f"  peer           {made.peer}")
    print(f"  admitted       {made.peer.rpartition(':')[0]}")
    print(f"  validator key  {made.validator_key}")
    print(f"Start it with:\n  ledger-node start --config {made.config}")
    print(_waits_for(made))
    return 0


def _waits_for(made: joining.Joined) -> str:
    """Return what the new node waits for before it has a block."""
    admitted = "It waits until the other nodes list it; its log and /healthz say what is missing."
    if made.trusted_height is None:
        return f"{admitted}\nThen it fetches all blocks, as far as its peers still have them."
    begins = (
        f"{admitted}\nThen it begins with a snapshot. Nodes take one every {SNAPSHOT_BLOCKS} blocks by default."
    )
    if made.trusted_height >= SNAPSHOT_BLOCKS:
        return begins
    return (
        f"{begins}\nThe ledger has {made.trusted_height} blocks, so there may be none yet: without --rpc the node "
        "fetches all blocks instead."
    )
