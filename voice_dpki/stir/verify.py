"""Verification of one Identity by the ledger's record of its signer (RFC 8224 §6.2, ATIS-1000082).

`voice_dpki.stir.examine` runs the steps before these, and tells which certificate to look up. `judge` runs those
that need its record or, outside the federation, the operator's list. Each step is one function that raises
VerificationFailed if it fails.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from voice_dpki.codec import canonical_json
from voice_dpki.codec.canonical_json import Json
from voice_dpki.errors import LocalError
from voice_dpki.names import Tn
from voice_dpki.stir.examine import Examined, Policy
from voice_dpki.stir.outside import OutsideSigner, refused_by_list
from voice_dpki.stir.passport import Passport, key_mgmt_digests
from voice_dpki.stir.replay import RepeatedToken, ReplayCache, Sighting, TokenUse, Uses, call_digest, settle
from voice_dpki.stir.verdict import KeyMgmt, SdpBinding, Step, Trust, Verdict, VerificationFailed, Verstat
from voice_dpki.x509.keys import SignatureError
from voice_dpki.x509.listed import ListedError
from voice_dpki.x509.p256 import verify_es256
from voice_dpki.x509.profile import CertificateProfile
from voice_dpki.x509.recorded import CertificateRefused, Distrust, RecordedCertificate, Use, check_usable
from voice_dpki.x509.recorded import judge as judge_certificate

Vouched = RecordedCertificate | OutsideSigner
"""What vouches for a signer: the ledger's record, or the operator's list for one outside the federation."""


class Trusted(Protocol):
    """A signer's certificate that is trusted."""

    @property
    def profile(self) -> CertificateProfile:
        """The certificate."""

    @property
    def organization(self) -> str:
        """The signer's organisation."""

    def check_number(self, number: Tn, whose: str) -> None:
        """Check that it has authority over `number`; raises CertificateRefused or ListedError."""

    def check_claims(self, read_claims: Callable[[], Mapping[str, Json]]) -> None:
        """Check that it permits a PASSporT's claims; raises CertificateRefused."""


def judge(
    examined: Examined,
    vouched: Vouched,
    policy: Policy,
    replays: ReplayCache,
    now_s: float,
    steady_s: float | None = None,
) -> Verdict:
    """Run the steps that need what vouches for the signer; raises VerificationFailed.

    The token enters `replays` only when every other step has passed, so nobody can use it up with a changed copy.
    Its retention is measured by `steady_s`, the monotonic clock, so that setting the wall clock neither shortens
    nor extends it; if that is None, by `now_s`.
    """
    verdict = prove(examined, vouched, policy, now_s)
    settle(remember(examined, share_of(verdict), policy), replays, now_s if steady_s is None else steady_s)
    return verdict


def prove(examined: Examined, vouched: Vouched, policy: Policy, now_s: float) -> Verdict:
    """Run the steps that need what vouches for the signer, except E21; raises VerificationFailed."""
    kind = examined.kind
    _check_settled(examined, vouched, now_s)
    trusted = _certificate(examined, vouched, now_s)
    _authority(examined, trusted, policy)
    _constraints(examined.passport, trusted)
    _signature(examined.passport, trusted.profile)
    proves = kind.proves(examined.call)
    key_mgmt = _key_mgmt(examined, policy) if kind.proves_caller else KeyMgmt.NOT_CHECKED
    sdp = _sdp(examined, policy) if kind.proves_caller else SdpBinding.NOT_CHECKED
    return Verdict(
        Verstat.PASSED if proves else Verstat.NONE,
        reasondesc="" if proves else f"A {kind.ppt} PASSporT proves nothing about the caller's number.",
        signer=trusted.organization,
        certificate=examined.digest,
        attest=examined.claims.attest,
        key_mgmt=key_mgmt,
        sdp=sdp,
        about_caller=proves,
        trust=trust_of(vouched),
    )


def check_signed(examined: Examined, recorded: RecordedCertificate, now_s: float) -> None:
    """Check that a certificate on the ledger may sign calls, and has signed this token; raises VerificationFailed.

    The ledger is asked about numbers only for such a token: a forged one could name any number.
    """
    try:
        profile = check_usable(recorded, Use.SIGN_CALLS, now_s)
    except CertificateRefused as refused:
        raise _distrusted(refused) from None
    _signature(examined.passport, profile)


def _check_settled(examined: Examined, vouched: Vouched, now_s: float) -> None:
    """Run E18 before E17 if the ledger was not asked about the number, as it is not for a forged token."""
    number_of = examined.kind.authority.number
    if number_of is None or not isinstance(vouched, RecordedCertificate) or vouched.allotment is None:
        return
    if not vouched.allotment.is_settled(number_of(examined.claims)):
        check_signed(examined, vouched, now_s)


def trust_of(vouched: Vouched) -> Trust:
    """Return the basis of the trust in a signer."""
    return Trust.LIST if isinstance(vouched, OutsideSigner) else Trust.LEDGER


def share_of(verdict: Verdict) -> str:
    """Return whose share of the replay memory a verdict counts in.

    A signer outside the federation may have a member's name, and must not use up the member's share.
    """
    return f"\0{verdict.signer}" if verdict.trust is Trust.LIST else verdict.signer


def _certificate(examined: Examined, vouched: Vouched, now_s: float) -> Trusted:
    """E17: the signer's certificate is vouched for, and may sign calls now and at the time of this one.

    Sources: RFC 8224 §6.2 steps 3 and 4, §7.1.
    """
    if vouched.digest != examined.digest:
        raise LocalError("what vouches for the signer is about another certificate than the signer's")
    trusted = _outside(vouched, now_s) if isinstance(vouched, OutsideSigner) else _member(vouched, now_s)
    if not (trusted.profile.valid_at(now_s) and trusted.profile.valid_at(examined.claims.iat_s)):
        raise VerificationFailed(
            Step.CERTIFICATE,
            f"{_SIGNERS} cannot be used: the call is not within its validity (RFC 8224 §6.2 step 4)",
        )
    return trusted


