"""Rules: lists, status, organisation, statements of integrity."""

from typing import Any

import pytest

from segw_agent.policy import IntegrityPolicy, Policy, Question, Side, inquiry_refusal
from voice_dpki.effects import SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.ikev2.events import SaName
from voice_dpki.ikev2.integrity import IntegrityInfo, Measurement, Result
from voice_dpki.ledger.answers import InquiryCode, InquiryError, Resolution
from voice_dpki.ledger.members import Member, MemberKind
from voice_dpki.ledger.records import CertRecord, CertStatus
from voice_dpki.names import Height
from voice_dpki.x509.keys import generate_es256
from voice_dpki.x509.profile import build_certificate, read_profile

NOW_S = 1_790_000_000
SA = SaName(b"\1" * 8, b"\2" * 8)
SIGNER = generate_es256()
PROFILE = read_profile(
    build_certificate(
        SIGNER,
        organization="Vendor V",
        common_name="enb1",
        dns_names=["enb1.vendor.example"],
        not_before_s=NOW_S - 10,
        not_after_s=NOW_S + 10,
        random=SystemRandom(),
    )
)


def policy(**changes: Any) -> Policy:
    parts: dict[str, Any] = {"organizations": frozenset({"Vendor V"}), "allow": ("*.vendor.example",)}
    return Policy(**parts | changes)


def question(**changes: Any) -> Question:
    parts: dict[str, Any] = {
        "side": Side.GATEWAY,
        "sa": SA,
        "identity": "enb1.vendor.example",
        "certificate": PROFILE,
    }
    return Question(**parts | changes)


@pytest.mark.parametrize(
    ("allow", "deny", "code"),
    [
        (("*.vendor.example",), (), None),
        (("ENB1.vendor.example",), (), None),
        (("*",), (), None),
        ((), (), "identity-not-allowed"),
        (("*.example.vendor",), (), "identity-not-allowed"),
        (("vendor.example",), (), "identity-not-allowed"),
        (("*.vendor.example",), ("enb1.vendor.example",), "identity-denied"),
        (("*",), ("*.vendor.example",), "identity-denied"),
    ],
)
def test_lists(allow: tuple[str, ...], deny: tuple[str, ...], code: str | None) -> None:
    refusal = policy(allow=allow, deny=deny).check_identity(question())
    assert (refusal.code if refusal else None) == code


def test_a_name_that_ends_alike_is_not_below_the_domain() -> None:
    assert policy().check_identity(question(identity="evilvendor.example"))


@pytest.mark.parametrize("pattern", ["*vendor.example", "enb*.vendor.example", "*.*.example"])
def test_patterns_that_would_mislead(pattern: str) -> None:
    with pytest.raises(LocalError, match="neither a name"):
        policy(allow=(pattern,))


def found(status: CertStatus = CertStatus.VALID, organization: str = "Vendor V", member: bool = True) -> Resolution:
    record = CertRecord(
        status, organization, NOW_S - 10, NOW_S + 10, Height(1), Height(1), 0, None, key_id=bytes(32)
    )
    held = Member(organization=organization, kind=MemberKind.VENDOR) if member else None
    return Resolution(PROFILE.digest, status, None, record, held, Height(5), NOW_S, 1.0)


@pytest.mark.parametrize(
    ("resolution", "at_s", "code"),
    [
        (found(), NOW_S, None),
        (found(CertStatus.REVOKED), NOW_S, "revoked"),
        (found(CertStatus.SUSPENDED), NOW_S, "suspended"),
        (found(), NOW_S + 11, "expired"),
        (found(), NOW_S - 11, "not-yet-valid"),
        (found(organization="Vendor W"), NOW_S, "organization"),
        (found(member=False), NOW_S, "not-a-member"),
        (
            Resolution(PROFILE.digest, CertStatus.UNKNOWN, None, None, None, Height(5), NOW_S, 1.0),
            NOW_S,
            "not-recorded",
        ),
    ],
)
def test_certificate(resolution: Resolution, at_s: int, code: str | None) -> None:
    refusal = policy().check_certificate(Side.GATEWAY, resolution, at_s)
    assert (refusal.code if refusal else None) == code
    if refusal:
        assert refusal.step == "5.4 certificate"
        other = policy().check_certificate(Side.DEVICE, resolution, at_s)
        assert other
        assert other.step == "8 SeGW certificate"


@pytest.mark.parametrize("code", InquiryCode)
def test_no_answer_is_a_refusal(code: InquiryCode) -> None:
    refusal = inquiry_refusal(question(), InquiryError(code, "x"))
    assert (refusal.code, refusal.step) == (f"ledger-{code}", "5.3 inquiry")


def statement(
    sa: SaName = SA, time_s: int = NOW_S, result: Result = Result.PASSED, digest: bytes = b"\7" * 32
) -> bytes:
    return IntegrityInfo(result, time_s, (Measurement("boot", digest),)).sign(SIGNER, sa, PROFILE.digest)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (statement(), None),
        (None, "integrity-missing"),
        (b"", "integrity-malformed"),
        (b"\2" + statement()[1:], "integrity-malformed"),
        (statement(SaName(SA.spi_i, b"\3" * 8)), "integrity-forged"),
        (statement()[:-1] + b"\0", "integrity-forged"),
        (statement(time_s=NOW_S - 301), "integrity-stale"),
        (statement(time_s=NOW_S + 61), "integrity-stale"),
        (statement(result=Result.FAILED), "integrity-failed"),
        (statement(digest=b"\x08" * 32), "integrity-measurement"),
    ],
)
def test_integrity(content: bytes | None, code: str | None) -> None:
    asked = question(integrity_info=content)
    measurements = {"boot": frozenset({b"\7" * 32})}
    strict = policy(integrity=IntegrityPolicy.REQUIRE, measurements=measurements)
    refusal = strict.check_integrity(asked, NOW_S)
    assert (refusal.code if refusal else None) == code
    lenient = policy(measurements=measurements).check_integrity(asked, NOW_S)
    assert (lenient.code if lenient else None) == (None if content is None else code)
    assert policy(integrity=IntegrityPolicy.IGNORE).check_integrity(asked, NOW_S) is None


def test_a_component_that_must_be_measured() -> None:
    strict = policy(measurements={"firmware": frozenset({bytes(32)})})
    refusal = strict.check_integrity(question(integrity_info=statement()), NOW_S)
    assert refusal
    assert refusal.code == "integrity-measurement"


def test_the_stricter_policy_counts() -> None:
    asked = question(integrity=IntegrityPolicy.REQUIRE)
    refusal = policy(integrity=IntegrityPolicy.IGNORE).check_integrity(asked, NOW_S)
    assert refusal
    assert refusal.code == "integrity-missing"
