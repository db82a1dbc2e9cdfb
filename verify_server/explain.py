"""`verify-server explain`: which rule decides the treatment of a call, and why the rules before it do not."""

import argparse

from verify_server.config import VerifySetup
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.shell.program import describe_configured
from voice_dpki.stir.call import NO_CALLER_NUMBER, Call, Source
from voice_dpki.stir.handling import Handling, treatment_of
from voice_dpki.stir.matching import explained
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.tn import canonical_tn
from voice_dpki.stir.treatment import Treatment
from voice_dpki.stir.verdict import REASON_TEXTS, Trust, Verdict, Verstat

EXPLAIN_SUMMARY = "say which rule decides what is done with a call"
EXPLAIN_DESCRIPTION = """\
Says which rule decides what is done with a call that has a certain verdict, and which condition of each rule before
it does not match. `voice-dpki passport verify` tells the verdict on an INVITE.

  verify-server explain --config verify.toml --trunk operator-a --code 428 --from 493023125001 --to 442079460001

It ends with status 1 if the call would be rejected.
"""

CODES = {str(code): code for code in (428, *REASON_TEXTS)}
"""The codes that a verdict can have, by their text."""

RETRIEVED = "out of band"
"""Placeholder for an Identity retrieved from a service: rules do not read its content."""


def add_explain_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    describe_configured(parser, EXPLAIN_DESCRIPTION)
    parser.add_argument("--peer", default="", metavar="NAME", help="whose token the request has")
    parser.add_argument("--trunk", default="", metavar="NAME", help="the trunk that the request names")
    parser.add_argument("--bypass", default="", metavar="NAME", help="whose token P-Identity-Bypass has")
    parser.add_argument("--signer", default="", metavar="NAME", help="the organisation that signed")
    parser.add_argument(
        "--verstat", choices=[*map(str, Verstat)], default=str(Verstat.NONE), help=f"default: {Verstat.NONE}"
    )
    parser.add_argument("--trust", choices=[*map(str, Trust)], help="what the signer was judged by")
    parser.add_argument("--code", choices=CODES, help="the verdict's reason code")
    parser.add_argument("--attest", choices="ABC", default="", help="the attestation of a proven caller")
    parser.add_argument(
        "--out-of-band", action="store_true", help="the PASSporT came from the call placement service"
    )
    parser.add_argument("--from", dest="caller", metavar="NUMBER", help="who calls; without it, no number does")
    parser.add_argument("--to", dest="called", required=True, metavar="NUMBER", help="who is called")


def explain(options: argparse.Namespace, setup: VerifySetup) -> tuple[str, Treatment]:
    """Return what is told of the call of the arguments, and what is done with it; raises LocalError."""
    handling = setup.handling.value or Handling([])
    code = None if options.code is None else CODES[options.code]
    verdict = Verdict(
        Verstat(options.verstat),
        reasoncode=code,
        reasontext="" if code is None else REASON_TEXTS.get(code, ""),
        signer=options.signer,
        attest=options.attest,
        trust=None if options.trust is None else Trust(options.trust),
        retrieved=RETRIEVED if options.out_of_band else "",
    )
    try:
        orig = NO_CALLER_NUMBER if options.caller is None else canonical_tn(options.caller)
        dest = Destinations((canonical_tn(options.called),))
    except MalformedError as error:
        raise LocalError(f"the call cannot be used: {error}") from None
    call = Call(orig, dest, 0, (), source=Source(options.peer, options.trunk, bypass=options.bypass))
    treatment = treatment_of(handling, [verdict], call)
    lines = explained(handling.considered(verdict, call), lambda rule: rule.act)
    return "\n".join([*lines, _told(treatment)]), treatment


def _told(treatment: Treatment) -> str:
    status = f" with {treatment.status} {treatment.text}" if treatment.status and not treatment.instead_of else ""
    why = ""
    if treatment.instead_of:
        reason = "an emergency call" if treatment.is_emergency else "the rules only watch"
        why = f", and not {treatment.instead_of}: {reason}"
    verstat = f", verstat={treatment.verstat}" if treatment.verstat else ""
    return f"the call: {treatment.act}{status}{verstat}{why}"
