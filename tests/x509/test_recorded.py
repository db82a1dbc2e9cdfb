"""The one judgement: each use, and each way of being untrusted."""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest

from tests.present import present
from voice_dpki.effects import SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.names import CertDigest, Tn
from voice_dpki.x509.allotment import Allotment
from voice_dpki.x509.claimconstraints import OID, ClaimConstraints
from voice_dpki.x509.keys import LocalSigner, generate_es256, generate_rsa
from voice_dpki.x509.profile import build_certificate, digest_of, read_profile
from voice_dpki.x509.recorded import (
    FITNESS,
    RULES,
    CertificateRefused,
    CertStatus,
    Distrust,
    RecordedCertificate,
    TrustedCertificate,
    Use,
    check_fitness,
    check_usable,
    judge,
    judge_again,
)
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

NOW_S = 1_790_000_000
NUMBER = Tn("493023125001")
URI = f"sip:+{NUMBER}@a.example"
RANGE = TnRange(Tn("493023125000"), 1000)
HELD = Allotment(("a.example",), (RANGE,), ("709J",))


@cache
def signer(algorithm: str) -> LocalSigner:
    return generate_rsa() if algorithm == "PS256" else generate_es256()


ALGORITHMS = dict.fromkeys(Use, "ES256") | dict.fromkeys((Use.KEY_MEDIA, Use.ENCIPHER_KEYS), "PS256")


@dataclass(frozen=True)
class Given:
    """What is judged: a certificate, and what the ledger says of it."""

    recorded: RecordedCertificate
    presented: Any = None


def certificate(algorithm: str, **changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "organization": "Operator A",
        "common_name": "a.example",
        "uris": [URI],
        "dns_names": ["sip.a.example"],
        "tn_auth_list": TnAuthList(("709J",), (RANGE,)),
        "not_before_s": NOW_S - 1000,
        "not_after_s": NOW_S + 1000,
        "random": SystemRandom(),
    }
    return build_certificate(signer(algorithm), **fields | changes)


def given(use: Use, *, algorithm: str = "", profile: Any = None, said: Any = None, **changes: Any) -> Given:
    """A certificate that is trusted for `use` but for changes in it, in its profile or in what the ledger says."""
    der = certificate(algorithm or ALGORITHMS[use], **changes)
    read = read_profile(der)
    recorded = RecordedCertificate(
        digest=read.digest,
        status=CertStatus.VALID,
        organization="Operator A",
        not_before_s=read.not_before_s,
        not_after_s=read.not_after_s,
        allotment=HELD,
        der=der,
    )
    return Given(replace(recorded, **said or {}), replace(read, **profile) if profile else None)


def judged(case: Given, use: Use, now_s: float = NOW_S) -> TrustedCertificate:
    return judge(case.recorded, use, now_s, presented=case.presented)


EVERY = frozenset(Use)
RELYING = EVERY - {Use.ENDORSE}
ENCIPHER = Use.ENCIPHER_KEYS

