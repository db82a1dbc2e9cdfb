"""The form of 3GPP TS 24.229 Annex V (reference point Ms) of the STIR services' HTTP interface: bodies, no sockets.

    POST /stir/v1/signing       {"signingRequest":{ppt?, attest, orig:{tn|uri}, dest:{tn:[]|uri:[]}, iat, origid}}
                                {"signingResponse":{identityHeader, requestId?}}
    POST /stir/v1/verification  {"verificationRequest":{identityHeader?, identityHeaders?:[], from:{tn|uri},
                                                        to:{tn|uri}, dest?:{tn|uri}, time, protectedHeaders?}}
                                {"verificationResponse":{verstatValue?, verifyResults:[{verifyResult:{...}}]}}
    errors                      {"error":text}                                                            V.2.4.3

Its members tell it from ATIS-1000082's (`is_signing`, `is_verification`). A verdict that fails is answered with
200, for clients count other statuses as failures of the service.

requestId, profileId, displayName, protectedHeaders and verifyResults come from public descriptions of services of
this form. The members keyMgmt and sdp are this project's own; so are step, signer, certificate, keyMgmt and sdp in
a verifyResult.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from voice_dpki.codec import canonical_json
from voice_dpki.errors import MalformedError
from voice_dpki.names import Tn, ascii_lower
from voice_dpki.stir.call import Call, SigningRequest
from voice_dpki.stir.faults import RequestError
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.kinds import KINDS, Kinds
from voice_dpki.stir.members import (
    CLAIMS,
    Digest,
    Identity,
    KeyMgmt,
    Meanings,
    Members,
    Number,
    Seconds,
    Signing,
    Uri,
    check_meaning,
    digest,
    kind_in,
    number,
    request_in,
    shaped,
    signing_request,
    uri,
)
from voice_dpki.stir.passport import Destinations, Passport
from voice_dpki.stir.tn import tn_in_uri
from voice_dpki.stir.verdict import Verdict, Verstat, overall

MAX_IDENTITIES: Final = 10
"""Identity header fields of one call: that of the caller, five diversions and a few for priority."""
MAX_LABEL_LENGTH: Final = 256
"""Characters of a requestId, profileId or displayName. Two of them come back in the answer."""
MAX_PROTECTED_LENGTH: Final = 2048

SIGNING_MARKS: Final = ("ppt", "requestId", "profileId", "div", "rph", "sph")
VERIFICATION_MARKS: Final = ("identityHeader", "identityHeaders", "dest", "protectedHeaders", "requestId")
SIGNING_MEANINGS: Meanings = {"": ("alg", "typ", "x5c", "x5u", *CLAIMS)}
VERIFICATION_MEANINGS: Meanings = {"": ("identity", "ppt", *CLAIMS)}

_TEXTS: Final = {
    "SVC4000": "Missing request body",
    "SVC4001": "Missing mandatory parameter",
    "SVC4002": "Requested response body type is not supported",
    "SVC4003": "Requested resource not found",
    "SVC4004": "Unsupported request body type",
    "SVC4005": "Invalid parameter value",
    "SVC4006": "Failed to parse message body",
    "SVC4007": "Missing mandatory Content-Length headers",
    "POL4050": "Method not allowed",
    "POL5000": "Internal server error",
}
"""Exception texts of V.2.4.3 by ATIS's identifier of the same fault; other faults have our sentence alone."""

_PPT = re.compile(r"[a-z-]{1,16}\Z")

Label = Annotated[str, Meta(max_length=MAX_LABEL_LENGTH)]
_ONE: Final = [
    {"type": "object", "required": [name], "properties": {name: {"type": "string"}}} for name in ("tn", "uri")
]


class PartyMs(Struct, frozen=True):
    """One party, by its number or by its URI."""

    tn: Number | None = None
    uri: Uri | None = None


Party = Annotated[PartyMs, Meta(extra_json_schema={"oneOf": _ONE})]
PartyOrNone = Annotated[PartyMs | None, Meta(extra_json_schema={"oneOf": [*_ONE, {"type": "null"}]})]


class SigningRequestMs(Signing, frozen=True, kw_only=True, rename="camel"):
    """A call to sign."""

    orig: Party
    ppt: Annotated[str, Meta(description="Type of the PASSporT; empty means shaken.")] | None = None
    profile_id: Label | None = None
    request_id: Label | None = None


class SigningBodyMs(Struct, frozen=True, rename="camel"):
    """A signing request of 3GPP TS 24.229 Annex V."""

    signing_request: SigningRequestMs


class SigningResponseMs(Struct, frozen=True, rename="camel", omit_defaults=True):
    """The Identity header field's value, and the request's requestId."""

    identity_header: str
    request_id: str | UnsetType = UNSET


class SigningAnswerMs(Struct, frozen=True, rename="camel"):
    """The answer to a signing request of 3GPP TS 24.229 Annex V."""

    signing_response: SigningResponseMs


