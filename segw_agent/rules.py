"""The rules of the admission policy: one list, with the places in which each rule applies. Pure.

A peer is judged in three places: when it attaches (admit), again while its SA lives (live), and by the bridge
that issues certificates and answers OCSP for it (vouch). A rule names its check for each, or why there is none.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias, TypeVar

from segw_agent.peer_names import PeerNames
from segw_agent.policy import CertificatePolicy, IntegrityPolicy, Policy, Question, Side
from voice_dpki.errors import LocalError, MalformedError, PeerError
from voice_dpki.ikev2.events import Untrusted
from voice_dpki.ikev2.integrity import IntegrityInfo, Result
from voice_dpki.ledger.answers import InquiryCode, InquiryError, Resolution
from voice_dpki.x509.allotment import Claims
from voice_dpki.x509.keys import KeyKindError, SignatureError
from voice_dpki.x509.profile import CertificateProfile
from voice_dpki.x509.recorded import CertificateRefused, Distrust, RecordedCertificate, Use, judge, judge_again

MAX_CLOCK_DRIFT_S = 60.0
"""How far a device's statement of integrity may lie ahead of our clock."""


class Step(Enum):
    """The steps of the flow, in order. Each has two names: where a gateway judges, and where a device does."""

    IDENTITY = ("4 IDi", "8 IDr")
    INQUIRY = ("5.3 inquiry", "8 SeGW inquiry")
    CERTIFICATE = ("5.4 certificate", "8 SeGW certificate")
    INTEGRITY = ("6 INTEGRITY_INFO", "8 INTEGRITY_INFO")

    def named(self, side: Side) -> str:
        """Return the step's name, as the flow numbers it for a side."""
        return self.value[0] if side is Side.GATEWAY else self.value[1]


PROVED_STEPS = tuple(Step)[tuple(Step).index(Step.INQUIRY) + 1 :]
"""The steps that need the ledger's proof."""


