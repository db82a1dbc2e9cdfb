"""Connected identity: the callee's operator signs the answer, and the caller's side verifies it (RFC 9970)."""

import json
from dataclasses import replace
from typing import Any

import pytest

from voice_dpki.codec import base64url
from voice_dpki.names import Tn
from voice_dpki.stir.call import Call
from voice_dpki.stir.examine import Policy
from voice_dpki.stir.explain import Finding, explain_identity
from voice_dpki.stir.faults import RequestError
from voice_dpki.stir.forms import read_signing, read_verification
from voice_dpki.stir.kind import Authority
from voice_dpki.stir.kinds import KINDS
from voice_dpki.stir.passport import ClaimError, Destinations
from voice_dpki.stir.replay import ReplayCache
from voice_dpki.stir.rsp import RSP, RspClaims
from voice_dpki.stir.several import examine_all, judge_all
from voice_dpki.stir.sign import SigningRefused, sign_call
from voice_dpki.stir.verdict import Step, Verdict, VerificationFailed, Verstat
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

from .conftest import NOW_S, Operator, Verifier, make_operator

CALLER, CALLED = Tn("442079460001"), Tn("493023125001")
"""The operator of the tests holds the number that is called."""


def request(**changes: Any) -> bytes:
    given = {"ppt": "rsp", "orig": {"tn": f"+{CALLER}"}, "dest": {"tn": [f"+{CALLED}"]}, "iat": NOW_S, **changes}
    return json.dumps({"signingRequest": given}).encode()


def answer(operator: Operator, **changes: Any) -> Call:
    """The answer to a call as it reaches the caller's side, signed as asked."""
    asked = read_signing(request(**changes)).what
    identity = sign_call(asked, operator.credential, asked.iat_s).serialize()
    return Call(CALLER, Destinations((CALLED,)), NOW_S, (identity,), call_id="c1", is_answer=True)


def refused(verifier: Verifier, call: Call, operator: Operator, step: Step, match: str) -> None:
    with pytest.raises(VerificationFailed, match=match) as failure:
        verifier.verify(call, operator.record)
    assert failure.value.step is step


def test_what_is_signed(operator: Operator) -> None:
    header, payload, _ = answer(operator).identities[0].split(";")[0].split(".")
    assert json.loads(base64url.decode(header))["ppt"] == "rsp"
    assert base64url.decode(payload).decode() == (
        f'{{"dest":{{"tn":["{CALLED}"]}},"iat":{NOW_S},"orig":{{"tn":"{CALLER}"}}}}'
    )


def test_a_good_answer_proves_the_number_that_was_called(operator: Operator, verifier: Verifier) -> None:
    verdict = verifier.verify(answer(operator), operator.record)
    assert (verdict.verstat, verdict.signer, verdict.step, verdict.attest) == (Verstat.PASSED, "Operator A", "", "")


def test_only_the_holder_of_the_number_answers_for_it(operator: Operator) -> None:
    """Neither does the server sign for another's number, nor is the signature of another believed."""
    with pytest.raises(SigningRefused, match="the number that was called is not among those") as failure:
        answer(operator, dest={"tn": ["442079460002"]})
    assert failure.value.code == "no-authority"
    everybody = make_operator(
        signer=operator.signer, listed=TnAuthList(ranges=(TnRange(Tn("440000000000"), 10**11),))
    )
    thief = replace(operator, credential=replace(everybody.credential, info=operator.credential.info))
    call = replace(answer(thief, dest={"tn": ["442079460002"]}), dest=Destinations((Tn("442079460002"),)))
    refused(Verifier(), call, operator, Step.AUTHORITY, "no authority over the number that was called")


@pytest.mark.parametrize(
    ("match", "changes"),
    [
        ("signed caller is not", {"orig": Tn("442079460009")}),
        ("signed destination is not", {"dest": Destinations((Tn("493023125002"),))}),
    ],
)
def test_the_answer_to_another_call_is_not_this_ones(
    operator: Operator, match: str, changes: dict[str, Any]
) -> None:
    refused(Verifier(), replace(answer(operator), **changes), operator, Step.NUMBERS, match)


def test_an_old_answer_is_refused(operator: Operator) -> None:
    refused(Verifier(now_s=NOW_S + 61), replace(answer(operator), time_s=NOW_S + 61), operator, Step.IAT, "iat")


