"""Verification of one Identity: the steps that need the request alone (RFC 8224 §6.2, ATIS-1000082).

`examine` runs these steps, and tells which certificate to look up on the ledger. `voice_dpki.stir.verify` runs
those that need the ledger's record of it. Each step is one function that raises VerificationFailed if it fails.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from voice_dpki.errors import MalformedError
from voice_dpki.names import CertDigest, ascii_lower
from voice_dpki.stir.base import whole
from voice_dpki.stir.call import Call
from voice_dpki.stir.identity import IdentityHeader, InfoFormError
from voice_dpki.stir.kind import Kind
from voice_dpki.stir.kinds import KINDS, Kinds, UnknownKindError
from voice_dpki.stir.passport import ClaimError, Claims, Passport, is_compact
from voice_dpki.stir.profile import Profile
from voice_dpki.stir.replay import RepeatedToken
from voice_dpki.stir.verdict import Step, VerificationFailed
from voice_dpki.stir.x5u import digest_in_chain
from voice_dpki.x509.reference import digest_in

_C = TypeVar("_C", bound=Claims)


@dataclass(frozen=True, slots=True)
class Policy:
    """What this verifier requires of every call."""

    freshness_s: float = 60.0
    """How far `time` and `iat` may lie from now, in both directions (RFC 8224 §6.2 recommends sixty seconds)."""
    require_key_mgmt: bool = False
    """Refuse calls without signed key management."""
    require_sdp: bool = False
    """Refuse calls whose session description is not signed."""
    kinds: Kinds = KINDS
    """The kinds of PASSporT that it understands."""
    priority: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By organisation: the namespaces of Resource-Priority, in lower case, that it may sign (RFC 8443 §7.2)."""
    repeated_token: RepeatedToken = RepeatedToken.ACCEPT
    """How a token that was seen before is judged if no Call-ID tells whether the call is the same."""
    b2bua: frozenset[str] = frozenset()
    """Clients whose Call-IDs are ignored, because they change while a call is set up."""
    profile: Profile = Profile.ATIS
    """The rules by which an Identity is read; `kinds` must be the kinds that they know."""
    digest_at: Callable[[str], CertDigest] = digest_in
    """Returns H(CERT) of the certificate that a URL names; raises MalformedError, or VerificationFailed."""


@dataclass(frozen=True, slots=True)
class Examined:
    """A call whose token is well formed and agrees with the signalling; the signer is not known yet."""

    call: Call
    kind: Kind[Any]
    passport: Passport
    claims: Claims
    digest: CertDigest
    """H(CERT) of the signer, to be looked up on the ledger."""


def examine(call: Call, identity: str, policy: Policy, now_s: float) -> Examined:
    """Run the steps that need no ledger on the call's only Identity; raises VerificationFailed."""
    examined = examine_token(call, identity, policy, now_s)
    check_alone(examined)
    return examined


def examine_token(call: Call, identity: str, policy: Policy, now_s: float) -> Examined:
    """Run the steps that need neither the ledger nor the call's other Identities; raises VerificationFailed.

    They do not check whether the token leads to the callee (`voice_dpki.stir.diversion`).
    """
    check_time(call.time_s, policy, now_s)
    header = read_form(identity, policy.kinds)
    check_parameters(header, policy)
    check_ppt_parameter(header, policy.kinds)
    opened = opened_token(header, call)
    named = read_info_url(read_info(header, opened), opened, policy)
    passport = read_header(opened, header, policy.kinds)
    check_critical(passport)
    digest = read_certificate(passport, header, named)
    assert digest is not None, "E7 has passed"
    check_typ(passport)
    check_alg(passport, header)
    kind = read_kind(passport, header, policy.kinds)
    check_side(kind, call)
    claims = read_claims(passport, kind)
    check_iat(claims.iat_s, policy, now_s)
    check_caller(claims, call)
    for check in kind.checks:
        check(claims, call)
    return Examined(call, kind, passport, claims, digest)


def check_time(time_s: int, policy: Policy, now_s: float) -> None:
    """E3: the SIP Date is fresh (RFC 8224 §6.2 step 4)."""
    if abs(now_s - time_s) > policy.freshness_s:
        raise VerificationFailed(Step.TIME, _stale("the request's Date", time_s, policy, now_s))


