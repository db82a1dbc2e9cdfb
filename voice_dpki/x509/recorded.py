"""Recorded certificates: the ledger's record of one, and the judgement whether it is trusted for a use.

`judge` runs numbered rules, one function each, that say for which uses they apply. It returns a TrustedCertificate
or raises CertificateRefused, so code that forgets to judge has no certificate to use. The TrustedCertificate
answers a relying party's further questions, for instance whether the certificate covers a caller's number.

The organisation that recorded a certificate is a member of the ledger. Domains and numbers may have moved from it
to another member since. So a certificate that claims more than its organisation holds now is not trusted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple, Protocol

from voice_dpki.codec.canonical_json import Json
from voice_dpki.codec.telephone import host_in_uri, number_in_uri
from voice_dpki.errors import LocalError, MalformedError, PeerError
from voice_dpki.names import CertDigest, Tn
from voice_dpki.x509.allotment import Allotment, Claims, UriClaim
from voice_dpki.x509.claimconstraints import UNCONSTRAINED, ConstraintError, constraints_in
from voice_dpki.x509.profile import CertificateProfile, ProfileError, digest_of, read_profile


class CertStatus(StrEnum):
    """Status of a certificate. Records hold only the first three; the others follow from time or absence."""

    VALID = "valid"
    SUSPENDED = "suspended"
    REVOKED = "revoked"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    UNKNOWN = "unknown"
    """Proved to be absent from the ledger."""


class Use(StrEnum):
    """A use for which a certificate is to be trusted."""

    SIGN_CALLS = "sign calls"
    """Its key signs PASSporTs (RFC 8226)."""
    KEY_MEDIA = "key media"
    """Its key signs MIKEY messages of DH-SIGN (RFC 3830 §3.3)."""
    KEY_MEDIA_MODERN = "key media by ECDSA"
    """Its key signs MIKEY messages of the modern mode (docs/mikey-modern.md)."""
    ENCIPHER_KEYS = "encipher keys"
    """Keys of media are encrypted to its key (RFC 3830 §3.2, RFC 4738 §3.6)."""
    AUTHENTICATE = "authenticate"
    """Its key authenticates a device or a gateway (RFC 7296 §2.15)."""
    ENDORSE = "endorse"
    """Its key endorses the certificate that replaces it, whose claims the ledger judges separately.

    Nodes judge this use when they execute a renewal, so the rules for it decide AppHash: they may change only at a
    height that all nodes agree on.
    """


class Distrust(StrEnum):
    """Why a certificate is not trusted; the values are stable."""

    NOT_RECORDED = "not-recorded"
    NOT_A_MEMBER = "not-a-member"
    REVOKED = "revoked"
    SUSPENDED = "suspended"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    NOT_GIVEN = "not-given"
    PROFILE = "profile"
    SUBJECT = "subject"
    KEY = "key"
    KEY_USAGE = "key-usage"
    CONSTRAINTS = "constraints"
    NO_NUMBERS = "no-numbers"
    NUMBERS = "numbers"
    DOMAIN = "domain"
    URI_NUMBER = "uri-number"
    AUTHORITY = "authority"
    NOT_ASKED = "not-asked"
    CLAIMS = "claims"


_SENTENCES = {
    Distrust.NOT_RECORDED: "{it} is not recorded on the ledger",
    Distrust.NOT_A_MEMBER: "the organisation that recorded {it} is no member of the ledger any more",
    Distrust.REVOKED: "{it} was revoked on the ledger",
    Distrust.SUSPENDED: "{it} is suspended on the ledger",
    Distrust.EXPIRED: "{it} has expired",
    Distrust.NOT_YET_VALID: "the validity of {it} has not begun",
    Distrust.NOT_GIVEN: "the inquiry node did not give the certificate that was asked for",
    Distrust.PROFILE: "{it} cannot be used: {detail}",
    Distrust.SUBJECT: "{it} cannot be used: its organisation is not the one that recorded it",
    Distrust.KEY: "{it} cannot be used: its key is not {detail}",
    Distrust.KEY_USAGE: "{it} cannot be used: its key usage does not admit {detail} (RFC 5280 §4.2.1.3)",
    Distrust.CONSTRAINTS: "{it} cannot be used: {detail}",
    Distrust.NO_NUMBERS: "{it} has no TNAuthList, so it has authority over no number",
    Distrust.NUMBERS: "{it} claims numbers that the ledger does not allot to its organisation",
    Distrust.DOMAIN: "the organisation that recorded {it} does not hold the domain of each of its names",
    Distrust.URI_NUMBER: "the organisation that recorded {it} is not allotted the number of each of its URIs",
    Distrust.AUTHORITY: "{it} has no authority over {detail}",
    Distrust.NOT_ASKED: "the ledger was not asked who holds {detail}, which it allots one by one",
    Distrust.CLAIMS: "{it} does not permit this: {detail} (RFC 8226 §8)",
}


class CertificateRefused(PeerError):
    """A certificate is not trusted for a use. `code` is for machines; the message calls it "the certificate"."""

    def __init__(self, code: Distrust, detail: str = "") -> None:
        self.code = code
        self._detail = detail
        super().__init__(self.about("the certificate"))

    def about(self, certificate: str) -> str:
        """Return the message with another name for the certificate, for instance "the signer's certificate"."""
        return _SENTENCES[self.code].format(it=certificate, detail=self._detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCertificate:
    """What the ledger proves about the certificate that `digest` names. Times are seconds since the Unix epoch."""

    digest: CertDigest
    status: CertStatus
    """The status when the ledger was asked; `status_at` gives that of a later time."""
    height: int = 0
    """Height of the header that proves all this."""
    organization: str = ""
    """The organisation that recorded it; empty if it is not recorded."""
    not_before_s: int = 0
    not_after_s: int = 0
    allotment: Allotment | None = None
    """The organisation's allotment when the ledger was asked; None if it is no member of the ledger any more."""
    der: bytes | None = None
    """The certificate itself, if it was asked for."""
    admitted_height: int = 0
    """Height of the block that admitted the organisation; 0 for one of the genesis."""
    _trusted: "dict[Use, TrustedCertificate]" = field(init=False, compare=False, repr=False, default_factory=dict)
    """Cached results of `judge`, by use, from the rules that do not depend on time: one run serves many calls."""

    def status_at(self, now_s: float) -> CertStatus:
        """Return the status at `now_s`: the ledger's answer, changed only by the time that has passed."""
        if self.status in _LASTING:
            return self.status
        if now_s > self.not_after_s:
            return CertStatus.EXPIRED
        if self.status is CertStatus.SUSPENDED:
            return self.status
        return CertStatus.NOT_YET_VALID if now_s < self.not_before_s else CertStatus.VALID


