"""Diversion: the called party sends the call on to another party (RFC 8946).

payload = {"dest","div","iat","orig"}                                             RFC 8946 §3
div     = {"hi"?,"tn"}                                                            RFC 8946 §3, §8

A token of this kind accompanies the token of the call before its diversion, and proves nothing about the caller.
`voice_dpki.stir.diversion` describes how tokens form chains.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from voice_dpki.codec import canonical_json
from voice_dpki.codec.canonical_json import Json
from voice_dpki.errors import MalformedError
from voice_dpki.names import Tn
from voice_dpki.stir.call import Call, SigningRequest
from voice_dpki.stir.kind import Authority, Kind
from voice_dpki.stir.passport import ClaimError, Claims, read_dest, read_iat, read_orig, read_tn
from voice_dpki.stir.tn import canonical_tn, tn_in_uri
from voice_dpki.stir.verdict import Step, VerificationFailed

HISTORY_INDEX: Final = r"[0-9]{1,4}(?:\.[0-9]{1,4}){0,15}"
"""The pattern for an index of a History-Info header field (RFC 7044 §9.1); our bound is 16 numbers."""

_INDEX: Final = re.compile(rf"{HISTORY_INDEX}\Z")


@dataclass(frozen=True, slots=True)
class Diverting:
    """The party that diverted a call."""

    tn: Tn
    hi: str = ""
    """Index of the History-Info header field of this diversion (RFC 8946 §8); empty if none is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DivClaims(Claims):
    """The payload of a div PASSporT (RFC 8946): `div` sent the call of `orig` on to `dest`."""

    div: Diverting

    @classmethod
    def parse(cls, payload: bytes) -> "DivClaims":
        """Read the claims; unknown ones are ignored, but for opt, which this kind must not have.

        Raises MalformedError if `payload` is no JSON object, and ClaimError for the first claim that is missing or
        wrong.
        """
        claims = canonical_json.decode_object(payload)
        if "opt" in claims:
            raise ClaimError("claim opt must not be there (RFC 8946 §3)")
        return cls.read(claims)

    @staticmethod
    def read(claims: Mapping[str, Json]) -> "DivClaims":
        """Read the decoded claims; raises ClaimError for the first one that is missing or wrong."""
        return DivClaims(
            dest=read_dest(claims),
            div=_div_claim(claims.get("div")),
            iat_s=read_iat(claims),
            orig=read_orig(claims),
        )

    @classmethod
    def of(cls, request: SigningRequest) -> "DivClaims":
        """Return the claims that a signing request asks for."""
        return cls(dest=request.dest, div=_asked(request), iat_s=request.iat_s, orig=request.orig)

    def own(self) -> Mapping[str, Json]:
        """Return div (RFC 8946 §3)."""
        div: dict[str, Json] = {"tn": self.div.tn}
        return {"div": {**div, "hi": self.div.hi} if self.div.hi else div}


def read_div(value: object) -> Diverting:
    """Read `div` of a signing request, one number or a URI that names one; raises MalformedError."""
    if not isinstance(value, dict):
        raise MalformedError("it is not a JSON object")
    tn, uri = value.get("tn"), value.get("uri")
    if (tn is None) is (uri is None):
        raise MalformedError("it names the diverting party by either tn or uri")
    text = tn if uri is None else uri
    if not isinstance(text, str):
        raise MalformedError("the diverting party is not a string")
    number = canonical_tn(text) if uri is None else tn_in_uri(text)
    if number is None:
        raise MalformedError(
            "its uri names no number, as tel and user=phone do, and nobody else is supported as a diverting party"
        )
    return Diverting(number, _index(value["hi"]) if value.get("hi") is not None else "")


def check_is_elsewhere(request: SigningRequest) -> None:
    """Check that the diverting party is not the call's new target; raises ClaimError. Source: RFC 8946 §3."""
    if _asked(request).tn in request.dest.tns:
        raise ClaimError("dest names the diverting party itself, and then there is no diversion (RFC 8946 §3)")


def check_diversion(claims: DivClaims, call: Call) -> None:
    """E16 diversion: the token leads to another party than the diverting one (RFC 8946 §3)."""
    if claims.div.tn in claims.dest.tns:
        raise VerificationFailed(Step.DIVERSION, "the diversion leads to the diverting party itself (RFC 8946 §3)")


def _asked(request: SigningRequest) -> Diverting:
    div = request.own["div"]
    assert isinstance(div, Diverting), "read_div made it"
    return div


def _div_claim(value: Json) -> Diverting:
    if not isinstance(value, dict) or "tn" not in value or "uri" in value:
        raise ClaimError("claim div must be there and hold exactly one number, tn (RFC 8946 §3)")
    try:
        return Diverting(read_tn(value["tn"], "div"), _index(value["hi"]) if "hi" in value else "")
    except MalformedError as error:
        raise ClaimError(f"claim div cannot be used: {error}") from None


def _index(value: object) -> str:
    if not isinstance(value, str) or not _INDEX.match(value):
        raise MalformedError("hi is not the index of a History-Info header field, such as 1.2.1 (RFC 8946 §8)")
    return value


DIV: Final[Kind[DivClaims]] = Kind(
    ppt="div",
    proves_caller=False,
    authority=Authority(lambda claims: claims.div.tn, "the diverting number", "the diverting number"),
    parse=DivClaims.parse,
    checks=(check_diversion,),
    compose=DivClaims.of,
    members={"div": read_div},
    together=(("dest", check_is_elsewhere),),
    diverts=lambda claims: claims.div.tn,
)
