"""Rich call data: who calls and why, as shown to people (RFC 9795). Experimental: we could not read the whole RFC.

payload = {"crn"?,"dest","iat","orig","rcd","rcdi"?}
rcd     = {"apn"?,"icn"?,"jcd"|"jcl"?,"nam"}
rcdi    = {JSON pointer into rcd: "sha256-" | "sha384-" | "sha512-" and the digest in base64}

A digest is over the octets of a string, or over the compact JSON of any other value. Each URL needs a digest of its
content. Nothing is fetched here, so that digest is not checked: whoever shows the content must compare it.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from voice_dpki.codec import base64text, canonical_json
from voice_dpki.codec.canonical_json import Json
from voice_dpki.errors import MalformedError
from voice_dpki.stir.call import Call, SigningRequest
from voice_dpki.stir.kind import Authority, Kind
from voice_dpki.stir.passport import ClaimError, Claims, read_dest, read_iat, read_orig
from voice_dpki.stir.tn import is_canonical_tn
from voice_dpki.stir.verdict import Step, VerificationFailed

MAX_TEXT_LENGTH: Final = 256
"""Characters of a name or of a reason. Telephones show far fewer."""
MAX_URL_LENGTH: Final = 512
MAX_DATA_BYTES: Final = 4096
"""Bytes of an rcd to sign; a token has at most 8192 characters."""
MAX_DIGESTS: Final = 32
MAX_POINTER_LENGTH: Final = 128

URL: Final = rf"(?:https://|cid:)[!-~]{{1,{MAX_URL_LENGTH - 8}}}"
"""The pattern for the URL of an icon or a jCard, on the Web or in a part of the INVITE's body (RFC 2392)."""
INTEGRITY: Final = r"sha(?:256|384|512)-[A-Za-z0-9+/]{1,88}={0,2}"
POINTER: Final = r"(?:/(?:[^~/]|~[01])*){1,16}"

_URL = re.compile(rf"{URL}\Z")
_ANY_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
"""The beginning of any URL in a jCard; a digest of a URL's content is not checked."""
_POINTER = re.compile(rf"{POINTER}\Z")
_SIZES: Final = {"sha256": 32, "sha384": 48, "sha512": 64}
_BY_VALUE: Final = ("nam", "apn", "jcd")
"""Members that hold their content, of which a signer forms digests."""
_BY_URL: Final = ("icn", "jcl")


@dataclass(frozen=True, slots=True, kw_only=True)
class RcdClaims(Claims):
    """The payload of an rcd PASSporT (RFC 9795)."""

    rcd: Mapping[str, Json]
    rcdi: Mapping[str, str] = field(default_factory=dict)
    crn: str = ""
    """The reason for the call; empty if none is given."""

    @classmethod
    def parse(cls, payload: bytes) -> "RcdClaims":
        """Read the claims; unknown ones are ignored.

        Raises MalformedError if `payload` is no JSON object, and ClaimError for the first claim that is missing or
        wrong.
        """
        claims = canonical_json.decode_object(payload)
        try:
            rcd = _read_data(claims.get("rcd"))
            rcdi = read_rcdi(claims["rcdi"]) if "rcdi" in claims else {}
            crn = read_crn(claims["crn"]) if "crn" in claims else ""
        except MalformedError as error:
            raise ClaimError(f"claim rcd, rcdi or crn cannot be used: {error}") from None
        return cls(
            dest=read_dest(claims), iat_s=read_iat(claims), orig=read_orig(claims), rcd=rcd, rcdi=rcdi, crn=crn
        )

    @classmethod
    def of(cls, request: SigningRequest) -> "RcdClaims":
        """Return the claims that a signing request asks for, with a digest of each member of `_BY_VALUE`."""
        rcd: Any = request.own["rcd"]
        given: Any = request.own.get("rcdi", {})
        formed = {f"/{name}": digest_of(rcd[name]) for name in _BY_VALUE if name in rcd}
        return cls(
            dest=request.dest,
            iat_s=request.iat_s,
            orig=request.orig,
            rcd=rcd,
            rcdi=formed | given,
            crn=str(request.own.get("crn", "")),
        )

    def own(self) -> Mapping[str, Json]:
        """Return rcd, rcdi and crn."""
        rcdi: dict[str, Json] = {"rcdi": dict(self.rcdi)} if self.rcdi else {}
        return {"rcd": self.rcd, **rcdi, **({"crn": self.crn} if self.crn else {})}

    def check_integrity(self) -> None:
        """Check the digests of content in rcd, and that each URL has a digest; raises MalformedError."""
        for name in _BY_URL:
            if name in self.rcd and f"/{name}" not in self.rcdi:
                raise MalformedError(f"{name} is a URL, and rcdi has no digest of what it leads to")
        for pointer, said in self.rcdi.items():
            for value in _pointed(self.rcd, pointer):
                if said not in _digests(value, said.partition("-")[0]):
                    raise MalformedError("a digest in rcdi is not that of what it points to")


