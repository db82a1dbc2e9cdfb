"""The PASSporT without an extension: the caller's operator has authority over the number (RFC 8225 §5).

payload = {"dest","iat","key-mgmt"?,"orig","sdp"?}                                RFC 8225 §5

Its header has no ppt. It has no attest, so a rule with a condition on the attestation does not match it. Only this
kind has a compact form, since a verifier can rebuild its claims from the call (RFC 8225 §7).
"""

from dataclasses import dataclass
from typing import Final

from voice_dpki.codec import canonical_json
from voice_dpki.stir.call import Call, SigningRequest
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.kind import OVER_CALLER, Kind
from voice_dpki.stir.passport import (
    Claims,
    Passport,
    key_mgmt_digests,
    read_dest,
    read_iat,
    read_key_mgmt,
    read_orig,
    read_sdp,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseClaims(Claims):
    """The payload of a PASSporT without an extension (RFC 8225 §5)."""

    @classmethod
    def parse(cls, payload: bytes) -> "BaseClaims":
        """Read the claims; unknown ones are ignored.

        Raises MalformedError if `payload` is no JSON object, and ClaimError for the first claim that is missing or
        wrong.
        """
        claims = canonical_json.decode_object(payload)
        return cls(
            dest=read_dest(claims),
            iat_s=read_iat(claims),
            orig=read_orig(claims),
            key_mgmt=read_key_mgmt(claims),
            sdp=read_sdp(claims),
        )

    @classmethod
    def of(cls, request: SigningRequest) -> "BaseClaims":
        """Return the claims that a signing request asks for."""
        return cls(
            dest=request.dest,
            iat_s=request.iat_s,
            orig=request.orig,
            key_mgmt=key_mgmt_digests(request.key_mgmt),
            sdp=request.sdp,
        )


BASE: Final[Kind[BaseClaims]] = Kind(
    ppt="",
    proves_caller=True,
    authority=OVER_CALLER,
    parse=BaseClaims.parse,
    checks=(),
    compose=BaseClaims.of,
    members={},
)


def header_for(info: str) -> dict[str, str]:
    """Return the JOSE header of a base PASSporT whose certificate is at `info` (RFC 8225 §4)."""
    return {"alg": "ES256", "typ": "passport", "x5u": info}


def whole(header: IdentityHeader, call: Call) -> Passport:
    """Rebuild the full form of a compact PASSporT from its call: To, Date and the caller (RFC 8224 §4.1, §6.2).

    Raises MalformedError if the token is not two dots and a signature.
    """
    claims = BaseClaims(dest=call.dest, iat_s=call.time_s, orig=call.orig)
    return Passport.detached(header.token, header_for(header.info or ""), claims.serialize())
