"""The form of ATIS-1000082 of the HTTP interface between proxies and the STIR services: bodies, no sockets.

    POST /stir/v1/signing       {"signingRequest":{attest, dest:{tn:[]}, iat, orig:{tn}, origid, keyMgmt?:[], sdp?}}
                                {"signingResponse":{identity, identityHeader}}
    POST /stir/v1/verification  {"verificationRequest":{from:{tn}, to:{tn:[]}, time, identity, answer?, callId?,
                                                        keyMgmt?:[], outOfBand?, sdp?}}
                                {"verificationResponse":{verstat, reasoncode?, reasontext?, reasondesc?, ...}}

A failed verification is answered with 200, and the body holds the verdict. These members are this project's own:
`keyMgmt`, the values of `a=key-mgmt` in the order of the SDP; `sdp`, {"alg":"sha-256","dig":...} over the INVITE's
body (`voice_dpki.stir.body`); `callId`, `answer` and `outOfBand`; and in a verificationResponse step, signer,
certificate, attest, keyMgmt, sdp, trust and outOfBand.

A signing request of 3GPP's form can have exactly the same members (`voice_dpki.stir.ms`). Its form cannot be told
then, so the answer has the Identity under both names.
"""

import msgspec
from msgspec import UNSET, Struct, UnsetType

from voice_dpki.stir.action import Action, action_of
from voice_dpki.stir.call import Call, SigningRequest, Source
from voice_dpki.stir.faults import RequestError
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.kinds import KINDS, Kinds
from voice_dpki.stir.members import (
    CLAIMS,
    Called,
    CallId,
    Digest,
    Identity,
    IsAnswer,
    KeyMgmt,
    Label,
    Meanings,
    Members,
    Number,
    OutOfBand,
    Seconds,
    Signing,
    check_meaning,
    destinations,
    digest,
    kind_in,
    number,
    request_in,
    shaped,
    signing_request,
)
from voice_dpki.stir.verdict import Verdict, Verstat, told_trust

SIGNING_MEANINGS: Meanings = {"": ("alg", "typ", "x5c", "x5u", *CLAIMS), "orig": ("uri",)}
VERIFICATION_MEANINGS: Meanings = {
    "": ("dest", "identityHeader", "identityHeaders", "ppt", "protectedHeaders", *CLAIMS),
    "from": ("uri",),
}


class Caller(Struct, frozen=True):
    """The calling party, by number alone."""

    tn: Number


class SigningRequestAtis(Signing, frozen=True, kw_only=True, rename="camel"):
    """A call to sign."""

    orig: Caller


class SigningBodyAtis(Struct, frozen=True, rename="camel"):
    """A signing request of ATIS-1000082."""

    signing_request: SigningRequestAtis


class SigningResponseAtis(Struct, frozen=True, rename="camel"):
    """The Identity header field's value, under the names of both forms."""

    identity: str
    identity_header: str


class SigningAnswerAtis(Struct, frozen=True, rename="camel"):
    """The answer to a signing request of ATIS-1000082."""

    signing_response: SigningResponseAtis


class VerificationRequestAtis(Struct, frozen=True, kw_only=True, rename="camel"):
    """A call to verify."""

    answer: IsAnswer | UnsetType = UNSET
    call_id: CallId | UnsetType = UNSET
    from_: Caller = msgspec.field(name="from")
    identity: Identity | UnsetType = UNSET
    key_mgmt: KeyMgmt | UnsetType = UNSET
    out_of_band: OutOfBand | UnsetType = UNSET
    sdp: Digest | UnsetType = UNSET
    time: Seconds
    to: Called
    trunk: Label | UnsetType = UNSET


class VerificationBodyAtis(Struct, frozen=True, rename="camel"):
    """A verification request of ATIS-1000082."""

    verification_request: VerificationRequestAtis


class VerificationResponseAtis(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The verdict; reasoncode, reasontext and reasondesc are there if a step failed."""

    reasoncode: int | UnsetType = UNSET
    reasontext: str = ""
    reasondesc: str = ""
    verstat: Verstat
    step: str = ""
    signer: str = ""
    certificate: str = ""
    attest: str = ""
    key_mgmt: str = ""
    sdp: str = ""
    trust: str = ""
    out_of_band: bool = False
    action: Action | UnsetType = UNSET


class VerificationAnswerAtis(Struct, frozen=True, rename="camel"):
    """The answer to a verification request of ATIS-1000082."""

    verification_response: VerificationResponseAtis


def parse_signing_request(body: Members, kinds: Kinds = KINDS, peer: str = "") -> SigningRequest:
    """Read a decoded signing request of a `peer` for one of `kinds`; raises RequestError."""
    request = request_in(body, "signingRequest")
    kind = kind_in(request, kinds)
    check_meaning(request, SIGNING_MEANINGS, admitted=(*kind.members, *kind.options))
    given = shaped(request, SigningRequestAtis)
    return signing_request(request, given, kind, number(given.orig.tn, "orig.tn"), peer)


def parse_verification_request(body: Members, peer: str = "") -> Call:
    """Read a decoded verification request of a `peer`; leaves the Identity unparsed; raises RequestError."""
    request = request_in(body, "verificationRequest")
    check_meaning(request, VERIFICATION_MEANINGS)
    given = shaped(request, VerificationRequestAtis)
    if given.identity is UNSET and given.out_of_band is not True:
        raise RequestError("SVC4001", "identity")
    return Call(
        orig=number(given.from_.tn, "from.tn"),
        dest=destinations(given.to, "to"),
        time_s=given.time,
        identities=() if given.identity is UNSET else (given.identity,),
        key_mgmt=None if given.key_mgmt is UNSET else tuple(given.key_mgmt),
        sdp=digest(given.sdp),
        source=Source(peer, given.trunk or ""),
        call_id=given.call_id or "",
        is_answer=given.answer is True,
    )


def signing_response(identity: IdentityHeader) -> bytes:
    """Encode the answer to a signing request."""
    value = identity.serialize()
    return msgspec.json.encode(SigningAnswerAtis(SigningResponseAtis(value, value)))


def verification_response(verdict: Verdict) -> bytes:
    """Encode a verdict; empty members are left out."""
    response = VerificationResponseAtis(
        reasoncode=UNSET if verdict.reasoncode is None else verdict.reasoncode,
        reasontext=verdict.reasontext,
        reasondesc=verdict.reasondesc,
        verstat=verdict.verstat,
        step=verdict.step,
        signer=verdict.signer,
        certificate=verdict.certificate.hex() if verdict.certificate else "",
        attest=verdict.attest,
        key_mgmt=verdict.key_mgmt,
        sdp=verdict.sdp,
        trust=told_trust(verdict),
        out_of_band=verdict.out_of_band,
        action=action_of(verdict.treatment),
    )
    return msgspec.json.encode(VerificationAnswerAtis(response))