_LASTING = frozenset({CertStatus.UNKNOWN, CertStatus.REVOKED, CertStatus.EXPIRED})


@dataclass(frozen=True, slots=True)
class TrustedCertificate:
    """A certificate that `judge` found trustworthy for `use`, and its organisation's allotment."""

    use: Use
    profile: CertificateProfile
    organization: str
    allotment: Allotment

    def check_number(self, number: Tn, whose: str = "the caller's number") -> None:
        """Check that the certificate has authority over `number`, by its numbers or by its service provider codes.

        Raises CertificateRefused, whose sentence calls the number `whose`. Source: RFC 8226 §9.
        """
        listed = self.profile.tn_auth_list
        if listed is None:
            raise CertificateRefused(Distrust.NO_NUMBERS)
        if self.allotment.by_number:
            self._check_holds(number, whose, named=number in listed.tns)
        if not listed.authorises(number, self.allotment.ranges) and not self._has_single(number):
            raise CertificateRefused(Distrust.AUTHORITY, whose)

    def _has_single(self, number: Tn) -> bool:
        """Tell whether the codes in the certificate cover a number that its organisation holds singly."""
        listed = self.profile.tn_auth_list
        return listed is not None and bool(listed.spcs) and number in self.allotment.singles

    def _check_holds(self, number: Tn, whose: str, *, named: bool) -> None:
        """Check that the organisation still holds a number, which a range in the certificate does not show.

        A certificate that names the number itself is revoked when the number goes to another member.
        """
        if not named and not self.allotment.is_settled(number):
            raise CertificateRefused(Distrust.NOT_ASKED, whose)
        if not self.allotment.holds_number(number):
            raise CertificateRefused(Distrust.AUTHORITY, whose)

    def check_claims(self, read_claims: Callable[[], Mapping[str, Json]]) -> None:
        """Check that the certificate permits a PASSporT's claims, which are read only if it constrains any.

        Raises CertificateRefused, and what `read_claims` raises. Source: RFC 8226 §8, RFC 9118 §3.
        """
        check_claims(self.profile, read_claims)

    def check_uri(self, uri: str) -> None:
        """Check that its organisation holds host and number of a SIP URI, for a party that the certificate names.

        A number also counts without `+` and with separators, because calls are routed by those forms, too
        (`SipUri.number`). Nodes that record a certificate compare only users that begin with `+` with the ranges.
        Raises CertificateRefused, and LocalError for a URI that the certificate does not name.
        """
        if uri not in self.profile.uris:
            raise LocalError("the certificate does not name the party whose URI is to be checked")
        host, number = host_in_uri(uri), number_in_uri(uri)
        if host is None or not self.allotment.holds_host(host):
            raise CertificateRefused(Distrust.DOMAIN)
        if number is not None and not self.allotment.holds_number(number):
            raise CertificateRefused(Distrust.URI_NUMBER)
        if self.allotment.by_number and number != UriClaim.of(uri).number:
            raise CertificateRefused(Distrust.URI_NUMBER)  # nodes do not compare it, so they never revoke for it


