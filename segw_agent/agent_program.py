"""`segw-agent start`: the agent and its background tasks, started in an order that loses no inquiry."""

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from segw_agent.agent import Agent, Own
from segw_agent.assembly import Assembly, assemble, working
from segw_agent.config import AgentConfig, SegwSetup, statement_maker
from segw_agent.live import LiveSas
from segw_agent.live_log import LiveLog
from segw_agent.policy import Policy
from segw_agent.tracer import IkeTracer
from segw_agent.vici_control import ViciControl
from segw_agent.watch import Watch
from voice_dpki.effects import Clock
from voice_dpki.errors import LocalError
from voice_dpki.shell.config import Listen, resolve
from voice_dpki.shell.files import take_lock
from voice_dpki.shell.http import HttpApp, serve
from voice_dpki.shell.metrics import HEALTH_ROUTE, METRICS_ROUTE
from voice_dpki.shell.notify import tell_ready
from voice_dpki.shell.predecessor import Predecessor
from voice_dpki.shell.readiness import Readiness, failed_if
from voice_dpki.shell.reload import Live
from voice_dpki.shell.unix_socket import claim

log = logging.getLogger(__name__)


class AgentProgram:
    """The agent of the configuration at `path`."""

    def __init__(
        self,
        path: Path,
        config: AgentConfig,
        setup: SegwSetup,
        policy: Live[Policy],
        clock: Clock,
        tracer: IkeTracer,
    ) -> None:
        """Raise LocalError if the configuration is inconsistent."""
        self._path, self._config, self._tracer = path, config, tracer
        self._parts = assemble(setup, policy, clock, tracer, staple=True)
        self._control = ViciControl(resolve(path, config.vici)) if config.vici else None
        self._sas = LiveSas(self._parts.judge, self._parts.watch, self._control, clock) if self._control else None
        self._agent = Agent(self._parts.judge, self._sas, _own(config, setup, self._parts, clock))

    @property
    def socket(self) -> Path:
        """The socket that the daemon's plugin asks at."""
        return resolve(self._path, self._config.socket)

    async def run(self, stop: asyncio.Event, *, take_over: bool) -> None:
        """Serve until `stop` is set. With `take_over`, replace and end the agent that serves the socket now."""
        async with AsyncExitStack() as stack, AsyncExitStack() as serving:  # pending requests are answered first
            stack.push_async_callback(self._parts.aclose)
            if self._control is not None:
                stack.callback(self._control.close)
            before = Predecessor.at(self.socket) if take_over else None
            if before is None:
                await self._begin(stack, serving)
            else:
                with contextlib.closing(before):
                    await self._succeed(before, stack, serving)
            gc.freeze()  # objects made so far stay alive; scanning them repeatedly would only delay inquiries
            log.info("ready", extra={"fields": {"socket": str(self.socket)}})
            self._tracer.ready(socket=str(self.socket))
            tell_ready(socket=str(self.socket))
            await stop.wait()

    async def _begin(self, stack: AsyncExitStack, serving: AsyncExitStack) -> None:
        """Start as the only agent of the socket and of the list of live SAs."""
        stack.enter_context(claim(self.socket))
        self._keep()
        await self._follow(stack)
        await self._check(stack)
        await serving.enter_async_context(self._agent.serving(self.socket))

    async def _succeed(self, before: Predecessor, stack: AsyncExitStack, serving: AsyncExitStack) -> None:
        """Serve in place of another agent, end it, and take over its list of live SAs."""
        await self._follow(stack)
        await serving.enter_async_context(self._agent.serving(self.socket))
        log.info("taking over", extra={"fields": {"socket": str(self.socket)}})
        await before.end()
        stack.enter_context(take_lock(self.socket, "another program has claimed this socket"))
        self._keep()
        if self._control is not None:
            self._control.report_all()
        await self._check(stack)

    def _keep(self) -> None:
        if self._sas is None or not self._config.state:
            return
        live_log = LiveLog(resolve(self._path, self._config.state))
        live_log.reserve()
        self._sas.keep_in(live_log)

    async def _follow(self, stack: AsyncExitStack) -> None:
        """Follow the ledger and the daemon."""
        work: list[Coroutine[Any, Any, None]] = [self._parts.watch.run()]
        if self._parts.staple is not None:
            work.append(self._parts.staple.run())
        if self._control is not None and self._sas is not None:
            work.append(self._control.follow(self._sas))
        await stack.enter_async_context(working(work))
        if self._control is not None:
            await self._control.listening()

    async def _check(self, stack: AsyncExitStack) -> None:
        """Check live SAs, and serve metrics and health."""
        if self._sas is not None:
            await stack.enter_async_context(working([self._sas.run()]))
        await stack.enter_async_context(metrics_served(self._config.listen, self._parts.watch))


def _own(config: AgentConfig, setup: SegwSetup, parts: Assembly, clock: Clock) -> Own | None:
    """Return the daemon's own statements; None if the agent lacks its certificate and key. Raises LocalError."""
    party = setup.party
    if party is None:
        if config.integrity is not None:
            raise LocalError("[integrity] needs [own], with the key that signs")
        return None
    make = statement_maker(config.integrity, party) if config.integrity else None
    return Own(
        party.certificate,
        ledger_answer=parts.staple.answer if parts.staple else None,
        integrity_info=(lambda sa: make(sa, clock.now_s())) if make else None,
    )


@asynccontextmanager
async def metrics_served(listen: Listen | None, watch: Watch) -> AsyncIterator[None]:
    """Serve metrics while the context lasts, if an address for them is configured; `watch` hears the ledger."""
    if listen is None:
        yield
        return
    readiness = Readiness({"ledger": lambda: failed_if("" if watch.is_fresh() else "the ledger is not heard now")})
    async with serve(HttpApp([METRICS_ROUTE, HEALTH_ROUTE, readiness.route()]), listen) as port:
        log.info("metrics", extra={"fields": {"address": f"{listen.host}:{port}"}})
        yield
