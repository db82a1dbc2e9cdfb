"""The program `verify-server`: verifies the calls that reach one operator's domain."""

import argparse
import asyncio
import logging
import sys
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from verify_server.config import EXAMPLE, Setup, load_setup
from verify_server.resolver import LedgerResolver
from verify_server.service import VerifyService
from voice_dpki.effects import SystemClock
from voice_dpki.errors import VoiceDpkiError
from voice_dpki.ledger.client import LedgerClient
from voice_dpki.ledger.subscription import Subscription
from voice_dpki.shell.http import serve
from voice_dpki.shell.log import setup_logging
from voice_dpki.shell.program import Parser, fail, run
from voice_dpki.shell.stir_service import StirRoute
from voice_dpki.shell.trace import Tracer
from voice_dpki.stir.atis import VERIFICATION_PATH

log = logging.getLogger(__name__)

HELP = f"""\
Verifies calls (STIR/SHAKEN): the signer's certificate must be valid on the ledger, with authority over the number.

A proxy asks with POST {VERIFICATION_PATH}, as ATIS-1000082 describes:

  curl http://127.0.0.1:8092{VERIFICATION_PATH} -H "Authorization: Bearer $TOKEN" \\
    -H "Content-Type: application/json" -d '{{"verificationRequest": {{"from": {{"tn": "493023125001"}},
         "to": {{"tn": ["442079460001"]}}, "time": '$(date +%s)', "identity": "eyJ...;info=<https://...>"}}}}'

and gets a verstat and, where a step failed, that step with a reason code (403, 436, 437, 438) and a sentence.
"keyMgmt": ["mikey AQ..."], the values of a=key-mgmt in the SDP, has them compared with what the caller signed.
A signer that has called before is known and followed on the ledger, so that its calls wait for no question, and
what changes there counts at once. Where the ledger has not been heard for max_age_s, no call is verified.
GET /metrics and GET /healthz are there for operations.

A configuration (TOML; files are looked for beside it):

"""


def main(arguments: list[str] | None = None) -> int:
    """Run `verify-server ...` and return its exit status."""
    options = _parser().parse_args(arguments)
    command = _start if options.command == "start" else _check
    try:
        return command(load_setup(options.config))
    except VoiceDpkiError as error:
        return fail(error)


def _parser() -> argparse.ArgumentParser:
    example = "".join(f"  {line}\n" for line in EXAMPLE.splitlines())
    parser = Parser(prog="verify-server", description=HELP + example)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in (
        ("start", "serve until SIGTERM"),
        ("check-config", "say whether it could start, and how"),
    ):
        command = commands.add_parser(name, help=summary)
        command.add_argument("--config", type=Path, required=True, metavar="FILE", help="the TOML file")
    return parser


def _check(setup: Setup) -> int:
    config = setup.config
    print(f"{config.domain}: this server can verify calls")
    print(
        f"  ledger       {setup.genesis.chain_id}, asked at {config.ledger_url}, at most {config.max_age_s:g} s old"
    )
    print(f"  freshness    {config.freshness_s:g} s, {config.replay_max_entries} signatures remembered")
    print(f"  keying       {'required' if config.require_key_mgmt else 'not required'}")
    return 0


def _start(setup: Setup) -> int:
    setup_logging("verify-server")
    return run(partial(_serve, setup))


async def _serve(setup: Setup, stop: asyncio.Event) -> None:
    config, clock = setup.config, SystemClock()
    tracer = Tracer(setup.trace, setup.trace.stem if setup.trace else "verify-server")
    async with AsyncExitStack() as opened:
        client, *witnesses = [
            await opened.enter_async_context(
                LedgerClient.of_genesis(
                    url,
                    setup.genesis,
                    clock=clock,
                    max_age_s=config.max_age_s,
                    timeout_s=config.ledger_timeout_s,
                    trust_file=setup.trust_file if url == config.ledger_url else None,
                )
            )
            for url in (config.ledger_url, *config.witnesses)
        ]
        subscription = Subscription(
            client, max_entries=config.signers_max_entries, witnesses=witnesses, clock=clock
        )
        resolver = LedgerResolver(subscription, tracer)
        service = VerifyService(resolver, config.policy(), config.replay_cache(), clock, tracer)
        route = StirRoute("verification", VERIFICATION_PATH, setup.tokens, service.verify)
        async with subscription.following(), serve(route.app(), config.listen) as port:
            address = f"{config.listen.host}:{port}"
            log.info("ready", extra={"fields": {"http": address, "chain": setup.genesis.chain_id}})
            tracer.ready(http=address)
            await stop.wait()
    tracer.close()


if __name__ == "__main__":
    sys.exit(main())
