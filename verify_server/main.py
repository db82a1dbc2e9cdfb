"""The program `verify-server`: verifies the calls that reach one operator's domain."""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing

from verify_server.config import EXAMPLE, VerifyConfig, VerifySetup, load_setup
from verify_server.explain import EXPLAIN_SUMMARY, add_explain_arguments, explain
from verify_server.invites import InviteVerifier
from verify_server.out_of_band import retrieving
from verify_server.outside_run import outside_signers
from verify_server.replay_store import SharedReplays, shared
from verify_server.resolver import LedgerResolver
from verify_server.service import VerifyService
from voice_dpki.effects import Clock, SystemClock, SystemRandom
from voice_dpki.shell.expiring import tls_checks
from voice_dpki.shell.metrics import healthy
from voice_dpki.shell.program import ServiceParser, indented, spare_the_collector, start
from voice_dpki.shell.readiness import Check, Readiness, failed_if
from voice_dpki.shell.result import print_result, text_or_null
from voice_dpki.shell.stir_service import StirRoute, serve_stir
from voice_dpki.shell.stir_sip import sip_checks, sip_server
from voice_dpki.shell.trace import Tracer
from voice_dpki.shell.worker import is_worker
from voice_dpki.shell.workers import supervise
from voice_dpki.stir.forms import SIP_PATH, VERIFICATION_PATH
from voice_dpki.stir.replay import ReplayCache
from voice_dpki.stir.treatment import Act
from voice_dpki.wire.ledger.subscription import Subscription

HELP = f"""\
Verifies calls (STIR/SHAKEN): the signer's certificate must be valid on the ledger, with authority over the number.

A proxy asks with POST {VERIFICATION_PATH}, as ATIS-1000082 describes:

  curl http://127.0.0.1:8092{VERIFICATION_PATH} -H "Authorization: Bearer $TOKEN" \\
    -H "Content-Type: application/json" -d '{{"verificationRequest": {{"from": {{"tn": "493023125001"}},
         "to": {{"tn": ["442079460001"]}}, "time": '$(date +%s)', "identity": "eyJ...;info=<https://...>"}}}}'

and gets a verstat and, where a step failed, that step with a reason code (403, 436, 437, 438) and a sentence.
A request in the form of 3GPP TS 24.229 Annex V has "identityHeader", and is answered with "verstatValue".
"keyMgmt": ["mikey AQ..."], the values of a=key-mgmt in the SDP, has them compared with what the caller signed, and
"sdp": {{"alg": "sha-256", "dig": "..."}}, the body's digest in base64url, does that for the whole SDP. "callId",
the Call-ID, tells a proxy's further try from a replay of another call's Identity.
POST {VERIFICATION_PATH}{SIP_PATH} takes the INVITE itself, as message/sip, and answers with the INVITE and a
P-Asserted-Identity that has the verstat. With [sip], proxies send the INVITE over SIP and are redirected.
A signer that has called before is known and followed on the ledger, so that its calls wait for no question, and
what changes there counts at once. Where the ledger has not been heard for max_age_s, no call is verified.
With [oob], a call without an Identity is looked for at a call placement service, and the verdict has "outOfBand";
a request that has "outOfBand": true leaves "identity" out.
With [outside], signers of whom the ledger knows nothing are judged by this operator's list of certificate
authorities, and the verdict has "trust": "list".
With rules, the answer has an "action": what is to be done with the call; `verify-server explain` tells which rule
decides, and why.
GET /metrics, GET /healthz and GET /readyz are there for operations, and GET /openapi.json describes requests and
answers.

A configuration (TOML; files are looked for beside it):

{indented(EXAMPLE)}"""


def main(arguments: list[str] | None = None) -> int:
    """Run `verify-server ...` and return its exit status."""
    parser = ServiceParser("verify-server", HELP, start=_start, check=_check)
    add_explain_arguments(parser.add("explain", EXPLAIN_SUMMARY, _explain))
    return parser.run(arguments)


def _explain(options: argparse.Namespace) -> int:
    text, treatment = explain(options, load_setup(options.config))
    print(text)
    return 1 if treatment.act is Act.REJECT else 0


def _handling_told(setup: VerifySetup) -> str:
    handling = setup.handling.value
    if handling is None:
        return "as the proxies choose, for there are no rules"
    watching = ", which only watch" if handling.monitor else ""
    return f"by {len(handling.rules)} rules of {setup.config.rules}{watching}; a call that none matches is tagged"


def _replays_told(config: VerifyConfig) -> str:
    told = f"without a Call-ID: {config.replay.repeated_token}"
    told += f"; shared by {config.replay.store.url}" if config.replay.store else ""
    ignored = ", ".join(sorted(config.replay.b2bua))
    return f"{told}; Call-IDs of {ignored} do not count" if ignored else told


