"""SHAKEN: the caller's operator attests the caller's number (RFC 8588).

payload = {"attest","dest","iat","key-mgmt"?,"orig","origid","sdp"?}             RFC 8588 §8
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from voice_dpki.codec import canonical_json
from voice_dpki.codec.canonical_json import Json
from voice_dpki.errors import MalformedError
from voice_dpki.stir.call import Call, SigningRequest
from voice_dpki.stir.kind import OVER_CALLER, Kind
from voice_dpki.stir.passport import (
    ClaimError,
    Claims,
    key_mgmt_digests,
    read_dest,
    read_iat,
    read_key_mgmt,
    read_orig,
    read_sdp,
)
from voice_dpki.stir.verdict import Step, VerificationFailed

MAX_ORIGID_LENGTH = 64
"""A UUID has 36 characters; some networks send other identifiers."""

_UUID: Final = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\Z")

ATTESTATIONS = frozenset("ABC")
"""Full, partial and gateway attestation (RFC 8588 §4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShakenClaims(Claims):
    """The payload of a SHAKEN PASSporT (RFC 8588)."""

    attest: str
    """Attestation: "A", "B" or "C". The parser admits other text, which `check_attest` refuses."""
    origid: str

    @classmethod
    def parse(cls, payload: bytes) -> "ShakenClaims":
        """Read the claims; unknown ones are ignored.

        Raises MalformedError if `payload` is no JSON object, and ClaimError for the first claim that is missing or
        wrong.
        """
        claims = canonical_json.decode_object(payload)
        return cls(
            attest=_text(claims, "attest", 16),
            dest=read_dest(claims),
            iat_s=read_iat(claims),
            orig=read_orig(claims),
            origid=_text(claims, "origid", MAX_ORIGID_LENGTH),
            key_mgmt=read_key_mgmt(claims),
            sdp=read_sdp(claims),
        )

    @classmethod
    def of(cls, request: SigningRequest) -> "ShakenClaims":
        """Return the claims that a signing request asks for."""
        return cls(
            attest=request.attest,
            dest=request.dest,
            iat_s=request.iat_s,
            orig=request.orig,
            origid=request.origid,
            key_mgmt=key_mgmt_digests(request.key_mgmt),
            sdp=request.sdp,
        )

    def own(self) -> Mapping[str, Json]:
        """Return attest and origid (RFC 8588 §4, §5)."""
        return {"attest": self.attest, "origid": self.origid}


def check_attest(claims: ShakenClaims, call: Call) -> None:
    """E19: the attestation is A, B or C (RFC 8588 §4). This step runs early, for it does not need the ledger."""
    if claims.attest not in ATTESTATIONS:
        raise VerificationFailed(Step.ATTEST, "the attestation is none of A, B and C (RFC 8588 §4)")


def read_attest(value: object) -> str:
    """Read `attest` of a signing request; raises MalformedError."""
    if not isinstance(value, str):
        raise MalformedError("it is not a string")
    if value not in ATTESTATIONS:
        raise MalformedError("it is none of A, B and C")
    return value


def read_origid(value: object) -> str:
    """Read `origid` of a signing request, a UUID in its hyphenated form (RFC 8588 §5); raises MalformedError."""
    if not isinstance(value, str):
        raise MalformedError("it is not a string")
    if not _UUID.match(value):
        raise MalformedError("it is not a UUID (RFC 8588 §5)")
    return value


def _text(claims: Mapping[str, Json], name: str, max_length: int) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= max_length:
        raise ClaimError(f"claim {name} must be there, as 1 to {max_length} characters (RFC 8588 §4, §5)")
    return value


SHAKEN: Final[Kind[ShakenClaims]] = Kind(
    ppt="shaken",
    proves_caller=True,
    authority=OVER_CALLER,
    parse=ShakenClaims.parse,
    checks=(check_attest,),
    compose=ShakenClaims.of,
    members={"attest": read_attest, "origid": read_origid},
)
