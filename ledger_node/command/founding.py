"""`ledger-node genesis`: operators found a ledger together, and no private key leaves its machine."""

import secrets
from argparse import ArgumentTypeError, Namespace
from pathlib import Path

from ledger_node.abci.cometbft import P2P_PORT
from ledger_node.command.session import Commands
from ledger_node.make import founding, offer
from ledger_node.make.keys import PrivateKeys, read_ed25519_public
from ledger_node.make.member_file import EXAMPLE, load_member
from ledger_node.make.node_file import ADMITTED, STATE_HELP
from ledger_node.make.offer import Node, Terms
from voice_dpki.effects import SystemClock
from voice_dpki.errors import LocalError
from voice_dpki.ledger.genesis import load_genesis
from voice_dpki.ledger.members import Member
from voice_dpki.shell.config import load_config, to_toml
from voice_dpki.shell.files import FOR_ALL, OWNER_ONLY, make_folder, write_all_new, write_new
from voice_dpki.shell.program import Parser, indented

DESCRIPTION = f"""\
Operators found a ledger together. Each makes its own keys (ledger-node keys) and an offer with its public ones.
Each builds the genesis from all offers, which gives the same file everywhere, and signs it. Each node starts with
the signatures of all operators. docs/founding.md goes through it.

What all agree on beforehand, the terms:

{indented(offer.TERMS_EXAMPLE)}
What each says of itself, its member's file:

{indented(EXAMPLE)}"""


def add_to(commands: Commands) -> None:
    """Add the commands to the program."""
    own = commands.add_parser("genesis", help="found a ledger with other operators", description=DESCRIPTION)
    kinds = own.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    make = kinds.add_parser("offer", help="make the file with which this member takes part")
    make.set_defaults(run=_offer)
    make.add_argument(
        "--node", type=_node_name, action="append", default=[], metavar="KEY@HOST[:PORT]", help=_NODE_HELP
    )
    build = kinds.add_parser("build", help="make the genesis from all offers")
    build.set_defaults(run=_build)
    sign = kinds.add_parser("sign", help="sign the genesis for this member")
    sign.set_defaults(run=_sign)
    check = kinds.add_parser("check", help="check that all operators have signed, and tell who they are")
    check.set_defaults(run=_check)
    check.add_argument("--signatures", type=Path, required=True, metavar="FOLDER", help="with a file of each")
    configure = kinds.add_parser("configure", help="make the configuration of this member's node")
    configure.set_defaults(run=_configure)
    configure.add_argument(
        "--node", type=_node_name, required=True, metavar="KEY@HOST[:PORT]", help="as it was offered"
    )
    configure.add_argument("--state", type=Path, metavar="FOLDER", help=STATE_HELP)
    configure.add_argument(
        "--no-submission", action="store_true", help="the node endorses nothing, and needs no endorsing key"
    )
    for command in (make, build, configure):
        command.add_argument("--terms", type=Path, required=True, metavar="FILE", help="what all agreed on")
    for command in (sign, check):
        command.add_argument("--genesis", type=Path, required=True, metavar="FILE", help="what `build` made")
    for command in (make, sign, configure):
        command.add_argument("--member", type=Path, required=True, metavar="FILE", help="this member's file")
        command.add_argument(
            "--keys", type=Path, metavar="FOLDER", help="its private keys (default: keys beside it)"
        )
    for command in (build, configure):
        command.add_argument("offers", type=Path, nargs="+", metavar="OFFER", help="the offers of all members")
    for command in (make, build, sign, configure):
        command.add_argument("--out", type=Path, required=True, metavar="FILE", help="a new file")


OLD_S = 7 * 86_400
"""Age of a genesis time from which on `build` advises against it: half of the light clients' trusting period."""

_NODE_HELP = "this member's node: its key and where the others reach it; several run its validators in their order"


def _node_name(text: str) -> tuple[Path, str]:
    key, at, address = text.rpartition("@")
    if not at or not key:
        raise ArgumentTypeError("give KEY@HOST or KEY@HOST:PORT, such as keys/node.pem@192.0.2.1")
    return Path(key), address if ":" in address else f"{address}:{P2P_PORT}"


def _node(name: tuple[Path, str]) -> Node:
    key, address = name
    return Node(read_ed25519_public(key, "node's key").public_bytes_raw(), address)


def _keys(options: Namespace) -> PrivateKeys:
    return PrivateKeys(options.keys or options.member.parent / "keys")


def _offer(options: Namespace) -> int:
    terms, member = load_config(options.terms, Terms), load_member(options.member)
    nodes = [_node(name) for name in options.node]
    if len(nodes) < len(member.validators):
        raise LocalError("each validator runs on a node of its own: name them all with --node")
    _write(options.out, offer.make_offer(terms, member, nodes, _keys(options)))
    offer.read_offer(options.out, terms)
    print(f"Made {options.out} for the other operators: it has no secrets.")
    return 0


def _build(options: Namespace) -> int:
    terms = load_config(options.terms, Terms)
    data = founding.build(terms, options.offers)
    _write(options.out, data)
    for member in load_genesis(data).members:
        print(_line(member))
    if SystemClock().now_s() - terms.time_ns / 10**9 > OLD_S:
        print(
            "The genesis time is long past: clients trust the genesis for 14 days after it, and later need a newer "
            "header from a trusted place. Better agree on a later time."
        )
    print(f"Made {options.out}. All operators must have the same fingerprint; compare it by telephone:")
    print(f"  {founding.fingerprint(data)}")
    return 0


def _line(member: Member) -> str:
    numbers = ", ".join([*(f"+{entry.start} ({entry.count})" for entry in member.ranges), *member.spcs])
    names = f"{', '.join(member.domains) or 'no domains'}; {numbers or 'no numbers'}"
    return f"  {member.organization} ({member.kind}): {names}; {len(member.validators)} validators"


def _sign(options: Namespace) -> int:
    data, _ = founding.read_genesis_bytes(options.genesis)
    member = load_member(options.member)
    _write(options.out, founding.sign(data, member, _keys(options)))
    print(f"Made {options.out}, the signature of {member.organization}. It goes to all others.")
    return 0


def _check(options: Namespace) -> int:
    data, genesis = founding.read_genesis_bytes(options.genesis)
    signed = founding.check_signed(data, options.signatures)
    print(f"{genesis.chain_id} is signed by {', '.join(signed)}: all operators.")
    print(f"  {founding.fingerprint(data)}")
    return 0


def _configure(options: Namespace) -> int:
    terms, member = load_config(options.terms, Terms), load_member(options.member)
    sections = founding.configure(
        terms,
        options.offers,
        member,
        _keys(options),
        _node(options.node),
        options.out,
        endorses=not options.no_submission,
        state=options.state,
    )
    folder = options.out.parent
    make_folder(folder)
    files = [(options.out, to_toml(sections).encode("utf-8"), FOR_ALL)]
    files.append((folder / "admitted", ADMITTED.encode("utf-8"), FOR_ALL))
    if "submission" in sections:
        token = secrets.token_urlsafe(32)
        files.append((folder / founding.TOKENS, f"{token}\n".encode("ascii"), OWNER_ONLY))
    write_all_new(files)
    print(f"Made {options.out}. With genesis.json and the folder {founding.SIGNATURES} beside it, start it:")
    print(f"  ledger-node start --config {options.out}")
    return 0


def _write(path: Path, data: bytes) -> None:
    make_folder(path.parent)
    write_new(path, data, FOR_ALL)
