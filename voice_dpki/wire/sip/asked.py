"""What an INVITE asks of the STIR services, and how their answers are written into it (RFC 8224 §6). No I/O.

The sender of the INVITE is trusted to have authenticated the caller, so P-Asserted-Identity takes precedence over
From (ATIS-1000074 §5.2.1, §5.3.1). To is the called party, and on verification the Request-URI as well: without a
diversion both name the same party, and with diversions the call goes to the Request-URI's. SHAKEN is the only kind
of PASSporT that an INVITE asks for.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final
from urllib.parse import quote
from uuid import UUID

from sipmessage import URI, Request

from voice_dpki.effects import Random
from voice_dpki.errors import MalformedError
from voice_dpki.names import Tn, ascii_lower
from voice_dpki.sip.assertions import remove_assertions, without_verstat
from voice_dpki.sip.message import copy_request, header_values, parse_address, parse_message, required_header
from voice_dpki.stir.body import body_digest
from voice_dpki.stir.call import NO_CALLER_NUMBER, Call, SigningRequest, Source
from voice_dpki.stir.faults import RequestError
from voice_dpki.stir.national import Country
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.rph import read_resource_priority
from voice_dpki.stir.shaken import read_attest, read_origid
from voice_dpki.stir.tn import canonical_uri
from voice_dpki.wire.sip.invite import caller_uri, date_of, key_mgmt_of, number_of

MAX_IDENTITIES: Final = 10
"""Identity header fields of one call: that of the caller, five diversions and a few for priority."""
ATTEST_HEADERS: Final = ("Attestation-Info", "P-Attestation-Info", "Attestation")
"""Header fields for the attestation, as 3GPP TS 24.229 §7.2.18 and networks name them."""
ORIGID_HEADERS: Final = ("Origination-Id", "P-Origination-Id")
"""Header fields for the origination identifier (3GPP TS 24.229 §7.2.19)."""
BYPASS_HEADER: Final = "P-Identity-Bypass"
"""Header field of a call whose operator could not sign it through its own fault, with a token agreed on (MAN)."""
_USER_CHARS: Final = "-_.!~*'()&=+$,?/"
"""Unescaped characters of a URI's user besides letters and digits (RFC 3261 §25.1), without the semicolon."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Terms on which the INVITEs of one sender are signed."""

    attest: str = ""
    """The default attestation; "" if the INVITE must name it in a header field."""
    attest_by_header: bool = True
    """Whether ATTEST_HEADERS are used. They must not be where subscribers could set them."""
    sign_sdp: bool = False
    """Whether the whole SDP is signed. No element after the signer may then change it."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The calling party."""

    uri: URI
    number: Tn


class NoCallerError(MalformedError):
    """Neither P-Asserted-Identity nor From names a telephone number."""


def with_crlf(data: bytes) -> bytes:
    """Return a message with LF, as editors save it, turned into CRLF; unchanged if it has a CRLF."""
    return data if b"\r\n" in data else data.replace(b"\n", b"\r\n")


def read_invite(data: bytes) -> Request:
    """Read the text of an INVITE; raises RequestError."""
    if not data:
        raise RequestError("SVC4000")
    try:
        message = parse_message(with_crlf(data))
    except MalformedError as error:
        raise RequestError("SVC4006", str(error)) from None
    if not isinstance(message, Request) or message.method != "INVITE":
        raise RequestError("SVC4006", "it is no INVITE")
    return message


def caller_of(request: Request, *, from_first: bool = False, country: Country | None = None) -> Caller:
    """Return who calls; raises MalformedError, and NoCallerError where no number is named.

    P-Asserted-Identity takes precedence over From, or the reverse if `from_first`. Numbers are read as numbers of
    `country`; without it they are international.
    """
    asserted = [parse_address(value).uri for value in header_values(request, "P-Asserted-Identity")]
    said = caller_uri(request)
    for uri in (said, *asserted) if from_first else (*asserted, said):
        if (number := _number(uri, country)) is not None:
            return Caller(uri, number)
    raise NoCallerError("neither P-Asserted-Identity nor From names a telephone number")


