"""The session of a `voice-dpki ledger` command: its options, and its client and sender for a node."""

import asyncio
from argparse import Namespace, _SubParsersAction
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from rich.table import Table

from ledger_node.command.output import plain
from ledger_node.command.sending import Sender, read_certificate
from ledger_node.command.versions import check_follows
from voice_dpki.effects import Signer
from voice_dpki.ledger.genesis import Genesis
from voice_dpki.ledger.transactions import Body, Transaction, endorse
from voice_dpki.names import CertDigest
from voice_dpki.shell.credentials import read_signer
from voice_dpki.shell.options import key_option
from voice_dpki.shell.program import Parser
from voice_dpki.shell.result import make_console, print_object
from voice_dpki.wire.ledger.client import LedgerClient
from voice_dpki.x509.profile import digest_of

CONSOLE = make_console()

Commands: TypeAlias = "_SubParsersAction[Parser]"
"""The commands of a parser, to which modules add their own."""


@dataclass(frozen=True, slots=True)
class Session:
    """One command's options, and its client and sender for a node."""

    options: Namespace
    genesis: Genesis
    client: LedgerClient
    sender: Sender
    stop: asyncio.Event

    @property
    def signer(self) -> Signer:
        """The member's endorsing key."""
        return read_signer(self.options.key, "key")

    async def endorsed(self, body: Body) -> int:
        """Sign a transaction with the endorsing key and send it, as `sent` does."""
        return await self.sent(endorse(body, [self.signer]))

    async def sent(self, raw: bytes) -> int:
        """Send a transaction; return the height of its block.

        Raises PeerError where the ledger refuses it, and LocalError where it needs later rules than the ledger has.
        """
        await check_follows(self.client, Transaction.parse(raw).body)
        return (await self.sender.send(raw)).height or 0

    def tell(self, result: object, *lines: str | Table) -> None:
        """Print what a command has found or done: `result` with --json, otherwise the lines."""
        if self.options.json:
            chain = self.genesis.chain_id
            print_object({"chain": chain, "command": self.options.command, "result": plain(result)})
            return
        for line in lines:
            CONSOLE.print(line, soft_wrap=isinstance(line, str))


def add_endorser(parser: Parser, *, required: bool = True) -> None:
    """Add the options for the member in whose name a transaction is made."""
    parser.add_argument("--organization", required=required, help="the member in whose name this is done")
    parser.add_argument("--key", type=key_option, required=required, help="its endorsing key, PEM or pkcs11: URI")


def parse_digest(text: str) -> CertDigest:
    """Return H(CERT), given as 64 hexadecimal digits or as the name of a certificate's file; raises LocalError."""
    path = Path(text)
    if len(text) == 64 and not path.exists():
        try:
            return CertDigest(bytes.fromhex(text))
        except ValueError:
            pass
    return digest_of(read_certificate(path))
