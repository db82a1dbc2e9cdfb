"""The HTTP interface between proxies and the STIR services (ATIS-1000082): bodies, headers and errors, no sockets.

    POST /stir/v1/signing       {"signingRequest":{attest, dest:{tn:[]}, iat, orig:{tn}, origid, keyMgmt?:[], sdp?}}
                                {"signingResponse":{identity}}
    POST /stir/v1/verification  {"verificationRequest":{from:{tn}, to:{tn:[]}, time, identity, keyMgmt?:[], sdp?}}
                                {"verificationResponse":{verstat, reasoncode?, reasontext?, reasondesc?, ...}}
    errors                      {"requestError":{"serviceException"|"policyException":{messageId, text, variables}}}

A failed verification is answered with 200, and the body holds the verdict. Unknown members are ignored, except
those that would change what the request means: these are refused by name (`_CHANGES_MEANING`). A duplicate member
is refused too.

`keyMgmt`, the values of `a=key-mgmt` in the order of the SDP, and `sdp`, {"alg":"sha-256","dig":...} over the
INVITE's body (`voice_dpki.stir.body`), are this project's own; so are step, signer, certificate, attest, keyMgmt
and sdp in a verificationResponse, and the errors POL4010 to POL4033, POL4080, POL4130,
POL4290 and POL5030.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from voice_dpki.codec import canonical_json
from voice_dpki.errors import MalformedError, PeerError
from voice_dpki.names import Tn, ascii_lower
from voice_dpki.stir.call import DEFAULT_PPT, Call, SigningRequest
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.kind import Kind
from voice_dpki.stir.kinds import KINDS, Kinds, UnknownKindError
from voice_dpki.stir.passport import (
    MAX_DESTINATIONS,
    MAX_KEY_MGMT,
    ClaimError,
    Destinations,
    check_number_of_destinations,
    digest_of_json,
)
from voice_dpki.stir.shaken import read_attest, read_origid
from voice_dpki.stir.sign import SigningRefused
from voice_dpki.stir.tn import canonical_tn, canonical_uri, tn_in_uri
from voice_dpki.stir.verdict import Verdict

SIGNING_PATH = "/stir/v1/signing"
VERIFICATION_PATH = "/stir/v1/verification"
MEDIA_TYPE = "application/json"

MAX_BODY_BYTES = 65_536
"""A request with the largest Identity and 16 MIKEY messages takes about 50 kB, that of an ordinary call 1 kB."""

MAX_KEY_MGMT_LENGTH = 4096
"""Characters of one `a=key-mgmt` value; a MIKEY message with an RSA certificate has about 3000."""

_FAULTS: Mapping[str, tuple[int, str]] = {
    "SVC4000": (400, "The request has no body."),
    "SVC4001": (400, "Mandatory parameter '%1' is missing."),
    "SVC4002": (406, "The answer is of type '%1', and the request's Accept does not admit it."),
    "SVC4003": (404, "There is no such resource."),
    "SVC4004": (415, "The body must be of type '%1'."),
    "SVC4005": (400, "Parameter '%1' has a value that cannot be used: %2."),
    "SVC4006": (400, "The request cannot be parsed: %1."),
    "SVC4007": (411, "Content-Length is missing."),
    "POL4010": (401, "The caller of this service is not known: send one of its bearer tokens in Authorization."),
    "POL4030": (403, "There is no signature for this call: %1."),
    "POL4031": (403, "There is no signature for a call that is not of now: %1."),
    "POL4032": (403, "There is no signature at this time: %1."),
    "POL4033": (403, "There is no signature with this server's certificate: %1."),
    "POL4050": (405, "This resource has another method: %1."),
    "POL4080": (408, "The request took too long: %1."),
    "POL4130": (413, "The request is too large: %1."),
    "POL4290": (429, "This client asks for too much: %1."),
    "POL5000": (500, "This server failed; its log says why."),
    "POL5030": (503, "This server has no room now: %1."),
}
"""Message identifier to HTTP status and text; %1 and %2 stand for the variables."""

MESSAGE_IDS = tuple(_FAULTS)
"""The message identifiers of all errors."""

_OF_STATUS = {
    400: "SVC4006",
    404: "SVC4003",
    405: "POL4050",
    408: "POL4080",
    413: "POL4130",
    414: "POL4130",
    417: "SVC4006",
    429: "POL4290",
    431: "POL4130",
    500: "POL5000",
    501: "SVC4006",
    503: "POL5030",
    505: "SVC4006",
}

_OF_REFUSAL = {
    "no-authority": "POL4030",
    "stale-iat": "POL4031",
    "credential-not-valid": "POL4032",
    "not-on-ledger": "POL4033",
}

_CLAIMS = (
    "crn",
    "div",
    "div-o",
    "exp",
    "mky",
    "msec",
    "msg",
    "nbf",
    "opt",
    "passport",
    "rcd",
    "rcdi",
    "rph",
    "rsp",
    "sph",
)
"""Claims of other PASSporT types (IANA's registry), which requests of 3GPP TS 24.229 Annex V and dialects have."""

_CHANGES_MEANING: Mapping[str, Sequence[str]] = {
    "signingRequest": ("alg", "typ", "x5c", "x5u", *_CLAIMS),
    "verificationRequest": ("dest", "identityHeader", "identityHeaders", "ppt", "protectedHeaders", *_CLAIMS),
    "orig": ("uri",),
    "from": ("uri",),
}
"""By object: members that ask for another signature or more checks; a plain answer would pretend to honour them."""

_REQUESTS = frozenset({"signingRequest", "verificationRequest"})
_SHARED = ("attest", "origid")
"""Members of some kinds for which a signing request has a place of its own."""

_T = TypeVar("_T")
_Members = Mapping[str, object]


class RequestError(PeerError):
    """A request that is answered with an error of the interface."""

    def __init__(self, message_id: str, *variables: str) -> None:
        self.message_id = message_id
        self.status, self._text = _FAULTS[message_id]
        self._variables = variables
        super().__init__(self.sentence)

    @property
    def sentence(self) -> str:
        """The text with its variables filled in."""
        text = self._text
        for number, value in enumerate(self._variables, 1):
            text = text.replace(f"%{number}", value)
        return text

    def body(self) -> bytes:
        """Encode the error: SVC as a serviceException, POL as a policyException."""
        kind = "serviceException" if self.message_id.startswith("SVC") else "policyException"
        error = {"messageId": self.message_id, "text": self._text, "variables": list(self._variables)}
        return msgspec.json.encode({"requestError": {kind: error}})


def error_of_status(status: int, detail: str) -> RequestError:
    """Return the error for a request that was refused before it reached a service; `detail` is for people."""
    message_id = _OF_STATUS.get(status, "POL5000")
    return RequestError(message_id, *([detail] if "%1" in _FAULTS[message_id][1] else []))


def error_of_refusal(refusal: SigningRefused) -> RequestError:
    """Return the error for a call that gets no signature."""
    return RequestError(_OF_REFUSAL[refusal.code], str(refusal))


def check_headers(headers: Mapping[str, str]) -> None:
    """Check Content-Length, Content-Type and Accept; names are in lower case. Raises RequestError."""
    if "content-length" not in headers:
        raise RequestError("SVC4007")
    if ascii_lower(headers.get("content-type", "").partition(";")[0].strip()) != MEDIA_TYPE:
        raise RequestError("SVC4004", MEDIA_TYPE)
    if not any(_admits_json(part) for part in headers.get("accept", "*/*").split(",")):
        raise RequestError("SVC4002", MEDIA_TYPE)


def parse_signing_request(body: bytes, kinds: Kinds = KINDS) -> SigningRequest:
    """Parse the body of a signing request for one of `kinds`; raises RequestError."""
    request = _value(_decode(body), "signingRequest", _object)
    kind = _kind(request, kinds)
    members = kind.members
    _check_meaning(request, "signingRequest", admitted=members)
    return SigningRequest(
        attest=_value(request, "attest", read_attest) if "attest" in members else "",
        orig=_tn_in(request, "orig"),
        dest=_destinations(request, "dest"),
        iat_s=_value(request, "iat", _seconds),
        origid=_value(request, "origid", read_origid) if "origid" in members else "",
        key_mgmt=_value(request, "keyMgmt", _key_mgmt) if "keyMgmt" in request else (),
        sdp=_value(request, "sdp", _digest) if "sdp" in request else None,
        ppt=kind.ppt,
        own={name: _value(request, name, read) for name, read in members.items() if name not in _SHARED},
    )


def parse_verification_request(body: bytes) -> Call:
    """Parse the body of a verification request, but not the Identity in it; raises RequestError."""
    request = _object_in(_decode(body), "verificationRequest")
    return Call(
        orig=_tn_in(request, "from"),
        dest=_destinations(request, "to"),
        time_s=_value(request, "time", _seconds),
        identities=(_value(request, "identity", _text),),
        key_mgmt=_value(request, "keyMgmt", _key_mgmt) if "keyMgmt" in request else None,
        sdp=_value(request, "sdp", _digest) if "sdp" in request else None,
    )


def signing_response(identity: IdentityHeader) -> bytes:
    """Encode the answer to a signing request."""
    return msgspec.json.encode({"signingResponse": {"identity": identity.serialize()}})


def verification_response(verdict: Verdict) -> bytes:
    """Encode a verdict; empty members are left out."""
    members = {
        "reasoncode": verdict.reasoncode,
        "reasontext": verdict.reasontext,
        "reasondesc": verdict.reasondesc,
        "verstat": verdict.verstat,
        "step": verdict.step,
        "signer": verdict.signer,
        "certificate": verdict.certificate.hex() if verdict.certificate else None,
        "attest": verdict.attest,
        "keyMgmt": verdict.key_mgmt,
        "sdp": verdict.sdp,
    }
    return msgspec.json.encode({"verificationResponse": {name: value for name, value in members.items() if value}})


def _admits_json(media_range: str) -> bool:
    """Tell whether one range of Accept admits JSON (RFC 9110 §12.5.1)."""
    kind, *parameters = (ascii_lower(part.strip()) for part in media_range.split(";"))
    refused = any(
        name == "q" and value.strip("0.") == "" for name, _, value in (p.partition("=") for p in parameters)
    )
    return kind in (MEDIA_TYPE, "application/*", "*/*") and not refused


def _decode(body: bytes) -> _Members:
    if not body:
        raise RequestError("SVC4000")
    try:
        return canonical_json.decode_object(body, fractions=True)
    except MalformedError as error:
        raise RequestError("SVC4006", _why_no_object(body, error)) from None


def _why_no_object(body: bytes, error: MalformedError) -> str:
    """Say what is wrong with a refused body; `decode_object` does not tell bad JSON from JSON that is no object."""
    try:
        value = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return "the body is not JSON"
    return f"the body is {error}" if isinstance(value, dict) else "the body is not a JSON object"


def _value(members: _Members, name: str, read: Callable[[object], _T], path: str = "") -> _T:
    """Read a mandatory member with `read`; raises RequestError that names the member."""
    if members.get(name) is None:
        raise RequestError("SVC4001", path + name)
    try:
        return read(members[name])
    except (MalformedError, ClaimError) as error:
        raise RequestError("SVC4005", path + name, str(error)) from None


def _object_in(members: _Members, name: str) -> _Members:
    """Read an object; refuse members that would change the request's meaning and are not supported."""
    value = _value(members, name, _object)
    _check_meaning(value, name)
    return value


def _check_meaning(value: _Members, name: str, admitted: Container[str] = ()) -> None:
    """Refuse members that would change the meaning of the object `name`, but for those that are `admitted`."""
    path = "" if name in _REQUESTS else f"{name}."
    for member in _CHANGES_MEANING.get(name, ()):
        if member not in admitted and value.get(member) is not None:
            raise RequestError(
                "SVC4005", path + member, "this service does not support it, and it changes the meaning"
            )


def _kind(request: _Members, kinds: Kinds) -> Kind[Any]:
    """Return the kind to sign with; without a ppt, or with an empty one, SHAKEN (3GPP TS 24.229 Annex V)."""
    ppt = _value(request, "ppt", _text) if request.get("ppt") is not None else ""
    try:
        return kinds.named(ppt or DEFAULT_PPT)
    except UnknownKindError:
        raise RequestError("SVC4005", "ppt", f"PASSporTs of type {kinds} alone are signed here") from None


def _object(value: object) -> _Members:
    if not isinstance(value, dict):
        raise MalformedError("it is not a JSON object")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise MalformedError("it is not a string")
    return value


def _seconds(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 40:
        raise MalformedError("it is not an integer of seconds since 1970")
    return value


def _tn_in(request: _Members, name: str) -> Tn:
    """Read {"tn": number}."""
    return _value(_object_in(request, name), "tn", _tn, f"{name}.")


def _tn(value: object) -> Tn:
    return canonical_tn(_text(value))


def _destinations(request: _Members, name: str) -> Destinations:
    """Read {"tn": [numbers], "uri": [URIs]}; either may be missing, but not both."""
    members = _object_in(request, name)
    if "tn" not in members and "uri" not in members:
        raise RequestError("SVC4001", f"{name}.tn")
    tns = _value(members, "tn", _list_of(_tn, MAX_DESTINATIONS), f"{name}.") if "tn" in members else ()
    uris = _value(members, "uri", _list_of(_uri, MAX_DESTINATIONS), f"{name}.") if "uri" in members else ()
    try:
        check_number_of_destinations(len(tns) + len(uris))
    except ClaimError as error:
        raise RequestError("SVC4005", name, str(error)) from None
    numbers = (*tns, *(tn for each in uris for tn in each.tns))
    return Destinations(_once(numbers), _once(uri for each in uris for uri in each.uris))


def _once(items: Iterable[_T]) -> tuple[_T, ...]:
    return tuple(dict.fromkeys(items))


def _uri(value: object) -> Destinations:
    """Read one URI; one with user=phone stands for its number (RFC 8224 §8.1, RFC 8225 §5.2.1.1)."""
    text = _text(value)
    number = tn_in_uri(text)
    return Destinations((number,)) if number is not None else Destinations(uris=(canonical_uri(text),))


def _key_mgmt_value(value: object) -> str:
    text = _text(value)
    if not 1 <= len(text) <= MAX_KEY_MGMT_LENGTH:
        raise MalformedError(f"a value has not 1 to {MAX_KEY_MGMT_LENGTH} characters")
    return text


def _digest(value: object) -> bytes:
    return digest_of_json(value, "it")


def _list_of(read: Callable[[object], _T], max_items: int) -> Callable[[object], tuple[_T, ...]]:
    def read_list(value: object) -> tuple[_T, ...]:
        if not isinstance(value, list) or len(value) > max_items:
            raise MalformedError(f"it is not a list of at most {max_items}")
        return tuple(map(read, value))

    return read_list


_key_mgmt = _list_of(_key_mgmt_value, MAX_KEY_MGMT)
