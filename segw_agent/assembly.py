"""Construction of the judge and its parts from a configuration."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from segw_agent.config import SegwSetup
from segw_agent.judge import Judge
from segw_agent.ledger import Ledger
from segw_agent.nodes import Nodes
from segw_agent.policy import Policy
from segw_agent.staple import Staple
from segw_agent.tracer import IkeTracer
from segw_agent.watch import Watch
from voice_dpki.effects import Clock
from voice_dpki.ledger.clock import LedgerClock
from voice_dpki.ledger.light import LightClient
from voice_dpki.shell.reload import Live
from voice_dpki.wire.ledger.client import LedgerClient, light_client, watched_clock
from voice_dpki.x509.profile import digest_of


@dataclass(frozen=True, slots=True)
class Assembly:
    """A judge, the watch on the ledger's changes, and the owner's own answer if it is stapled."""

    judge: Judge
    watch: Watch
    staple: Staple | None
    clients: tuple[LedgerClient, ...]

    async def aclose(self) -> None:
        """End inquiries, and close the connections to the ledger's nodes."""
        await self.judge.ledger.aclose()
        for client in self.clients:
            await client.aclose()


def assemble(
    setup: SegwSetup,
    policy: Live[Policy],
    clock: Clock,
    tracer: IkeTracer,
    *,
    follow: bool = True,
    staple: bool = False,
) -> Assembly:
    """Build the assembly. With `follow`, answers are cached; with `staple`, the owner's own answer is fetched."""
    section = setup.ledger
    ledger_clock = watched_clock(clock, _light(setup))
    clients = _clients(setup, ledger_clock)
    asked, max_age_s, entries = tuple(clients.values()), section.max_age_s, section.cache_entries
    watch = Watch(asked, ledger_clock, bound_s=section.bound_s, max_age_s=max_age_s, max_entries=entries)
    ledger = Ledger(
        clients,
        _light(setup),
        ledger_clock,
        tracer,
        max_age_s=max_age_s,
        timeout_s=section.timeout_s,
        watch=watch if follow else None,
        trust_file=setup.trust_file,
    )
    own = None
    if staple and setup.party is not None:
        digest = digest_of(setup.party.certificate)
        own = Staple(asked, digest, setup.genesis, ledger_clock, max_age_s=max_age_s, every_s=section.bound_s)
    return Assembly(Judge(ledger, policy, clock, tracer), watch, own, asked)


@asynccontextmanager
async def inquiry_nodes(setup: SegwSetup, clock: Clock) -> AsyncIterator[Nodes]:
    """Give the inquiry nodes, in their order, and close the connections to them at the end."""
    async with AsyncExitStack() as stack:
        ledger_clock = watched_clock(clock, _light(setup))
        clients = _clients(setup, ledger_clock)
        for client in clients.values():
            await stack.enter_async_context(client)
        yield Nodes(clients, ledger_clock, timeout_s=setup.ledger.timeout_s)


def _clients(setup: SegwSetup, ledger_clock: LedgerClock) -> dict[str, LedgerClient]:
    """Return the inquiry nodes by "host:port"."""
    section = setup.ledger
    return {
        url.partition("://")[2].rstrip("/"): LedgerClient(
            url,
            _light(setup),
            ledger_clock=ledger_clock,
            max_age_s=section.max_age_s,
            timeout_s=section.timeout_s,
            trust_file=setup.trust_file,
            tls=setup.tls,
        )
        for url in section.urls
    }


def _light(setup: SegwSetup) -> LightClient:
    """Return a light client that trusts the saved header, or else the genesis, for the configured period."""
    trusted = light_client(setup.genesis, setup.trust_file).latest
    return LightClient(setup.genesis.chain_id, trusted, trusting_period_s=setup.ledger.trusting_period_s)


@asynccontextmanager
async def working(work: Iterable[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run tasks while the context lasts. If one fails, the context ends with its error: all tasks are needed."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
            yield
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as errors:
        raise first_of(errors) from None


def first_of(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first exception of a group, at any depth: it caused the others."""
    first: BaseException = errors.exceptions[0]
    return first_of(first) if isinstance(first, BaseExceptionGroup) else first
