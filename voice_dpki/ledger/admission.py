"""Admission of certificates: each follows the profile and claims nothing that belongs to another member."""

import re
from contextlib import suppress
from functools import lru_cache

from voice_dpki.ledger.members import Member
from voice_dpki.ledger.refusals import PROFILE_REFUSALS, Refusal, Refused
from voice_dpki.names import Tn
from voice_dpki.x509.profile import CertificateProfile, ProfileError, read_profile

MAX_NOT_YET_VALID_S = 30 * 86_400
"""How long before its validity begins a certificate may be recorded, so that renewals can overlap."""

_CACHED_PROFILES = 8192
"""As many as the verdicts that `signatures` caches; about 3 kB each."""

_SIP_URI = re.compile(r"sips?:(?:(?P<user>[^@]*)@)?(?P<host>[a-z0-9.-]+)(?::[0-9]{1,5})?\Z", re.IGNORECASE)
"""SIP and SIPS URIs as certificates carry them: user and host, without parameters (RFC 5922 §7.1)."""

_TEL_URI = re.compile(r"tel:\+(?P<number>[0-9]{1,15})\Z", re.IGNORECASE)
_URN = re.compile(r"urn:[a-z0-9][a-z0-9-]{0,30}:[!-~]+\Z", re.IGNORECASE)


def check_certificate(der: bytes, member: Member, time_s: int) -> CertificateProfile:
    """Check a certificate against the profile and against what `member` may endorse at `time_s`; raises Refused."""
    profile = read_admitted(der)
    _check_organization(profile, member)
    _check_validity(profile, time_s)
    check_authority(profile, member)
    return profile


def check_authority(profile: CertificateProfile, member: Member) -> None:
    """Check that a certificate's numbers, codes and names are all the member's; raises Refused.

    Relying parties repeat this check, because numbers and domains may have moved to another member since the
    certificate was recorded.
    """
    if profile.tn_auth_list is not None and not profile.tn_auth_list.inside(member.ranges, member.spcs):
        raise Refused(Refusal.NUMBERS)
    if not all(_holds_uri(member, uri) for uri in profile.uris):
        raise Refused(Refusal.NAMES)
    if not all(member.holds_host(name.lower().removeprefix("*.")) for name in profile.dns_names):
        raise Refused(Refusal.NAMES)


@lru_cache(_CACHED_PROFILES)
def read_admitted(der: bytes) -> CertificateProfile:
    """Check a certificate against the profile; raises Refused.

    The result depends on its bytes alone, so the cached one serves check, proposal and block.
    """
    judgement = _remembered.pop(der, None) or judge(der)
    if isinstance(judgement, str):
        raise Refused(Refusal[judgement])
    return judgement


_remembered: dict[bytes, CertificateProfile | str] = {}
"""Judgements that `remember` is about to put into the cache of `read_admitted`."""


def judge(der: bytes) -> CertificateProfile | str:
    """Read a certificate by the profile; return the name of the Refusal if it breaks the profile."""
    try:
        return read_profile(der)
    except ProfileError as error:
        return PROFILE_REFUSALS.get(error.code, Refusal.CERTIFICATE_PROFILE).name


def remember(der: bytes, judgement: CertificateProfile | str) -> None:
    """Put a judgement that another process of this node made with `judge` into the cache of `read_admitted`."""
    _remembered[der] = judgement
    with suppress(Refused):
        read_admitted(der)
    _remembered.pop(der, None)


def _check_organization(profile: CertificateProfile, member: Member) -> None:
    """Check that the subject's organisation is the endorsing one; an anonymous subject has none (ITU-T X.1409)."""
    anonymous = profile.organization is None and profile.common_name is None
    if not anonymous and profile.organization != member.organization:
        raise Refused(Refusal.ORGANIZATION)


def _check_validity(profile: CertificateProfile, time_s: int) -> None:
    if time_s > profile.not_after_s:
        raise Refused(Refusal.EXPIRED)
    if profile.not_before_s > time_s + MAX_NOT_YET_VALID_S:
        raise Refused(Refusal.NOT_YET_VALID)


def _holds_uri(member: Member, uri: str) -> bool:
    """Return whether a URI's host and number, if it has any, are the member's; every URN passes."""
    if found := _SIP_URI.match(uri):
        user = found["user"] or ""
        number_ok = not user.startswith("+") or member.holds_number(Tn(user[1:]))
        return number_ok and member.holds_host(found["host"].lower())
    if found := _TEL_URI.match(uri):
        return member.holds_number(Tn(found["number"]))
    return _URN.match(uri) is not None
