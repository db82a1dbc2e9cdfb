"""Verification service: the numbered steps from an Identity header to a verdict (RFC 8224 §6.2, ATIS-1000082).

`examine` runs the steps that need only the request, and returns which certificate to look up on the ledger. `judge`
runs the rest, given the ledger's record. Each step is one function that raises VerificationFailed if it fails, and
`verdict_of` turns that into the answer. The steps have the numbers of ATIS-1000082's table; those from E20 on are
this project's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum

from voice_dpki.errors import LocalError, MalformedError, PeerError
from voice_dpki.names import CertDigest, Tn, ascii_lower
from voice_dpki.stir.identity import IdentityHeader, InfoFormError
from voice_dpki.stir.passport import (
    ATTESTATIONS,
    ClaimError,
    Destinations,
    Passport,
    ShakenClaims,
    key_mgmt_digests,
)
from voice_dpki.stir.replay import ReplayCache, replay_key
from voice_dpki.stir.x5u import digest_in
from voice_dpki.x509.keys import SignatureError, verify_signature
from voice_dpki.x509.profile import CertificateProfile
from voice_dpki.x509.recorded import CertificateRefused, Distrust, RecordedCertificate, TrustedCertificate, Use
from voice_dpki.x509.recorded import judge as judge_certificate


class Verstat(StrEnum):
    """What the callee is told about the caller's number (3GPP TS 24.229 §7.2A.20)."""

    PASSED = "TN-Validation-Passed"
    FAILED = "TN-Validation-Failed"
    NONE = "No-TN-Validation"


REASON_TEXTS = {
    403: "Stale Date",
    436: "Bad Identity Info",
    437: "Unsupported Credential",
    438: "Invalid Identity Header",
}
"""Reason phrases of RFC 8224 §6.2.2."""


class Step(Enum):
    """The steps, with the reason code and the verstat of their failure."""

    TIME = ("E3 time", 403, Verstat.NONE)
    FORM = ("E4 form", 438, Verstat.NONE)
    PPT_PARAMETER = ("E5 ppt parameter", 438, Verstat.NONE)
    INFO = ("E6 info", 436, Verstat.NONE)
    INFO_URL = ("E7 info URL", 436, Verstat.NONE)
    LEDGER = ("E8 ledger", 436, Verstat.NONE)
    HEADER = ("E9 header claims", 436, Verstat.NONE)
    CRITICAL = ("E9 crit", 438, Verstat.NONE)
    X5U = ("E10 x5u", 436, Verstat.NONE)
    TYP = ("E11 typ", 437, Verstat.NONE)
    ALG = ("E12 alg", 437, Verstat.NONE)
    PPT = ("E13 ppt", 438, Verstat.NONE)
    CLAIMS = ("E14 claims", 438, Verstat.NONE)
    IAT = ("E15 iat", 403, Verstat.NONE)
    NUMBERS = ("E16 numbers", 438, Verstat.NONE)
    CERTIFICATE = ("E17 certificate", 437, Verstat.FAILED)
    CONSTRAINTS = ("E17 constraints", 437, Verstat.NONE)
    AUTHORITY = ("E17 authority", 437, Verstat.FAILED)
    SIGNATURE = ("E18 signature", 438, Verstat.FAILED)
    ATTEST = ("E19 attest", 438, Verstat.NONE)
    KEY_MGMT = ("E20 key-mgmt", 438, Verstat.FAILED)
    REPLAY = ("E21 replay", 438, Verstat.FAILED)
    REPLAY_MEMORY = ("E21 replay memory", 438, Verstat.NONE)
    SDP = ("E22 SDP", 438, Verstat.FAILED)

    def __init__(self, label: str, reasoncode: int, verstat: Verstat) -> None:
        self.label = label
        self.reasoncode = reasoncode
        self.verstat = verstat


