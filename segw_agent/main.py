"""The program `segw-agent`: the agent, and a gateway and a device in Python."""

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from segw_agent import config as configuration
from segw_agent.agent_program import AgentProgram, metrics_served
from segw_agent.bridge import command as bridge
from segw_agent.config import AgentConfig, DeviceConfig, GatewayConfig, SegwSetup
from segw_agent.device import Device
from segw_agent.gateway import Gateway
from segw_agent.policy import Policy
from segw_agent.tracer import IkeTracer
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.shell.log import setup_logging
from voice_dpki.shell.program import Parser, run, run_subcommand
from voice_dpki.shell.reload import Live

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

TAKE_OVER = (
    "serve in the place of the agent that serves on the socket now, which then ends: an upgrade without a gap"
)

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
        if start is _start_agent:
            command.add_argument("--take-over", action="store_true", help=TAKE_OVER)
    bridge.add_commands(commands)
    return parser


def _configured(start: Callable[[Path, argparse.Namespace], int], options: argparse.Namespace) -> int:
    return start(options.config, options)


def _start_gateway(path: Path, _: argparse.Namespace) -> int:
    config, setup = configuration.load_gateway(path)
    policy = configuration.live_policy(path, GatewayConfig)
    setup_logging("segw-gateway", config.log)
    return run(partial(_gateway, config, setup, policy))


async def _gateway(config: GatewayConfig, setup: SegwSetup, policy: Live[Policy], stop: asyncio.Event) -> None:
    with contextlib.closing(_tracer(setup, "gateway")) as tracer:
        gateway = Gateway(config, setup, CLOCK, SystemRandom(), tracer, policy)
        async with metrics_served(config.listen, gateway.watch), gateway.running():
            await stop.wait()


def _start_device(path: Path, _: argparse.Namespace) -> int:
    config, setup = configuration.load_device(path)
    setup_logging("segw-device", config.log)
    return run(partial(_device, config, setup))


async def _device(config: DeviceConfig, setup: SegwSetup, stop: asyncio.Event) -> int:
    with contextlib.closing(_tracer(setup, "device")) as tracer:
        outcome = await Device(config, setup, CLOCK, SystemRandom(), tracer).run(stop)
    return 0 if outcome.attached else EXIT_NOT_ATTACHED


def _start_agent(path: Path, options: argparse.Namespace) -> int:
    config, setup = configuration.load_agent(path)
    policy = configuration.live_policy(path, AgentConfig)
    setup_logging("segw-agent", config.log)
    return run(partial(_agent, path, config, setup, policy, options.take_over))


async def _agent(
    path: Path, config: AgentConfig, setup: SegwSetup, policy: Live[Policy], take_over: bool, stop: asyncio.Event
) -> None:
    with contextlib.closing(_tracer(setup, "agent")) as tracer:
        await AgentProgram(path, config, setup, policy, CLOCK, tracer).run(stop, take_over=take_over)


def _tracer(setup: SegwSetup, actor: str) -> IkeTracer:
    return IkeTracer(setup.trace, setup.trace.stem if setup.trace else actor)


if __name__ == "__main__":
    sys.exit(main())