def signing_of(
    request: Request, terms: Terms, now_s: float, random: Random, country: Country | None = None
) -> SigningRequest:
    """Return what an INVITE asks to have signed; raises RequestError.

    Its numbers are read as numbers of `country`. The time is that of Date, or `now_s` if there is none. An INVITE
    that is signed already is refused.
    """
    if request.headers.getlist("Identity"):
        raise RequestError("SVC4005", "Identity", "the INVITE is signed already")
    try:
        return SigningRequest(
            attest=_attest(request, terms),
            orig=caller_of(request, country=country).number,
            dest=_called(parse_address(required_header(request, "To")).uri, country),
            iat_s=date_of(request, now_s),
            origid=_origid(request, random),
            key_mgmt=key_mgmt_of(request),
            sdp=_body_digest(request) if terms.sign_sdp else None,
            source=source_of(request),
            call_id=_call_id(request),
        )
    except NoCallerError as error:
        raise RequestError("SVC4005", "From", str(error)) from None
    except MalformedError as error:
        raise RequestError("SVC4006", str(error)) from None


def bypass_of(request: Request) -> str:
    """Return the token of a call whose operator could not sign it; "" if there is none, or more than one."""
    tokens = [value.strip() for value in request.headers.getlist(BYPASS_HEADER)]
    return tokens[0] if len(tokens) == 1 else ""


def source_of(request: Request) -> Source:
    """Return the user that the proxy has authenticated and the call's trunk group; raises MalformedError.

    P-Asserted-Identity names the authenticated user (RFC 3325 §9.1), and the user of the Contact has the trunk
    group by which the call came, `tgrp` (RFC 4904).
    """
    asserted = [parse_address(value).uri for value in header_values(request, "P-Asserted-Identity")]
    contacts = [parse_address(value).uri for value in header_values(request, "Contact")]
    _, *parameters = (contacts[0].user or "").split(";") if contacts else ("",)
    trunks = [
        value for name, _, value in (each.partition("=") for each in parameters) if ascii_lower(name) == "tgrp"
    ]
    return Source(trunk=trunks[0] if trunks else "", user=(asserted[0].user or "") if asserted else "")


def call_of(request: Request, now_s: float, *, from_first: bool = False, country: Country | None = None) -> Call:
    """Return the call that an INVITE asks to have verified; `identities` is empty where it has none.

    `from_first` and `country` are those of `caller_of`. Without a calling number, `orig` is NO_CALLER_NUMBER.
    Raises RequestError for an INVITE that cannot be read.
    """
    identities = tuple(request.headers.getlist("Identity"))
    if len(identities) > MAX_IDENTITIES:
        raise RequestError("SVC4005", "Identity", f"at most {MAX_IDENTITIES} Identities are verified together")
    try:
        target = _called(request.uri, country)
        return Call(
            orig=_caller_number(request, from_first, country),
            dest=_together(_called(parse_address(required_header(request, "To")).uri, country), target),
            time_s=date_of(request, now_s),
            identities=identities,
            key_mgmt=key_mgmt_of(request),
            sdp=_body_digest(request),
            target=target,
            resource_priority=_resource_priority(request),
            priority=ascii_lower((request.headers.get("Priority") or "").strip()),
            call_id=_call_id(request),
        )
    except MalformedError as error:
        raise RequestError("SVC4006", str(error)) from None


def signed(request: Request, identity: str, iat_s: int) -> Request:
    """Return a copy of an INVITE with its Identity, and with the Date that was signed if it had none."""
    copy = copy_request(request)
    if copy.headers.get("Date") is None:
        copy.headers.set("Date", date_value(iat_s))
    copy.headers.add("Identity", identity)
    return copy


def asserted(request: Request, assertion: str, *, withheld: bool = False) -> Request:
    """Return a copy of an INVITE with `assertion` in place of its P-Asserted-Identity.

    With `withheld`, Privacy asks that the callee is not shown it (RFC 3325 §9.3).
    """
    copy = copy_request(request)
    remove_assertions(copy)
    copy.headers.set("P-Asserted-Identity", assertion)
    if withheld:
        asked = (each.strip() for value in request.headers.getlist("Privacy") for each in value.split(";"))
        kept = [each for each in asked if each and ascii_lower(each) not in ("id", "none")]
        copy.headers.set("Privacy", ";".join([*kept, "id"]))
    return copy