def check_claims(profile: CertificateProfile, read_claims: Callable[[], Mapping[str, Json]]) -> None:
    """Check that a certificate permits a PASSporT's claims, as `TrustedCertificate.check_claims` does."""
    if not profile.claim_constraints:
        return
    constraints = constraints_in(profile.claim_constraints)
    if constraints == UNCONSTRAINED:
        return
    try:
        constraints.check(read_claims())
    except ConstraintError as error:
        raise CertificateRefused(Distrust.CLAIMS, str(error)) from None


def judge(
    recorded: RecordedCertificate, use: Use, now_s: float, *, presented: CertificateProfile | None = None
) -> TrustedCertificate:
    """Judge whether a certificate may be trusted for `use` at `now_s`; raises CertificateRefused.

    `presented` is the certificate if the peer sent it; otherwise the ledger gave it. Raises LocalError if the
    ledger was asked about another certificate than the presented one.
    """
    if presented is not None and presented.digest != recorded.digest:
        raise LocalError("the ledger was asked about another certificate than the one to judge")
    allotment = check_standing(recorded, now_s)
    if presented is not None:
        return _judged(presented, recorded, use, allotment)
    trusted = recorded._trusted.get(use)
    if trusted is None:
        trusted = recorded._trusted[use] = _judged(_given(recorded), recorded, use, allotment)
    return trusted


def _judged(
    profile: CertificateProfile, recorded: RecordedCertificate, use: Use, allotment: Allotment
) -> TrustedCertificate:
    """Judge a certificate of good standing by the rules that do not depend on time."""
    case = _Case(use, profile, recorded.organization, allotment)
    for rule in RULES:
        if use in rule.uses:
            rule.check(case)
    return TrustedCertificate(use, profile, recorded.organization, allotment)


