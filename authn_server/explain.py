"""`authn-server explain`: which rule decides the attestation of one call, and why the rules before it do not."""

import argparse
import sys
from dataclasses import dataclass, replace

from authn_server.config import AuthnSetup
from voice_dpki.effects import Clock, SystemRandom
from voice_dpki.errors import LocalError, PeerError
from voice_dpki.shell.program import describe_configured
from voice_dpki.stir.attestation import attested, considered
from voice_dpki.stir.call import SigningRequest, Source
from voice_dpki.stir.matching import explained
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.sign import SigningRefused, sign_call
from voice_dpki.stir.tn import canonical_tn
from voice_dpki.wire.sip.asked import Terms, read_invite, signing_of

EXPLAIN_SUMMARY = "say which rule decides the attestation of one call"
EXPLAIN_DESCRIPTION = """\
Says which rule decides the attestation of one call, and which condition of each rule before it does not match.

  authn-server explain --config authn.toml --peer proxy --user alice --from 493023125001 --to 442079460001
  authn-server explain --config authn.toml --peer proxy < invite.txt

Without --from and --to, the call is an INVITE on standard input. Nothing is signed for anybody, and no server needs
to run. It ends with status 1 if the call would get no signature.
"""
MAX_INPUT_BYTES = 65_536
ANY_ORIGID = "00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True, slots=True)
class Explained:
    """The explanation of one call."""

    text: str
    signs: bool


def add_explain_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    describe_configured(parser, EXPLAIN_DESCRIPTION)
    parser.add_argument("--peer", default="", metavar="NAME", help="whose token the request has")
    parser.add_argument("--trunk", metavar="NAME", help="the trunk that the request names")
    parser.add_argument("--user", metavar="NAME", help="the user that the request says is authenticated")
    parser.add_argument("--attest", choices="ABC", help="the attestation that is asked for (default A)")
    parser.add_argument("--from", dest="caller", metavar="NUMBER", help="who calls")
    parser.add_argument("--to", dest="called", action="append", metavar="NUMBER", help="who is called")


def explain(options: argparse.Namespace, setup: AuthnSetup, clock: Clock) -> Explained:
    """Explain the call of the arguments; raises LocalError for one that cannot be read."""
    try:
        call = _call(options, clock.now_s())
    except PeerError as error:
        raise LocalError(f"the call cannot be used: {error}") from None
    rules = setup.rules.value
    lines = explained(considered(rules or (), call), lambda rule: rule.outcome(call.attest))
    try:
        judged = call if rules is None else attested(rules, call)[0]
        sign_call(judged, setup.credential.value, clock.now_s(), setup.config.max_iat_skew_s)
    except SigningRefused as refused:
        return Explained("\n".join([*lines, f"no signature: {refused}"]), signs=False)
    why = "" if rules is not None else ", as it is asked for: there are no rules"
    return Explained("\n".join([*lines, f"signed with attestation {judged.attest}{why}"]), signs=True)


def _call(options: argparse.Namespace, now_s: float) -> SigningRequest:
    if (options.caller is None) != (options.called is None):
        raise LocalError("give both --from and --to, or an INVITE on standard input")
    call = _told(options, now_s) if options.caller is not None else _invite(options, now_s)
    given = {name: getattr(options, name) for name in ("trunk", "user") if getattr(options, name) is not None}
    return replace(call, source=replace(call.source, peer=options.peer, **given))


def _told(options: argparse.Namespace, now_s: float) -> SigningRequest:
    return SigningRequest(
        attest=options.attest or "A",
        orig=canonical_tn(options.caller),
        dest=Destinations(tuple(dict.fromkeys(map(canonical_tn, options.called)))),
        iat_s=int(now_s),
        origid=ANY_ORIGID,
        source=Source(),
    )


def _invite(options: argparse.Namespace, now_s: float) -> SigningRequest:
    """Read an INVITE from standard input; its Date does not matter here."""
    data = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1)
    if len(data) > MAX_INPUT_BYTES:
        raise LocalError(f"the input has more than {MAX_INPUT_BYTES} bytes")
    asked = signing_of(read_invite(data), Terms(attest=options.attest or "A"), now_s, SystemRandom())
    return replace(asked, iat_s=int(now_s), attest=options.attest or asked.attest)