def _member(recorded: RecordedCertificate, now_s: float) -> Trusted:
    try:
        return judge_certificate(recorded, Use.SIGN_CALLS, now_s)
    except CertificateRefused as refused:
        raise _distrusted(refused) from None


def _outside(signer: OutsideSigner, now_s: float) -> Trusted:
    try:
        signer.check_standing(now_s)
    except ListedError as error:
        raise refused_by_list(error) from None
    return signer


def _authority(examined: Examined, trusted: Trusted, policy: Policy) -> None:
    """E17: the signer has authority over what the kind needs, such as the caller's number (RFC 8226 §9)."""
    needed, claims = examined.kind.authority, examined.claims
    if needed.number is not None:
        try:
            trusted.check_number(needed.number(claims), needed.to_verifiers)
        except CertificateRefused as refused:
            raise _distrusted(refused) from None
        except ListedError as error:
            raise refused_by_list(error) from None
    namespaces = frozenset() if needed.namespaces is None else needed.namespaces(claims)
    granted = {} if isinstance(trusted, OutsideSigner) else policy.priority
    if not namespaces <= granted.get(trusted.organization, frozenset()):
        sentence = f"{_SIGNERS} has no authority over {needed.to_verifiers}, as far as this verifier is configured"
        raise VerificationFailed(Step.AUTHORITY, sentence)


def _constraints(passport: Passport, trusted: Trusted) -> None:
    """E17: the signer's certificate permits what the token says (RFC 8226 §8, RFC 9118 §3)."""
    try:
        trusted.check_claims(lambda: canonical_json.decode_object(passport.payload_untrusted))
    except CertificateRefused as refused:
        raise _distrusted(refused) from None


_SIGNERS = "the signer's certificate"

_STEPS = {
    Distrust.NOT_GIVEN: Step.LEDGER,
    Distrust.NOT_ASKED: Step.LEDGER,
    Distrust.NO_NUMBERS: Step.AUTHORITY,
    Distrust.NUMBERS: Step.AUTHORITY,
    Distrust.AUTHORITY: Step.AUTHORITY,
    Distrust.CLAIMS: Step.CONSTRAINTS,
}
"""The step that fails for each reason to distrust a certificate; for all others it is E17 certificate."""


def _distrusted(refused: CertificateRefused) -> VerificationFailed:
    return VerificationFailed(_STEPS.get(refused.code, Step.CERTIFICATE), refused.about(_SIGNERS))


def _signature(passport: Passport, profile: CertificateProfile) -> None:
    """E18: the signature verifies over the bytes as received (RFC 8224 §6.2 step 5).

    The bytes of the compact form were rebuilt from the call. An element on the path that rewrites To or Date makes
    the step fail as well (RFC 8224 §6.2.2), so this failure is no proof against the caller.
    """
    try:
        verify_es256(profile.public_key_der, passport.signing_input, passport.signature)
    except SignatureError:
        if passport.is_detached:
            raise VerificationFailed(
                Step.COMPACT, "the signature is not over this call, as it is now; the full form would tell more"
            ) from None
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


def remember(examined: Examined, signer: str, policy: Policy, *, is_diverted: bool = False) -> Uses[None]:
    """E21: no other call has used this token (RFC 8224 §12.1); raises VerificationFailed.

    A diverted call has a new token for the diversion. Its earlier tokens may have been seen, since the diverting
    party has verified them, perhaps with this server. No memory is asked if a repeated token is accepted anyway.
    """
    call = _call_of(examined, policy)
    if not call and policy.repeated_token is RepeatedToken.ACCEPT:
        return
    kind = examined.kind
    key = kind.ppt.encode() + b"." + kind.replay_key(examined.passport)
    sighting = yield TokenUse(key, call, signer, examined.claims.iat_s)
    if not is_diverted or sighting is Sighting.FULL:
        check_sighting(sighting, policy)


def _call_of(examined: Examined, policy: Policy) -> bytes:
    """Return the digest of the call's Call-ID; b"" without one, or if the client's Call-IDs are ignored."""
    call = examined.call
    return call_digest("" if call.source.peer in policy.b2bua else call.call_id)


def check_sighting(sighting: Sighting, policy: Policy) -> None:
    """E21: what the memory knows of a token admits its use; raises VerificationFailed."""
    if sighting is Sighting.REPEATED and policy.repeated_token is not RepeatedToken.ACCEPT:
        refuses = policy.repeated_token is RepeatedToken.REFUSE
        raise VerificationFailed(
            Step.REPLAY if refuses else Step.REPEATED,
            "this Identity was used before, and no Call-ID tells whether by the same call",
        )
    if sighting in _REPLAYS:
        raise VerificationFailed(*_REPLAYS[sighting])


_REPLAYS = {
    Sighting.OTHER_CALL: (
        Step.REPLAY,
        "this Identity was used before: the same signature has already set up another call",
    ),
    Sighting.TOO_OFTEN: (Step.REPEATED, "this call has used its Identity more often than calls fork"),
    Sighting.FULL: (
        Step.REPLAY_MEMORY,
        "this signer's share of the memory of used signatures is full, so a replay could not be told; "
        "try again in a minute",
    ),
    Sighting.UNKNOWN: (
        Step.REPLAY_MEMORY,
        "the memory of used signatures does not reach back to this one, so a replay could not be told",
    ),
}