def read_rcd(value: object) -> Mapping[str, Json]:
    """Read rcd of a signing request; raises MalformedError, also for unknown members."""
    rcd = _read_data(value)
    encoded = canonical_json.encode(rcd)
    if len(encoded) > MAX_DATA_BYTES:
        raise MalformedError(f"it takes more than {MAX_DATA_BYTES} bytes")
    canonical_json.decode_object(encoded)  # a PASSporT has no fractions (RFC 8225 §9)
    if not rcd.keys() <= {*_BY_VALUE, *_BY_URL}:
        raise MalformedError("it has a member that is none of nam, apn, icn, jcd and jcl")
    return rcd


def read_rcdi(value: object) -> Mapping[str, str]:
    """Read rcdi, digests by JSON pointer (RFC 6901); raises MalformedError."""
    if not isinstance(value, dict) or not 1 <= len(value) <= MAX_DIGESTS:
        raise MalformedError(f"rcdi is not an object of 1 to {MAX_DIGESTS} digests")
    for pointer, said in value.items():
        if len(pointer) > MAX_POINTER_LENGTH or not _POINTER.match(pointer):
            raise MalformedError("a name in rcdi is no JSON pointer (RFC 6901)")
        _check_digest(said)
    return value


def read_crn(value: object) -> str:
    """Read crn, a text for people; raises MalformedError."""
    return _text(value, "crn")


def digest_of(value: Json, algorithm: str = "sha256") -> str:
    """Return the digest of a part of rcd, as rcdi has it: of a text's octets, or of compact JSON (RFC 8225 §9)."""
    octets = value.encode("utf-8") if isinstance(value, str) else canonical_json.encode(value)
    return _written(octets, algorithm)


def check_rich_data(claims: RcdClaims, call: Call) -> None:
    """E16 rich call data: the digests match, and each URL has one."""
    try:
        claims.check_integrity()
    except MalformedError as error:
        raise VerificationFailed(Step.RICH_DATA, str(error)) from None


def _check_request(request: SigningRequest) -> None:
    try:
        RcdClaims.of(request).check_integrity()
    except MalformedError as error:
        raise ClaimError(str(error)) from None


def _digests(value: Json, algorithm: str) -> set[str]:
    """Return the digests over the members in canonical order (RFC 8225 §9), and in the order received."""
    if isinstance(value, str):
        return {digest_of(value, algorithm)}
    as_came = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    return {digest_of(value, algorithm), _written(as_came, algorithm)}


def _written(octets: bytes, algorithm: str) -> str:
    return f"{algorithm}-{base64text.encode(hashlib.new(algorithm, octets).digest())}"


def _check_digest(said: object) -> None:
    algorithm, hyphen, text = said.partition("-") if isinstance(said, str) else ("", "", "")
    if not hyphen or algorithm not in _SIZES or len(base64text.decode(text)) != _SIZES[algorithm]:
        raise MalformedError("a digest in rcdi is none of sha256, sha384 and sha512 in base64")


def _pointed(rcd: Mapping[str, Json], pointer: str) -> Iterator[Json]:
    """Yield the value to which a pointer leads, unless it is a URL or lies behind one; raises MalformedError."""
    value: Json = rcd
    for number, name in enumerate(pointer.split("/")[1:]):
        if number and isinstance(value, str) and _ANY_URL.match(value):
            return
        value = _inside(value, name.replace("~1", "/").replace("~0", "~"))
    is_url = isinstance(value, str) and _ANY_URL.match(value) and pointer not in ("/nam", "/apn")
    if not is_url:
        yield value


def _inside(value: Json, name: str) -> Json:
    if isinstance(value, Mapping) and name in value:
        return value[name]
    is_index = name.isascii() and name.isdigit() and len(name) < 4
    if is_index and isinstance(value, Sequence) and not isinstance(value, str) and int(name) < len(value):
        return value[int(name)]
    raise MalformedError("rcdi points to something that is not in rcd")


def _read_data(value: object) -> Mapping[str, Json]:
    """Read rcd, and keep unknown members; raises MalformedError."""
    if not isinstance(value, dict):
        raise MalformedError("rcd must be there, as an object")
    _text(value.get("nam"), "nam")
    if "jcd" in value and "jcl" in value:
        raise MalformedError("rcd has both jcd and jcl")
    for name in _BY_URL:
        if name in value and not (isinstance(value[name], str) and _URL.match(value[name])):
            raise MalformedError(f"{name} is neither an https nor a cid URL of at most {MAX_URL_LENGTH} characters")
    apn = value.get("apn", "0")
    if not isinstance(apn, str) or not is_canonical_tn(apn):
        raise MalformedError("apn is no telephone number in canonical form")
    jcd = value.get("jcd", ["vcard"])
    if not isinstance(jcd, list) or not jcd or jcd[0] != "vcard":
        raise MalformedError("jcd is no jCard, a list that begins with vcard (RFC 7095)")
    return value


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_TEXT_LENGTH or not value.isprintable():
        raise MalformedError(f"{name} must be there, as 1 to {MAX_TEXT_LENGTH} printable characters")
    return value


RCD: Final[Kind[RcdClaims]] = Kind(
    ppt="rcd",
    proves_caller=False,
    authority=Authority(lambda claims: claims.orig, "the caller's number", "the originating number"),
    parse=RcdClaims.parse,
    checks=(check_rich_data,),
    compose=RcdClaims.of,
    members={"rcd": read_rcd},
    options={"rcdi": read_rcdi, "crn": read_crn},
    together=(("rcdi", _check_request),),
)
