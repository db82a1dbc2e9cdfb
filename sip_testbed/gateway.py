"""The program `sip-testbed gateway`: ordinary telephones take part in calls that MIKEY keys."""

import argparse
import asyncio
import logging
from contextlib import AsyncExitStack, suppress

from sip_testbed.gateway_call import Bridge, Inside
from sip_testbed.gateway_config import EXAMPLE, GatewaySetup, GatewayTelephone, load_setup
from sip_testbed.gateway_phones import Phones
from sip_testbed.user_agent import keying_by
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.names import Tn
from voice_dpki.shell.http import HttpApp, serve
from voice_dpki.shell.metrics import HEALTH_ROUTE, METRICS_ROUTE
from voice_dpki.shell.notify import tell_ready
from voice_dpki.shell.program import StoppedError, describe_configured, indented, start, unless_stopped
from voice_dpki.shell.readiness import Readiness
from voice_dpki.shell.trace import Tracer
from voice_dpki.sip.message import Hop
from voice_dpki.wire.sip.transport import Tls
from voice_dpki.wire.sip.user_agent import IncomingCall, UserAgent

log = logging.getLogger(__name__)

HELP = f"""\
A gateway for telephones that know no MIKEY: a user agent back to back. Towards the domain it is a telephone like
any other here, with a certificate on the ledger. Towards the ordinary telephones it is a registrar and their peer,
with keys in SDP over TLS (SDES), or by a DTLS handshake (DTLS-SRTP, with ICE's lite side for browsers' stacks).

It decrypts the media of each side and encrypts them for the other. So encryption from end to end ends here, and
both sides are told: its certificate names the gateway besides the telephones, and telephones get Call-Info, a name
of the caller that says so, and a line of the SDP. Media in clear are refused on both sides.

A configuration (TOML; files are looked for beside it):

{indented(EXAMPLE)}"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the subcommand and its arguments."""
    describe_configured(parser, HELP)


def run(args: argparse.Namespace) -> int:
    """Run the gateway until SIGTERM and return its exit status; raises VoiceDpkiError if it cannot start."""
    return start("sip-testbed gateway", load_setup(args.config), _serve)


async def _serve(setup: GatewaySetup, stop: asyncio.Event) -> None:
    tracer = Tracer.named_by(setup.trace, "gateway")
    gateway = Gateway(setup, tracer)
    async with AsyncExitStack() as stack:
        stack.callback(tracer.close)
        stack.push_async_callback(gateway.close)
        await gateway.start()
        addresses = {"sip": gateway.phones.address.address}
        if setup.outside_tls is not None:
            addresses["sips"] = gateway.phones.tls_address
        if setup.config.metrics is not None:
            app = HttpApp([METRICS_ROUTE, HEALTH_ROUTE, Readiness({}).route()])
            port = await stack.enter_async_context(serve(app, setup.config.metrics))
            addresses["metrics"] = f"{setup.config.metrics.host}:{port}"
        with suppress(StoppedError):
            await unless_stopped(gateway.register(), stop)
        log.info("ready", extra={"fields": {**addresses, "telephones": len(setup.telephones)}})
        tracer.ready(**addresses)
        tell_ready(**addresses)
        await stop.wait()


class Gateway:
    """Both sides of the gateway. Call `start`, then `register`, and `close` in any case."""

    def __init__(self, setup: GatewaySetup, tracer: Tracer) -> None:
        self._setup = setup
        self._tracer = tracer
        self._clock, self._random = SystemClock(), SystemRandom()
        self._bridge = Bridge(setup, tracer, self._random)
        self._inside: dict[Tn, Inside] = {}
        self.phones = Phones(setup, self._called_from_outside, tracer, self._random)

    async def start(self) -> None:
        """Bind all sockets; raises LocalError."""
        for number, telephone in self._setup.telephones.items():
            self._inside[number] = inside = self._represent(telephone)
            await inside.agent.start()
            await inside.keying.prepare()
        await self.phones.start()

    async def register(self) -> None:
        """Register all telephones at the domain, until that is done; raises RegistrationError."""
        for inside in self._inside.values():
            await inside.agent.register(until_done=True)

    async def close(self) -> None:
        """End all calls, and close the sockets."""
        await self.phones.close()
        for inside in self._inside.values():
            await inside.agent.close()
            await inside.keying.close()

    def _represent(self, telephone: GatewayTelephone) -> Inside:
        config = self._setup.config
        agent = UserAgent(
            telephone.account,
            host=config.listen.host,
            port=config.listen.port,
            proxy=self._setup.proxy,
            tracer=self._tracer,
            random=self._random,
            advertise=config.listen.advertise,
            tls=Tls(self._setup.proxy_tls) if self._setup.proxy_tls else None,
        )
        keying = keying_by(telephone.credentials, self._tracer, self._clock, self._random)
        assert keying is not None
        inside = Inside(telephone, agent, keying)
        agent.on_invite = lambda call: self._bridge.to_telephone(inside, self.phones, call)
        return inside

    async def _called_from_outside(self, telephone: GatewayTelephone, call: IncomingCall, source: Hop) -> None:
        await self._bridge.to_domain(self._inside[telephone.number], call, source)
