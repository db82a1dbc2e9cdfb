"""Signing for tests: `voice-dpki passport sign` and `voice-dpki passport csv` (RFC 8224 §4.1).

The key is a file, and no ledger is asked whether its certificate may sign. Whoever verifies asks the ledger.
"""

import argparse
import itertools
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import msgspec

from voice_dpki.codec import base64url
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.errors import LocalError, VoiceDpkiError
from voice_dpki.names import Tn
from voice_dpki.shell.credentials import read_certificate, read_signer
from voice_dpki.sip.message import encode
from voice_dpki.stir.call import SigningRequest
from voice_dpki.stir.forms import read_signing
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.rph import read_resource_priority
from voice_dpki.stir.shaken import ATTESTATIONS
from voice_dpki.stir.sign import Credential, make_credential, sign_call
from voice_dpki.stir.tn import canonical_tn
from voice_dpki.wire.sip.asked import Terms, date_value, read_invite, signed, signing_of

MAX_CALLS: Final = 1_000_000
"""Rows of one injection file; a million take about 650 MB."""
MAX_RATE: Final = 100_000

INFO_URL: Final = "https://certs.example/{digest}.der"
"""Verifiers of the ledger read the digest alone, and fetch nothing."""


def credential_of(options: argparse.Namespace) -> Credential:
    """Return the key and certificate that the options name; raises LocalError."""
    return make_credential(
        read_signer(options.key), read_certificate(options.certificate), options.info_url, SystemClock().now_s()
    )


def sign(options: argparse.Namespace, data: bytes | None) -> str:
    """Return the Identity for the call that the options tell, or an INVITE with it; raises LocalError.

    `data` is the INVITE, None where the options tell the call. With `--json` the Identity's parts are returned.
    """
    credential, now_s = credential_of(options), SystemClock().now_s()
    try:
        if data is None:
            header = sign_call(_request(options, int(now_s)), _granting(credential, options.rph), now_s)
            return _parts(header) if options.json else header.serialize()
        invite = read_invite(data)
        request = signing_of(invite, Terms(attest=options.attest), now_s, SystemRandom())
        header = sign_call(request, credential, now_s)
    except LocalError:
        raise
    except VoiceDpkiError as error:
        raise LocalError(f"not signed: {error}") from None
    return _parts(header) if options.json else encode(signed(invite, header.serialize(), request.iat_s)).decode()


def _granting(credential: Credential, auth: list[str] | None) -> Credential:
    """Return the credential with the namespaces of these values: whoever has the key says what it grants."""
    values = read_resource_priority(",".join(auth)) if auth else frozenset()
    return replace(credential, namespaces=frozenset(value.partition(".")[0] for value in values))


def _request(options: argparse.Namespace, iat_s: int) -> SigningRequest:
    """Return the request that the options stand for, read as the authentication server reads one."""
    members: dict[str, Any] = {"orig": {"tn": options.caller}, "dest": {"tn": [options.called]}, "iat": iat_s}
    if options.div:
        members |= {"ppt": "div", "div": {"tn": options.div}}
    elif options.rph:
        members |= {"ppt": "rph", "rph": {"auth": options.rph}}
    elif options.rcd:
        members |= {"ppt": "rcd", "rcd": {"nam": options.rcd}}
        members |= {"crn": options.reason} if options.reason else {}
    else:
        members |= {"attest": options.attest, "origid": _origid()}
    return read_signing(msgspec.json.encode({"signingRequest": members})).what


def _origid() -> str:
    return str(UUID(bytes=SystemRandom().token(16), version=4))


def _parts(header: IdentityHeader) -> str:
    jose, payload, _ = header.token.split(".")
    shown = {"identity": header.serialize()}
    decoded = {"header": base64url.decode(jose), "payload": base64url.decode(payload)}
    parts = {name: msgspec.Raw(text) for name, text in decoded.items()}
    return msgspec.json.format(msgspec.json.encode({**shown, **parts})).decode()


def csv(options: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of SIPp's injection file, each with a signed call; raises LocalError.

    The columns are caller, callee, Date, token and info. They end with semicolons, and SIPp knows no other way to
    write one, so the scenario puts the Identity together.

    Callers are consecutive numbers, in turns. With a rate, each row has the iat of the second in which its call is
    made.
    """
    credential, start_s = credential_of(options), SystemClock().now_s()
    try:
        first, called = canonical_tn(options.caller), canonical_tn(options.called)
        callers = itertools.cycle(_consecutive(first, options.callers))
        yield "SEQUENTIAL"
        for at, caller in enumerate(itertools.islice(callers, options.count)):
            iat_s = int(start_s + (at / options.rate if options.rate else 0))
            yield _row(caller, called, iat_s, options.attest, credential)
    except LocalError:
        raise
    except VoiceDpkiError as error:
        raise LocalError(f"not signed: {error}") from None


def _row(caller: Tn, called: Tn, iat_s: int, attest: str, credential: Credential) -> str:
    request = SigningRequest(attest, caller, Destinations((called,)), iat_s, _origid())
    header = sign_call(request, credential, iat_s)
    return f"{caller};{called};{date_value(iat_s)};{header.token};{header.info};"


def _consecutive(first: Tn, count: int) -> list[Tn]:
    if not (first.isascii() and first.isdigit()):
        raise LocalError("--callers counts up from a number of digits alone")
    return [Tn(str(int(first) + at).zfill(len(first))) for at in range(count)]


def write(lines: Iterable[str]) -> None:
    """Print the lines one by one."""
    for line in lines:
        sys.stdout.write(line + "\n")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what both commands need."""
    parser.add_argument("--certificate", type=Path, required=True, metavar="FILE", help="DER or PEM")
    parser.add_argument("--key", type=Path, required=True, metavar="FILE", help="its private key, PEM")
    parser.add_argument(
        "--info-url", default=INFO_URL, metavar="URL", help=f"x5u, with {{digest}}; default: {INFO_URL}"
    )
    parser.add_argument(
        "--attest", default="A", choices=sorted(ATTESTATIONS), help="attestation of a SHAKEN PASSporT; default: A"
    )
