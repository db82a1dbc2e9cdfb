"""The table of docs/stir-codes.md: what each fault is answered with, by the rules of each country."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.recorded import absent
from voice_dpki.names import Tn
from voice_dpki.stir.call import Call
from voice_dpki.stir.examine import Policy
from voice_dpki.stir.explain import Finding, explain_identity
from voice_dpki.stir.kinds import KINDS, Kinds
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.profile import Profile
from voice_dpki.stir.shaken import SHAKEN
from voice_dpki.stir.unverified import NO_IDENTITY
from voice_dpki.stir.verdict import VerificationFailed
from voice_dpki.x509.keys import generate_es256
from voice_dpki.x509.recorded import RecordedCertificate

from .conftest import NOW_S, Operator, Verifier, make_operator
from .test_verify import URL, forged

PAGE = Path(__file__).parents[2] / "docs/stir-codes.md"
NOT_OF_AN_IDENTITY = {"From or To cannot be read", "there is no Identity"}

Told = tuple[Call, RecordedCertificate]


def signed(**changes: object) -> Callable[[Operator], Told]:
    """A token with these changes, signed by the operator's own key."""
    return lambda operator: (forged(operator, operator.call(), **changes), operator.record)  # type: ignore[arg-type]


def told(**changes: object) -> Callable[[Operator], Told]:
    """Signalling that says something else than the token."""
    return lambda operator: (replace(operator.call(), **changes), operator.record)  # type: ignore[arg-type]


def of(apart_s: int) -> Callable[[Operator], Told]:
    """A certificate of another time; the token is of now."""

    def made(operator: Operator) -> Told:
        other = make_operator(NOW_S + apart_s, signer=operator.signer)
        url = other.credential.info
        return forged(operator, operator.call(), header={"x5u": url}, info=url), other.record

    return made


def with_parameter(operator: Operator) -> Told:
    call = operator.call()
    return replace(call, identities=(f"{call.identities[0]};canon=x",)), operator.record


def of_another_key(operator: Operator) -> Told:
    call = operator.call()
    thief = replace(operator, signer=generate_es256())
    return forged(thief, call), operator.record


def unknown(operator: Operator) -> Told:
    return operator.call(), absent(operator.record.digest)


def without_authority(operator: Operator) -> Told:
    orig = Tn("493023199999")
    call = forged(operator, operator.call(), payload={"orig": {"tn": orig}})
    return replace(call, orig=orig), operator.record


CASES: dict[str, Callable[[Operator], Told]] = {
    "Date is more than 60 s old": told(time_s=NOW_S - 61),
    "Date is more than 60 s ahead": told(time_s=NOW_S + 61),
    "iat is more than 60 s old": signed(payload={"iat": NOW_S - 61}),
    "iat is more than 60 s ahead": signed(payload={"iat": NOW_S + 61}),
    "there is no info": signed(info=None),
    "the token's header lacks alg": signed(header={"alg": None}),
    "the token's header lacks ppt": signed(header={"ppt": None}),
    "the token's header lacks typ": signed(header={"typ": None}),
    "the token's header lacks x5u": signed(header={"x5u": None}),
    "x5u is not info": signed(header={"x5u": URL}),
    "the Identity has no alg": signed(alg=None),
    "the Identity's alg is not ES256": signed(alg="ES384"),
    "the token's alg is not ES256": signed(header={"alg": "ES384"}),
    "typ is not passport": signed(header={"typ": "JWT"}),
    "the certificate has expired": of(-2000),
    "the certificate is not valid yet": of(2000),
    "the Identity has another parameter": with_parameter,
    "the Identity has no ppt": signed(ppt=None),
    "the Identity's ppt is another type": signed(ppt="msg"),
    "the token's ppt is another type": signed(header={"ppt": "msg"}),
    "attest is none of A, B and C": signed(payload={"attest": "D"}),
    "orig is not the caller": told(orig=Tn("493023125002")),
    "dest is not the called party": told(dest=Destinations((Tn("442079460002"),))),
    "the signature does not verify": of_another_key,
    "the certificate is not on the ledger": unknown,
    "it has no authority over the number": without_authority,
}


def table() -> dict[str, dict[Profile, str]]:
    rows = re.findall(r"^\| ([^|]+?) \| (?:\d+ )?\| (\S+) \| (\S+) \|$", PAGE.read_text(), re.MULTILINE)
    return {what: {Profile.ATIS: atis, Profile.MAN: man} for what, atis, man in rows}


def policy_of(profile: Profile) -> Policy:
    return Policy(profile=profile, kinds=Kinds(SHAKEN) if profile.knows_shaken_alone else KINDS)


def test_the_page_has_every_case() -> None:
    assert set(table()) == set(CASES) | NOT_OF_AN_IDENTITY
    assert table()["there is no Identity"] == dict.fromkeys(Profile, str(NO_IDENTITY.reasoncode))


@pytest.mark.parametrize("profile", Profile)
@pytest.mark.parametrize("case", CASES)
def test_each_fault_has_its_code(operator: Operator, case: str, profile: Profile) -> None:
    call, record = CASES[case](operator)
    try:
        Verifier(policy_of(profile)).verify(call, record)
        code = "-"
    except VerificationFailed as failure:
        code = str(failure.step.reasoncode)
    assert code == table()[case][profile]


@pytest.mark.parametrize("profile", Profile)
def test_a_good_call_passes(operator: Operator, profile: Profile) -> None:
    assert Verifier(policy_of(profile)).verify(operator.call(), operator.record).ok


@pytest.mark.parametrize("case", ["the Identity has no alg", "the Identity has another parameter"])
def test_people_are_told_why(operator: Operator, case: str) -> None:
    call, _ = CASES[case](operator)
    found = explain_identity(call, call.identities[0], policy_of(Profile.MAN), NOW_S)
    assert len([each for each in found.results if each.finding is Finding.FAILED]) == 1