WAYS: list[tuple[Distrust, frozenset[Use], dict[str, Any]]] = [
    (Distrust.NOT_RECORDED, EVERY, {"said": {"status": CertStatus.UNKNOWN, "allotment": None, "der": None}}),
    (Distrust.NOT_A_MEMBER, EVERY, {"said": {"allotment": None}}),
    (Distrust.NOT_A_MEMBER, EVERY, {"said": {"status": CertStatus.REVOKED, "allotment": None}}),
    (Distrust.NOT_A_MEMBER, EVERY, {"said": {"status": CertStatus.EXPIRED, "allotment": None}}),
    (Distrust.REVOKED, EVERY, {"said": {"status": CertStatus.REVOKED}}),
    (Distrust.REVOKED, EVERY, {"said": {"status": CertStatus.REVOKED, "not_after_s": NOW_S - 1}}),
    (Distrust.SUSPENDED, EVERY, {"said": {"status": CertStatus.SUSPENDED}}),
    (Distrust.SUSPENDED, EVERY, {"said": {"status": CertStatus.SUSPENDED, "not_before_s": NOW_S + 1}}),
    (Distrust.EXPIRED, EVERY, {"said": {"status": CertStatus.EXPIRED}}),
    (Distrust.EXPIRED, EVERY, {"said": {"not_after_s": NOW_S - 1}}),
    (Distrust.EXPIRED, EVERY, {"said": {"status": CertStatus.SUSPENDED, "not_after_s": NOW_S - 1}}),
    (Distrust.NOT_YET_VALID, EVERY, {"said": {"not_before_s": NOW_S + 1}}),
    (Distrust.NOT_GIVEN, EVERY, {"said": {"der": None}}),
    (Distrust.NOT_GIVEN, EVERY, {"said": {"digest": CertDigest(bytes(32))}}),
    (Distrust.PROFILE, EVERY, {"said": {"der": b"0", "digest": digest_of(b"0")}}),
    (Distrust.SUBJECT, RELYING, {"organization": "Operator B"}),
    (Distrust.SUBJECT, RELYING, {"organization": None}),
    (Distrust.SUBJECT, RELYING, {"organization": None, "common_name": None}),
    (Distrust.KEY, frozenset({Use.SIGN_CALLS, Use.KEY_MEDIA_MODERN}), {"algorithm": "PS256"}),
    (Distrust.KEY, frozenset({Use.KEY_MEDIA, Use.ENCIPHER_KEYS}), {"algorithm": "ES256"}),
    (Distrust.KEY_USAGE, RELYING, {"profile": {"key_usage": frozenset({"keyAgreement"})}}),
    (Distrust.KEY_USAGE, RELYING - {ENCIPHER}, {"profile": {"key_usage": frozenset({"keyEncipherment"})}}),
    (Distrust.KEY_USAGE, frozenset({ENCIPHER}), {"profile": {"key_usage": frozenset({"digitalSignature"})}}),
    (Distrust.CONSTRAINTS, frozenset({Use.SIGN_CALLS}), {"profile": {"claim_constraints": ((OID, b"0\0"),)}}),
    (Distrust.NO_NUMBERS, frozenset({Use.SIGN_CALLS}), {"tn_auth_list": None}),
    (Distrust.NUMBERS, RELYING, {"tn_auth_list": TnAuthList(ranges=(TnRange(Tn("493023125000"), 1001),))}),
    (Distrust.NUMBERS, RELYING, {"tn_auth_list": TnAuthList(("709K",))}),
    (Distrust.NUMBERS, RELYING, {"said": {"allotment": replace(HELD, ranges=())}}),
    (Distrust.DOMAIN, RELYING, {"said": {"allotment": replace(HELD, domains=())}}),
    (Distrust.DOMAIN, RELYING, {"uris": [URI, "sip:ba.example"]}),
    (Distrust.DOMAIN, RELYING, {"uris": [URI, "https://a.example/"]}),
    (Distrust.DOMAIN, RELYING, {"dns_names": ["sip.a.example", "*.b.example"]}),
    (Distrust.URI_NUMBER, RELYING, {"uris": [URI, "sip:+493023126000@a.example"]}),
    (Distrust.URI_NUMBER, RELYING, {"uris": [URI, "tel:+442079460001"]}),
]
"""Why, for which uses, and what makes it so. For its other uses the certificate is trusted."""

OF_THE_TRUSTED = {Distrust.AUTHORITY, Distrust.CLAIMS, Distrust.NOT_ASKED}
"""What only a question to a trusted certificate can be answered with."""


@pytest.mark.parametrize("use", Use)
@pytest.mark.parametrize(("code", "uses", "changes"), WAYS)
def test_each_use_and_each_way_of_being_untrusted(
    use: Use, code: Distrust, uses: frozenset[Use], changes: dict[str, Any]
) -> None:
    case = given(use, **changes)
    if use in uses:
        with pytest.raises(CertificateRefused) as caught:
            judged(case, use)
        assert caught.value.code is code
    elif code is not Distrust.KEY:  # a key of the wrong kind for one use is a key of the right kind for another
        assert judged(case, use).use is use


def test_each_code_is_in_the_table() -> None:
    assert {code for code, _, _ in WAYS} | OF_THE_TRUSTED == set(Distrust)


CHANGING = {
    Distrust.NOT_RECORDED,
    Distrust.NOT_A_MEMBER,
    Distrust.REVOKED,
    Distrust.SUSPENDED,
    Distrust.EXPIRED,
    Distrust.NOT_YET_VALID,
    Distrust.NUMBERS,
    Distrust.DOMAIN,
    Distrust.URI_NUMBER,
}
"""What may become of a certificate; all else stands in it for ever."""


@pytest.mark.parametrize(("code", "uses", "changes"), WAYS)
def test_what_may_change_is_judged_again(code: Distrust, uses: frozenset[Use], changes: dict[str, Any]) -> None:
    recorded = given(Use.AUTHENTICATE, **changes).recorded
    claims = read_profile(certificate("ES256", **{name: changes[name] for name in CLAIMED & changes.keys()}))
    if code in CHANGING:
        with pytest.raises(CertificateRefused) as caught:
            judge_again(recorded, claims, NOW_S)
        assert caught.value.code is code
    else:
        judge_again(recorded, claims, NOW_S)


