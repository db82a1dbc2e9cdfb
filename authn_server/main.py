"""The program `authn-server`: signs the calls of one operator's domain."""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from datetime import UTC, datetime
from typing import NamedTuple

from authn_server.config import EXAMPLE, AuthnSetup, load_setup
from authn_server.credential import DESCRIPTION, SUMMARY, add_arguments, make_credential_files
from authn_server.expiry import Expiry
from authn_server.explain import EXPLAIN_SUMMARY, add_explain_arguments, explain
from authn_server.invites import InviteSigner
from authn_server.out_of_band import Publisher, publishing
from authn_server.readiness import checks
from authn_server.rotate import SUMMARY as ROTATE_SUMMARY
from authn_server.rotate import add_rotate_arguments, rotate
from authn_server.service import AuthnService
from authn_server.standing import check_now, followed
from voice_dpki.effects import Clock, SystemClock, SystemRandom
from voice_dpki.ledger.answers import InquiryError
from voice_dpki.shell.ending import EXIT_USAGE
from voice_dpki.shell.expiring import tls_checks
from voice_dpki.shell.metrics import health_route
from voice_dpki.shell.program import ServiceParser, indented, run_command, spare_the_collector, start
from voice_dpki.shell.readiness import Readiness
from voice_dpki.shell.result import print_result, text_or_null
from voice_dpki.shell.signing import SigningThreads
from voice_dpki.shell.stir_service import StirRoute, serve_stir
from voice_dpki.shell.stir_sip import sip_checks, sip_server
from voice_dpki.shell.trace import Tracer
from voice_dpki.shell.worker import is_worker
from voice_dpki.shell.workers import supervise
from voice_dpki.stir.forms import SIGNING_PATH, SIP_PATH
from voice_dpki.stir.sign import SigningRefused
from voice_dpki.wire.tasks import running

HELP = f"""\
Signs calls (STIR/SHAKEN) for the telephone numbers that its certificate has authority over.

A proxy asks with POST {SIGNING_PATH}, as ATIS-1000082 describes:

  curl http://127.0.0.1:8091{SIGNING_PATH} -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json" \\
    -d '{{"signingRequest": {{"attest": "A", "orig": {{"tn": "493023125001"}}, "dest": {{"tn": ["442079460001"]}},
         "iat": '$(date +%s)', "origid": "5f4e3b1c-7d2a-4b8e-9c1d-2e3f4a5b6c7d"}}}}'

and puts the answer's "identity" into the INVITE as its Identity header. A request in the form of 3GPP TS 24.229
Annex V ("ppt": "shaken") is answered with "identityHeader". "keyMgmt": ["mikey AQ..."], the values of
a=key-mgmt in the SDP, has them signed too, and "sdp": {{"alg": "sha-256", "dig": "..."}}, the body's SHA-256 in
base64url, the whole SDP. POST {SIGNING_PATH}{SIP_PATH} takes the INVITE itself, as message/sip, and answers with
the INVITE and its Identity. With [sip], proxies send the INVITE over SIP and are redirected.
GET /metrics, GET /healthz and GET /readyz are there for operations,
and GET /openapi.json describes requests and answers.

Key and certificate come from

  authn-server make-credential --organization "Operator A" --common-name sti.a.example --range 493023125000:1000

and are good for calls once the certificate is on the ledger; `authn-server rotate` replaces both later, while
calls go on. With [ledger], its status is followed there: a certificate that is revoked, suspended, expired or not
recorded signs nothing (POL4033), and /healthz says why (503). A ledger that is silent does not end signing, unless
when_unheard = "refuse".

With rules, this server decides the attestation, and not the proxy; `authn-server explain` tells which rule decides
on a call, and why. A call that no rule matches gets no signature (POL4034).

A configuration (TOML; files are looked for beside it):

{indented(EXAMPLE)}"""


def main(arguments: list[str] | None = None) -> int:
    """Run `authn-server ...` and return its exit status."""
    parser = ServiceParser("authn-server", HELP, start=_start, check=_check)
    credential = parser.add("make-credential", SUMMARY, _make_credential)
    credential.description = DESCRIPTION
    add_arguments(credential)
    add_rotate_arguments(parser.add("rotate", ROTATE_SUMMARY, _rotate))
    add_explain_arguments(parser.add("explain", EXPLAIN_SUMMARY, _explain))
    return parser.run(arguments)


def _make_credential(options: argparse.Namespace) -> int:
    print(make_credential_files(options, SystemClock(), SystemRandom()))
    return 0


def _rotate(options: argparse.Namespace) -> int:
    return run_command(rotate(options, SystemClock(), SystemRandom()))


def _explain(options: argparse.Namespace) -> int:
    explained = explain(options, load_setup(options.config, SystemClock()), SystemClock())
    print(explained.text)
    return 0 if explained.signs else 1


