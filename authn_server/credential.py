"""`authn-server make-credential`: a key and a self-signed certificate, ready to be recorded on the ledger."""

import argparse
from pathlib import Path

from voice_dpki.effects import Clock, Random
from voice_dpki.errors import LocalError, MalformedError, PeerError
from voice_dpki.names import Tn
from voice_dpki.shell.credentials import DEFAULT_DAYS, MAX_DAYS, make_signer
from voice_dpki.shell.options import key_option, whole_number
from voice_dpki.x509.claimconstraints import BASELINE, UNCONSTRAINED, ClaimConstraints
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

SUMMARY = "make a key and a certificate for these numbers"
DESCRIPTION = """\
Makes a key and a self-signed certificate with authority over numbers, in two files that must not be there yet. Have
the certificate recorded on the ledger (voice-dpki ledger submit), and name both files in the configuration.
"""
MAX_COUNT_DIGITS = 15
TOLD = """\
Made {certificate}, a certificate with H(CERT) {digest}, and its key {key}.
Calls can be signed with it once {organization} has had it recorded on the ledger, for instance with
  voice-dpki ledger submit --genesis genesis.json --organization "{organization}" --key KEY {certificate}
KEY is the file with the key by which {organization} endorses."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--organization", required=True, metavar="NAME", help="as the ledger knows the operator")
    parser.add_argument("--common-name", required=True, metavar="NAME", help="for instance sti.a.example")
    parser.add_argument(
        "--range", action="append", default=[], metavar="START:COUNT", help="numbers, e.g. 493023125000:1000"
    )
    parser.add_argument("--spc", action="append", default=[], metavar="CODE", help="a service provider code")
    parser.add_argument(
        "--must-include", action="append", default=[], metavar="CLAIM", help="a claim that each PASSporT must have"
    )
    parser.add_argument(
        "--permit", action="append", default=[], metavar="CLAIM=VALUE", help="a value that a claim may have"
    )
    parser.add_argument(
        "--must-exclude", action="append", default=[], metavar="CLAIM", help="a claim that no PASSporT may have"
    )
    days = whole_number(1, MAX_DAYS)
    parser.add_argument("--days", type=days, default=DEFAULT_DAYS, help=f"validity (default {DEFAULT_DAYS})")
    parser.add_argument(
        "--certificate", type=Path, default=Path("authn.der"), metavar="FILE", help="default: authn.der"
    )
    parser.add_argument(
        "--key",
        type=key_option,
        default=Path("authn.pem"),
        metavar="FILE",
        help="default: authn.pem; or a pkcs11: URI of a key that a token has already",
    )


def make_credential_files(options: argparse.Namespace, clock: Clock, random: Random) -> str:
    """Write key and certificate to new files, and return instructions for the terminal.

    Raises LocalError where the arguments break the certificate profile, or where a file exists already.
    """
    try:
        ranges = tuple(map(_range, options.range))
        numbers = TnAuthList(spcs=tuple(options.spc), ranges=ranges)
        constraints = _constraints(options)
    except (PeerError, ValueError) as error:
        raise LocalError(f"no such certificate can be made: {error}") from None
    digest = make_signer(
        organization=options.organization,
        common_name=options.common_name,
        numbers=numbers,
        constraints=constraints,
        days=options.days,
        certificate=options.certificate,
        key=options.key,
        clock=clock,
        random=random,
    )
    return TOLD.format(
        certificate=options.certificate, key=options.key, digest=digest.hex(), organization=options.organization
    )


def _range(text: str) -> TnRange:
    start, _, count = text.partition(":")
    if not (count.isascii() and count.isdigit() and len(count) <= MAX_COUNT_DIGITS):
        raise MalformedError("--range takes START:COUNT, such as 493023125000:1000")
    return TnRange(Tn(start), int(count))


def _constraints(options: argparse.Namespace) -> ClaimConstraints | None:
    """Return the claim constraints that the arguments ask for, None if they ask for none; raises MalformedError."""
    permitted: dict[str, tuple[str, ...]] = {}
    for each in options.permit:
        name, equals, value = each.partition("=")
        if not (name and equals):
            raise MalformedError("--permit takes CLAIM=VALUE, such as attest=A")
        permitted[name] = (*permitted.get(name, ()), value)
    if BASELINE & {*options.must_exclude}:
        raise MalformedError(f"--must-exclude cannot name {', '.join(sorted(BASELINE))} (RFC 9118 §3)")
    constraints = ClaimConstraints(
        tuple(options.must_include), tuple(permitted.items()), tuple(options.must_exclude)
    )
    return None if constraints == UNCONSTRAINED else constraints