CLAIMED = {"uris", "dns_names", "tn_auth_list"}


@pytest.mark.parametrize("use", Use)
def test_a_certificate_that_is_trusted(use: Use) -> None:
    case = given(use)
    trusted = judged(case, use)
    assert trusted.profile == read_profile(present(case.recorded.der))
    assert (trusted.organization, trusted.allotment) == ("Operator A", HELD)


@pytest.mark.parametrize("use", Use)
@pytest.mark.parametrize("now_s", [NOW_S - 1000, NOW_S + 1000])
def test_both_ends_of_the_validity_belong_to_it(use: Use, now_s: int) -> None:
    assert judged(given(use), use, now_s)


@pytest.mark.parametrize("use", Use)
def test_a_validity_that_has_begun_since_the_ledger_was_asked(use: Use) -> None:
    assert judged(given(use, said={"status": CertStatus.NOT_YET_VALID}), use)


def test_the_ledger_must_have_been_asked_about_the_presented_certificate() -> None:
    other = read_profile(certificate("ES256"))
    recorded = given(Use.AUTHENTICATE).recorded
    for digest in (b"\0" * 32, b"\xff" * 32):
        presented = replace(other, digest=CertDigest(digest))
        with pytest.raises(LocalError, match="another certificate"):
            judge(recorded, Use.AUTHENTICATE, NOW_S, presented=presented)


def test_a_presented_certificate_need_not_be_given() -> None:
    case = given(Use.KEY_MEDIA)
    profile = read_profile(present(case.recorded.der))
    assert judge(replace(case.recorded, der=None), Use.KEY_MEDIA, NOW_S, presented=profile).profile is profile


@pytest.mark.parametrize("use", [use for use in Use if use is not Use.ENDORSE])
def test_the_rules_that_need_no_ledger_can_be_asked_first(use: Use) -> None:
    check_fitness(read_profile(present(given(use).recorded.der)), use)
    case = given(use, profile={"key_usage": frozenset({"keyAgreement"})})
    with pytest.raises(CertificateRefused) as caught:
        check_fitness(case.presented, use)
    assert caught.value.code is Distrust.KEY_USAGE


@pytest.mark.parametrize("use", [use for use in Use if use is not Use.ENDORSE])
def test_a_certificate_is_usable_by_all_that_needs_no_comparison(use: Use) -> None:
    """Rules 1 to 4, and 6 to 9."""
    recorded = given(use).recorded
    assert check_usable(recorded, use, NOW_S) == read_profile(present(recorded.der))
    assert check_usable(replace(recorded, allotment=Allotment()), use, NOW_S), "what is held is not looked at"
    with pytest.raises(CertificateRefused) as caught:
        check_usable(replace(recorded, status=CertStatus.REVOKED), use, NOW_S)
    assert caught.value.code is Distrust.REVOKED
    with pytest.raises(CertificateRefused) as caught:
        check_usable(replace(recorded, der=None), use, NOW_S)
    assert caught.value.code is Distrust.NOT_GIVEN


@pytest.mark.parametrize(("use", "other"), [(Use.SIGN_CALLS, Use.KEY_MEDIA), (Use.KEY_MEDIA, Use.SIGN_CALLS)])
def test_a_certificate_for_another_use_is_not_usable(use: Use, other: Use) -> None:
    with pytest.raises(CertificateRefused) as caught:
        check_usable(given(other).recorded, use, NOW_S)
    assert caught.value.code in (Distrust.KEY, Distrust.NO_NUMBERS)


def test_rules_are_numbered_in_the_order_in_which_they_are_asked() -> None:
    assert [rule.number for rule in RULES] == list(range(5, 13))
    assert set(FITNESS) < set(RULES)
    assert all(rule.uses for rule in RULES)
    assert [present(rule.check.__doc__).split(":")[0] for rule in RULES] == [
        f"Rule {rule.number}" for rule in RULES
    ]