def _check(options: argparse.Namespace) -> int:
    setup = load_setup(options.config, SystemClock())
    profile = setup.credential.value.profile
    listed = profile.tn_auth_list
    assert listed is not None
    numbers, judged, config = (
        sum(entry.count for entry in listed.ranges) + len(listed.tns),
        _judged(setup),
        setup.config,
    )
    until, x5u = datetime.fromtimestamp(profile.not_after_s, UTC), setup.credential.value.info
    result = {
        "domain": config.domain,
        "organization": config.organization,
        "signs": judged.verb,
        "certificate": profile.digest.hex(),
        "not_after_s": profile.not_after_s,
        "numbers": numbers,
        "spcs": listed.spcs,
        "x5u": x5u,
        "ledger": judged.ledger,
        "rules": config.rules,
        "workers": config.workers,
        "out_of_band": text_or_null(setup.oob),
        "sip": text_or_null(setup.sip),
    }
    print_result(
        options,
        result,
        f"{config.domain}: this server {judged.verb} sign for {config.organization}",
        f"  certificate  {profile.digest.hex()}, valid until {until:%Y-%m-%d %H:%M} UTC",
        f"  authority    {numbers} numbers, {len(listed.spcs)} service provider codes",
        f"  x5u          {x5u}",
        f"  ledger       {judged.ledger}",
        f"  attestation  {_rules_told(setup)}",
        f"  workers      {config.workers}",
        *([f"  out of band  {setup.oob}"] if setup.oob else []),
        *([f"  SIP          {setup.sip}"] if setup.sip else []),
    )
    return EXIT_USAGE if judged.verb == "cannot" else 0


def _rules_told(setup: AuthnSetup) -> str:
    rules = setup.rules.value
    if rules is None:
        return "as the proxies ask, for there are no rules"
    return f"by {len(rules)} rules of {setup.config.rules}; a call that none matches gets no signature"


class _Judged(NamedTuple):
    """Whether the server "can", "cannot" or "could" sign, and what the ledger says of its certificate."""

    verb: str
    ledger: str


def _judged(setup: AuthnSetup) -> _Judged:
    """Ask the ledger, if one is configured, whether this server's certificate is valid."""
    access, follow = setup.ledger, setup.config.ledger
    if access is None or follow is None:
        return _Judged("could", "not asked, for there is no [ledger]: the certificate must be recorded there")
    where = f"{access.genesis.chain_id}, asked at {access.url}"
    try:
        asyncio.run(check_now(access, follow, setup.credential.value.profile, SystemClock()))
    except InquiryError as error:
        return _Judged("could", f"{where}: {error}, so it is not known whether the certificate is valid there")
    except SigningRefused as refused:
        return _Judged("cannot", f"{where}: {refused}")
    return _Judged("can", f"{where}: the certificate is valid")


def _start(options: argparse.Namespace) -> int:
    setup = load_setup(options.config, SystemClock())
    if setup.config.workers > 1 and not is_worker():
        return supervise("authn-server", setup.config, "authn_server", options.config)
    spare_the_collector()
    return start("authn-server", setup, _serve, setup.config.log)


@asynccontextmanager
async def _publishing(setup: AuthnSetup, clock: Clock) -> AsyncIterator[Publisher | None]:
    """Publish out of band while the context lasts, if that is configured."""
    follow = setup.config.ledger
    if setup.oob is None or setup.ledger is None or follow is None:
        yield None
        return
    client = setup.ledger.client(clock, follow.timeout_s, keeps_trust=False)
    async with publishing(setup.oob, client, clock) as publisher:
        yield publisher


async def _serve(setup: AuthnSetup, stop: asyncio.Event) -> None:
    config, profile, clock = setup.config, setup.credential.value.profile, SystemClock()
    async with AsyncExitStack() as opened:
        following = followed(setup.ledger, config.ledger, setup.credential, clock)
        switch = await opened.enter_async_context(following)
        expiry = Expiry(lambda: switch.current.credential.profile, clock, config.warn_days)
        await opened.enter_async_context(running(expiry.follow()))
        with closing(Tracer.named_by(setup.trace, "authn-server")) as tracer:
            publisher = await opened.enter_async_context(_publishing(setup, clock))
            threads = SigningThreads(config.hsm)
            opened.push_async_callback(threads.close)
            await opened.enter_async_context(running(threads.watch(lambda: switch.current.credential.signer)))
            service = AuthnService(
                switch,
                config.max_iat_skew_s,
                clock,
                tracer,
                setup.rules,
                setup.bypass,
                publisher,
                setup.country,
                threads,
            )
            health = health_route(service.health)
            invites = InviteSigner(service, clock, SystemRandom(), setup.country)
            route = StirRoute(
                "signing",
                SIGNING_PATH,
                setup.tokens,
                service.sign,
                health=health,
                perform_text=invites.sign_text,
                readiness=Readiness(
                    checks(switch, service, expiry, clock)
                    | tls_checks(setup.tls, clock)
                    | sip_checks(setup.sip, clock)
                ),
            )
            certificate = profile.digest.hex()
            sip = sip_server("signing", setup.sip, invites.additions, service.health, setup.trace.hep)
            await serve_stir(
                route,
                config.listen,
                setup.tls,
                tracer,
                stop,
                limits=config.limits,
                sip=sip,
                certificate=certificate,
            )


if __name__ == "__main__":
    sys.exit(main())
