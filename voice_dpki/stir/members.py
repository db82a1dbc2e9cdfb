"""Members of requests to the STIR services that the forms of the HTTP interface share, no sockets.

Each form defines its request as a Struct. It validates a body's shape, and the OpenAPI documents are made of it.
Members that a Struct does not name are ignored, except those that would change what the request means: these are
refused by name (docs/adr/0022). A member given twice is refused too.
"""

import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from voice_dpki.codec import canonical_json
from voice_dpki.codec.telephone import MAX_TN_LENGTH, MAX_URI_LENGTH
from voice_dpki.errors import MalformedError
from voice_dpki.names import Tn, ascii_lower
from voice_dpki.stir.call import DEFAULT_PPT, SigningRequest, Source
from voice_dpki.stir.faults import RequestError
from voice_dpki.stir.kind import Kind
from voice_dpki.stir.kinds import Kinds, UnknownKindError
from voice_dpki.stir.passport import (
    MAX_DESTINATIONS,
    MAX_KEY_MGMT,
    ClaimError,
    Destinations,
    check_number_of_destinations,
    digest_of_json,
)
from voice_dpki.stir.shaken import ATTESTATIONS
from voice_dpki.stir.tn import canonical_tn, canonical_uri, tn_in_uri

MAX_BODY_BYTES = 65_536
"""A request with the largest Identity and 16 MIKEY messages takes about 50 kB, that of an ordinary call 1 kB."""

MAX_KEY_MGMT_LENGTH = 4096
"""Characters of one `a=key-mgmt` value; a MIKEY message with an RSA certificate has about 3000."""

PASSPORT_TYPES = ("div", "div-o", "msec", "msg", "rcd", "rph", "rsp", "shaken")
"""IANA's registry of PASSporT types (2026-07-02): an error for an unsupported type repeats only these names."""

CLAIMS = (
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

MAX_CALL_ID_LENGTH = 1024

_NUMBER = rf"\+?[.()-]*(?:[0-9*#][.()-]*){{1,{MAX_TN_LENGTH}}}"
_WRITTEN = f"^{_NUMBER}$"
_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::[0-9]{1,5})?"
_SIPS = "[sS][iI][pP][sS]?"
_SIP = rf"{_SIPS}:[!#-9;=A-Z\[-~]+(?::[!-?A-~]*)?@{_HOST}(?:[;?][ -~]*)?"
_PHONE = "[uU][sS][eE][rR]=[pP][hH][oO][nN][eE]"
_SIP_OF_NUMBER = rf"{_SIPS}:{_NUMBER}(?:;[!#-9;=A-Z\[-~]*)?@{_HOST}(?:;[!->@-~]*)?;{_PHONE}(?:[;?][ -~]*)?"
_TEL = rf"[tT][eE][lL]:(?![^;]{{81}}){_NUMBER}(?:;[A-Za-z0-9-]+(?:=[!#-:=A-~]*)?)*"
_URN = r"[uU][rR][nN]:[sS][eE][rR][vV][iI][cC][eE]:[A-Za-z0-9-]{1,64}(?:\.[A-Za-z0-9-]{1,64})*"
_SHARED = ("attest", "origid")
"""Members of some kinds for which a signing request has a place of its own."""

_PLACE = re.compile(r"(?s)(.*?)(?: - at `\$\.?([^`]*)`)?\Z")
"""The two parts of msgspec's messages: what is wrong, and where."""
_MISSING = re.compile(r"Object missing required field `([^`]+)`")

_T = TypeVar("_T")
_V = TypeVar("_V")
_S = TypeVar("_S", bound=Struct)

Members = Mapping[str, object]
"""A decoded JSON object."""
Meanings = Mapping[str, Sequence[str]]
"""By object of a request, "" for the request: members that ask for another signature or for more checks.

An answer that ignored them would pretend to honour them, so they are refused.
"""

