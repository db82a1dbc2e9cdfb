"""The program `cps-server`: a call placement service for PASSporTs that a call's path loses."""

import argparse
import asyncio
import logging
import sys
from contextlib import AsyncExitStack, closing

from verify_server.cps import CallPlacementService
from verify_server.cps_config import EXAMPLE, CpsSetup, load_setup
from verify_server.resolver import LedgerResolver
from voice_dpki.effects import SystemClock
from voice_dpki.shell.expiring import tls_checks
from voice_dpki.shell.http import serve
from voice_dpki.shell.notify import tell_ready
from voice_dpki.shell.program import ServiceParser, indented, spare_the_collector, start
from voice_dpki.shell.readiness import Check, failed_if
from voice_dpki.shell.result import print_result
from voice_dpki.shell.trace import Tracer
from voice_dpki.stir.cps import CALL_PATH, PUBLISHER_PATH
from voice_dpki.wire.ledger.members import KeptMembers

log = logging.getLogger(__name__)

HELP = f"""\
A call placement service: keeps PASSporTs of calls whose path loses the Identity (ATIS-1000096, ATIS-1000105).

The operator of the caller publishes with POST {PUBLISHER_PATH} or {CALL_PATH},
and the operator of the called party retrieves with GET. Each request has an access token: a JWT for this request
alone, signed with a certificate that is on the ledger. `authn-server` and `verify-server` do both by [oob].
What is kept is held in memory for a minute at most, and given to the partners of the call alone.
GET /metrics, GET /healthz and GET /readyz are there for operations, and GET /openapi.json describes requests and
answers.

A configuration (TOML; files are looked for beside it):

{indented(EXAMPLE)}"""


def main(arguments: list[str] | None = None) -> int:
    """Run `cps-server ...` and return its exit status."""
    return ServiceParser("cps-server", HELP, start=_start, check=_check).run(arguments)


def _check(options: argparse.Namespace) -> int:
    setup = load_setup(options.config)
    config, ledger = setup.config, setup.ledger
    result = {
        "audiences": config.audiences,
        "organizations": config.organizations,
        "chain": ledger.genesis.chain_id,
        "url": ledger.url,
        "max_age_s": ledger.max_age_s,
        "witnesses": ledger.witnesses,
        "freshness_s": config.freshness_s,
        "tokens_max_entries": config.tokens_max_entries,
        "max_bytes": config.max_bytes,
        "max_lifetime_s": config.max_lifetime_s,
    }
    print_result(
        options,
        result,
        f"{', '.join(config.audiences)}: this service can keep PASSporTs",
        f"  for calls to {', '.join(config.organizations)}",
        f"  ledger       {ledger.genesis.chain_id}, asked at {ledger.url}, at most {ledger.max_age_s:g} s old",
        f"  witnesses    {', '.join(ledger.witnesses) or 'none: another history would not be noticed'}",
        f"  freshness    {config.freshness_s:g} s, {config.tokens_max_entries} access tokens remembered",
        f"  memory       {config.max_bytes} bytes, each call for {config.max_lifetime_s:g} s at most",
    )
    return 0


def _start(options: argparse.Namespace) -> int:
    setup = load_setup(options.config)
    spare_the_collector()
    return start("cps-server", setup, _serve, setup.config.log)


async def _serve(setup: CpsSetup, stop: asyncio.Event) -> None:
    config, ledger, clock = setup.config, setup.ledger, SystemClock()
    async with AsyncExitStack() as opened:
        tracer = opened.enter_context(closing(Tracer.named_by(setup.trace, "cps-server")))
        following = ledger.subscription(clock, config.ledger_timeout_s, max_entries=config.signers_max_entries)
        subscription = await opened.enter_async_context(following)
        resolver = LedgerResolver(subscription, tracer)
        members = KeptMembers(clock)
        client = await opened.enter_async_context(ledger.client(clock, config.ledger_timeout_s, keeps_trust=False))
        await opened.enter_async_context(members.kept(client))
        checks: dict[str, Check] = {"ledger": lambda: failed_if(subscription.lacking())}
        checks |= tls_checks(setup.tls, clock)
        service = CallPlacementService(config, resolver, members, clock, tracer, checks)
        serving = serve(service.app(), config.listen, tls=setup.tls, limits=config.limits, tracer=tracer)
        port = await opened.enter_async_context(serving)
        address = f"{config.listen.host}:{port}"
        log.info("ready", extra={"fields": {"http": address, "chain": ledger.genesis.chain_id}})
        tracer.ready(http=address)
        tell_ready(http=address)
        await stop.wait()


if __name__ == "__main__":
    sys.exit(main())