def profile_of(der: bytes) -> CertificateProfile:
    """Read a certificate that a peer or the ledger gave; raises CertificateRefused if it breaks the profile."""
    try:
        return _read_profile(der)
    except ProfileError as error:
        raise CertificateRefused(Distrust.PROFILE, str(error)) from None


def check_standing(recorded: RecordedCertificate, now_s: float) -> Allotment:
    """Check the rules that need no certificate, and return the allotment; raises CertificateRefused.

    Rule 1: it is recorded. Rule 2: the organisation that recorded it is still a member. Rule 3: it is valid now.
    """
    if recorded.status is CertStatus.UNKNOWN:
        raise CertificateRefused(Distrust.NOT_RECORDED)
    if recorded.allotment is None:
        raise CertificateRefused(Distrust.NOT_A_MEMBER)
    status = recorded.status_at(now_s)
    if status is not CertStatus.VALID:
        raise CertificateRefused(_NOT_VALID[status])
    return recorded.allotment


def judge_again(recorded: RecordedCertificate, claims: Claims, now_s: float) -> None:
    """Judge what may have changed about a certificate that `judge` trusted before; raises CertificateRefused.

    It checks rules 1 to 3 and 10 to 12. They need only the certificate's `claims`, so a caller that waits for
    changes need not keep the certificate.
    """
    allotment = check_standing(recorded, now_s)
    for rule in HELD:
        rule.check(_Claim(claims, allotment))


_NOT_VALID = {
    CertStatus.REVOKED: Distrust.REVOKED,
    CertStatus.SUSPENDED: Distrust.SUSPENDED,
    CertStatus.EXPIRED: Distrust.EXPIRED,
    CertStatus.NOT_YET_VALID: Distrust.NOT_YET_VALID,
}


def check_fitness(profile: CertificateProfile, use: Use) -> None:
    """Check the rules for `use` that depend on the certificate alone; raises CertificateRefused.

    A caller that has the certificate before the ledger's answer checks these first; `judge` checks them again.
    """
    for rule in FITNESS:
        if use in rule.uses:
            rule.check(_Case(use, profile, "", Allotment()))


def check_usable(recorded: RecordedCertificate, use: Use, now_s: float) -> CertificateProfile:
    """Check the rules that do not compare the certificate with its organisation, and return its profile.

    It checks rules 1 to 4 and 6 to 9, for a caller that must verify a signature before it asks the ledger for more.
    Raises CertificateRefused. It does not replace `judge`.
    """
    check_standing(recorded, now_s)
    profile = _given(recorded)
    check_fitness(profile, use)
    return profile


class _Claiming(Protocol):
    """The input of the rules about allotments."""

    @property
    def claims(self) -> Claims: ...

    @property
    def allotment(self) -> Allotment: ...


class _Claim(NamedTuple):
    """A certificate's claims, without the certificate, and its organisation's allotment."""

    claims: Claims
    allotment: Allotment


class _Case(NamedTuple):
    """The input of a rule."""

    use: Use
    profile: CertificateProfile
    organization: str
    allotment: Allotment

    @property
    def claims(self) -> Claims:
        return self.profile


class Rule(NamedTuple):
    """A rule about a certificate of good standing. Its check raises CertificateRefused."""

    number: int
    check: Callable[[_Case], None]
    uses: frozenset[Use]


class HeldRule(NamedTuple):
    """A rule that compares the certificate's claims with its organisation's allotment."""

    number: int
    check: Callable[[_Claiming], None]
    uses: frozenset[Use]


def _given(recorded: RecordedCertificate) -> CertificateProfile:
    """Rule 4: the ledger gave the certificate that was asked for, and it follows the profile."""
    if recorded.der is None or digest_of(recorded.der) != recorded.digest:
        raise CertificateRefused(Distrust.NOT_GIVEN)
    return profile_of(recorded.der)