def _check(options: argparse.Namespace) -> int:
    setup = load_setup(options.config)
    config, ledger = setup.config, setup.ledger
    result = {
        "domain": config.domain,
        "chain": ledger.genesis.chain_id,
        "url": ledger.url,
        "max_age_s": ledger.max_age_s,
        "witnesses": ledger.witnesses,
        "freshness_s": config.freshness_s,
        "replay_max_entries": config.replay_max_entries,
        "replays": _replays_told(config),
        "profile": config.profile,
        "requires_key_mgmt": config.require_key_mgmt,
        "requires_sdp": config.require_sdp,
        "workers": config.workers,
        "export": [each.file for each in config.export],
        "outside": text_or_null(setup.outside),
        "out_of_band": text_or_null(setup.oob),
        "rules": config.rules,
        "sip": text_or_null(setup.sip),
    }
    print_result(options, result, *_check_lines(setup))
    return 0


def _check_lines(setup: VerifySetup) -> list[str]:
    config, ledger = setup.config, setup.ledger
    return [
        f"{config.domain}: this server can verify calls",
        f"  ledger       {ledger.genesis.chain_id}, asked at {ledger.url}, at most {ledger.max_age_s:g} s old",
        f"  witnesses    {', '.join(ledger.witnesses) or 'none: another history would not be noticed'}",
        f"  freshness    {config.freshness_s:g} s, {config.replay_max_entries} signatures remembered",
        f"  replays      {_replays_told(config)}",
        f"  profile      {config.profile}",
        f"  keying       {'required' if config.require_key_mgmt else 'not required'}",
        f"  signed SDP   {'required' if config.require_sdp else 'not required'}",
        f"  workers      {config.workers}",
        f"  export       {', '.join(each.file for each in config.export) or 'none'}",
        f"  outside      {setup.outside or 'none: of a signer who is not on the ledger, nothing is known'}",
        f"  out of band  {setup.oob or 'nothing is looked for'}",
        f"  calls        {_handling_told(setup)}",
        *([f"  SIP          {setup.sip}"] if setup.sip else []),
    ]


def _start(options: argparse.Namespace) -> int:
    setup = load_setup(options.config)
    if setup.config.workers > 1 and not is_worker():
        return supervise("verify-server", setup.config, "verify_server", options.config)
    spare_the_collector()
    return start("verify-server", setup, _serve, setup.config.log)


@asynccontextmanager
async def _replays(setup: VerifySetup, clock: Clock) -> AsyncIterator[ReplayCache | SharedReplays]:
    """Give the memory of used signatures, this process' own or one with a store behind it."""
    config, store = setup.config, setup.config.replay.store
    cache = config.replay_cache(clock.now_s())
    if store is None or setup.link is None:
        yield cache
        return
    replays = SharedReplays(cache, setup.link, config.retention_s, clock, SystemRandom(), store.when_down)
    async with shared(replays, setup.link):
        yield replays


def _checks(subscription: Subscription, replays: ReplayCache | SharedReplays) -> dict[str, Check]:
    """Return the checks of /readyz."""
    checks: dict[str, Check] = {"ledger": lambda: failed_if(subscription.lacking())}
    if isinstance(replays, SharedReplays):
        checks["replay_store"] = replays.readiness
    return checks


async def _serve(setup: VerifySetup, stop: asyncio.Event) -> None:
    config, ledger, clock = setup.config, setup.ledger, SystemClock()
    async with AsyncExitStack() as opened:
        tracer = opened.enter_context(closing(Tracer.named_by(setup.trace, "verify-server")))
        following = ledger.subscription(clock, config.ledger_timeout_s, max_entries=config.signers_max_entries)
        subscription = await opened.enter_async_context(following)
        exports = [opened.enter_context(closing(each.open(setup.path))) for each in config.export]
        resolver = LedgerResolver(subscription, tracer)
        replays = await opened.enter_async_context(_replays(setup, clock))
        outside = await opened.enter_async_context(outside_signers(setup, clock)) if setup.outside else None
        found = await opened.enter_async_context(retrieving(setup.oob, clock)) if setup.oob else None
        service = VerifyService(
            resolver,
            config.policy(),
            replays,
            clock,
            tracer,
            setup.handling,
            exports,
            outside,
            found,
            setup.country,
        )
        invites = InviteVerifier(service, clock, config.profile, setup.bypasses, country=setup.country)
        route = StirRoute(
            "verification",
            VERIFICATION_PATH,
            setup.tokens,
            service.verify,
            perform_text=invites.verify_text,
            readiness=Readiness(
                _checks(subscription, replays) | tls_checks(setup.tls, clock) | sip_checks(setup.sip, clock)
            ),
        )
        sip = sip_server("verification", setup.sip, invites.additions, healthy, setup.trace.hep)
        chain = ledger.genesis.chain_id
        await serve_stir(route, config.listen, setup.tls, tracer, stop, limits=config.limits, sip=sip, chain=chain)


if __name__ == "__main__":
    sys.exit(main())
