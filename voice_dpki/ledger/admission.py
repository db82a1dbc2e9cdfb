"""Admission of certificates: each follows the profile and claims nothing that belongs to another member.

docs/spec/state.md#a-block specifies it.
"""

from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple

from voice_dpki.errors import MalformedError
from voice_dpki.ledger.certificate_names import check_common_number, check_names
from voice_dpki.ledger.held_numbers import allotment_for, numbers_in
from voice_dpki.ledger.members import Member
from voice_dpki.ledger.refusals import PROFILE_REFUSALS, Refusal, Refused
from voice_dpki.ledger.rules import Rules
from voice_dpki.ledger.view import StateView
from voice_dpki.x509.allotment import Allotment
from voice_dpki.x509.claimconstraints import constraints_in
from voice_dpki.x509.possession import possession_of
from voice_dpki.x509.profile import CertificateProfile, ProfileError, read_profile

MAX_NOT_YET_VALID_S = 30 * 86_400
"""Longest time between a certificate's recording and the start of its validity: renewals can overlap."""

_CACHED_PROFILES = 8192
"""Cached profiles: as many as the verdicts that `signatures` caches; about 3 kB each."""


class Admitted(NamedTuple):
    """A certificate that may be recorded, and its member's allotment, adjusted by the leaves of its numbers."""

    profile: CertificateProfile
    allotment: Allotment


def check_certificate(view: StateView, der: bytes, member: Member, time_s: int, rules: Rules) -> Admitted:
    """Check a certificate against the profile and against what `member` may endorse at `time_s`; raises Refused."""
    profile = read_admitted(der)
    _check_organization(profile, member)
    if rules.binds_anonymous:
        _check_possession(profile, view.chain_id, member)
    _check_validity(profile, time_s)
    allotment = allotment_for(view, member, profile)
    if rules.reads_all_names:
        check_names(profile, allotment)
    if rules.lists_common_numbers:
        check_common_number(profile, numbers_in(profile))
    if rules.reads_constraints:
        _check_constraints(profile)
    check_authority(profile, allotment)
    return Admitted(profile, allotment)


def check_authority(profile: CertificateProfile, allotment: Allotment) -> None:
    """Check that a certificate's numbers, codes and names are all its member's; raises Refused.

    Relying parties repeat this check (`x509.recorded`), because numbers and domains may have moved to another
    member since the certificate was recorded.
    """
    if not allotment.holds_list_of(profile):
        raise Refused(Refusal.NUMBERS)
    if not allotment.holds_hosts_of(profile) or not allotment.holds_uri_numbers_of(profile):
        raise Refused(Refusal.NAMES)


@lru_cache(_CACHED_PROFILES)
def read_admitted(der: bytes) -> CertificateProfile:
    """Return a certificate's profile after checking it; raises Refused.

    The result depends only on the bytes, so one cached result serves check, proposal and block.
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


def forget_judgements() -> None:
    """Empty the cache of `read_admitted`; call this when no transaction is pending."""
    read_admitted.cache_clear()


def _check_organization(profile: CertificateProfile, member: Member) -> None:
    """Check that the subject's organisation is the endorsing one; an anonymous subject has none (ITU-T X.1409)."""
    if not profile.anonymous and profile.organization != member.organization:
        raise Refused(Refusal.ORGANIZATION)


def _check_possession(profile: CertificateProfile, chain: str, member: Member) -> None:
    """Check that the key holder of an anonymous certificate made it for this ledger and this member."""
    if profile.anonymous and profile.possession != possession_of(chain, member.organization):
        raise Refused(Refusal.POSSESSION)


def _check_constraints(profile: CertificateProfile) -> None:
    """Check that the claim constraints beside a TNAuthList can be read (RFC 8226 §8, RFC 9118 §3)."""
    if profile.tn_auth_list is None:
        return
    try:
        constraints_in(profile.claim_constraints)
    except MalformedError:
        raise Refused(Refusal.CONSTRAINTS) from None


def _check_validity(profile: CertificateProfile, time_s: int) -> None:
    if time_s > profile.not_after_s:
        raise Refused(Refusal.EXPIRED)
    if profile.not_before_s > time_s + MAX_NOT_YET_VALID_S:
        raise Refused(Refusal.NOT_YET_VALID)
