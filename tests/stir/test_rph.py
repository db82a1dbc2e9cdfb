"""Priority: who may grant which namespace of Resource-Priority, and to which call (RFC 8443, RFC 9027)."""

import json
from dataclasses import replace
from typing import Any

import pytest

from voice_dpki.codec import base64url
from voice_dpki.errors import MalformedError
from voice_dpki.names import Tn
from voice_dpki.stir.call import Call
from voice_dpki.stir.examine import Policy
from voice_dpki.stir.passport import ClaimError, Destinations
from voice_dpki.stir.rph import RPH, read_resource_priority
from voice_dpki.stir.sign import SigningRefused, sign_call
from voice_dpki.stir.verdict import VerificationFailed, Verstat

from .conftest import NOW_S, Operator, Verifier

CALLER = Tn("442079460099")
"""A number of another operator: authority over the namespace is enough."""
POLICY = Policy(priority={"Operator A": frozenset(("ets", "esnet"))})


@pytest.fixture
def verifier(new_verifier: type[Verifier]) -> Verifier:
    return new_verifier(POLICY)


def granted(operator: Operator, *auth: str, sph: str = "", **told: Any) -> Call:
    own: dict[str, object] = {"rph": auth}
    request = operator.request(orig=CALLER, dest=Destinations(uris=("urn:service:sos",)))
    request = replace(request, ppt="rph", own={**own, "sph": sph} if sph else own)
    credential = replace(operator.credential, namespaces=frozenset(("ets", "esnet")))
    identity = sign_call(request, credential, NOW_S).serialize()
    return replace(Call(CALLER, request.dest, NOW_S, (identity,)), **told)


def refusal(verifier: Verifier, call: Call, operator: Operator) -> tuple[str, int]:
    with pytest.raises(VerificationFailed) as failure:
        verifier.verify(call, operator.record)
    return failure.value.step.label, failure.value.step.reasoncode


def test_a_good_one_says_nothing_of_the_caller(operator: Operator, verifier: Verifier) -> None:
    verdict = verifier.verify(granted(operator, "ets.0"), operator.record)
    assert (verdict.verstat, verdict.step, verdict.about_caller) == (Verstat.NONE, "", False)


def test_the_claims_in_their_order(operator: Operator) -> None:
    """The octets of RFC 9027 §5, with our numbers."""
    _, payload, _ = granted(operator, "esnet.1", sph="psap-callback").identities[0].partition(";")[0].split(".")
    assert base64url.decode(payload).decode() == (
        f'{{"dest":{{"uri":["urn:service:sos"]}},"iat":{NOW_S},"orig":{{"tn":"442079460099"}},'
        '"rph":{"auth":["esnet.1"]},"sph":"psap-callback"}'
    )


@pytest.mark.parametrize("auth", [("wps.0",), ("ets.0", "wps.0"), ("ets-x.0",)])
def test_a_signer_needs_authority_over_each_namespace(operator: Operator, auth: tuple[str, ...]) -> None:
    with pytest.raises(SigningRefused, match="the namespace of rph is not among those") as refused:
        granted(operator, *auth)
    assert refused.value.code == "no-authority"


@pytest.mark.parametrize(
    "policy", [Policy(), Policy(priority={"Operator A": frozenset(("wps",)), "Operator B": frozenset(("ets",))})]
)
def test_a_verifier_must_know_who_may_grant_it(
    operator: Operator, new_verifier: type[Verifier], policy: Policy
) -> None:
    assert refusal(new_verifier(policy), granted(operator, "ets.0"), operator) == ("E17 authority", 437)


def test_namespaces_have_no_case(operator: Operator, verifier: Verifier) -> None:
    told = read_resource_priority("esnet.0, Ets.0")
    assert verifier.verify(granted(operator, "ETS.0", resource_priority=told), operator.record).step == ""


@pytest.mark.parametrize(
    ("told", "is_good"),
    [
        ({}, True),
        ({"resource_priority": frozenset(("esnet.0",))}, True),
        ({"resource_priority": frozenset(("esnet.0", "wps.1"))}, True),
        ({"resource_priority": frozenset(("esnet.1",))}, False),
        ({"resource_priority": frozenset(("ets.0",))}, False),
        ({"priority": "psap-callback"}, True),
        ({"priority": "emergency"}, False),
    ],
)
def test_the_call_has_the_priority_that_was_signed(
    operator: Operator, verifier: Verifier, told: dict[str, Any], is_good: bool
) -> None:
    call = granted(operator, "esnet.0", sph="psap-callback", **told)
    if is_good:
        assert verifier.verify(call, operator.record).step == ""
    else:
        assert refusal(verifier, call, operator) == ("E16 priority", 438)


PAYLOAD = {
    "dest": {"tn": ["442079460001"]},
    "iat": NOW_S,
    "orig": {"tn": CALLER},
    "rph": {"auth": ["esnet.0"]},
    "sph": "psap-callback",
}


@pytest.mark.parametrize(
    "changes",
    [
        {"rph": None},
        {"rph": ["ets.0"]},
        {"rph": {}},
        {"rph": {"auth": []}},
        {"rph": {"auth": "ets.0"}},
        {"rph": {"auth": ["ets"]}},
        {"rph": {"auth": ["ets.0.1"]}},
        {"rph": {"auth": ["ets.0\n"]}},
        {"rph": {"auth": ["e" * 33 + ".0"]}},
        {"rph": {"auth": ["esnet.0"] * 17}},
        {"rph": {"auth": ["esnet.0", "ets.0"]}},
        {"sph": "emergency"},
        {"sph": None},
        {"iat": "1443208345"},
    ],
)
def test_claims_that_cannot_be_used(changes: dict[str, Any]) -> None:
    RPH.parse(json.dumps(PAYLOAD).encode())
    with pytest.raises(ClaimError):
        RPH.parse(json.dumps({**PAYLOAD, **changes}).encode())


def test_header_fields_that_cannot_be_used() -> None:
    for text in ("", "ets", "ets.0,,wps.0", "ets.0;q=1", ",".join(["ets.0"] * 17)):
        with pytest.raises(MalformedError):
            read_resource_priority(text)