class VerificationFailed(PeerError):
    """A step failed; the message is the sentence for people, without any subscriber's number."""

    def __init__(self, step: Step, sentence: str) -> None:
        super().__init__(sentence)
        self.step = step


class KeyMgmt(StrEnum):
    """The result of checking the keying in the call's SDP."""

    VERIFIED = "verified"
    """The SDP carries the key management that the caller signed."""
    NONE = "none"
    """The SDP carries no key management, and the caller signed none."""
    NOT_CHECKED = "not-checked"
    """The proxy did not say what the SDP carries."""


class SdpBinding(StrEnum):
    """The result of checking the session description as a whole."""

    VERIFIED = "verified"
    """It is the one that the caller's operator signed."""
    NOT_SIGNED = "not-signed"
    """The caller's operator did not sign it, for instance because elements on the path rewrite addresses."""
    NOT_CHECKED = "not-checked"
    """It was signed, but the proxy did not say which one arrived."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to a verification request. `reasoncode` is None, and the texts are empty, if all steps passed."""

    verstat: Verstat
    reasoncode: int | None = None
    reasontext: str = ""
    reasondesc: str = ""
    step: str = ""
    """The step that failed, for instance "E17 certificate"."""
    signer: str = ""
    """Organisation that recorded the certificate named by the token; `verstat` says whether it really signed."""
    certificate: CertDigest | None = None
    """H(CERT) that the token names."""
    attest: str = ""
    key_mgmt: KeyMgmt = KeyMgmt.NOT_CHECKED
    sdp: SdpBinding = SdpBinding.NOT_CHECKED


@dataclass(frozen=True, slots=True)
class Call:
    """What the signalling says about the call, in canonical form; the Identity header is as received."""

    orig: Tn
    dest: Destinations
    time_s: int
    """The SIP Date, or the time of receipt where there was none."""
    identity: str
    key_mgmt: tuple[str, ...] | None = None
    """Raw `a=key-mgmt` values of the SDP, in order; None if the proxy did not send them."""
    sdp: bytes | None = None
    """Digest of the INVITE's body (`voice_dpki.stir.body`); None if the proxy did not send it."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What this verifier requires of every call."""

    freshness_s: float = 60.0
    """How far `time` and `iat` may lie from now, in both directions (RFC 8224 §6.2 recommends sixty seconds)."""
    require_key_mgmt: bool = False
    """Refuse calls without signed key management."""
    require_sdp: bool = False
    """Refuse calls whose session description is not signed."""


@dataclass(frozen=True, slots=True)
class Examined:
    """A call whose token is well formed and agrees with the signalling; the signer is not known yet."""

    call: Call
    passport: Passport
    claims: ShakenClaims
    digest: CertDigest
    """H(CERT) of the signer, to be looked up on the ledger."""


def examine(call: Call, policy: Policy, now_s: float) -> Examined:
    """Run the steps that need no ledger; raises VerificationFailed."""
    _time(call.time_s, policy, now_s)
    header = _form(call.identity)
    _ppt_parameter(header)
    digest = _info_url(_info(header))
    passport = _header(header.token)
    _critical(passport)
    _x5u(passport, header)
    _typ(passport)
    _alg(passport, header)
    _ppt(passport)
    claims = _claims(passport)
    _iat(claims.iat_s, policy, now_s)
    _numbers(claims, call)
    _attest(claims)
    return Examined(call, passport, claims, digest)


def judge(
    examined: Examined,
    recorded: RecordedCertificate,
    policy: Policy,
    replays: ReplayCache,
    now_s: float,
    steady_s: float | None = None,
) -> Verdict:
    """Run the steps that need what the ledger says of the signer; raises VerificationFailed.

    The token enters `replays` only when every other step has passed, so nobody can use it up with a changed copy.
    Its retention is measured by `steady_s`, the monotonic clock, so that setting the wall clock neither shortens
    nor extends it; if that is None, by `now_s`.
    """
    trusted = _certificate(examined, recorded, now_s)
    _authority(examined.claims.orig, trusted)
    _signature(examined.passport, trusted.profile)
    key_mgmt = _key_mgmt(examined, policy)
    sdp = _sdp(examined, policy)
    _replay(examined.passport, trusted.organization, replays, now_s if steady_s is None else steady_s)
    return Verdict(
        Verstat.PASSED,
        signer=trusted.organization,
        certificate=examined.digest,
        attest=examined.claims.attest,
        key_mgmt=key_mgmt,
        sdp=sdp,
    )


