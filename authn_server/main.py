"""The program `authn-server`: signs the calls of one operator's domain."""

import argparse
import asyncio
import logging
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from authn_server.config import EXAMPLE, Setup, load_setup
from authn_server.credential import SUMMARY, add_arguments, make_credential_files
from authn_server.service import AuthnService
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.errors import VoiceDpkiError
from voice_dpki.shell.http import serve
from voice_dpki.shell.log import setup_logging
from voice_dpki.shell.program import Parser, fail, run
from voice_dpki.shell.stir_service import StirRoute
from voice_dpki.shell.trace import Tracer
from voice_dpki.stir.atis import SIGNING_PATH

log = logging.getLogger(__name__)

HELP = f"""\
Signs calls (STIR/SHAKEN) for the telephone numbers that its certificate has authority over.

A proxy asks with POST {SIGNING_PATH}, as ATIS-1000082 describes:

  curl http://127.0.0.1:8091{SIGNING_PATH} -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json" \\
    -d '{{"signingRequest": {{"attest": "A", "orig": {{"tn": "493023125001"}}, "dest": {{"tn": ["442079460001"]}},
         "iat": '$(date +%s)', "origid": "5f4e3b1c-7d2a-4b8e-9c1d-2e3f4a5b6c7d"}}}}'

and puts the answer's "identity" into the INVITE as its Identity header. "keyMgmt": ["mikey AQ..."], the values of
a=key-mgmt in the SDP, has them signed too. GET /metrics and GET /healthz are there for operations.

Key and certificate come from

  authn-server make-credential --organization "Operator A" --common-name sti.a.example --range 493023125000:1000

and are good for calls once the certificate is recorded on the ledger.

A configuration (TOML; files are looked for beside it):

"""


def main(arguments: list[str] | None = None) -> int:
    """Run `authn-server ...` and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "make-credential":
            print(make_credential_files(options, SystemClock(), SystemRandom()))
            return 0
        command = _start if options.command == "start" else _check
        return command(load_setup(options.config, SystemClock()))
    except VoiceDpkiError as error:
        return fail(error)


def _parser() -> argparse.ArgumentParser:
    example = "".join(f"  {line}\n" for line in EXAMPLE.splitlines())
    parser = Parser(prog="authn-server", description=HELP + example)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in (
        ("start", "serve until SIGTERM"),
        ("check-config", "say whether it could start, and how"),
    ):
        command = commands.add_parser(name, help=summary)
        command.add_argument("--config", type=Path, required=True, metavar="FILE", help="the TOML file")
    add_arguments(commands.add_parser("make-credential", help=SUMMARY))
    return parser


def _check(setup: Setup) -> int:
    profile = setup.credential.profile
    listed = profile.tn_auth_list
    assert listed is not None
    until = datetime.fromtimestamp(profile.not_after_s, UTC)
    numbers = sum(entry.count for entry in listed.ranges) + len(listed.tns)
    print(f"{setup.config.domain}: this server can sign for {setup.config.organization}")
    print(f"  certificate  {profile.digest.hex()}, valid until {until:%Y-%m-%d %H:%M} UTC")
    print(f"  authority    {numbers} numbers, {len(listed.spcs)} service provider codes")
    print(f"  x5u          {setup.credential.info}")
    return 0


def _start(setup: Setup) -> int:
    setup_logging("authn-server")
    return run(partial(_serve, setup))


async def _serve(setup: Setup, stop: asyncio.Event) -> None:
    tracer = Tracer(setup.trace, setup.trace.stem if setup.trace else "authn-server")
    service = AuthnService(setup.credential, setup.config.max_iat_skew_s, SystemClock(), tracer)
    route = StirRoute("signing", SIGNING_PATH, setup.tokens, service.sign)
    async with serve(route.app(), setup.config.listen) as port:
        address = f"{setup.config.listen.host}:{port}"
        certificate = setup.credential.profile.digest.hex()
        log.info("ready", extra={"fields": {"http": address, "certificate": certificate}})
        tracer.ready(http=address)
        await stop.wait()
    tracer.close()


if __name__ == "__main__":
    sys.exit(main())
