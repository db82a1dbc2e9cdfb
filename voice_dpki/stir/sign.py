"""Authentication service: signs a call if its credential has the authority that the kind needs (RFC 8224 §6.1)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from voice_dpki.codec import base64url, canonical_json
from voice_dpki.effects import Signer
from voice_dpki.errors import LocalError, MalformedError, PeerError
from voice_dpki.names import Tn, ascii_lower
from voice_dpki.stir.base import header_for
from voice_dpki.stir.call import SigningRequest
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.kind import Authority
from voice_dpki.stir.kinds import KINDS, Kinds
from voice_dpki.stir.passport import Claims, encoded_header
from voice_dpki.x509.claimconstraints import UNCONSTRAINED, ClaimConstraints, ConstraintError, constraints_in
from voice_dpki.x509.p256 import fastest
from voice_dpki.x509.profile import CertificateProfile
from voice_dpki.x509.recorded import CertificateRefused, Use, check_fitness
from voice_dpki.x509.reference import url_for
from voice_dpki.x509.tnauthlist import TnRange

DEFAULT_MAX_SKEW_S = 60.0
"""How far `iat` may lie from now; RFC 8224 §4.1 recommends sixty seconds."""


class SigningRefused(PeerError):
    """The call gets no signature.

    `code` is stable: "no-authority", "claims", "stale-iat", "credential-not-valid", "not-on-ledger", "no-rule",
    "rule" or "key-unavailable".
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Credential:
    """A key, its certificate, and the URL that names the certificate to verifiers."""

    signer: Signer
    profile: CertificateProfile
    info: str
    spc_ranges: tuple[TnRange, ...] = ()
    """The numbers that the certificate's service provider codes stand for, if it has any."""
    namespaces: frozenset[str] = frozenset()
    """The namespaces of Resource-Priority, in lower case, that this operator may sign (RFC 8443 §7.2)."""

    def authorises(self, tn: Tn) -> bool:
        """Tell whether the certificate's TNAuthList gives authority over `tn` (RFC 8226 §9)."""
        listed = self.profile.tn_auth_list
        return listed is not None and listed.authorises(tn, self.spc_ranges)


def make_credential(
    signer: Signer,
    profile: CertificateProfile,
    info_template: str,
    now_s: float,
    spc_ranges: Sequence[TnRange] = (),
    namespaces: Iterable[str] = (),
) -> Credential:
    """Check that key and certificate can sign calls now, and put the certificate's digest into the URL.

    `info_template` is an http or https URL whose last path element is `{digest}`, optionally with .der or .pem.
    Raises LocalError with the reason.
    """
    if signer.public_key_der != profile.public_key_der:
        raise LocalError("the certificate cannot sign calls: the private key is not the certificate's")
    if not profile.valid_at(now_s):
        raise LocalError("the certificate cannot sign calls: its validity has not begun or is over")
    try:
        check_fitness(profile, Use.SIGN_CALLS)
    except CertificateRefused as refused:
        raise LocalError(f"the certificate cannot sign calls: {refused.about('it')}") from None
    try:
        info = url_for(info_template, profile.digest)
    except MalformedError as error:
        raise LocalError(
            f"info_url: {error}; its last path element must be {{digest}}, perhaps with .der"
        ) from None
    own = frozenset(map(ascii_lower, namespaces))
    return Credential(fastest(signer), profile, info, tuple(spc_ranges), own)


def sign_call(
    request: SigningRequest,
    credential: Credential,
    now_s: float,
    max_skew_s: float = DEFAULT_MAX_SKEW_S,
    kinds: Kinds = KINDS,
) -> IdentityHeader:
    """Sign `request` in the full form (RFC 8224 §4.1.1), after the checks of RFC 8224 §4.1 and §6.1.

    Raises SigningRefused if a check fails, and UnknownKindError for a kind that is not among `kinds`.
    """
    kind = kinds.of(request.ppt)
    claims: Claims = kind.compose(request)
    _check_freshness(request.iat_s, now_s, max_skew_s)
    _check_validity(request.iat_s, credential.profile, now_s)
    _check_authority(kind.authority, claims, credential)
    payload = claims.serialize()
    _check_constraints(payload, constraints_in(credential.profile.claim_constraints))
    signed = f"{_header(kind.ppt, credential.info)}.{base64url.encode(payload)}"
    signature = base64url.encode(credential.signer.sign(signed.encode("ascii")))
    return IdentityHeader(f"{signed}.{signature}", info=credential.info, alg="ES256", ppt=kind.ppt or None)


@lru_cache(maxsize=64)
def _header(ppt: str, info: str) -> str:
    """Return the encoded header of all tokens of a kind that one certificate signs (RFC 8225 §4, §8.1)."""
    return encoded_header(header_for(info) | ({"ppt": ppt} if ppt else {}))


def _check_freshness(iat_s: int, now_s: float, max_skew_s: float) -> None:
    """Refuse an `iat`, which is the call's Date, that is not fresh (RFC 8224 §4.1, third)."""
    if abs(now_s - iat_s) > max_skew_s:
        side = "before" if iat_s < now_s else "after"
        raise SigningRefused(
            "stale-iat",
            f"iat lies {abs(now_s - iat_s):.0f} s {side} this server's clock, and {max_skew_s:.0f} s are allowed",
        )


def _check_validity(iat_s: int, profile: CertificateProfile, now_s: float) -> None:
    """Refuse unless both `iat` and now lie within the credential's validity (RFC 8224 §6.1)."""
    if not (profile.valid_at(now_s) and profile.valid_at(iat_s)):
        raise SigningRefused(
            "credential-not-valid", "this server's certificate is not valid at the time of the call"
        )


def _check_authority(authority: Authority[Any], claims: Claims, credential: Credential) -> None:
    """Refuse unless the credential has authority over what the kind signs for (RFC 8224 §6.1, RFC 8443 §3)."""
    number, namespaces = authority.number, authority.namespaces
    lacks_number = number is not None and not credential.authorises(number(claims))
    lacks_namespace = namespaces is not None and not namespaces(claims) <= credential.namespaces
    if lacks_number or lacks_namespace:
        whose = "certificate may sign for" if lacks_number else "configuration has"
        raise SigningRefused(
            "no-authority", f"{authority.to_signers} is not among those that this server's {whose}"
        )


def _check_constraints(payload: bytes, constraints: ClaimConstraints) -> None:
    """Refuse claims that the credential's certificate does not permit (RFC 8226 §8, RFC 9118 §3)."""
    if constraints == UNCONSTRAINED:
        return
    try:
        constraints.check(canonical_json.decode_object(payload))
    except ConstraintError as error:
        raise SigningRefused("claims", f"this server's certificate does not permit it: {error}") from None
