"""The answers of the form of 3GPP TS 24.229 Annex V (`voice_dpki.stir.ms`): bodies, no sockets."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from voice_dpki.codec import canonical_json
from voice_dpki.errors import MalformedError
from voice_dpki.names import ascii_lower
from voice_dpki.stir.action import Action, action_of
from voice_dpki.stir.call import Call
from voice_dpki.stir.div import DIV
from voice_dpki.stir.div_o import DIV_O
from voice_dpki.stir.faults import Bypass, RequestError
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.ms import VerificationRequestMs
from voice_dpki.stir.passport import ClaimError, Passport
from voice_dpki.stir.rph import RPH
from voice_dpki.stir.verdict import Verdict, Verstat, overall, told_trust

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


class SigningResponseMs(Struct, frozen=True, rename="camel", omit_defaults=True):
    """The Identity header field's value, and the request's requestId."""

    identity_header: str
    request_id: str | UnsetType = UNSET


class SigningAnswerMs(Struct, frozen=True, rename="camel"):
    """The answer to a signing request of 3GPP TS 24.229 Annex V."""

    signing_response: SigningResponseMs


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
    trust: str = ""


class VerifyResultRow(Struct, frozen=True, rename="camel"):
    """One of verifyResults."""

    verify_result: VerifyResult


class DivertingMs(Struct, frozen=True):
    """A party that diverted the call."""

    tn: str


class DivResult(Struct, frozen=True, rename="camel"):
    """What was found about one diversion."""

    div: DivertingMs
    verstat_value: Annotated[Verstat, Meta(description="Whether the diverting party's number is proven.")]


class VerificationResponseMs(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The verdict; verstatValue is there if an Identity was asked about that may prove the caller."""

    verstat_value: Verstat | UnsetType = UNSET
    div_result: list[DivResult] | UnsetType = UNSET
    verstat_priority: (
        Annotated[Literal["RPH-Validation-Passed"], Meta(description="There if the call's priority is proven.")]
        | UnsetType
    ) = UNSET
    verify_results: list[VerifyResultRow]
    request_id: str | UnsetType = UNSET
    display_name: str | UnsetType = UNSET
    out_of_band: Annotated[bool, Meta(description="There if a PASSporT out of band decided.")] = False
    action: Action | UnsetType = UNSET


class VerificationAnswerMs(Struct, frozen=True, rename="camel"):
    """The answer to a verification request of 3GPP TS 24.229 Annex V."""

    verification_response: VerificationResponseMs


class ErrorAnswerMs(Struct, frozen=True, omit_defaults=True):
    """The body of an error: the exception text of TS 24.229 V.2.4.3, and what was wrong."""

    error: str
    bypass: Bypass = ""


def signing_response(identity: IdentityHeader, request_id: str | None) -> bytes:
    """Encode the answer to a signing request."""
    response = SigningResponseMs(identity.serialize(), UNSET if request_id is None else request_id)
    return msgspec.json.encode(SigningAnswerMs(response))


def verification_response(call: Call, verdicts: Sequence[Verdict], given: VerificationRequestMs) -> bytes:
    """Encode the verdicts on the call's Identities, in their order; without any, those on the call itself."""
    identities = call.identities or [verdict.retrieved for verdict in verdicts]
    pairs = [(*_opened(identity), verdict) for identity, verdict in zip(identities, verdicts, strict=True)]
    results = [_result(*each) for each in pairs]
    names_caller = any(result.ppt == "shaken" for result in results) or overall(verdicts).ok
    is_about_caller = given.identity_header is not None or names_caller or not call.identities
    response = VerificationResponseMs(
        verstat_value=overall(verdicts).verstat if is_about_caller else UNSET,
        div_result=[row for each in pairs for row in _diversions(*each)] or UNSET,
        verstat_priority="RPH-Validation-Passed" if _has_priority(call, results) else UNSET,
        verify_results=[VerifyResultRow(result) for result in results],
        request_id=UNSET if given.request_id is None else given.request_id,
        display_name=UNSET if given.display_name is None else given.display_name,
        out_of_band=overall(verdicts).out_of_band,
        action=action_of(overall(verdicts).treatment),
    )
    return msgspec.json.encode(VerificationAnswerMs(response))


def _diversions(header: IdentityHeader | None, passport: Passport | None, verdict: Verdict) -> list[DivResult]:
    """Return the rows of divResult for an Identity: one for a readable div or div-o, none for any other."""
    kind = next((kind for kind in (DIV, DIV_O) if kind.ppt == _ppt(header, passport)), None)
    if passport is None or kind is None:
        return []
    try:
        div = kind.parse(passport.payload_untrusted).div
    except (MalformedError, ClaimError):
        return []
    return [DivResult(DivertingMs(div.tn), Verstat.PASSED if verdict.reasoncode is None else verdict.verstat)]


def _has_priority(call: Call, results: Sequence[VerifyResult]) -> bool:
    """Tell whether tokens that passed grant every value of Resource-Priority that the call is known to have."""
    granted: set[str] = set()
    for result in results:
        if result.ppt == RPH.ppt and result.valid_claims is not UNSET:
            granted.update(map(ascii_lower, result.valid_claims["rph"]["auth"]))
    return bool(granted) and granted >= (call.resource_priority or set())


def error_body(error: RequestError) -> bytes:
    """Encode an error."""
    text = _TEXTS.get(error.message_id)
    said = f"{text}. {error.sentence}" if text else error.sentence
    return msgspec.json.encode(ErrorAnswerMs(said, error.bypass))


def _result(header: IdentityHeader | None, passport: Passport | None, verdict: Verdict) -> VerifyResult:
    """Return the row for one Identity. Its `passport` repeats only a token that could be decoded."""
    has_passed = verdict.reasoncode is None
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
        trust=told_trust(verdict),
    )


def _claims(passport: Passport) -> dict[str, Any]:
    return dict(canonical_json.decode_object(passport.payload_untrusted))


def _opened(identity: str) -> tuple[IdentityHeader | None, Passport | None]:
    """Parse an Identity and its token; a part that cannot be parsed is None."""
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
