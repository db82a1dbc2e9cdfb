"""Names of organisations and subjects: written in one form, in scripts that go together, and like nobody else's."""

from dataclasses import replace

import pytest

from voice_dpki.ledger.members import Member, MemberKind
from voice_dpki.ledger.proposals import SetMember
from voice_dpki.ledger.rules import V3
from voice_dpki.ledger.transactions import Submit, endorse
from voice_dpki.x509.keys import generate_es256

from .test_governance import CHAIN
from .test_rules import judged
from .version_4 import certificate, ledger_of, refusal, submission

KEY = generate_es256()
ODD = "Ope\u00adrator  Z"


def newcomer(name: str) -> Member:
    return Member(name, MemberKind.VENDOR, endorsing_keys=(KEY.public_key_der,))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Operator E", "ok"),
        ("Z\u00fcrich \u6771\u4eac", "ok"),
        ("Operator  E", "organization-form"),
        ("Oper\u00adator E", "organization-form"),
        ("Zu\u0308rich", "organization-form"),
        ("\u0301Operator", "organization-form"),
        ("Operator \u0415", "organization-scripts"),
        ("operator a", "organization-taken"),
        ("OPERATOR A", "organization-taken"),
        ("VENDOR", "organization-taken"),
    ],
)
def test_who_is_admitted(name: str, why: str) -> None:
    proposal = SetMember(newcomer(name), None)
    ledger, older = ledger_of(), ledger_of(V3)
    assert refusal(ledger, ledger.propose(proposal)) == why
    assert judged(older, older.propose(proposal)) == "ok"


def test_a_name_in_another_script_that_looks_like_a_members() -> None:
    ledger = ledger_of(members=(newcomer("COBA"),))
    other = replace(newcomer("\u0421\u041e\u0412\u0410"), endorsing_keys=())
    assert refusal(ledger, ledger.propose(SetMember(other, None))) == "organization-taken"


def test_a_member_that_an_older_version_admitted_goes_on_with_its_name() -> None:
    ledger = ledger_of(members=(newcomer(ODD),))
    der = certificate(organization=ODD)
    assert ledger.block(endorse(Submit(CHAIN, ODD, der), [KEY])) == ["ok"]
    for other in ("Operator Z", "Oper\u00adator  Z"):
        wrong = endorse(Submit(CHAIN, ODD, certificate(organization=other)), [KEY])
        assert (refusal(ledger, wrong) == "wrong-organization") is (other != ODD)
    grown = replace(newcomer(ODD), domains=("z.example",))
    assert refusal(ledger, ledger.propose(SetMember(grown, 0))) == "ok"
    assert refusal(ledger, ledger.propose(SetMember(replace(newcomer("operator z"), endorsing_keys=()), None))) == (
        "organization-taken"
    )


def test_a_members_name_that_cannot_be_prepared_looks_like_nobody_elses() -> None:
    ledger = ledger_of(members=(newcomer("\u0301Z"),))
    assert refusal(ledger, ledger.propose(SetMember(replace(newcomer("Z"), endorsing_keys=()), None))) == "ok"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Ger\u00e4t 7", "ok"),
        ("device  7", "common-name-form"),
        ("de\u00advice", "common-name-form"),
        ("Gera\u0308t", "common-name-form"),
        ("\u2800", "common-name-form"),
        ("devic\u0435", "common-name-scripts"),
    ],
)
def test_common_names(name: str, why: str) -> None:
    der = certificate(common_name=name)
    assert refusal(ledger_of(), submission(der)) == why
    assert judged(ledger_of(V3), submission(der)) == "ok"