class TestTheCaller:
    """Which callers a trusted certificate has authority over."""

    @pytest.mark.parametrize(
        "listed",
        [
            TnAuthList(tns=(NUMBER,)),
            TnAuthList(ranges=(RANGE,)),
            TnAuthList(("709J",)),
            TnAuthList(("709J",), tns=(Tn("493023125002"),)),
        ],
    )
    def test_by_number_range_or_code(self, listed: TnAuthList) -> None:
        judged(given(Use.SIGN_CALLS, tn_auth_list=listed), Use.SIGN_CALLS).check_number(NUMBER)

    @pytest.mark.parametrize(
        ("listed", "caller"),
        [
            (TnAuthList(tns=(Tn("493023125002"),)), NUMBER),
            (TnAuthList(ranges=(TnRange(Tn("493023125002"), 2),)), NUMBER),
            (TnAuthList(("709J",)), Tn("442079460001")),
        ],
    )
    def test_no_other_number(self, listed: TnAuthList, caller: Tn) -> None:
        trusted = judged(given(Use.SIGN_CALLS, tn_auth_list=listed), Use.SIGN_CALLS)
        with pytest.raises(CertificateRefused) as caught:
            trusted.check_number(caller)
        assert caught.value.code is Distrust.AUTHORITY

    def test_without_a_list_there_is_no_authority(self) -> None:
        trusted = judged(given(Use.AUTHENTICATE, tn_auth_list=None), Use.AUTHENTICATE)
        with pytest.raises(CertificateRefused) as caught:
            trusted.check_number(NUMBER)
        assert caught.value.code is Distrust.NO_NUMBERS


class TestTheUri:
    """Which parties a trusted certificate speaks for, among those that it names."""

    @pytest.mark.parametrize("uri", [URI, "sip:alice@a.example", f"sip:{NUMBER}@sip.a.example"])
    def test_host_and_number_are_its_organisations(self, uri: str) -> None:
        judged(given(Use.KEY_MEDIA, uris=[uri]), Use.KEY_MEDIA).check_uri(uri)

    @pytest.mark.parametrize("uri", ["sip:442079460001@a.example", "sip:44-20-79460001@a.example"])
    def test_a_number_in_a_form_that_nodes_admit_unread(self, uri: str) -> None:
        """Whether a URI's number is allotted to the recording operator is asked here, whatever form it has."""
        trusted = judged(given(Use.KEY_MEDIA, uris=[uri]), Use.KEY_MEDIA)
        with pytest.raises(CertificateRefused) as caught:
            trusted.check_uri(uri)
        assert caught.value.code is Distrust.URI_NUMBER

    @pytest.mark.parametrize("uri", ["sip:a.example", "tel:+493023125001", "urn:x:y"])
    def test_a_uri_without_user_and_host_is_no_party(self, uri: str) -> None:
        trusted = judged(given(Use.KEY_MEDIA, uris=[uri]), Use.KEY_MEDIA)
        with pytest.raises(CertificateRefused) as caught:
            trusted.check_uri(uri)
        assert caught.value.code is Distrust.DOMAIN

    def test_a_uri_that_the_certificate_does_not_name_is_our_mistake(self) -> None:
        with pytest.raises(LocalError, match="does not name"):
            judged(given(Use.KEY_MEDIA), Use.KEY_MEDIA).check_uri("sip:+493023125002@a.example")


@pytest.mark.parametrize(
    ("refused", "sentence"),
    [
        (CertificateRefused(Distrust.REVOKED), "the signer's certificate was revoked on the ledger"),
        (CertificateRefused(Distrust.NOT_YET_VALID), "the validity of the signer's certificate has not begun"),
        (CertificateRefused(Distrust.PROFILE, "{x}"), "the signer's certificate cannot be used: {x}"),
    ],
)
def test_the_sentence_is_about_the_certificate_by_its_name(refused: CertificateRefused, sentence: str) -> None:
    assert refused.about("the signer's certificate") == sentence
    assert str(refused) == sentence.replace("the signer's", "the")


@pytest.mark.parametrize("code", Distrust)
def test_each_code_has_a_sentence(code: Distrust) -> None:
    assert "{" not in CertificateRefused(code, "detail").about("the certificate")


def test_of_a_certificate_that_is_not_recorded_nothing_is_said() -> None:
    unknown = RecordedCertificate(digest=CertDigest(bytes(32)), status=CertStatus.UNKNOWN)
    assert (unknown.height, unknown.organization, unknown.not_before_s, unknown.not_after_s) == (0, "", 0, 0)
    assert (unknown.allotment, unknown.der) == (None, None)


class TestTheClaims:
    """What a trusted certificate lets its key sign."""

    def test_constraints_hold(self) -> None:
        constrained = ClaimConstraints(permitted=(("attest", ("A",)),))
        trusted = judged(given(Use.SIGN_CALLS, claim_constraints=constrained), Use.SIGN_CALLS)
        trusted.check_claims(lambda: {"attest": "A"})
        with pytest.raises(CertificateRefused, match="attest") as caught:
            trusted.check_claims(lambda: {"attest": "B"})
        assert caught.value.code is Distrust.CLAIMS

    def test_without_constraints_no_claims_are_read(self) -> None:
        nothing = ClaimConstraints(must_exclude=("iat",))  # counts as not present (RFC 9118 §3, third)
        every: list[dict[str, Any]] = [{}, {"claim_constraints": nothing}]
        for options in every:
            trusted = judged(given(Use.SIGN_CALLS, **options), Use.SIGN_CALLS)
            trusted.check_claims(lambda: pytest.fail("the claims were read"))