def test_an_answer_counts_for_one_call(operator: Operator, verifier: Verifier) -> None:
    call = answer(operator)
    assert verifier.verify(call, operator.record).ok
    assert verifier.verify(call, operator.record).ok, "a retransmission of the response"
    refused(verifier, replace(call, call_id="c2"), operator, Step.REPLAY, "used before")


def test_a_call_is_not_proven_by_an_answer_nor_an_answer_by_a_call(operator: Operator, verifier: Verifier) -> None:
    call = operator.call()
    refused(verifier, replace(call, is_answer=True), operator, Step.PPT, "does not stand in the answer")
    refused(verifier, replace(answer(operator), is_answer=False), operator, Step.PPT, "answer to a call alone")
    assert verifier.verify(call, operator.record).ok


def test_people_are_told_so(operator: Operator) -> None:
    call = replace(answer(operator), is_answer=False)
    found = explain_identity(call, call.identities[0], Policy(), NOW_S)
    failed = [each.sentence for each in found.results if each.finding is Finding.FAILED]
    assert failed == ["the PASSporT is of a type that stands in the answer to a call alone"]


def judged(call: Call, operator: Operator) -> Verdict:
    found = examine_all(call, Policy(), NOW_S)
    records = {operator.record.digest: operator.record}
    (verdict,) = judge_all(call, found, records, Policy(), ReplayCache(9, 120), NOW_S, NOW_S)
    return verdict


def test_the_verdict_on_an_answer_is_about_it_whatever_it_is_signed_with(operator: Operator) -> None:
    assert judged(answer(operator), operator).about_caller
    for call in (
        replace(operator.call(), is_answer=True),
        replace(answer(operator), identities=("e30.e30.c2ln;ppt=x",)),
    ):
        verdict = judged(call, operator)
        assert (verdict.verstat, verdict.reasoncode, verdict.about_caller) == (Verstat.NONE, 438, True)


@pytest.mark.parametrize("form", ["identity", "identityHeader"])
def test_both_forms_ask_about_an_answer(operator: Operator, form: str) -> None:
    call = answer(operator)
    to = {"tn": [CALLED] if form == "identity" else CALLED}
    members = {form: call.identities[0], "from": {"tn": CALLER}, "to": to, "time": NOW_S, "callId": "c1"}

    def asked(**own: Any) -> bool:
        body = json.dumps({"verificationRequest": {**members, **own}}).encode()
        told = read_verification(body)
        verdict = json.loads(told.answer([judged(told.what, operator)]))["verificationResponse"]
        return bool(verdict.get("verstat", verdict.get("verstatValue")) == Verstat.PASSED)

    assert asked(answer=True)
    assert not asked()
    assert not asked(answer=False)
    with pytest.raises(RequestError) as failure:
        asked(answer="yes")
    assert "answer" in str(failure.value)


@pytest.mark.parametrize(
    ("message_id", "changes"),
    [
        ("SVC4005", {"dest": {"tn": [CALLED, "493023125002"]}}),
        ("SVC4005", {"dest": {"tn": [CALLED], "uri": ["sip:a@b.example"]}}),
        ("SVC4005", {"dest": {"uri": ["sip:a@b.example"]}}),
        ("SVC4005", {"rsp": {}}),
        ("SVC4005", {"sdp": {"alg": "sha-256", "dig": "A" * 43}}),
    ],
)
def test_requests_that_cannot_be_used(message_id: str, changes: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as failure:
        read_signing(request(**changes))
    assert failure.value.message_id == message_id


@pytest.mark.parametrize(
    "dest", [None, {}, {"tn": []}, {"tn": ["1", "2"]}, {"uri": ["sip:a@b"]}, {"tn": ["1"], "uri": ["a"]}]
)
def test_payloads_of_other_destinations(dest: Any) -> None:
    payload = {"dest": dest, "iat": NOW_S, "orig": {"tn": CALLER}}
    with pytest.raises(ClaimError, match="dest"):
        RspClaims.parse(json.dumps(payload).encode())


def test_a_kind_for_answers_proves_no_caller() -> None:
    with pytest.raises(ValueError, match="rsp proves the number that was called"):
        replace(RSP, authority=Authority(None, "", "", lambda claims: frozenset()))
    assert [kind.ppt for kind in KINDS if kind.answers] == ["rsp"]