Number = Annotated[
    str,
    Meta(
        description="A telephone number in E.164 or a local number; + and visual separators are dropped.",
        examples=["+442079460001"],
        max_length=80,
        extra_json_schema={"pattern": _WRITTEN},
    ),
]
Uri = Annotated[
    str,
    Meta(
        description="A tel URI, a SIP or SIPS URI with a user, or a service URN. tel and user=phone name a number.",
        examples=["sip:+442079460001@b.example;user=phone"],
        max_length=MAX_URI_LENGTH,
        extra_json_schema={"pattern": f"^(?:{_SIP}|{_TEL}|{_URN})$"},
    ),
]
CallerUri = Annotated[
    str,
    Meta(
        description="A tel URI, or a SIP or SIPS URI with user=phone: it names a number.",
        examples=["sip:+493023125001@a.example;user=phone"],
        max_length=MAX_URI_LENGTH,
        extra_json_schema={"pattern": f"^(?:{_SIP_OF_NUMBER}|{_TEL})$"},
    ),
]
Seconds = Annotated[int, Meta(description="Seconds since 1970.", ge=0, lt=1 << 40, examples=[1790000000])]
Attest = Annotated[
    str, Meta(description="Attestation (RFC 8588).", extra_json_schema={"enum": sorted(ATTESTATIONS)})
]
OrigId = Annotated[
    str,
    Meta(
        description="Origination identifier (RFC 8588).",
        examples=["5f4e3b1c-7d2a-4b8e-9c1d-2e3f4a5b6c7d"],
        extra_json_schema={"format": "uuid", "pattern": "^[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"},
    ),
]
Identity = Annotated[
    str,
    Meta(description="The value of an Identity header field, as received (RFC 8224).", max_length=MAX_BODY_BYTES),
]
KeyMgmt = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=MAX_KEY_MGMT_LENGTH, examples=["mikey AQAFgM3YFvMAAAAA"])]],
    Meta(
        description="Own: the values of a=key-mgmt in the SDP, in order (RFC 4567); with several media sections "
        "those of a section after its m=, media and protocol (docs/key-mgmt-claim.md).",
        max_length=MAX_KEY_MGMT,
    ),
]


CallId = Annotated[
    str,
    Meta(
        description="Own: the Call-ID of the INVITE. It tells forks and retransmissions from a replay, and which "
        "call a line of the log or a packet for a HEP collector is about.",
        max_length=MAX_CALL_ID_LENGTH,
    ),
]
IsAnswer = Annotated[
    bool,
    Meta(description="Own: the Identity, of type rsp, is that of the answer; the verdict is about who answers."),
]
OutOfBand = Annotated[
    bool,
    Meta(description="Own: the INVITE has no Identity, and none is named here; it is looked for out of band."),
]
Label = Annotated[
    str, Meta(description="Own: a name that the rules of the server's operator know.", max_length=256)
]


class Digest(Struct, frozen=True):
    """The digest of the INVITE's body; a member of this project."""

    alg: Annotated[str, Meta(extra_json_schema={"const": "sha-256"})]
    dig: Annotated[
        str, Meta(description="32 bytes in base64url.", extra_json_schema={"pattern": "^[A-Za-z0-9_-]{43}$"})
    ]


_ONE_AT_LEAST = {
    "anyOf": [{"required": [name], "properties": {name: {"minItems": 1}}} for name in ("tn", "uri")],
}
_ALL_TOGETHER = {
    "anyOf": [
        {"properties": {"tn": {"maxItems": tns}, "uri": {"maxItems": MAX_DESTINATIONS - tns}}}
        for tns in range(MAX_DESTINATIONS + 1)
    ],
}


class Destination(Struct, frozen=True):
    """The called parties: numbers, URIs or both."""

    tn: Annotated[list[Number], Meta(max_length=MAX_DESTINATIONS)] | UnsetType = UNSET
    uri: Annotated[list[Uri], Meta(max_length=MAX_DESTINATIONS)] | UnsetType = UNSET


Called = Annotated[Destination, Meta(extra_json_schema={"allOf": [_ONE_AT_LEAST, _ALL_TOGETHER]})]


class Signing(Struct, frozen=True, kw_only=True, rename="camel"):
    """What every form of a signing request holds, but for the caller."""

    attest: Attest | UnsetType = UNSET
    call_id: CallId | UnsetType = UNSET
    dest: Called
    iat: Seconds
    key_mgmt: KeyMgmt | UnsetType = UNSET
    origid: OrigId | UnsetType = UNSET
    sdp: Digest | UnsetType = UNSET
    trunk: Label | UnsetType = UNSET
    user: Label | UnsetType = UNSET


def decode(body: bytes) -> Members:
    """Decode a request's body, a JSON object; raises RequestError."""
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


def request_in(members: Members, name: str) -> Members:
    """Return the object that the body holds under `name`; raises RequestError."""
    return _value(members, name, _object)


def shaped(request: Members, shape: type[_S]) -> _S:
    """Return the request as its form's Struct; raises RequestError that names the member which does not fit."""
    try:
        return msgspec.convert(request, shape)
    except msgspec.ValidationError as error:
        raise _misfit(str(error)) from None


def _misfit(message: str) -> RequestError:
    """Return the error for a message of msgspec, without the member's value, which can be a telephone number."""
    found = _PLACE.match(message)
    assert found, "the pattern matches any text"
    what, path = found[1], found[2] or ""
    missing = _MISSING.match(what)
    if missing:
        return RequestError("SVC4001", f"{path}.{missing[1]}".lstrip("."))
    if what.endswith("got `null`") and "[" not in path:
        return RequestError("SVC4001", path)
    said = (
        "it is none of the values allowed"
        if what.startswith("Invalid enum value")
        else ascii_lower(what[:1]) + what[1:]
    )
    return RequestError("SVC4005", path.partition("[")[0], said)


