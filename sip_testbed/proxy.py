"""The program `sip-testbed proxy`: registrar and proxy of one domain, which signs its calls and verifies others."""

import argparse
import asyncio
import gc
import logging
from contextlib import AsyncExitStack

from sip_testbed.proxy_config import EXAMPLE, ProxySetup, load_setup
from sip_testbed.proxy_service import ProxyService
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.shell.http import HttpApp, serve
from voice_dpki.shell.metrics import HEALTH_ROUTE, METRICS_ROUTE
from voice_dpki.shell.program import describe_configured, indented, start
from voice_dpki.shell.readiness import Readiness
from voice_dpki.shell.trace import Tracer

log = logging.getLogger(__name__)

SUMMARY = "registrar and proxy of one domain"
HELP = f"""\
The SIP proxy and registrar of one domain.

It lets in users who are registered and authenticate (digest, SHA-256), has their calls signed by the domain's
authentication server, and sends them to the next domain. Calls from other domains it has verified, and tells the
callee the verdict in P-Asserted-Identity, or refuses them with the code of RFC 8224 and a Reason.

A configuration (TOML; files are looked for beside it):

{indented(EXAMPLE)}"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the subcommand and its arguments."""
    describe_configured(parser, HELP)


def run(args: argparse.Namespace) -> int:
    """Run the proxy until SIGTERM and return its exit status; raises VoiceDpkiError if it cannot start."""
    return start("sip-testbed proxy", load_setup(args.config), _serve)


async def _serve(setup: ProxySetup, stop: asyncio.Event) -> None:
    tracer = Tracer.named_by(setup.trace, "proxy")
    service = ProxyService(setup, tracer, SystemClock(), SystemRandom())
    addresses = {}
    async with AsyncExitStack() as stack:
        stack.callback(tracer.close)
        stack.push_async_callback(service.close)
        await service.start()
        addresses["sip"] = service.address.address
        if setup.tls is not None:
            addresses["sips"] = service.tls_address
        if setup.config.metrics is not None:
            app = HttpApp([METRICS_ROUTE, HEALTH_ROUTE, Readiness({}).route()])
            port = await stack.enter_async_context(serve(app, setup.config.metrics))
            addresses["metrics"] = f"{setup.config.metrics.host}:{port}"
        log.info("ready", extra={"fields": {**addresses, "domain": setup.config.domain, "users": len(setup.users)}})
        gc.freeze()  # objects made so far live on, so scanning them at each collection would only delay calls
        tracer.ready(**addresses)
        await stop.wait()
