"""The program `segw-agent`: the agent, and a gateway and a device in Python."""

import argparse
import asyncio
import contextlib
import gc
import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from segw_agent import config as configuration
from segw_agent.agent import Agent, Own
from segw_agent.assembly import Assembly, assemble, working
from segw_agent.bridge import command as bridge
from segw_agent.config import AgentConfig, DeviceConfig, GatewayConfig, SegwSetup, statement_maker
from segw_agent.device import Device
from segw_agent.gateway import Gateway
from segw_agent.live import LiveSas
from segw_agent.live_log import LiveLog
from segw_agent.policy import Policy
from segw_agent.tracer import IkeTracer
from segw_agent.vici_control import ViciControl
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.shell.config import Listen, resolve
from voice_dpki.shell.http import HttpApp, serve
from voice_dpki.shell.log import setup_logging
from voice_dpki.shell.metrics import HEALTH_ROUTE, METRICS_ROUTE
from voice_dpki.shell.program import Parser, run, run_subcommand
from voice_dpki.shell.reload import Live

log = logging.getLogger(__name__)

CLOCK = SystemClock()

DESCRIPTION = """\
Has the ledger decide at a security gateway (SeGW): a device's self-signed certificate is trusted because it is
recorded, and refused from the moment it is revoked.

  segw-agent start     the agent: strongSwan's plugin, or another daemon's, asks it about every certificate
  segw-agent gateway   a gateway in Python, for trials and tests; it sets SAs up, and carries no traffic
  segw-agent device    a device in Python
  segw-agent bridge    a CA with OCSP, for gateways and devices that know only those

`voice-dpki device attach` shows all of it on one machine.
"""

EXIT_NOT_ATTACHED = 1
"""Exit status of a device that was refused, or that refused the gateway."""


def main(arguments: list[str] | None = None) -> int:
    """Run `segw-agent COMMAND ...` and return its exit status; an error is printed as one line."""
    return run_subcommand(_parser, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="segw-agent", description=DESCRIPTION)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    for name, summary, example, start in (
        ("start", "run the agent until SIGTERM", configuration.AGENT_EXAMPLE, _start_agent),
        ("gateway", "run a gateway until SIGTERM", configuration.GATEWAY_EXAMPLE, _start_gateway),
        ("device", "attach a device to a gateway", configuration.DEVICE_EXAMPLE, _start_device),
    ):
        text = "".join(f"  {line}\n" for line in example.splitlines())
        command = commands.add_parser(name, help=summary, description=f"A configuration (TOML):\n\n{text}")
        command.add_argument("--config", type=Path, required=True, metavar="FILE", help="the TOML file")
        command.set_defaults(run=partial(_configured, start))
    bridge.add_commands(commands)
    return parser


def _configured(start: Callable[[Path], int], options: argparse.Namespace) -> int:
    return start(options.config)


def _start_gateway(path: Path) -> int:
    config, setup = configuration.load_gateway(path)
    policy = configuration.live_policy(path, GatewayConfig)
    setup_logging("segw-gateway")
    return run(partial(_gateway, config, setup, policy))


async def _gateway(config: GatewayConfig, setup: SegwSetup, policy: Live[Policy], stop: asyncio.Event) -> None:
    with contextlib.closing(_tracer(setup, "gateway")) as tracer:
        gateway = Gateway(config, setup, CLOCK, SystemRandom(), tracer, policy)
        async with _metrics(config.listen), gateway.running():
            await stop.wait()


def _start_device(path: Path) -> int:
    config, setup = configuration.load_device(path)
    setup_logging("segw-device")
    return run(partial(_device, config, setup))


async def _device(config: DeviceConfig, setup: SegwSetup, stop: asyncio.Event) -> int:
    with contextlib.closing(_tracer(setup, "device")) as tracer:
        outcome = await Device(config, setup, CLOCK, SystemRandom(), tracer).run(stop)
    return 0 if outcome.attached else EXIT_NOT_ATTACHED


def _start_agent(path: Path) -> int:
    config, setup = configuration.load_agent(path)
    policy = configuration.live_policy(path, AgentConfig)
    setup_logging("segw-agent")
    return run(partial(_agent, path, config, setup, policy))


async def _agent(
    path: Path, config: AgentConfig, setup: SegwSetup, policy: Live[Policy], stop: asyncio.Event
) -> None:
    socket = resolve(path, config.socket)
    async with AsyncExitStack() as stack:
        tracer = stack.enter_context(contextlib.closing(_tracer(setup, "agent")))
        parts = assemble(setup, policy, CLOCK, tracer, staple=True)
        stack.push_async_callback(parts.aclose)
        control = ViciControl(resolve(path, config.vici)) if config.vici else None
        if control is not None:
            stack.callback(control.close)
        live = _live(path, config, parts, control)
        agent = Agent(parts.judge, live, _own(config, setup, parts))
        work = [part.run() for part in (parts.watch, live, parts.staple) if part is not None]
        if control is not None and live is not None:
            work.append(control.follow(live))
        await stack.enter_async_context(working(work))
        if control is not None:
            await control.listening()
        await stack.enter_async_context(_metrics(config.listen))
        server = await agent.serve(socket)
        stack.callback(server.close)
        gc.freeze()  # objects made so far stay alive; scanning them repeatedly would only delay inquiries
        log.info("ready", extra={"fields": {"socket": str(socket)}})
        tracer.ready(socket=str(socket))
        await stop.wait()


def _live(path: Path, config: AgentConfig, parts: Assembly, control: ViciControl | None) -> LiveSas | None:
    """Return the list of live SAs, if there is a daemon that can end them; raises LocalError."""
    if control is None:
        return None
    live_log = None
    if config.state:
        live_log = LiveLog(resolve(path, config.state))
        live_log.reserve()
    return LiveSas(parts.judge, parts.watch, control, CLOCK, live_log)


def _own(config: AgentConfig, setup: SegwSetup, parts: Assembly) -> Own | None:
    """Return what the daemon's own side may send, if the agent has its certificate and key; raises LocalError."""
    party = setup.party
    if party is None:
        if config.integrity is not None:
            raise LocalError("[integrity] needs [own], with the key that signs")
        return None
    make = statement_maker(config.integrity, party) if config.integrity else None
    return Own(
        party.certificate,
        ledger_answer=parts.staple.answer if parts.staple else None,
        integrity_info=(lambda sa: make(sa, CLOCK.now_s())) if make else None,
    )


def _tracer(setup: SegwSetup, actor: str) -> IkeTracer:
    return IkeTracer(setup.trace, setup.trace.stem if setup.trace else actor)


@asynccontextmanager
async def _metrics(listen: Listen | None) -> AsyncIterator[None]:
    """Serve metrics while the context lasts, if an address for them is configured."""
    if listen is None:
        yield
        return
    async with serve(HttpApp([METRICS_ROUTE, HEALTH_ROUTE]), listen) as port:
        log.info("metrics", extra={"fields": {"address": f"{listen.host}:{port}"}})
        yield


if __name__ == "__main__":
    sys.exit(main())
