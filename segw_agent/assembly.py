"""What judges, put together from a configuration."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from segw_agent.config import Setup
from segw_agent.judge import Judge
from segw_agent.ledger import Ledger
from segw_agent.staple import Staple
from segw_agent.tracer import IkeTracer
from segw_agent.watch import Watch
from voice_dpki.effects import Clock
from voice_dpki.x509.profile import digest_of


@dataclass(frozen=True, slots=True)
class Assembly:
    """A judge, the blocks that it follows, and its owner's own answer where it has a certificate to staple for."""

    judge: Judge
    watch: Watch
    staple: Staple | None


def assemble(setup: Setup, clock: Clock, tracer: IkeTracer, *, staple: bool) -> Assembly:
    """Put together what a gateway or an agent needs; `staple` if it shall fetch its own answer."""
    section, urls = setup.ledger, setup.ledger.urls
    watch = Watch(urls, setup.genesis, clock, bound_s=section.bound_s, max_age_s=section.max_age_s)
    judge = Judge(ledger_of(setup, clock, tracer, watch), setup.policy, clock, tracer)
    if not staple or setup.party is None:
        return Assembly(judge, watch, None)
    digest = digest_of(setup.party.certificate)
    own = Staple(urls, setup.genesis, digest, clock, max_age_s=section.max_age_s, every_s=section.bound_s)
    return Assembly(judge, watch, own)


def ledger_of(setup: Setup, clock: Clock, tracer: IkeTracer, watch: Watch | None = None) -> Ledger:
    """Make what asks the ledger; without `watch` it keeps no answers."""
    section = setup.ledger
    return Ledger(
        section.urls,
        setup.genesis,
        clock,
        tracer,
        max_age_s=section.max_age_s,
        timeout_s=section.timeout_s,
        watch=watch,
        cache_entries=section.cache_entries,
    )


@asynccontextmanager
async def working(work: Iterable[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Have tasks run while the context lasts; one that fails ends it: nothing here can be relied on without it."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
            yield
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as errors:
        raise first_of(errors) from None


def first_of(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first exception of a group, at whatever depth: the others followed from it."""
    first: BaseException = errors.exceptions[0]
    return first_of(first) if isinstance(first, BaseExceptionGroup) else first