def read_form(identity: str, kinds: Kinds) -> IdentityHeader:
    """E4: the header field is well formed, and compact only for a base PASSporT (RFC 8224 §4, §9).

    An info that is no URI in angle brackets fails E6 instead: the field is well formed, but its signer is unknown.
    """
    try:
        header = IdentityHeader.parse(identity)
    except InfoFormError as error:
        raise VerificationFailed(Step.INFO, str(error)) from None
    except MalformedError as error:
        raise VerificationFailed(Step.FORM, str(error)) from None
    if is_compact(header.token) and (kinds.base is None or header.ppt is not None):
        raise VerificationFailed(
            Step.FORM, "the Identity is of the compact form, and its type uses the full form only"
        )
    return header


def opened_token(header: IdentityHeader, call: Call | None) -> Passport | MalformedError:
    """Decode the token, or return the error, with which E9 fails. The compact form needs its call."""
    try:
        if call is not None and is_compact(header.token):
            return whole(header, call)
        return Passport.parse(header.token)
    except MalformedError as error:
        return error


def check_parameters(header: IdentityHeader, policy: Policy) -> None:
    """E4, E5, E12: if the profile demands it, alg and ppt are there, and no parameters besides them and info."""
    if not policy.profile.needs_parameters:
        return
    if header.has_others:
        raise VerificationFailed(Step.FORM, "the Identity has parameters besides info, alg and ppt")
    if header.ppt is None:
        raise VerificationFailed(Step.PPT_PARAMETER, "the Identity has no ppt parameter")
    if header.alg is None:
        raise VerificationFailed(Step.ALG, "the Identity has no alg parameter")


def check_ppt_parameter(header: IdentityHeader, kinds: Kinds) -> None:
    """E5: the ppt parameter, if present, is a supported kind (RFC 8224 §6.2 step 1)."""
    if header.ppt is None:
        return
    try:
        kinds.named(ascii_lower(header.ppt))
    except UnknownKindError as error:
        raise VerificationFailed(Step.PPT_PARAMETER, f"the Identity's ppt {error}") from None


def read_info(header: IdentityHeader, opened: Passport | MalformedError) -> str:
    """E6: the info parameter is present, or else the token has its certificate in x5c (RFC 8224 §4).

    Returns info, or "".
    """
    if not header.info and not _brings_certificate(opened):
        raise VerificationFailed(Step.INFO, "the Identity has no info parameter, so its signer is not known")
    return header.info or ""


def read_info_url(info: str, opened: Passport | MalformedError, policy: Policy) -> CertDigest | None:
    """E7: info names a certificate that `policy.digest_at` finds. No URL is fetched here (RFC 8224 §7.2).

    Returns None for any other URL if the token has x5c, which names the certificate then.
    """
    try:
        return policy.digest_at(info)
    except MalformedError as error:
        if _brings_certificate(opened):
            return None
        raise VerificationFailed(Step.INFO_URL, f"the Identity's info cannot be used: {error}") from None
    except VerificationFailed:
        if _brings_certificate(opened):
            return None
        raise


def _brings_certificate(opened: Passport | MalformedError) -> bool:
    return isinstance(opened, Passport) and "x5c" in opened.header


def read_header(opened: Passport | MalformedError, header: IdentityHeader, kinds: Kinds) -> Passport:
    """E9: the token decodes, and its header has the parameters that it needs (RFC 8225 §4, §8.1).

    A base PASSporT has no ppt, nor has its Identity. One with x5c needs no x5u.
    """
    if isinstance(opened, MalformedError):
        raise VerificationFailed(Step.HEADER, f"the PASSporT cannot be decoded: {opened}")
    has_no_kind = kinds.base is not None and header.ppt is None
    optional = {"ppt": has_no_kind, "x5u": _brings_certificate(opened)}
    for name in ("alg", "ppt", "typ", "x5u"):
        may_lack = name not in opened.header and optional.get(name, False)
        if opened.header_text(name) is None and not may_lack:
            raise VerificationFailed(Step.HEADER, f"the PASSporT's header has no {name} (RFC 8225 §4)")
    return opened


def check_critical(passport: Passport) -> None:
    """E9: the header marks no extension as critical, for none is supported (RFC 7515 §4.1.11)."""
    if "crit" in passport.header:
        raise VerificationFailed(
            Step.CRITICAL, "the PASSporT's header has crit, and no extension that it could name is supported"
        )