def verdict_of(failure: VerificationFailed, signer: str = "", certificate: CertDigest | None = None) -> Verdict:
    """Return the verdict for a failed step."""
    step = failure.step
    return Verdict(
        step.verstat,
        reasoncode=step.reasoncode,
        reasontext=REASON_TEXTS[step.reasoncode],
        reasondesc=f"{str(failure)[0].upper()}{str(failure)[1:]}.",
        step=step.label,
        signer=signer,
        certificate=certificate,
    )


def _time(time_s: int, policy: Policy, now_s: float) -> None:
    """E3: the SIP Date is fresh (RFC 8224 §6.2 step 4)."""
    if abs(now_s - time_s) > policy.freshness_s:
        raise VerificationFailed(Step.TIME, _stale("the request's Date", time_s, policy, now_s))


def _form(identity: str) -> IdentityHeader:
    """E4: the header field is well formed and of the full form (RFC 8224 §4; ATIS-1000074 §5.3.3).

    An info that is no URI in angle brackets fails E6 instead: the field is well formed, but its signer is unknown.
    """
    try:
        header = IdentityHeader.parse(identity)
    except InfoFormError as error:
        raise VerificationFailed(Step.INFO, str(error)) from None
    except MalformedError as error:
        raise VerificationFailed(Step.FORM, str(error)) from None
    if header.token.startswith(".."):
        raise VerificationFailed(
            Step.FORM, "the Identity is of the compact form, and SHAKEN uses the full form only"
        )
    return header


def _ppt_parameter(header: IdentityHeader) -> None:
    """E5: the ppt parameter, if present, is shaken, the only supported type (RFC 8224 §6.2 step 1)."""
    if header.ppt is not None and ascii_lower(header.ppt) != "shaken":
        raise VerificationFailed(Step.PPT_PARAMETER, "the Identity's ppt is not shaken, which alone is supported")


def _info(header: IdentityHeader) -> str:
    """E6: the info parameter is present (RFC 8224 §4)."""
    if not header.info:
        raise VerificationFailed(Step.INFO, "the Identity has no info parameter, so its signer is not known")
    return header.info


def _info_url(info: str) -> CertDigest:
    """E7: info names a certificate by its digest; the URL itself is never fetched (RFC 8224 §7.2)."""
    try:
        return digest_in(info)
    except MalformedError as error:
        raise VerificationFailed(Step.INFO_URL, f"the Identity's info cannot be used: {error}") from None


def _header(token: str) -> Passport:
    """E9: the token decodes, and its header has the four parameters (RFC 8225 §4, §8.1)."""
    try:
        passport = Passport.parse(token)
    except MalformedError as error:
        raise VerificationFailed(Step.HEADER, f"the PASSporT cannot be decoded: {error}") from None
    for name in ("alg", "ppt", "typ", "x5u"):
        if passport.header_text(name) is None:
            raise VerificationFailed(Step.HEADER, f"the PASSporT's header has no {name} (RFC 8225 §4)")
    return passport


def _critical(passport: Passport) -> None:
    """E9: the header marks no extension as critical, for none is supported (RFC 7515 §4.1.11)."""
    if "crit" in passport.header:
        raise VerificationFailed(
            Step.CRITICAL, "the PASSporT's header has crit, and no extension that it could name is supported"
        )


