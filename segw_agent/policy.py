"""The admission policy: the rules by which a gateway, or a device, judges what the ledger proves. Pure.

Whatever is not allowed is refused: the identity must be on the allow list, and its certificate must be recorded by
one of the named organisations and be valid now.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.ikev2.events import SaName, Untrusted
from voice_dpki.ikev2.integrity import IntegrityInfo, Result
from voice_dpki.ledger.answers import InquiryCode, InquiryError, Resolution
from voice_dpki.ledger.records import CertStatus
from voice_dpki.ledger.standing import status_of
from voice_dpki.names import ascii_lower
from voice_dpki.x509.keys import KeyKindError, SignatureError
from voice_dpki.x509.profile import CertificateProfile

MAX_CLOCK_DRIFT_S = 60.0
"""How far a device's statement of integrity may lie ahead of our clock."""


class Side(StrEnum):
    """Which side judges the other."""

    GATEWAY = "gateway"
    """A gateway judges a device."""
    DEVICE = "device"
    """A device judges a gateway."""


class IntegrityPolicy(StrEnum):
    """How N(INTEGRITY_INFO) is treated."""

    REQUIRE = "require"
    CHECK_IF_PRESENT = "check-if-present"
    IGNORE = "ignore"


_STRICTNESS = (IntegrityPolicy.IGNORE, IntegrityPolicy.CHECK_IF_PRESENT, IntegrityPolicy.REQUIRE)


@dataclass(frozen=True, slots=True)
class Question:
    """A certificate to judge. It contains `identity`, and AUTH verified under it, or the daemon will verify AUTH.

    `integrity` is the caller's rule for N(INTEGRITY_INFO); it applies if it is stricter than the policy's.
    `unique_id` is the daemon's own number of the IKE SA.
    """

    side: Side
    sa: SaName
    identity: str
    certificate: CertificateProfile
    integrity_info: bytes | None = None
    ledger_answer: bytes | None = None
    integrity: IntegrityPolicy = IntegrityPolicy.IGNORE
    unique_id: int = 0


STEPS: Mapping[tuple[Side, str], str] = {
    (Side.GATEWAY, "identity"): "4 IDi",
    (Side.GATEWAY, "inquiry"): "5.3 inquiry",
    (Side.GATEWAY, "certificate"): "5.4 certificate",
    (Side.GATEWAY, "integrity"): "6 INTEGRITY_INFO",
    (Side.DEVICE, "identity"): "8 IDr",
    (Side.DEVICE, "inquiry"): "8 SeGW inquiry",
    (Side.DEVICE, "certificate"): "8 SeGW certificate",
    (Side.DEVICE, "integrity"): "8 INTEGRITY_INFO",
}
"""Names of the steps, as the flow numbers them."""

_STATUS: Mapping[CertStatus, tuple[str, str]] = {
    CertStatus.UNKNOWN: ("not-recorded", "the certificate is not recorded on the ledger"),
    CertStatus.REVOKED: ("revoked", "the certificate was revoked on the ledger"),
    CertStatus.SUSPENDED: ("suspended", "the certificate is suspended on the ledger"),
    CertStatus.EXPIRED: ("expired", "the certificate has expired"),
    CertStatus.NOT_YET_VALID: ("not-yet-valid", "the certificate is not valid yet"),
}