def read_certificate(passport: Passport, header: IdentityHeader, named: CertDigest | None) -> CertDigest | None:
    """E10: x5u is exactly the URL in info, and x5c the certificate that it names, if it names one (RFC 8224 §4.1).

    `named` is the certificate in info. Returns the signer's certificate; None only if E7 has failed.
    """
    x5u = passport.header_text("x5u")
    if x5u != header.info and not (x5u is None and _brings_certificate(passport)):
        raise VerificationFailed(Step.X5U, "the PASSporT's x5u and the Identity's info are different URLs")
    if not _brings_certificate(passport):
        return named
    try:
        digest = digest_in_chain(passport.header["x5c"])
    except MalformedError as error:
        raise VerificationFailed(Step.X5U, f"the PASSporT's x5c cannot be used: {error}") from None
    if named not in (None, digest):
        raise VerificationFailed(Step.X5U, "the PASSporT's x5c is another certificate than the one that info names")
    return digest


def check_typ(passport: Passport) -> None:
    """E11: the token is of type passport (RFC 8225 §4.1)."""
    if passport.header_text("typ") != "passport":
        raise VerificationFailed(Step.TYP, "the token's typ is not passport (RFC 8225 §4.1)")


def check_alg(passport: Passport, header: IdentityHeader) -> None:
    """E12: the algorithm is ES256, in the token and in the header field (RFC 8225 §4.2; RFC 8224 §4.1, second)."""
    alg = "es256" if header.alg is None else ascii_lower(header.alg)
    if passport.header_text("alg") != "ES256" or alg != "es256":
        raise VerificationFailed(Step.ALG, "the signature's alg is not ES256, which alone is supported")


def read_kind(passport: Passport, header: IdentityHeader, kinds: Kinds) -> Kind[Any]:
    """E13: the token is of a supported kind, the one in the header field (RFC 8225 §8.1; RFC 8224 §4.1, fourth)."""
    try:
        kind = kinds.of("") if "ppt" not in passport.header else kinds.named(passport.header_text("ppt") or "")
    except UnknownKindError as error:
        raise VerificationFailed(Step.PPT, f"the PASSporT's ppt {error}") from None
    if header.ppt is not None and ascii_lower(header.ppt) != kind.ppt:
        raise VerificationFailed(Step.PPT, "the PASSporT's ppt and the Identity's are different")
    return kind


def check_side(kind: Kind[Any], call: Call) -> None:
    """E13: the answer to a call has a token of a kind for answers, and the call itself has none (RFC 9970)."""
    if kind.answers and not call.is_answer:
        raise VerificationFailed(Step.PPT, "the PASSporT is of a type that stands in the answer to a call alone")
    if call.is_answer and not kind.answers:
        raise VerificationFailed(Step.PPT, "the PASSporT is of a type that does not stand in the answer to a call")


def read_claims(passport: Passport, kind: Kind[_C]) -> _C:
    """E14: all claims are present and well formed (RFC 8225 §5, and the section of each kind)."""
    try:
        return kind.parse(passport.payload_untrusted)
    except (ClaimError, MalformedError) as error:
        raise VerificationFailed(Step.CLAIMS, f"the PASSporT's payload cannot be used: {error}") from None


def check_iat(iat_s: int, policy: Policy, now_s: float) -> None:
    """E15: the signature is fresh; an iat in the future is as stale as an old one (RFC 8224 §6.2 step 4)."""
    if abs(now_s - iat_s) > policy.freshness_s:
        raise VerificationFailed(Step.IAT, _stale("the signature's iat", iat_s, policy, now_s))


def check_caller(claims: Claims, call: Call) -> None:
    """E16: the token names the caller of the signalling (RFC 8224 §6.2.4)."""
    if claims.orig != call.orig:
        raise VerificationFailed(Step.NUMBERS, "the signed caller is not the caller in the signalling")


def check_destination(claims: Claims, call: Call) -> None:
    """E16: the token of a call that was not diverted names the callee of the signalling (RFC 8224 §6.2.4)."""
    if not claims.dest.includes(call.dest):
        raise VerificationFailed(Step.NUMBERS, "the signed destination is not the destination in the signalling")


def check_alone(examined: Examined) -> None:
    """E16: a token that has no others beside it leads to the callee, and is no diversion (RFC 8946 §4.2)."""
    if examined.kind.diverts is not None:
        raise VerificationFailed(
            Step.DIVERSION, "the PASSporT from which this one diverts the call is not there (RFC 8946 §4.2)"
        )
    check_destination(examined.claims, examined.call)


def _stale(what: str, then_s: int, policy: Policy, now_s: float) -> str:
    side = "before" if then_s < now_s else "after"
    return (
        f"{what} lies {abs(now_s - then_s):.0f} s {side} the verifier's clock, "
        f"and {policy.freshness_s:.0f} s are allowed"
    )