def _x5u(passport: Passport, header: IdentityHeader) -> None:
    """E10: x5u is exactly the URL in info (RFC 8224 §4.1, third)."""
    if passport.header_text("x5u") != header.info:
        raise VerificationFailed(Step.X5U, "the PASSporT's x5u and the Identity's info are different URLs")


def _typ(passport: Passport) -> None:
    """E11: the token is of type passport (RFC 8225 §4.1)."""
    if passport.header_text("typ") != "passport":
        raise VerificationFailed(Step.TYP, "the token's typ is not passport (RFC 8225 §4.1)")


def _alg(passport: Passport, header: IdentityHeader) -> None:
    """E12: the algorithm is ES256, in the token and in the header field (RFC 8225 §4.2; RFC 8224 §4.1, second)."""
    alg = "es256" if header.alg is None else ascii_lower(header.alg)
    if passport.header_text("alg") != "ES256" or alg != "es256":
        raise VerificationFailed(Step.ALG, "the signature's alg is not ES256, which alone is supported")


def _ppt(passport: Passport) -> None:
    """E13: the token is a SHAKEN PASSporT (RFC 8588 §3)."""
    if passport.header_text("ppt") != "shaken":
        raise VerificationFailed(Step.PPT, "the PASSporT's ppt is not shaken, which alone is supported")


def _claims(passport: Passport) -> ShakenClaims:
    """E14: all claims are present and well formed (RFC 8225 §5, RFC 8588 §4, §5)."""
    try:
        return ShakenClaims.parse(passport.payload_untrusted)
    except (ClaimError, MalformedError) as error:
        raise VerificationFailed(Step.CLAIMS, f"the PASSporT's payload cannot be used: {error}") from None


def _iat(iat_s: int, policy: Policy, now_s: float) -> None:
    """E15: the signature is fresh; an iat in the future is as stale as an old one (RFC 8224 §6.2 step 4)."""
    if abs(now_s - iat_s) > policy.freshness_s:
        raise VerificationFailed(Step.IAT, _stale("the signature's iat", iat_s, policy, now_s))


def _numbers(claims: ShakenClaims, call: Call) -> None:
    """E16: the token names the caller and the callee of the signalling (RFC 8224 §6.2.4)."""
    if claims.orig != call.orig:
        raise VerificationFailed(Step.NUMBERS, "the signed caller is not the caller in the signalling")
    if not claims.dest.includes(call.dest):
        raise VerificationFailed(Step.NUMBERS, "the signed destination is not the destination in the signalling")


def _attest(claims: ShakenClaims) -> None:
    """E19: the attestation is A, B or C (RFC 8588 §4). This step runs early, for it does not need the ledger."""
    if claims.attest not in ATTESTATIONS:
        raise VerificationFailed(Step.ATTEST, "the attestation is none of A, B and C (RFC 8588 §4)")


def _certificate(examined: Examined, recorded: RecordedCertificate, now_s: float) -> TrustedCertificate:
    """E17: the ledger vouches for the signer's certificate, which may sign calls now and at the time of this one.

    Sources: RFC 8224 §6.2 steps 3 and 4, §7.1.
    """
    if recorded.digest != examined.digest:
        raise LocalError("the ledger was asked about another certificate than the signer's")
    try:
        trusted = judge_certificate(recorded, Use.SIGN_CALLS, now_s)
    except CertificateRefused as refused:
        raise _distrusted(refused) from None
    if not (trusted.profile.valid_at(now_s) and trusted.profile.valid_at(examined.claims.iat_s)):
        raise VerificationFailed(
            Step.CERTIFICATE,
            f"{_SIGNERS} cannot be used: the call is not within its validity (RFC 8224 §6.2 step 4)",
        )
    return trusted


def _authority(orig: Tn, trusted: TrustedCertificate) -> None:
    """E17: the certificate covers the caller's number (RFC 8226 §9)."""
    try:
        trusted.check_caller(orig)
    except CertificateRefused as refused:
        raise _distrusted(refused) from None


_SIGNERS = "the signer's certificate"

