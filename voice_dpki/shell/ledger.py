"""Access to a ledger by configuration: the node, its trust anchor, and the file that keeps the trusted header."""

import math
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from voice_dpki.effects import Clock, SystemClock
from voice_dpki.errors import LocalError, VoiceDpkiError
from voice_dpki.ledger.genesis import MAX_GENESIS_BYTES, Genesis, load_genesis
from voice_dpki.metrics import follow, gauge
from voice_dpki.shell.config import read_file, resolve
from voice_dpki.shell.tls import ClientTls, optional_client_context
from voice_dpki.shell.worker import is_first
from voice_dpki.wire.ledger.client import DEFAULT_MAX_AGE_S, DEFAULT_TIMEOUT_S, LedgerClient
from voice_dpki.wire.ledger.subscription import Subscription

AGE_S = gauge(
    "ledger_header_age_seconds", "Age of the newest header of the ledger that is known; +Inf without one."
)


@dataclass(frozen=True, slots=True)
class LedgerAccess:
    """A node to ask, and the trust anchor: the genesis, or the newest header that followed from it."""

    url: str
    genesis: Genesis
    trust_file: Path | None = None
    """File of that header. Without it, a start more than 14 days after the genesis fails (`ledger.light`)."""
    max_age_s: float = DEFAULT_MAX_AGE_S
    witnesses: tuple[str, ...] = ()
    """URLs of other operators' nodes, whose headers are compared with the node's."""
    tls: ssl.SSLContext | None = None
    """For the connections to all of these nodes."""

    @classmethod
    def configured(
        cls,
        path: Path,
        *,
        url: str,
        genesis: str,
        trust_file: str | None,
        max_age_s: float,
        witnesses: tuple[str, ...] = (),
        tls: ClientTls | None = None,
    ) -> "LedgerAccess":
        """Return the access that the configuration at `path` describes, with the files that it names.

        Raises LocalError for a file that cannot be used, and for a malformed URL.
        """
        kept = resolve(path, trust_file) if trust_file else None
        context = optional_client_context(path, tls)
        access = cls(url, read_genesis(resolve(path, genesis)), kept, max_age_s, witnesses, context)
        access.client(SystemClock())
        access.witness_clients(SystemClock())
        return access

    def client(
        self, clock: Clock, timeout_s: float = DEFAULT_TIMEOUT_S, *, keeps_trust: bool = True
    ) -> LedgerClient:
        """Return a client of the node; raises LocalError for a trust file of another ledger.

        Without `keeps_trust`, the client reads the trust file, but does not write it.
        """
        return LedgerClient.of_genesis(
            self.url,
            self.genesis,
            clock=clock,
            max_age_s=self.max_age_s,
            timeout_s=timeout_s,
            trust_file=self.trust_file,
            keeps_trust=keeps_trust,
            tls=self.tls,
        )

    def witness_clients(self, clock: Clock, timeout_s: float = DEFAULT_TIMEOUT_S) -> list[LedgerClient]:
        """Return a client of each witness, to compare its headers with the node's."""
        return [
            LedgerClient.of_genesis(url, self.genesis, clock=clock, timeout_s=timeout_s, tls=self.tls)
            for url in self.witnesses
        ]

    @asynccontextmanager
    async def subscription(
        self, clock: Clock, timeout_s: float, *, max_entries: int
    ) -> AsyncIterator[Subscription]:
        """Cache lookups, follow the ledger's changes and compare the witnesses' headers while the context lasts."""
        async with AsyncExitStack() as opened:
            client, *witnesses = [
                await opened.enter_async_context(client)
                for client in (
                    self.client(clock, timeout_s, keeps_trust=is_first()),
                    *self.witness_clients(clock, timeout_s),
                )
            ]
            subscription = Subscription(client, max_entries=max_entries, witnesses=witnesses)
            await opened.enter_async_context(subscription.following())
            opened.callback(follow, AGE_S, lambda: math.inf)
            follow(AGE_S, subscription.age_s)
            yield subscription


def read_genesis(path: Path) -> Genesis:
    """Read a ledger's genesis; raises LocalError that names the file."""
    data = read_file(path, "genesis", MAX_GENESIS_BYTES)
    try:
        return load_genesis(data)
    except VoiceDpkiError as error:
        raise LocalError(f"{path}: {error}") from None
