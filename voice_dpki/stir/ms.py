"""The form of 3GPP TS 24.229 Annex V (reference point Ms) of the STIR services' HTTP interface: bodies, no sockets.

    POST /stir/v1/signing       {"signingRequest":{ppt?, orig:{tn|uri}, dest:{tn:[]|uri:[]}, iat, and for shaken
                                                   attest, origid; for div div:{tn|uri, hi?}; for rph rph:{auth:[]},
                                                   sph?; for rcd rcd:{nam, ...}, rcdi?, crn?}}
                                {"signingResponse":{identityHeader, requestId?}}
    POST /stir/v1/verification  {"verificationRequest":{identityHeader?, identityHeaders?:[], from:{tn|uri},
                                                        to:{tn|uri}, dest?:{tn|uri}, time, protectedHeaders?,
                                                        outOfBand?}}
                                {"verificationResponse":{verstatValue?, divResult?:[{div:{tn}, verstatValue}],
                                                         verstatPriority?, verifyResults:[{verifyResult:{...}}]}}
    errors                      {"error":text}                                                            V.2.4.3

Its members distinguish it from the form of ATIS-1000082 (`is_signing`, `is_verification`). A failed verification is
answered with 200, because clients count other statuses as failures of the service.

requestId, profileId, displayName, protectedHeaders and verifyResults come from public descriptions of services of
this form. The members answer, callId, keyMgmt, outOfBand and sdp are this project's own; so are step, signer,
certificate, keyMgmt and sdp in a verifyResult, and outOfBand in a verificationResponse.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from voice_dpki.names import Tn, ascii_lower
from voice_dpki.stir.call import Call, SigningRequest, Source
from voice_dpki.stir.div import HISTORY_INDEX
from voice_dpki.stir.div_o import MAX_OPT_LENGTH
from voice_dpki.stir.faults import RequestError
from voice_dpki.stir.kinds import KINDS, Kinds
from voice_dpki.stir.members import (
    CLAIMS,
    CallerUri,
    CallId,
    Digest,
    Identity,
    IsAnswer,
    KeyMgmt,
    Meanings,
    Members,
    Number,
    OutOfBand,
    Seconds,
    Signing,
    Uri,
    check_meaning,
    digest,
    kind_in,
    number,
    read,
    request_in,
    shaped,
    signing_request,
    uri,
)
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.rcd import INTEGRITY, MAX_POINTER_LENGTH, MAX_TEXT_LENGTH, MAX_URL_LENGTH, POINTER, URL
from voice_dpki.stir.rph import MAX_VALUES, PSAP_CALLBACK, R_VALUE, read_resource_priority
from voice_dpki.stir.tn import tn_in_uri

MAX_IDENTITIES: Final = 10
"""Identity header fields of one call: that of the caller, five diversions and a few for priority."""
MAX_LABEL_LENGTH: Final = 256
"""Characters of a requestId, profileId or displayName. The answer repeats requestId and displayName."""
MAX_PROTECTED_LENGTH: Final = 2048

SIGNING_MARKS: Final = ("ppt", "requestId", "profileId", "div", "rph", "sph")
VERIFICATION_MARKS: Final = ("identityHeader", "identityHeaders", "dest", "protectedHeaders", "requestId")
SIGNING_MEANINGS: Meanings = {"": ("alg", "typ", "x5c", "x5u", *CLAIMS)}
VERIFICATION_MEANINGS: Meanings = {"": ("identity", "ppt", *CLAIMS)}

Label = Annotated[str, Meta(max_length=MAX_LABEL_LENGTH)]
DataUrl = Annotated[str, Meta(max_length=MAX_URL_LENGTH, extra_json_schema={"pattern": f"^{URL}$"})]
_ONE: Final = [
    {"type": "object", "required": [name], "properties": {name: {"type": "string"}}} for name in ("tn", "uri")
]


class PartyMs(Struct, frozen=True):
    """One party, by its number or by its URI."""

    tn: Number | None = None
    uri: Uri | None = None


Party = Annotated[PartyMs, Meta(extra_json_schema={"oneOf": _ONE})]
PartyOrNone = Annotated[PartyMs | None, Meta(extra_json_schema={"oneOf": [*_ONE, {"type": "null"}]})]


class CallerMs(Struct, frozen=True):
    """The calling party, by its number or by a URI of it."""

    tn: Number | None = None
    uri: CallerUri | None = None


Calling = Annotated[CallerMs, Meta(extra_json_schema={"oneOf": _ONE})]


class DivMs(Struct, frozen=True):
    """The party that diverted the call: who was in the Request-URI before (RFC 8946)."""

    tn: Number | None = None
    uri: Uri | None = None
    hi: (
        Annotated[
            str,
            Meta(description="Index of its History-Info.", extra_json_schema={"pattern": f"^(?:{HISTORY_INDEX})$"}),
        ]
        | None
    ) = None


class RphMs(Struct, frozen=True):
    """The values of Resource-Priority that are granted (RFC 8443)."""

    auth: Annotated[
        list[Annotated[str, Meta(extra_json_schema={"pattern": f"^(?:{R_VALUE})$"})]],
        Meta(min_length=1, max_length=MAX_VALUES, examples=[["ets.0", "wps.0"]]),
    ]


class RcdMs(Struct, frozen=True):
    """What the callee is shown of the caller (RFC 9795)."""

    nam: Annotated[str, Meta(description="The caller's name.", min_length=1, max_length=MAX_TEXT_LENGTH)]
    apn: Annotated[str, Meta(description="Another number to show.")] | UnsetType = UNSET
    icn: DataUrl | UnsetType = UNSET
    jcd: Annotated[list[Any], Meta(description="A jCard (RFC 7095).", min_length=1)] | UnsetType = UNSET
    jcl: DataUrl | UnsetType = UNSET


class SigningRequestMs(Signing, frozen=True, kw_only=True, rename="camel"):
    """A call to sign."""

    crn: Annotated[str, Meta(description="Why the caller calls (RFC 9795).", max_length=MAX_TEXT_LENGTH)] | None = (
        None
    )
    div: Annotated[DivMs | None, Meta(extra_json_schema={"oneOf": [*_ONE, {"type": "null"}]})] = None
    opt: Annotated[str, Meta(description="For div-o: the diverted token.", max_length=MAX_OPT_LENGTH)] | None = None
    orig: Calling
    ppt: Annotated[str, Meta(description="Type of the PASSporT; empty means shaken.")] | None = None
    profile_id: Label | None = None
    request_id: Label | None = None
    rcd: RcdMs | None = None
    rcdi: (
        Annotated[
            dict[
                Annotated[str, Meta(max_length=MAX_POINTER_LENGTH, extra_json_schema={"pattern": f"^{POINTER}$"})],
                Annotated[str, Meta(extra_json_schema={"pattern": f"^{INTEGRITY}$"})],
            ],
            Meta(description="Digests by JSON pointer into rcd, needed for each URL.", min_length=1, max_length=32),
        ]
        | None
    ) = None
    rph: RphMs | None = None
    sph: Annotated[str, Meta(extra_json_schema={"const": PSAP_CALLBACK})] | None = None


class SigningBodyMs(Struct, frozen=True, rename="camel"):
    """A signing request of 3GPP TS 24.229 Annex V."""

    signing_request: SigningRequestMs


_Protected = Annotated[str, Meta(max_length=MAX_PROTECTED_LENGTH)]
_ANY_IDENTITY = {
    "anyOf": [
        {"required": ["identityHeader"], "properties": {"identityHeader": {"not": {"type": "null"}}}},
        {"required": ["identityHeaders"], "properties": {"identityHeaders": {"type": "array", "minItems": 1}}},
        {"required": ["outOfBand"], "properties": {"outOfBand": {"const": True}}},
    ]
}


class VerificationRequestMs(Struct, frozen=True, kw_only=True, rename="camel"):
    """A call to verify; identityHeader has the SHAKEN Identity, identityHeaders those of other types."""

    answer: IsAnswer | None = None
    call_id: CallId | None = None
    dest: Annotated[PartyOrNone, Meta(description="From the Request-URI.")] = None
    display_name: Label | None = None
    from_: Annotated[Calling, Meta(description="From P-Asserted-Identity or From.")] = msgspec.field(name="from")
    identity_header: Identity | None = None
    identity_headers: Annotated[list[Identity], Meta(max_length=MAX_IDENTITIES)] | None = None
    key_mgmt: KeyMgmt | UnsetType = UNSET
    out_of_band: OutOfBand | None = None
    profile_id: Label | None = None
    protected_headers: _Protected | Annotated[list[_Protected], Meta(max_length=16)] | None = None
    request_id: Label | None = None
    sdp: Digest | UnsetType = UNSET
    time: Seconds
    to: Annotated[Party, Meta(description="From the To header field.")]
    trunk: (
        Annotated[Label, Meta(description="Own: a name that the rules of the server's operator know.")] | None
    ) = None


class VerificationBodyMs(Struct, frozen=True, rename="camel"):
    """A verification request of 3GPP TS 24.229 Annex V."""

    verification_request: Annotated[VerificationRequestMs, Meta(extra_json_schema=_ANY_IDENTITY)]


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


def parse_signing_request(body: Members, kinds: Kinds = KINDS, peer: str = "") -> tuple[SigningRequest, str | None]:
    """Read a decoded signing request of a `peer` for one of `kinds`, with its requestId; raises RequestError."""
    request = request_in(body, "signingRequest")
    kind = kind_in(request, kinds)
    check_meaning(request, SIGNING_MEANINGS, admitted=(*kind.members, *kind.options))
    given = shaped(request, SigningRequestMs)
    return signing_request(request, given, kind, _caller(given.orig, "orig"), peer), given.request_id


def parse_verification_request(body: Members, peer: str = "") -> tuple[Call, VerificationRequestMs]:
    """Read a decoded verification request of a `peer`; leaves the Identities unparsed; raises RequestError.

    A `dest` of another party than `to` says that the call was retargeted. Then a token must name both, or
    diversions must lead from the party that it names to `dest`.
    """
    request = request_in(body, "verificationRequest")
    check_meaning(request, VERIFICATION_MEANINGS)
    given = shaped(request, VerificationRequestMs)
    protected = _protected(given)
    target = _called(given.dest, "dest") if given.dest is not None else None
    called = [_called(given.to, "to"), *([target] if target is not None else [])]
    call = Call(
        orig=_caller(given.from_, "from"),
        dest=_together(called),
        time_s=given.time,
        identities=_identities(given),
        key_mgmt=None if given.key_mgmt is UNSET else tuple(given.key_mgmt),
        sdp=digest(given.sdp),
        source=Source(peer, given.trunk or ""),
        target=target,
        resource_priority=_resource_priority(protected),
        priority=ascii_lower(protected["priority"]) if "priority" in protected else None,
        call_id=given.call_id or "",
        is_answer=given.answer is True,
    )
    return call, given


def _identities(given: VerificationRequestMs) -> tuple[str, ...]:
    first = () if given.identity_header is None else (given.identity_header,)
    identities = (*first, *(given.identity_headers or ()))
    if not identities and given.out_of_band is not True:
        raise RequestError("SVC4001", "identityHeader")
    if len(identities) > MAX_IDENTITIES:
        raise RequestError(
            "SVC4005", "identityHeaders", f"at most {MAX_IDENTITIES} Identities are verified together"
        )
    return identities


def _protected(given: VerificationRequestMs) -> Mapping[str, str]:
    """Return the protected header fields by lower-case name, those of one name joined by commas (RFC 3261 §7.3.1).

    Raises RequestError if no token could protect them, or for anything but header fields. Examples of the form
    write a single field as a string in brackets.
    """
    fields = given.protected_headers
    if fields is None:
        return {}
    if not given.identity_headers:
        raise RequestError("SVC4005", "protectedHeaders", "no token of identityHeaders could protect them")
    protected: dict[str, str] = {}
    for line in [fields] if isinstance(fields, str) else fields:
        name, colon, value = line.strip(" []").partition(":")
        name, value = ascii_lower(name.strip(" \t")), value.strip(" \t")
        if not colon or not name:
            raise RequestError("SVC4005", "protectedHeaders", "it holds something else than header fields")
        protected[name] = f"{protected[name]},{value}" if name in protected else value
    return protected


def _resource_priority(protected: Mapping[str, str]) -> frozenset[str] | None:
    text = protected.get("resource-priority")
    return None if text is None else read(read_resource_priority, text, "protectedHeaders")


def _caller(party: CallerMs, place: str) -> Tn:
    """Read the calling party's number; raises RequestError."""
    _check_one(party, place)
    if party.tn is not None:
        return number(party.tn, f"{place}.tn")
    tn = tn_in_uri(party.uri or "")
    if tn is None:
        raise RequestError(
            "SVC4005",
            f"{place}.uri",
            "it names no number, as tel and user=phone do, and others are no callers here",
        )
    return tn


def _called(party: PartyMs, place: str) -> Destinations:
    _check_one(party, place)
    if party.tn is not None:
        return Destinations((number(party.tn, f"{place}.tn"),))
    return uri(party.uri or "", f"{place}.uri")


def _check_one(party: CallerMs | PartyMs, place: str) -> None:
    if party.tn is None and party.uri is None:
        raise RequestError("SVC4001", f"{place}.tn")
    if party.tn is not None and party.uri is not None:
        raise RequestError("SVC4005", place, "tn and uri name it twice")


def _together(parties: Sequence[Destinations]) -> Destinations:
    tns = dict.fromkeys(tn for each in parties for tn in each.tns)
    return Destinations(tuple(tns), tuple(dict.fromkeys(other for each in parties for other in each.uris)))