_INQUIRY: Mapping[InquiryCode, str] = {
    InquiryCode.UNREACHABLE: "no inquiry node answers, so nothing is known of the certificate",
    InquiryCode.STALE: "the ledger's answer is too old to be believed",
    InquiryCode.UNPROVEN: "the answer about the certificate is not proved by the validators",
    InquiryCode.MALFORMED: "the answer about the certificate cannot be understood",
    InquiryCode.CLOCK: "our clock is wrong, so we cannot tell how old the ledger's answer is",
    InquiryCode.FORK: "the validators contradict themselves, so that nothing of them can be believed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The rules. A pattern is an exact name, `*.` and a domain for every name below it, or `*` for every name."""

    organizations: frozenset[str]
    allow: tuple[str, ...]
    deny: tuple[str, ...] = ()
    integrity: IntegrityPolicy = IntegrityPolicy.CHECK_IF_PRESENT
    integrity_max_age_s: float = 300.0
    measurements: Mapping[str, frozenset[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for pattern in (*self.allow, *self.deny):
            if "*" in pattern.removeprefix("*.") and pattern != "*":
                raise LocalError(f"policy: {pattern!r} is neither a name, nor *. and a domain, nor * alone")

    def check_identity(self, question: Question) -> Untrusted | None:
        """Check the identity against the lists; return the refusal, or None if it is admitted."""
        if any(_matches(pattern, question.identity) for pattern in self.deny):
            return _refusal(question.side, "identity", "identity-denied", "the identity is on the deny list")
        if not any(_matches(pattern, question.identity) for pattern in self.allow):
            sentence = "the identity is not on the allow list"
            return _refusal(question.side, "identity", "identity-not-allowed", sentence)
        return None

    def check_certificate(self, side: Side, found: Resolution, now_s: float) -> Untrusted | None:
        """Check what the ledger proves at `now_s` against the rules; return the refusal, or None."""
        if found.record is not None and found.member is None:
            sentence = "the organisation that recorded the certificate is no member of the ledger any more"
            return _refusal(side, "certificate", "not-a-member", sentence)
        status = status_of(found.record, found.member, now_s)
        if status in _STATUS:
            return _refusal(side, "certificate", *_STATUS[status])
        organization = found.record.organization if found.record else ""
        if organization not in self.organizations:
            sentence = "the certificate is recorded under an organisation that is not admitted here"
            return _refusal(side, "certificate", "organization", sentence)
        return None

    def wanted_integrity(self, question: Question) -> IntegrityPolicy:
        """Return the stricter of the policy's rule and the caller's."""
        return max(self.integrity, question.integrity, key=_STRICTNESS.index)

    def check_integrity(self, question: Question, now_s: float) -> Untrusted | None:
        """Check N(INTEGRITY_INFO) as the stricter rule demands; return the refusal, or None."""
        wanted = self.wanted_integrity(question)
        if wanted is IntegrityPolicy.IGNORE:
            return None
        if question.integrity_info is None:
            if wanted is IntegrityPolicy.CHECK_IF_PRESENT:
                return None
            sentence = "N(INTEGRITY_INFO) is required and missing"
            return _refusal(question.side, "integrity", "integrity-missing", sentence)
        problem = self._integrity_problem(question, question.integrity_info, now_s)
        return _refusal(question.side, "integrity", *problem) if problem else None

    def _integrity_problem(self, question: Question, content: bytes, now_s: float) -> tuple[str, str] | None:
        try:
            info = IntegrityInfo.parse(content)
            info.verify(question.sa, question.certificate)
        except MalformedError as error:
            return "integrity-malformed", f"N(INTEGRITY_INFO) cannot be understood: {error}"
        except (SignatureError, KeyKindError):
            return "integrity-forged", "N(INTEGRITY_INFO) is not signed by the device for this IKE SA"
        if not -MAX_CLOCK_DRIFT_S <= now_s - info.time_s <= self.integrity_max_age_s:
            return "integrity-stale", "the statement in N(INTEGRITY_INFO) is too old, or from the future"
        if info.result is not Result.PASSED:
            return "integrity-failed", "the device states that its integrity check failed"
        found = {measurement.name: measurement.digest for measurement in info.measurements}
        for name, admitted in self.measurements.items():
            if found.get(name) not in admitted:
                return "integrity-measurement", f"the device's {name!r} was not measured as one that is admitted"
        return None


def inquiry_refusal(question: Question, error: InquiryError) -> Untrusted:
    """Return the refusal of a certificate whose status could not be learned: the judge fails closed."""
    return _refusal(question.side, "inquiry", f"ledger-{error.code}", _INQUIRY[error.code])


def _refusal(side: Side, step: str, code: str, sentence: str) -> Untrusted:
    return Untrusted(code, STEPS[side, step], sentence)


def _matches(pattern: str, identity: str) -> bool:
    if pattern == "*":
        return True
    if pattern.startswith("*."):
        return ascii_lower(identity).endswith(ascii_lower(pattern[1:]))
    return ascii_lower(identity) == ascii_lower(pattern)
