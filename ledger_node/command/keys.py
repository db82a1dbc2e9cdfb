"""`ledger-node keys`: an operator's own keys."""

import sys
from argparse import Namespace
from pathlib import Path

from ledger_node.command.session import Commands
from ledger_node.make import keys
from ledger_node.make.keys import KeyKind
from ledger_node.make.member_file import load_member
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.shell.credentials import DEFAULT_DAYS, MAX_DAYS, make_signer
from voice_dpki.shell.files import FOR_ALL, make_folder, write_new
from voice_dpki.shell.options import whole_number
from voice_dpki.shell.program import Parser
from voice_dpki.shell.result import add_json, print_result
from voice_dpki.x509.public import to_public_pem

DESCRIPTION = """\
Keys are made on the machine that uses them, and the private ones never leave it. Others get public keys, always in
PEM: the file NAME.pub.pem beside NAME.pem.

  ledger-node keys new validator --out keys/validator.pem    # signs blocks
  ledger-node keys new node --out keys/node.pem              # the node's name to its peers
  ledger-node keys new endorsing --out keys/endorsing.pem    # signs the member's transactions, and votes
  ledger-node keys signer --member operator.toml --common-name sti.a.example --out keys/sti
  ledger-node keys show keys/validator.pub.pem
  ledger-node keys public keys/validator.pem                 # if the public file is lost

docs/keys.md tells how each is replaced, and what to do when one is lost or stolen.
"""


def add_to(commands: Commands) -> None:
    """Add the commands to the program."""
    own = commands.add_parser("keys", help="make and show an operator's keys", description=DESCRIPTION)
    kinds = own.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    new = kinds.add_parser("new", help="make a key")
    new.add_argument("kind", choices=[str(kind) for kind in KeyKind], help="what it is for")
    new.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the private key, such as keys/node.pem"
    )
    new.set_defaults(run=_new)
    signer = kinds.add_parser("signer", help="make a key and a certificate for signing the member's calls")
    signer.add_argument("--member", type=Path, required=True, metavar="FILE", help="the member's file: its numbers")
    signer.add_argument("--common-name", required=True, metavar="NAME", help="for instance sti.a.example")
    days = whole_number(1, MAX_DAYS)
    signer.add_argument("--days", type=days, default=DEFAULT_DAYS, help="validity (default: %(default)s)")
    signer.add_argument("--out", type=Path, required=True, metavar="NAME", help="for NAME.pem and NAME.der")
    signer.set_defaults(run=_signer)
    show = kinds.add_parser("show", help="tell what files with keys and certificates hold")
    show.add_argument("file", type=Path, nargs="+")
    add_json(show)
    show.set_defaults(run=_show)
    public = kinds.add_parser("public", help="write the public key that belongs to a private one")
    public.add_argument("file", type=Path, help="a key in PEM")
    public.add_argument("--out", type=Path, metavar="FILE", help="a new file (default: standard output)")
    public.set_defaults(run=_public)


def _new(options: Namespace) -> int:
    public = keys.make_key(KeyKind(options.kind), options.out)
    print(f"Made {options.out}, which stays here, and {public} for the others.")
    return 0


def _signer(options: Namespace) -> int:
    member = load_member(options.member)
    certificate, key = (options.out.with_name(f"{options.out.name}.{end}") for end in ("der", "pem"))
    make_folder(key.parent, 0o700)
    digest = make_signer(
        organization=member.organization,
        common_name=options.common_name,
        numbers=keys.numbers_of(member),
        days=options.days,
        certificate=certificate,
        key=key,
        clock=SystemClock(),
        random=SystemRandom(),
    )
    print(f"Made {certificate}, a certificate with H(CERT) {digest.hex()}, and its key {key}.")
    print("Calls can be signed with it once it is recorded: voice-dpki ledger submit --help")
    return 0


def _show(options: Namespace) -> int:
    if options.json:
        print_result(options, [keys.describe(path).form for path in options.file])
        return 0
    for path in options.file:
        print("\n".join(keys.describe(path).lines))
    return 0


def _public(options: Namespace) -> int:
    pem = to_public_pem(keys.read_public(options.file))
    if options.out is None:
        sys.stdout.write(pem.decode("ascii"))
    else:
        write_new(options.out, pem, FOR_ALL)
    return 0