def assertion_of(request: Request, verstat: str, *, from_first: bool = False) -> str:
    """Return the value of P-Asserted-Identity that names the INVITE's caller with a verstat (TS 24.229 §7.2A.20).

    `from_first` is that of `caller_of`. With "" it has no verstat. Without a number, the caller is the From's URI.
    Raises MalformedError.
    """
    try:
        uri = caller_of(request, from_first=from_first).uri
    except NoCallerError:
        uri = caller_uri(request)
    is_number = number_of(uri) is not None
    given = uri.user or ""
    user = quote(given.split(";")[0] if is_number else without_verstat(given), safe=_USER_CHARS)
    told = f";verstat={verstat}" if verstat else ""
    if uri.scheme == "tel":
        return f"<tel:{user}{told}>"
    if not user:
        return f"<{uri.scheme}:{uri.host}>"
    return f"<{uri.scheme}:{user}{told}@{uri.host}{';user=phone' if is_number else ''}>"


def date_value(time_s: int) -> str:
    """Return the value of a Date header field (RFC 3261 §20.17)."""
    return format_datetime(datetime.fromtimestamp(time_s, UTC), usegmt=True)


def _attest(request: Request, terms: Terms) -> str:
    given = _said(request, ATTEST_HEADERS) if terms.attest_by_header else None
    attest = given or terms.attest
    if not attest:
        raise RequestError("SVC4001", ATTEST_HEADERS[0])
    try:
        return read_attest(attest)
    except MalformedError as error:
        raise RequestError("SVC4005", ATTEST_HEADERS[0], str(error)) from None


def _origid(request: Request, random: Random) -> str:
    given = _said(request, ORIGID_HEADERS)
    try:
        return read_origid(given) if given else str(UUID(bytes=random.token(16), version=4))
    except MalformedError as error:
        raise RequestError("SVC4005", ORIGID_HEADERS[0], str(error)) from None


def _said(request: Request, names: tuple[str, ...]) -> str | None:
    """Return the common value of these header fields, None if none is there; raises RequestError if they differ."""
    values = {value.strip().strip('"') for name in names for value in request.headers.getlist(name)}
    if len(values) > 1:
        raise RequestError("SVC4005", names[0], "header fields say different things")
    return values.pop() if values else None


def _caller_number(request: Request, from_first: bool, country: Country | None) -> Tn:
    try:
        return caller_of(request, from_first=from_first, country=country).number
    except NoCallerError:
        return NO_CALLER_NUMBER


def _number(uri: URI, country: Country | None) -> Tn | None:
    """Return the number that a URI names, read as one of `country`; raises MalformedError if it is ambiguous."""
    if country is None:
        return number_of(uri)
    return number_of(replace(uri, user=country.international((uri.user or "").split(";")[0])))


def _called(uri: URI, country: Country | None) -> Destinations:
    number = _number(uri, country)
    if number is not None:
        return Destinations((number,))
    return Destinations(uris=(canonical_uri(str(uri)),))


def _resource_priority(request: Request) -> frozenset[str]:
    """Return the values of Resource-Priority; empty for a malformed field, which grants nothing."""
    values = header_values(request, "Resource-Priority")
    try:
        return read_resource_priority(",".join(values)) if values else frozenset()
    except MalformedError:
        return frozenset()


def _together(*parties: Destinations) -> Destinations:
    tns = dict.fromkeys(tn for each in parties for tn in each.tns)
    return Destinations(tuple(tns), tuple(dict.fromkeys(other for each in parties for other in each.uris)))


def _body_digest(request: Request) -> bytes:
    return body_digest(request.body, request.headers.get("Content-Type"))


def _call_id(request: Request) -> str:
    return (request.headers.get("Call-ID") or "").strip()