_STEPS = {
    Distrust.NOT_GIVEN: Step.LEDGER,
    Distrust.CONSTRAINTS: Step.CONSTRAINTS,
    Distrust.NO_NUMBERS: Step.AUTHORITY,
    Distrust.NUMBERS: Step.AUTHORITY,
    Distrust.CALLER: Step.AUTHORITY,
}
"""The step that fails for each reason to distrust a certificate; for all others it is E17 certificate."""


def _distrusted(refused: CertificateRefused) -> VerificationFailed:
    return VerificationFailed(_STEPS.get(refused.code, Step.CERTIFICATE), refused.about(_SIGNERS))


def _signature(passport: Passport, profile: CertificateProfile) -> None:
    """E18: the signature verifies over the bytes as received (RFC 8224 §6.2 step 5)."""
    try:
        verify_signature(profile.public_key_der, "ES256", passport.signing_input, passport.signature)
    except SignatureError:
        raise VerificationFailed(Step.SIGNATURE, "the signature does not verify under the signer's key") from None


def _key_mgmt(examined: Examined, policy: Policy) -> KeyMgmt:
    """E20: the SDP's key management values are those that were signed, in number and order (RFC 4567 §3.1)."""
    given, signed = examined.call.key_mgmt, examined.claims.key_mgmt
    if policy.require_key_mgmt and (given is None or not signed):
        what = "the proxy did not tell the SDP's" if given is None else "the caller signed no"
        raise VerificationFailed(Step.KEY_MGMT, f"{what} key management, and this domain requires it")
    if given is None:
        return KeyMgmt.NOT_CHECKED
    sentence = _difference(key_mgmt_digests(given), signed)
    if sentence:
        raise VerificationFailed(Step.KEY_MGMT, sentence)
    return KeyMgmt.VERIFIED if signed else KeyMgmt.NONE


def _difference(given: Sequence[bytes], signed: Sequence[bytes]) -> str:
    if not given and signed:
        return "the key management that the caller signed was taken out of the SDP"
    if given and not signed:
        return "the SDP carries key management that the caller did not sign"
    if len(given) != len(signed):
        return f"the SDP carries {len(given)} key management values, and the caller signed {len(signed)}"
    return "" if given == signed else "the SDP's key management is not what the caller signed"


def _sdp(examined: Examined, policy: Policy) -> SdpBinding:
    """E22: the session description is the signed one, line for line. It runs before E21, which must come last."""
    given, signed = examined.call.sdp, examined.claims.sdp
    if policy.require_sdp and (given is None or signed is None):
        what = "the proxy did not tell the" if given is None else "the caller's operator signed no"
        raise VerificationFailed(Step.SDP, f"{what} session description, and this domain requires it")
    if signed is None:
        return SdpBinding.NOT_SIGNED
    if given is None:
        return SdpBinding.NOT_CHECKED
    if given != signed:
        raise VerificationFailed(
            Step.SDP, "the session description is not the one that the caller's operator signed"
        )
    return SdpBinding.VERIFIED


def _replay(passport: Passport, signer: str, replays: ReplayCache, now_s: float) -> None:
    """E21: this token has not been accepted before (RFC 8224 §12.1)."""
    key = replay_key(passport)
    if replays.seen(key, now_s):
        raise VerificationFailed(
            Step.REPLAY, "this Identity was used before: the same signature has already set up a call"
        )
    if replays.full(now_s, signer):
        raise VerificationFailed(
            Step.REPLAY_MEMORY,
            "this signer's share of the memory of used signatures is full, so a replay could not be told; "
            "try again in a minute",
        )
    replays.add(key, now_s, signer)


def _stale(what: str, then_s: int, policy: Policy, now_s: float) -> str:
    side = "before" if then_s < now_s else "after"
    return (
        f"{what} lies {abs(now_s - then_s):.0f} s {side} the verifier's clock, "
        f"and {policy.freshness_s:.0f} s are allowed"
    )