_Protected = Annotated[str, Meta(max_length=MAX_PROTECTED_LENGTH)]
_ANY_IDENTITY = {"anyOf": [{"required": ["identityHeader"]}, {"required": ["identityHeaders"]}]}


class VerificationRequestMs(Struct, frozen=True, kw_only=True, rename="camel"):
    """A call to verify; identityHeader has the SHAKEN Identity, identityHeaders those of other types."""

    dest: Annotated[PartyOrNone, Meta(description="From the Request-URI.")] = None
    display_name: Label | None = None
    from_: Annotated[Party, Meta(description="From P-Asserted-Identity or From.")] = msgspec.field(name="from")
    identity_header: Identity | None = None
    identity_headers: Annotated[list[Identity], Meta(max_length=MAX_IDENTITIES)] | None = None
    key_mgmt: KeyMgmt | UnsetType = UNSET
    profile_id: Label | None = None
    protected_headers: _Protected | Annotated[list[_Protected], Meta(max_length=16)] | None = None
    request_id: Label | None = None
    sdp: Digest | UnsetType = UNSET
    time: Seconds
    to: Annotated[Party, Meta(description="From the To header field.")]


class VerificationBodyMs(Struct, frozen=True, rename="camel"):
    """A verification request of 3GPP TS 24.229 Annex V."""

    verification_request: Annotated[VerificationRequestMs, Meta(extra_json_schema=_ANY_IDENTITY)]