def _check_subject(case: _Case) -> None:
    """Rule 5: the subject's organisation is the one that recorded it. An anonymous subject is not trusted."""
    if case.profile.organization != case.organization:
        raise CertificateRefused(Distrust.SUBJECT)


_KEYS = {
    Use.SIGN_CALLS: ("ES256", "ECDSA on P-256 (RFC 8225 §4.2)"),
    Use.KEY_MEDIA: ("PS256", "RSA, and MIKEY has no other signature (RFC 3830 §6.5)"),
    Use.KEY_MEDIA_MODERN: ("ES256", "ECDSA on P-256, with which the modern mode of MIKEY signs"),
    Use.ENCIPHER_KEYS: ("PS256", "RSA, and MIKEY has no other encryption (RFC 3830 §4.2.5)"),
}


def _check_key(case: _Case) -> None:
    """Rule 6: the key is of the kind that the use needs."""
    algorithm, name = _KEYS[case.use]
    if case.profile.key_algorithm != algorithm:
        raise CertificateRefused(Distrust.KEY, name)


def _check_key_usage(case: _Case) -> None:
    """Rule 7: the key may sign, or encrypt keys where the use asks for that (RFC 5280 §4.2.1.3)."""
    if case.use is Use.ENCIPHER_KEYS:
        if not case.profile.may_encipher_keys():
            raise CertificateRefused(Distrust.KEY_USAGE, "encryption of keys")
    elif not case.profile.may_sign():
        raise CertificateRefused(Distrust.KEY_USAGE, "digital signatures")


def _check_constraints(case: _Case) -> None:
    """Rule 8: the claim constraints can be read, and so enforced (RFC 8226 §8, RFC 9118 §3, §6)."""
    try:
        constraints_in(case.profile.claim_constraints)
    except MalformedError as error:
        raise CertificateRefused(Distrust.CONSTRAINTS, str(error)) from None


def _check_has_numbers(case: _Case) -> None:
    """Rule 9: the certificate lists numbers that it may sign for (RFC 8226 §9)."""
    if case.profile.tn_auth_list is None:
        raise CertificateRefused(Distrust.NO_NUMBERS)


def _check_numbers(case: _Claiming) -> None:
    """Rule 10: it claims no numbers and codes beyond those that the ledger allots (RFC 8224 §7.1, RFC 8226 §9)."""
    if not case.allotment.holds_list_of(case.claims):
        raise CertificateRefused(Distrust.NUMBERS)


def _check_domains(case: _Claiming) -> None:
    """Rule 11: the hosts of all its names are its organisation's (ITU-T X.1409)."""
    if not case.allotment.holds_hosts_of(case.claims):
        raise CertificateRefused(Distrust.DOMAIN)


def _check_uri_numbers(case: _Claiming) -> None:
    """Rule 12: the numbers of all its URIs are its organisation's (ITU-T X.1409)."""
    if not case.allotment.holds_uri_numbers_of(case.claims):
        raise CertificateRefused(Distrust.URI_NUMBER)


_RELYING = frozenset(Use) - {Use.ENDORSE}
_CALLS = frozenset({Use.SIGN_CALLS})

FITNESS = (
    Rule(6, _check_key, frozenset(_KEYS)),
    Rule(7, _check_key_usage, _RELYING),
    Rule(8, _check_constraints, _CALLS),
    Rule(9, _check_has_numbers, _CALLS),
)
"""The rules that need the certificate alone."""

HELD = (
    HeldRule(10, _check_numbers, _RELYING),
    HeldRule(11, _check_domains, _RELYING),
    HeldRule(12, _check_uri_numbers, _RELYING),
)
"""The rules whose result can change with the organisation's allotment."""

RULES: "tuple[Rule | HeldRule, ...]" = (
    Rule(5, _check_subject, _RELYING),
    *FITNESS,
    *HELD,
)
"""The rules about a certificate of good standing, in their order."""

_read_profile = lru_cache(maxsize=4096)(read_profile)
"""Cached, because few signers sign many calls."""
