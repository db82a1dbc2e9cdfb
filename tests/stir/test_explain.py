"""Each step's result, also behind one that failed; the verdict is that of `examine`."""

from dataclasses import replace
from typing import Any

import pytest

from voice_dpki.names import Tn
from voice_dpki.stir.div import Diverting
from voice_dpki.stir.examine import Policy, examine
from voice_dpki.stir.explain import Explained, Finding, explain_identity
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.sign import sign_call
from voice_dpki.stir.verdict import Step, VerificationFailed

from .conftest import NOW_S, Operator
from .test_verify import forged

STEPS = [
    "E3 time", "E4 form", "E5 ppt parameter", "E6 info", "E7 info URL", "E9 header claims", "E9 crit", "E10 x5u",
    "E11 typ", "E12 alg", "E13 ppt", "E14 claims", "E15 iat", "E16 numbers", "shaken's own",
]  # fmt: skip
OTHERS = set(STEPS[:-1])
DIALLED = Tn("493023125005")


def findings(found: Explained, finding: Finding) -> list[str]:
    return [result.step for result in found.results if result.finding is finding]


def test_a_good_call_passes_all_steps(operator: Operator) -> None:
    call = operator.call()
    found = explain_identity(call, call.identities[0], Policy(), NOW_S)
    assert findings(found, Finding.PASSED) == STEPS
    assert found.examined == examine(call, call.identities[0], Policy(), NOW_S)


def test_before_any_step_nothing_is_examined() -> None:
    assert Explained(call=None).examined is None


def test_steps_behind_a_failed_one_run(operator: Operator) -> None:
    call = replace(operator.call(iat_s=NOW_S - 300), time_s=NOW_S, orig=Tn("493023125009"))
    found = explain_identity(call, call.identities[0], Policy(), NOW_S)
    assert findings(found, Finding.FAILED) == ["E15 iat", "E16 numbers"]
    assert findings(found, Finding.NOT_RUN) == []
    assert [result.reasoncode for result in found.results if result.finding is Finding.FAILED] == [403, 438]
    assert found.examined is None


def test_another_callee_is_told_behind_a_failed_step_too(operator: Operator) -> None:
    made = operator.call(iat_s=NOW_S - 300)
    call = replace(made, time_s=NOW_S, dest=replace(made.dest, tns=(Tn("442079460199"),)))
    found = explain_identity(call, call.identities[0], Policy(), NOW_S)
    assert findings(found, Finding.FAILED) == ["E15 iat", "E16 numbers"]


def test_where_a_call_was_diverted_a_failed_token_need_not_name_the_callee(operator: Operator) -> None:
    """Whether the diversions lead on from it is not known then. A diversion alone names whom it called instead."""
    stale = {"iat_s": NOW_S - 300}
    target = Destinations((Tn("442079460001"),))
    first = operator.call(dest=Destinations((DIALLED,)), key_mgmt=(), **stale).identities[0]
    request = replace(operator.request(dest=target, **stale), ppt="div", own={"div": Diverting(DIALLED)})
    second = sign_call(request, operator.credential, request.iat_s).serialize()
    for identities, dest in (((first, second), target), ((second,), Destinations((DIALLED,)))):
        call = replace(operator.call(), dest=dest, target=target, identities=identities)
        found = explain_identity(call, identities[0], Policy(), NOW_S)
        assert findings(found, Finding.FAILED) == ["E15 iat"]
        assert "E16 numbers" in findings(found, Finding.PASSED)


def test_without_a_call_what_needs_one_is_not_run(operator: Operator) -> None:
    found = explain_identity(None, operator.call().identities[0], Policy(), NOW_S)
    assert findings(found, Finding.NOT_RUN) == ["E3 time", "E16 numbers"]
    assert findings(found, Finding.FAILED) == []
    assert found.examined is None