class VerifyResult(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What was found about one Identity header field."""

    ppt: Annotated[str, Meta(description="The type that the field names; empty if it names none.")]
    status: Literal["pass", "fail"]
    reason_code: int | UnsetType = UNSET
    reason_text: str = ""
    reason_description: str = ""
    passport: Annotated[str, Meta(description="The token, if it failed.")] = ""
    valid_claims: Annotated[dict[str, Any], Meta(description="The payload, if it passed.")] | UnsetType = UNSET
    step: str = ""
    signer: str = ""
    certificate: str = ""
    key_mgmt: str = ""
    sdp: str = ""


class VerifyResultRow(Struct, frozen=True, rename="camel"):
    """One of verifyResults."""

    verify_result: VerifyResult


class VerificationResponseMs(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The verdict; verstatValue is there if a SHAKEN Identity was asked about."""

    verstat_value: Verstat | UnsetType = UNSET
    verify_results: list[VerifyResultRow]
    request_id: str | UnsetType = UNSET
    display_name: str | UnsetType = UNSET


class VerificationAnswerMs(Struct, frozen=True, rename="camel"):
    """The answer to a verification request of 3GPP TS 24.229 Annex V."""

    verification_response: VerificationResponseMs


class ErrorAnswerMs(Struct, frozen=True):
    """The body of an error: the exception text of TS 24.229 V.2.4.3, and what was wrong."""

    error: str


def is_signing(body: Members) -> bool:
    """Tell whether a signing request has a member of this form alone."""
    request = body.get("signingRequest")
    if not isinstance(request, dict):
        return False
    return _has(request, *SIGNING_MARKS) or _has(request.get("orig"), "uri")


def is_verification(body: Members) -> bool:
    """Tell whether a verification request is of this form: it has no `identity`, but members of this form alone."""
    request = body.get("verificationRequest")
    if not isinstance(request, dict) or _has(request, "identity"):
        return False
    to = request.get("to")
    is_string = isinstance(to, dict) and any(isinstance(to.get(name), str) for name in ("tn", "uri"))
    return is_string or _has(request, *VERIFICATION_MARKS) or _has(request.get("from"), "uri")


def _has(value: object, *names: str) -> bool:
    if not isinstance(value, dict) or value.keys().isdisjoint(names):
        return False
    return any(value.get(name) is not None for name in names)


def parse_signing_request(body: Members, kinds: Kinds = KINDS) -> tuple[SigningRequest, str | None]:
    """Read a decoded signing request for one of `kinds`, with its requestId; raises RequestError."""
    request = request_in(body, "signingRequest")
    kind = kind_in(request, kinds)
    check_meaning(request, SIGNING_MEANINGS, admitted=kind.members)
    given = shaped(request, SigningRequestMs)
    return signing_request(request, given, kind, _caller(given.orig, "orig")), given.request_id


def parse_verification_request(body: Members) -> tuple[Call, VerificationRequestMs]:
    """Read a decoded verification request, but not the Identities in it; raises RequestError.

    A `dest` of another party than `to` says that the call was retargeted. Then a token must name both, until
    diversions are supported.
    """
    request = request_in(body, "verificationRequest")
    check_meaning(request, VERIFICATION_MEANINGS)
    given = shaped(request, VerificationRequestMs)
    _check_protected(given)
    called = [_called(given.to, "to"), *([_called(given.dest, "dest")] if given.dest is not None else [])]
    call = Call(
        orig=_caller(given.from_, "from"),
        dest=_together(called),
        time_s=given.time,
        identities=_identities(given),
        key_mgmt=None if given.key_mgmt is UNSET else tuple(given.key_mgmt),
        sdp=digest(given.sdp),
    )
    return call, given


def signing_response(identity: IdentityHeader, request_id: str | None) -> bytes:
    """Encode the answer to a signing request."""
    response = SigningResponseMs(identity.serialize(), UNSET if request_id is None else request_id)
    return msgspec.json.encode(SigningAnswerMs(response))


def verification_response(call: Call, verdicts: Sequence[Verdict], given: VerificationRequestMs) -> bytes:
    """Encode the verdicts on the call's Identities, in their order."""
    results = [_result(identity, verdict) for identity, verdict in zip(call.identities, verdicts, strict=True)]
    is_about_caller = given.identity_header is not None or any(result.ppt == "shaken" for result in results)
    response = VerificationResponseMs(
        verstat_value=overall(verdicts).verstat if is_about_caller else UNSET,
        verify_results=[VerifyResultRow(result) for result in results],
        request_id=UNSET if given.request_id is None else given.request_id,
        display_name=UNSET if given.display_name is None else given.display_name,
    )
    return msgspec.json.encode(VerificationAnswerMs(response))


def error_body(error: RequestError) -> bytes:
    """Encode an error."""
    text = _TEXTS.get(error.message_id)
    return msgspec.json.encode(ErrorAnswerMs(f"{text}. {error.sentence}" if text else error.sentence))


def _result(identity: str, verdict: Verdict) -> VerifyResult:
    """Return the row for one Identity. Only what can be decoded as a token is given back."""
    has_passed = verdict.reasoncode is None
    header, passport = _opened(identity)
    return VerifyResult(
        ppt=_ppt(header, passport),
        status="pass" if has_passed else "fail",
        reason_code=UNSET if verdict.reasoncode is None else verdict.reasoncode,
        reason_text=verdict.reasontext,
        reason_description=verdict.reasondesc,
        passport="" if has_passed or header is None or passport is None else header.token,
        valid_claims=_claims(passport) if has_passed and passport is not None else UNSET,
        step=verdict.step,
        signer=verdict.signer,
        certificate=verdict.certificate.hex() if verdict.certificate else "",
        key_mgmt=verdict.key_mgmt,
        sdp=verdict.sdp,
    )


def _claims(passport: Passport) -> dict[str, Any]:
    return dict(canonical_json.decode_object(passport.payload_untrusted))


def _opened(identity: str) -> tuple[IdentityHeader | None, Passport | None]:
    """Parse as much of an Identity as can be parsed."""
    header = None
    try:
        header = IdentityHeader.parse(identity)
        return header, Passport.parse(header.token)
    except MalformedError:
        return header, None


def _ppt(header: IdentityHeader | None, passport: Passport | None) -> str:
    """Return the type that the header field names, or else the token; "" if neither does."""
    named = ascii_lower((header and header.ppt) or (passport and passport.header_text("ppt")) or "")
    return named if _PPT.match(named) else ""


def _identities(given: VerificationRequestMs) -> tuple[str, ...]:
    first = () if given.identity_header is None else (given.identity_header,)
    identities = (*first, *(given.identity_headers or ()))
    if not identities:
        raise RequestError("SVC4001", "identityHeader")
    if len(identities) > MAX_IDENTITIES:
        raise RequestError(
            "SVC4005", "identityHeaders", f"at most {MAX_IDENTITIES} Identities are verified together"
        )
    return identities


def _check_protected(given: VerificationRequestMs) -> None:
    """Refuse header fields for which there is no token. Those of `identityHeaders` have a verdict of their own."""
    if given.protected_headers is not None and not given.identity_headers:
        raise RequestError("SVC4005", "protectedHeaders", "no token of identityHeaders could protect them")


def _caller(party: PartyMs, place: str) -> Tn:
    """Read the calling party's number; raises RequestError."""
    _check_one(party, place)
    if party.tn is not None:
        return number(party.tn, f"{place}.tn")
    tn = tn_in_uri(party.uri or "")
    if tn is None:
        raise RequestError(
            "SVC4005", f"{place}.uri", "it has no user=phone, and only numbers are supported as callers"
        )
    return tn


def _called(party: PartyMs, place: str) -> Destinations:
    _check_one(party, place)
    if party.tn is not None:
        return Destinations((number(party.tn, f"{place}.tn"),))
    return uri(party.uri or "", f"{place}.uri")


def _check_one(party: PartyMs, place: str) -> None:
    if party.tn is None and party.uri is None:
        raise RequestError("SVC4001", f"{place}.tn")
    if party.tn is not None and party.uri is not None:
        raise RequestError("SVC4005", place, "tn and uri name it twice")


def _together(parties: Sequence[Destinations]) -> Destinations:
    tns = dict.fromkeys(tn for each in parties for tn in each.tns)
    return Destinations(tuple(tns), tuple(dict.fromkeys(other for each in parties for other in each.uris)))