class PeerRefusedError(PeerError):
    """A peer is refused, with a stable code, the step and a sentence; the peer is told none of them."""

    def __init__(self, code: str, step: str, sentence: str) -> None:
        super().__init__(f"{code}: {sentence}")
        self.code, self.step, self.sentence = code, step, sentence

    def untrusted(self) -> Untrusted:
        """Return the answer to IKE."""
        return Untrusted(self.code, self.step, self.sentence)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """What is known of a peer wherever it is judged, at the Unix time `now_s`."""

    side: Side
    names: PeerNames
    """Its names: those of its certificate, and in IKE the one that it shows."""
    found: Resolution | None
    """What the ledger proves of its certificate; None before the inquiry."""
    now_s: float

    @property
    def recorded(self) -> RecordedCertificate:
        """What the ledger proves; raises LocalError before the inquiry."""
        if self.found is None:
            raise LocalError("the ledger has not been asked about the certificate")
        return self.found.recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class Attaching(Peer):
    """A peer that attaches, with the question from its IKE_AUTH."""

    question: Question

    @classmethod
    def of(cls, question: Question, now_s: float, found: Resolution | None = None) -> "Attaching":
        """Make one from a question, before the inquiry or after it."""
        return cls(
            side=question.side,
            names=PeerNames.of(question.certificate, question.identity),
            found=found,
            now_s=now_s,
            question=question,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached(Peer):
    """A peer with a live SA, and its certificate's claims; the certificate itself is not kept."""

    claims: Claims


@dataclass(frozen=True, slots=True)
class NotHere:
    """In place of a check where a rule does not apply: the reason."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule: its step, the codes that it refuses with, and its check in each place, which raises `_Broken`."""

    step: Step
    codes: frozenset[str]
    admit: Callable[[Policy, Attaching], None] | NotHere
    live: Callable[[Policy, Attached], None] | NotHere
    vouch: Callable[[CertificatePolicy, Peer], None] | NotHere


def check_step(step: Step, policy: Policy, peer: Attaching) -> None:
    """Check a peer that attaches by the rules of one step; raises PeerRefusedError.

    The judge goes through all steps, and asks the ledger between them, so that strangers cause no inquiries.
    """
    _run(((rule, rule.admit) for rule in RULES if rule.step is step), policy, peer)


def check_live(policy: Policy, peer: Attached) -> None:
    """Check a peer with a live SA; raises PeerRefusedError."""
    _run(((rule, rule.live) for rule in RULES), policy, peer)


def check_names(policy: Policy, peer: Attached) -> None:
    """Check a peer with a live SA by the rules that need no ledger; raises PeerRefusedError."""
    _run(((rule, rule.live) for rule in RULES if rule.step is Step.IDENTITY), policy, peer)


def check_vouched(policy: CertificatePolicy, peer: Peer) -> None:
    """Check a peer for which the bridge issues a certificate, or answers; raises PeerRefusedError."""
    _run(((rule, rule.vouch) for rule in RULES), policy, peer)


def inquiry_refusal(side: Side, error: InquiryError) -> PeerRefusedError:
    """Return the refusal of a certificate whose status is unknown: the judge fails closed."""
    return PeerRefusedError(f"ledger-{error.code}", Step.INQUIRY.named(side), _INQUIRY[error.code])


_P = TypeVar("_P", bound=CertificatePolicy)
_K = TypeVar("_K", bound=Peer)
_Checks: TypeAlias = Iterable[tuple[Rule, Callable[[_P, _K], None] | NotHere]]


class _Broken(Exception):
    """A rule is broken, with a code and a sentence."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code, self.sentence = code, sentence


def _run(checks: "_Checks[_P, _K]", policy: _P, peer: _K) -> None:
    for rule, check in checks:
        if isinstance(check, NotHere):
            continue
        try:
            check(policy, peer)
        except _Broken as broken:
            raise PeerRefusedError(broken.code, rule.step.named(peer.side), broken.sentence) from None


_INQUIRY: Mapping[InquiryCode, str] = {
    InquiryCode.UNREACHABLE: "no inquiry node answers, so nothing is known of the certificate",
    InquiryCode.STALE: "the ledger's answer is too old to be believed",
    InquiryCode.UNPROVEN: "the answer about the certificate is not proved by the validators",
    InquiryCode.MALFORMED: "the answer about the certificate cannot be understood",
    InquiryCode.CLOCK: "our clock is wrong, so we cannot tell how old the ledger's answer is",
    InquiryCode.NEWER_RULES: "the ledger follows newer rules than this release of ours can read",
    InquiryCode.FORK: "the validators contradict themselves, so that nothing of them can be believed",
}


def _judge_presented(_policy: Policy, peer: Attaching) -> None:
    _judge(peer, presented=peer.question.certificate)


def _judge_again(_policy: Policy, peer: Attached) -> None:
    with _as_broken():
        judge_again(peer.recorded, peer.claims, peer.now_s)


def _judge_given(_policy: CertificatePolicy, peer: Peer) -> None:
    _judge(peer, presented=None)


def _judge(peer: Peer, *, presented: CertificateProfile | None) -> None:
    with _as_broken():
        judge(peer.recorded, Use.AUTHENTICATE, peer.now_s, presented=presented)


@contextmanager
def _as_broken() -> Iterator[None]:
    try:
        yield
    except CertificateRefused as refused:
        raise _Broken(str(refused.code), str(refused)) from None


def _check_organization(policy: CertificatePolicy, peer: Peer) -> None:
    if peer.recorded.organization not in policy.organizations:
        sentence = "the certificate is recorded under an organisation that is not admitted here"
        raise _Broken("organization", sentence)


def _check_not_denied(policy: CertificatePolicy, peer: Peer) -> None:
    if policy.denies(peer.names):
        raise _Broken("identity-denied", "a name of the peer is on the deny list")


def _check_allowed(policy: CertificatePolicy, peer: Peer) -> None:
    if not policy.allows(peer.names):
        raise _Broken("identity-not-allowed", "a name of the peer is not on the allow list")


def _check_integrity(policy: Policy, peer: Attaching) -> None:
    if peer.side is Side.DEVICE:
        return  # gateways state nothing
    question, wanted = peer.question, policy.integrity_for(peer.question)
    if wanted is IntegrityPolicy.IGNORE:
        return
    if question.integrity_info is not None:
        _check_statement(policy, question, question.integrity_info, peer.now_s)
    elif wanted is IntegrityPolicy.REQUIRE:
        raise _Broken("integrity-missing", "N(INTEGRITY_INFO) is required and missing")


def _check_statement(policy: Policy, question: Question, content: bytes, now_s: float) -> None:
    try:
        info = IntegrityInfo.parse(content)
        info.verify(question.sa, question.certificate)
    except MalformedError as error:
        raise _Broken("integrity-malformed", f"N(INTEGRITY_INFO) cannot be understood: {error}") from None
    except (SignatureError, KeyKindError):
        sentence = "N(INTEGRITY_INFO) is not signed by the device for this IKE SA"
        raise _Broken("integrity-forged", sentence) from None
    if not -MAX_CLOCK_DRIFT_S <= now_s - info.time_s <= policy.integrity_max_age_s:
        raise _Broken("integrity-stale", "the statement in N(INTEGRITY_INFO) is too old, or from the future")
    if info.result is not Result.PASSED:
        raise _Broken("integrity-failed", "the device states that its integrity check failed")
    found = {measurement.name: measurement.digest for measurement in info.measurements}
    for name in policy.measurements:
        if not policy.admits_measurement(name, found.get(name)):
            sentence = f"the device's {name!r} was not measured as one that is admitted"
            raise _Broken("integrity-measurement", sentence)


_OF_CALLS = frozenset(
    {
        Distrust.KEY,
        Distrust.CONSTRAINTS,
        Distrust.NO_NUMBERS,
        Distrust.AUTHORITY,
        Distrust.NOT_ASKED,
        Distrust.CLAIMS,
    }
)
"""Why certificates are refused for calls and their media, and no device's is."""

RULES: tuple[Rule, ...] = (
    Rule(
        step=Step.CERTIFICATE,
        codes=frozenset(Distrust) - _OF_CALLS,
        admit=_judge_presented,
        live=_judge_again,
        vouch=_judge_given,
    ),
    Rule(
        step=Step.CERTIFICATE,
        codes=frozenset({"organization"}),
        admit=_check_organization,
        live=_check_organization,
        vouch=_check_organization,
    ),
    Rule(
        step=Step.IDENTITY,
        codes=frozenset({"identity-denied"}),
        admit=_check_not_denied,
        live=_check_not_denied,
        vouch=_check_not_denied,
    ),
    Rule(
        step=Step.IDENTITY,
        codes=frozenset({"identity-not-allowed"}),
        admit=_check_allowed,
        live=_check_allowed,
        vouch=_check_allowed,
    ),
    Rule(
        step=Step.INTEGRITY,
        codes=frozenset(
            {
                "integrity-missing",
                "integrity-malformed",
                "integrity-forged",
                "integrity-stale",
                "integrity-failed",
                "integrity-measurement",
            }
        ),
        admit=_check_integrity,
        live=NotHere("a statement tells of the moment of IKE_AUTH, and the device makes no other one"),
        vouch=NotHere("the bridge has no IKE SA for which a device could state anything"),
    ),
)
"""All rules, in the order in which they are checked. At admission, the order of the steps comes first."""