def test_what_was_trusted_once_is_still_judged_by_what_may_have_changed() -> None:
    case = given(Use.SIGN_CALLS)
    trusted = judged(case, Use.SIGN_CALLS)
    assert judged(case, Use.SIGN_CALLS, NOW_S + 1000) is trusted, "its rules do not run again"
    assert judged(case, Use.AUTHENTICATE).use is Use.AUTHENTICATE
    changes: list[tuple[Distrust, dict[str, Any], float]] = [
        (Distrust.EXPIRED, {}, NOW_S + 1001),
        (Distrust.REVOKED, {"status": CertStatus.REVOKED}, NOW_S),
        (Distrust.NUMBERS, {"allotment": replace(HELD, ranges=())}, NOW_S),
        (Distrust.SUBJECT, {"organization": "Operator B"}, NOW_S),
        (Distrust.NOT_GIVEN, {"der": None}, NOW_S),
    ]
    for code, said, now_s in changes:
        with pytest.raises(CertificateRefused) as refused:
            judged(Given(replace(case.recorded, **said)), Use.SIGN_CALLS, now_s)
        assert refused.value.code is code
    refused_once = given(Use.SIGN_CALLS, said={"allotment": replace(HELD, ranges=())})
    for _ in range(2):
        with pytest.raises(CertificateRefused):
            judged(refused_once, Use.SIGN_CALLS)


def test_what_was_judged_changes_nothing_about_the_record() -> None:
    case = given(Use.SIGN_CALLS)
    fresh = replace(case.recorded)
    judged(case, Use.SIGN_CALLS)
    assert case.recorded == fresh
    assert "TrustedCertificate" not in repr(case.recorded)


OUTSIDE = Tn("442079460001")
BY_NUMBER = replace(HELD, by_number=True)


@pytest.mark.parametrize(
    ("listed", "allotment", "number", "code"),
    [
        (TnAuthList(ranges=(RANGE,)), HELD, NUMBER, None),
        (TnAuthList(ranges=(RANGE,)), HELD, OUTSIDE, Distrust.AUTHORITY),
        (TnAuthList(("709J",)), HELD, NUMBER, None),
        (TnAuthList(("709J",)), HELD, OUTSIDE, Distrust.AUTHORITY),
        (TnAuthList(ranges=(RANGE,)), BY_NUMBER, NUMBER, Distrust.NOT_ASKED),
        (TnAuthList(ranges=(RANGE,)), BY_NUMBER.with_number(NUMBER, holds=None), NUMBER, None),
        (TnAuthList(ranges=(RANGE,)), BY_NUMBER.with_number(NUMBER, holds=False), NUMBER, Distrust.AUTHORITY),
        (TnAuthList(tns=(NUMBER,)), BY_NUMBER, NUMBER, None),
        (TnAuthList(tns=(NUMBER,)), BY_NUMBER.with_number(NUMBER, holds=False), NUMBER, Distrust.AUTHORITY),
        (TnAuthList(("709J",)), BY_NUMBER.with_number(OUTSIDE, holds=True), OUTSIDE, None),
        (TnAuthList(ranges=(RANGE,)), BY_NUMBER.with_number(OUTSIDE, holds=True), OUTSIDE, Distrust.AUTHORITY),
    ],
)
def test_authority_over_a_number_is_the_certificates_and_its_organisations(
    listed: TnAuthList, allotment: Allotment, number: Tn, code: Distrust | None
) -> None:
    """RFC 8226 §9; a number that went to another member is authorised by no range of before."""
    case = given(Use.SIGN_CALLS, tn_auth_list=listed)
    trusted = replace(judged(case, Use.SIGN_CALLS), allotment=allotment)
    if code is None:
        trusted.check_number(number)
        return
    with pytest.raises(CertificateRefused) as caught:
        trusted.check_number(number)
    assert caught.value.code is code


def test_of_a_certificate_alone_nothing_else_is_known() -> None:
    said = RecordedCertificate(digest=CertDigest(bytes(32)), status=CertStatus.UNKNOWN)
    assert (said.height, said.admitted_height, said.organization) == (0, 0, "")
    assert (said.allotment, said.der) == (None, None)