@pytest.mark.parametrize(
    ("identity", "failed"),
    [
        ("", ["E4 form"]),
        ("..c2ln;info=<https://c/x>;ppt=shaken", ["E4 form"]),
        ("e30.e30.c2ln", ["E6 info", "E9 header claims"]),
        ("e30.e30.c2ln;info=x", ["E6 info"]),
        ("e30.e30.c2ln;info=<x>;ppt=msg", ["E5 ppt parameter", "E7 info URL", "E9 header claims"]),
    ],
)
def test_what_cannot_be_read_is_told_once(operator: Operator, identity: str, failed: list[str]) -> None:
    found = explain_identity(operator.call(), identity, Policy(), NOW_S)
    assert findings(found, Finding.FAILED) == failed
    named = [result.step for result in found.results]
    assert named[:2] == STEPS[:2]
    assert set(named) == OTHERS
    assert len(named) == len(OTHERS)


@pytest.mark.parametrize(
    "changes",
    [{"alg": "ES384"}, {"ppt": "div"}, {"info": None}, {"info": "https://c/x"}, {"token": "e30.e30.c2ln"}],
)
def test_the_first_failure_is_that_of_the_verifier(operator: Operator, changes: dict[str, Any]) -> None:
    call = operator.call()
    identity = replace(IdentityHeader.parse(call.identities[0]), **changes).serialize()
    call = replace(call, identities=(identity,))
    found = explain_identity(call, identity, Policy(), NOW_S)
    with pytest.raises(VerificationFailed) as failure:
        examine(call, identity, Policy(), NOW_S)
    first = next(result for result in found.results if result.finding is Finding.FAILED)
    assert (first.step, first.sentence) == (failure.value.step.label, str(failure.value))


def test_a_step_of_the_kind_alone_has_its_own_name(operator: Operator) -> None:
    call = operator.call(attest="D")
    found = explain_identity(call, call.identities[0], Policy(), NOW_S)
    assert findings(found, Finding.FAILED) == [Step.ATTEST.label]


@pytest.mark.parametrize(
    ("step", "header", "payload", "others"),
    [
        ("E13 ppt", {"ppt": "msg"}, {}, {"E14 claims": "type", "E15 iat": "type", "E16 numbers": "type"}),
        ("E14 claims", {}, {"iat": None}, {"E15 iat": "claims", "E16 numbers": "claims"}),
        ("E9 header claims", {"alg": None}, {}, dict.fromkeys(STEPS[6:14], "decoded")),
    ],
)
def test_what_hangs_on_a_failed_step_is_not_run_and_says_why(
    operator: Operator, step: str, header: dict[str, Any], payload: dict[str, Any], others: dict[str, str]
) -> None:
    call = forged(operator, operator.call(), header=header, payload=payload, ppt=None)
    found = explain_identity(call, call.identities[0], Policy(), NOW_S)
    assert findings(found, Finding.FAILED) == [step]
    left = {result.step: result.sentence for result in found.results if result.finding is Finding.NOT_RUN}
    assert left.keys() == others.keys()
    assert all(others[name] in sentence for name, sentence in left.items())
    assert found.examined is None


def test_a_diversion_that_is_not_there_is_told_of_the_token_before_it(operator: Operator) -> None:
    """The first token alone would do, but the call has another one from which no way leads on."""
    first = operator.call(dest=Destinations((DIALLED,)), key_mgmt=()).identities[0]
    target = Destinations((Tn("442079460001"),))
    request = replace(operator.request(dest=target), ppt="div", own={"div": Diverting(Tn("493023125006"))})
    second = sign_call(request, operator.credential, NOW_S).serialize()
    call = replace(operator.call(), dest=Destinations((DIALLED,)), target=target, identities=(first, second))
    found = explain_identity(call, second, Policy(), NOW_S)
    (failed,) = (result for result in found.results if result.finding is Finding.FAILED)
    assert (failed.step, failed.sentence) == (
        "E16 diversion", "the PASSporT from which this one diverts the call is not there"
    )  # fmt: skip