def check_meaning(request: Members, meanings: Meanings, admitted: Container[str] = ()) -> None:
    """Refuse members that would change the request's meaning, but for those that are `admitted`."""
    for place, names in meanings.items():
        value: Any = request.get(place) if place else request
        if not isinstance(value, dict) or value.keys().isdisjoint(names):
            continue
        for member in names:
            if member not in admitted and value.get(member) is not None:
                path = f"{place}.{member}" if place else member
                raise RequestError("SVC4005", path, "this service does not support it, and it changes the meaning")


def kind_in(request: Members, kinds: Kinds) -> Kind[Any]:
    """Return the kind to sign with; without a ppt, or with an empty one, SHAKEN (3GPP TS 24.229 Annex V)."""
    ppt = _value(request, "ppt", _text) if request.get("ppt") is not None else ""
    try:
        return kinds.named(ppt or DEFAULT_PPT)
    except UnknownKindError:
        named = f", and not {ppt}" if ppt in PASSPORT_TYPES else ""
        raise RequestError("SVC4005", "ppt", f"PASSporTs of type {kinds} alone are signed here{named}") from None


def signing_request(request: Members, given: Signing, kind: Kind[Any], orig: Tn, peer: str) -> SigningRequest:
    """Return the request of a `peer` to sign a call of `orig` with what its `kind` needs; raises RequestError."""
    members: Mapping[str, Callable[[object], Any]] = kind.members
    if not kind.proves_caller:
        _check_binds_no_media(given, kind)
    made = SigningRequest(
        attest=_value(request, "attest", members["attest"]) if "attest" in members else "",
        orig=orig,
        dest=destinations(given.dest, "dest"),
        iat_s=given.iat,
        origid=_value(request, "origid", members["origid"]) if "origid" in members else "",
        key_mgmt=tuple(given.key_mgmt or ()),
        sdp=digest(given.sdp),
        ppt=kind.ppt,
        own=_own(request, kind),
        source=Source(peer, given.trunk or "", given.user or ""),
        call_id=given.call_id or "",
    )
    for name, check in kind.together:
        read(check, made, name)
    return made


def _own(request: Members, kind: Kind[Any]) -> Mapping[str, object]:
    """Read the members that a kind alone has; raises RequestError."""
    own = {name: _value(request, name, member) for name, member in kind.members.items() if name not in _SHARED}
    given = {name: member for name, member in kind.options.items() if request.get(name) is not None}
    return own | {name: _value(request, name, member) for name, member in given.items()}


def _check_binds_no_media(given: Signing, kind: Kind[Any]) -> None:
    """Refuse keyMgmt and sdp, which a PASSporT of this kind does not cover."""
    for name, value in (("keyMgmt", given.key_mgmt), ("sdp", given.sdp)):
        if value is not UNSET:
            raise RequestError("SVC4005", name, f"a {kind.ppt} PASSporT does not cover the media")


def destinations(given: Destination, place: str) -> Destinations:
    """Read the called parties in canonical form, each once; raises RequestError."""
    if given.tn is UNSET and given.uri is UNSET:
        raise RequestError("SVC4001", f"{place}.tn")
    tns = [number(each, f"{place}.tn") for each in given.tn or ()]
    named = [uri(each, f"{place}.uri") for each in given.uri or ()]
    read(check_number_of_destinations, len(tns) + len(named), place)
    numbers = (*tns, *(tn for each in named for tn in each.tns))
    return Destinations(_once(numbers), _once(other for each in named for other in each.uris))


def number(text: str, place: str) -> Tn:
    """Read a number in canonical form; raises RequestError."""
    return read(canonical_tn, text, place)


def uri(text: str, place: str) -> Destinations:
    """Read one URI; tel and user=phone stand for a number (RFC 8224 §8.1, RFC 8225 §5.2.1.1)."""
    tn = tn_in_uri(text)
    return Destinations((tn,)) if tn is not None else Destinations(uris=(read(canonical_uri, text, place),))


def digest(given: Digest | UnsetType) -> bytes | None:
    """Read the digest of the INVITE's body, None if there is none; raises RequestError."""
    if given is UNSET:
        return None
    return read(lambda value: digest_of_json(value, "it"), msgspec.structs.asdict(given), "sdp")


def read(reader: Callable[[_V], _T], value: _V, place: str) -> _T:
    """Read a value; raises RequestError that names its place."""
    try:
        return reader(value)
    except (MalformedError, ClaimError) as error:
        raise RequestError("SVC4005", place, str(error)) from None


def _value(members: Members, name: str, reader: Callable[[object], _T]) -> _T:
    """Read a mandatory member; raises RequestError that names it."""
    if members.get(name) is None:
        raise RequestError("SVC4001", name)
    return read(reader, members[name], name)


def _object(value: object) -> Members:
    if not isinstance(value, dict):
        raise MalformedError("it is not a JSON object")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise MalformedError("it is not a string")
    return value


def _once(items: Iterable[_T]) -> tuple[_T, ...]:
    return tuple(dict.fromkeys(items))
