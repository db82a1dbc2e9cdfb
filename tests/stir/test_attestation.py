from dataclasses import replace
from typing import Any

import pytest

from voice_dpki.errors import MalformedError
from voice_dpki.names import Tn
from voice_dpki.stir.attestation import AttestationRule, Outcome, RuleRefused, attested, considered
from voice_dpki.stir.call import SigningRequest, Source
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.pattern import Pattern
from voice_dpki.stir.sign import SigningRefused

CALL = SigningRequest(
    attest="B",
    orig=Tn("493023125001"),
    dest=Destinations((Tn("442079460001"),)),
    iat_s=1_790_000_000,
    origid="5f4e3b1c-7d2a-4b8e-9c1d-2e3f4a5b6c7d",
    source=Source(peer="proxy", trunk="t1", user="+493023125001"),
)
ELSEWHERE = AttestationRule(name="the rest", attest=Outcome.C)


def coming(**source: str) -> SigningRequest:
    return replace(CALL, source=replace(CALL.source, **source))


MATCHING: dict[str, tuple[Any, SigningRequest]] = {
    "peers": (frozenset({"proxy", "other"}), coming(peer="stranger")),
    "trunks": (frozenset({"t1"}), coming(trunk="")),
    "users": (frozenset({"+493023125001"}), coming(user="alice")),
    "asked": (frozenset("BC"), replace(CALL, attest="A")),
    "authenticated": (True, coming(user="")),
    "owns_number": (True, coming(user="493023125002")),
    "orig": ((Pattern.parse("4930*"),), replace(CALL, orig=Tn("442079460009"))),
    "dest": ((Pattern.parse("4420*"),), replace(CALL, dest=Destinations((Tn("442079460001"), Tn("33"))))),
}


@pytest.mark.parametrize("condition", MATCHING)
def test_each_condition_alone_decides(condition: str) -> None:
    value, other = MATCHING[condition]
    rule = AttestationRule(name="one", attest=Outcome.A, **{condition: value})
    assert (rule.mismatch(CALL), rule.mismatch(other)) == ("", condition)
    found, name = attested([rule, ELSEWHERE], CALL)
    assert (found.attest, name) == ("A", "one")
    found, name = attested([rule, ELSEWHERE], other)
    assert (found.attest, name) == ("C", "the rest")


def test_the_table_has_every_condition() -> None:
    assert set(MATCHING) == set(AttestationRule.__dataclass_fields__) - {"name", "attest", "at_most"}


@pytest.mark.parametrize(
    ("condition", "user", "matches"),
    [
        ({"authenticated": False}, "", True),
        ({"authenticated": False}, "alice", False),
        ({"owns_number": False}, "alice", True),
        ({"owns_number": True}, "sip:+49.30.23125001@a.example", True),
        ({"owns_number": True}, "tel:+493023125001", True),
        ({"owns_number": True}, "sip:alice@a.example", False),
        ({"owns_number": True}, "", False),
    ],
)
def test_who_the_user_is(condition: dict[str, Any], user: str, matches: bool) -> None:
    rule = AttestationRule(
        name="one", attest=Outcome.A, authenticated=None if "owns_number" in condition else False
    )
    rule = replace(rule, **condition)
    assert (rule.mismatch(coming(user=user)) == "") is matches


@pytest.mark.parametrize(
    ("at_most", "asked", "gets"),
    [("A", "A", "A"), ("A", "C", "C"), ("B", "A", "B"), ("B", "C", "C"), ("C", "A", "C")],
)
def test_no_more_than_the_rule_allows(at_most: str, asked: str, gets: str) -> None:
    found, _ = attested([AttestationRule(name="one", at_most=at_most)], replace(CALL, attest=asked))
    assert found.attest == gets


def test_the_first_rule_that_matches_decides() -> None:
    refuse = AttestationRule(name="no", attest=Outcome.REFUSE)
    assert attested([ELSEWHERE, refuse], CALL)[1] == "the rest"
    with pytest.raises(SigningRefused, match="the rule no ") as refused:
        attested([refuse, ELSEWHERE], CALL)
    assert refused.value.code == "rule"


@pytest.mark.parametrize("rules", [[], [AttestationRule(name="one", attest=Outcome.A, peers=frozenset({"x"}))]])
def test_a_call_that_no_rule_matches_gets_no_signature(rules: list[AttestationRule]) -> None:
    with pytest.raises(SigningRefused, match="no rule") as refused:
        attested(rules, CALL)
    assert refused.value.code == "no-rule"


def test_the_rule_that_refuses_is_named() -> None:
    with pytest.raises(RuleRefused, match="the rule nobody of") as refusal:
        attested([AttestationRule(name="nobody", attest=Outcome.REFUSE)], CALL)
    assert (refusal.value.rule, refusal.value.code) == ("nobody", "rule")


def test_a_kind_that_attests_nothing_is_refused_by_rules_and_never_gets_an_attestation() -> None:
    diversion = replace(CALL, attest="", origid="", ppt="div")
    assert attested([ELSEWHERE], diversion)[0] == diversion
    with pytest.raises(SigningRefused):
        attested([AttestationRule(name="no", attest=Outcome.REFUSE)], diversion)


def test_rules_are_considered_up_to_the_one_that_decides() -> None:
    first = AttestationRule(name="first", attest=Outcome.A, peers=frozenset({"x"}))
    last = AttestationRule(name="last", attest=Outcome.A)
    assert [(rule.name, found) for rule, found in considered([first, ELSEWHERE, last], CALL)] == [
        ("first", "peers"),
        ("the rest", ""),
    ]


@pytest.mark.parametrize("members", [{}, {"attest": Outcome.A, "at_most": "A"}])
def test_a_rule_says_one_thing(members: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        AttestationRule(name="one", **members)


def test_a_rule_that_refuses_a_called_party_refuses_it_among_others_too() -> None:
    refusing = AttestationRule(name="no premium", attest=Outcome.REFUSE, dest=(Pattern.parse("4490*"),))
    rules = (refusing, AttestationRule(name="all", attest=Outcome.A))
    several = replace(CALL, dest=Destinations((Tn("442079460001"), Tn("449012345678"))))
    with pytest.raises(RuleRefused, match="no premium"):
        attested(rules, several)
    assert attested(rules, CALL)[1] == "all"
