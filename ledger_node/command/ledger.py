"""`voice-dpki ledger`: the commands for people who use a ledger, with keys named by file.

The node need not be trusted: its answers are verified from the genesis file on, and transactions are signed here.
"""

import asyncio
from argparse import Namespace
from collections.abc import Coroutine
from pathlib import Path

from ledger_node.command.any_kind import add_general_commands
from ledger_node.command.certificates import add_certificate_commands, submit
from ledger_node.command.decisions import add_governance_commands
from ledger_node.command.numbers import add_numbers_command
from ledger_node.command.rules import add_rules_command
from ledger_node.command.sending import Sender
from ledger_node.command.session import Session
from ledger_node.command.watch import add_watch_command, watch
from voice_dpki.ledger.answers import TrustExpiredError
from voice_dpki.ledger.genesis import Genesis
from voice_dpki.shell.ledger import read_genesis
from voice_dpki.shell.program import Parser, run, run_command
from voice_dpki.shell.tls import COMMAND_HELP, command_context
from voice_dpki.wire.ledger.client import LedgerClient

DEFAULT_URL = "http://127.0.0.1:26680"

TRUST_FILE = "ledger-trust.json"
"""The newest trusted header, beside the genesis; without it, commands fail 14 days after it (`ledger.light`)."""

DESCRIPTION = """\
Certificates, members and decisions on a ledger. Every answer is verified from the genesis file on.

  voice-dpki ledger submit --genesis genesis.json --organization "Operator A" --key endorsing-a.pem certificates/
  voice-dpki ledger status --genesis genesis.json device.pem
  voice-dpki ledger revoke --genesis genesis.json --owner-key device-key.pem --reason keyCompromise device.pem
  voice-dpki ledger watch --genesis genesis.json sip:+442079460123@b.example --known telephone.der
  voice-dpki ledger propose --genesis genesis.json --organization "Operator A" --key endorsing-a.pem admit e.toml
  voice-dpki ledger propose --genesis genesis.json --organization "Operator A" --key a.pem rules 2 --from 1200
  voice-dpki ledger vote --genesis genesis.json --organization "Operator B" --key endorsing-b.pem 1f0c..
"""


def command(arguments: list[str]) -> int:
    """Record, renew and revoke certificates on a ledger; propose and vote on its members."""
    options = _parser().parse_args(arguments)
    genesis = read_genesis(options.genesis)
    if options.work in (submit, watch):  # they end cleanly: between two batches, or after a report
        return run(lambda stop: _work(options, genesis, stop), hangup_stops=True)
    return run_command(_work(options, genesis, asyncio.Event()))


async def _work(options: Namespace, genesis: Genesis, stop: asyncio.Event) -> int | None:
    tls, trust = command_context(options.tls), options.trust or options.genesis.with_name(TRUST_FILE)
    async with (
        LedgerClient.of_genesis(options.url, genesis, trust_file=trust, tls=tls) as client,
        Sender(options.url, tls) as sender,
    ):
        work: Coroutine[object, object, int | None] = options.work(Session(options, genesis, client, sender, stop))
        try:
            return await work
        except TrustExpiredError as error:
            raise TrustExpiredError(f"{error}. The trust file is {trust}; --trust names another") from None


def _parser() -> Parser:
    parser = Parser(prog="voice-dpki ledger", description=DESCRIPTION)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    add_certificate_commands(commands)
    add_watch_command(commands)
    add_governance_commands(commands)
    add_rules_command(commands)
    add_numbers_command(commands)
    add_general_commands(commands)
    for name, each in commands.choices.items():
        each.set_defaults(command=name)
        each.add_argument("--json", action="store_true", help="print one JSON object instead of text")
        each.add_argument("--url", default=DEFAULT_URL, help="the node to talk to (default: %(default)s)")
        each.add_argument(
            "--genesis", type=Path, required=True, help="the ledger's genesis file: the root of trust"
        )
        each.add_argument(
            "--trust",
            type=Path,
            metavar="FILE",
            help=f"where the newest trusted header is kept (default: {TRUST_FILE} beside the genesis)",
        )
        each.add_argument("--tls", type=Path, metavar="FILE", help=COMMAND_HELP)
    return parser
