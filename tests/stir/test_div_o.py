"""Diversions with the token before them inside (RFC 8946 §5, §6)."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.recorded import recorded
from voice_dpki.codec import base64url
from voice_dpki.errors import MalformedError
from voice_dpki.names import Tn
from voice_dpki.stir.call import Call
from voice_dpki.stir.div import Diverting
from voice_dpki.stir.div_o import MAX_OPT_LENGTH, DivOClaims, read_opt, unfold
from voice_dpki.stir.examine import Examined, Policy
from voice_dpki.stir.faults import RequestError
from voice_dpki.stir.forms import read_signing, read_verification
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.passport import ClaimError, Destinations, Passport
from voice_dpki.stir.replay import ReplayCache
from voice_dpki.stir.several import Records, examine_all, judge_all
from voice_dpki.stir.sign import sign_call
from voice_dpki.stir.verdict import Verdict, Verstat
from voice_dpki.x509.allotment import Allotment
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

from .conftest import NOW_S, Operator, make_operator

CALLER = Tn("493023125001")
CALLED = [Tn(f"44207946000{n}") for n in range(9)]
RANGE_B = TnRange(Tn("442079460000"), 100)

EXAMPLE = (
    "eyJhbGciOiJFUzI1NiIsInBwdCI6ImRpdi1vIiwidHlwIjoicGFzc3BvcnQiLCJ4NXUiOiJodHRwczovL3d3dy5leGFtcGxlLmNvbS9j"
    "ZXJ0LmNlciJ9.eyJkZXN0Ijp7InRuIjoiMTIxNTU1NTEyMTQifSwiZGl2Ijp7InRuIjoiMTIxNTU1NTUxMjEzIn0sImlhdCI6MTQ0MzIwODM0"
    "NSwib3B0IjoiZXlKaGJHY2lPaUpGVXpJMU5pSXNJblI1Y0NJNkluQmhjM053YjNKMElpd2llRFYxSWpvaWFIUjBjSE02THk5M2QzY3VaWGho"
    "YlhCc1pTNWpiMjB2WTJWeWRDNWpaWElpZlEuZXlKa1pYTjBJanA3SW5SdUlqcGJJakV5TVRVMU5UVXhNakV6SWwxOUxDSnBZWFFpT2pFME5E"
    "TXlNRGd6TkRVc0ltOXlhV2NpT25zaWRHNGlPaUl4TWpFMU5UVTFNVEl4TWlKOWZRLjFiRXpremNOYkt2Z3o0UW9NeDBfREoyVDhxRk1EQzFz"
    "UHFIUFhsMVd2YmF1elJKUnZZbFpxUTBxZ0dUbFM4dEpfd1hqVmUwN1ozd3ZEcmRBcEhoaFl3Iiwib3JpZyI6eyJ0biI6IjEyMTU1NTUxMjEy"
    "In19.CHeA9wRnthl7paMe6rP0TARpmFCXjmi_vF_HRz2O_oulB_R-G9xZNiLVvmvHv4gk6LILaDV2y2VtHTLIEgmHig"
)
"""The token of RFC 8946 §5; its dest is not the list that RFC 8225 §5.2.1 demands."""


@pytest.fixture(scope="module")
def other() -> Operator:
    """The operator of those who are called."""
    made = make_operator(listed=TnAuthList(ranges=(RANGE_B,)), organization="Operator B")
    return replace(made, record=recorded(made.der, Allotment(ranges=(RANGE_B,)), "Operator B"))


def token_of(identity: str) -> str:
    return IdentityHeader.parse(identity).token


def shaken(operator: Operator) -> str:
    return operator.call(dest=Destinations((CALLED[0],)), key_mgmt=()).identities[0]


def diverted(other: Operator, inner: str, by: Tn, to: Tn, **changes: Any) -> str:
    own: dict[str, object] = {"div": Diverting(by), "opt": token_of(inner)}
    request = replace(other.request(dest=Destinations((to,)), orig=CALLER), ppt="div-o", own=own, **changes)
    return sign_call(request, other.credential, NOW_S).serialize()


def chain(operator: Operator, other: Operator, length: int) -> str:
    """The caller's token in as many diversions."""
    identity = shaken(operator)
    for at in range(length):
        identity = diverted(other, identity, CALLED[at], CALLED[at + 1])
    return identity


def call_to(to: Tn, *identities: str) -> Call:
    return Call(CALLER, Destinations((to,)), NOW_S, identities)


def verify(
    call: Call, operators: Sequence[Operator], replays: ReplayCache | None = None
) -> tuple[list[Verdict], list[Verdict]]:
    """Return the verdicts on the Identities, and on all tokens."""
    records: Records = {each.credential.profile.digest: each.record for each in operators}
    unfolded = unfold(call)
    found = examine_all(unfolded.call, Policy(), NOW_S)
    asked = {each.digest: records[each.digest] for each in found if isinstance(each, Examined)}
    cache = ReplayCache(100, 120) if replays is None else replays
    judged = judge_all(unfolded.call, found, asked, Policy(), cache, NOW_S, NOW_S)
    return unfolded.fold(judged), judged


def test_the_example_of_rfc_8946_holds_another_token() -> None:
    payload = json.loads(Passport.parse(EXAMPLE).payload_untrusted)
    payload["dest"] = {"tn": [payload["dest"]["tn"]]}
    inner = json.loads(Passport.parse(DivOClaims.parse(json.dumps(payload).encode()).opt).payload_untrusted)
    assert inner == {"dest": {"tn": ["12155551213"]}, "iat": 1443208345, "orig": {"tn": "12155551212"}}


def test_the_claims_in_their_order(operator: Operator, other: Operator) -> None:
    identity = chain(operator, other, 1)
    payload = json.loads(base64url.decode(token_of(identity).split(".")[1]))
    assert list(payload) == ["dest", "div", "iat", "opt", "orig"]
    assert IdentityHeader.parse(identity).ppt == "div-o"


@pytest.mark.parametrize("length", [1, 2])
def test_the_innermost_token_proves_the_caller(operator: Operator, other: Operator, length: int) -> None:
    call = call_to(CALLED[length], chain(operator, other, length))
    [verdict], judged = verify(call, [operator, other])
    assert (verdict.verstat, verdict.attest, verdict.signer) == (Verstat.PASSED, "A", "Operator A")
    assert [each.reasoncode for each in judged] == [None] * (length + 1)


@pytest.mark.parametrize("ppt", [";ppt=DIV-O", ';ppt="div-o"', ""])
def test_its_type_in_the_header_field(operator: Operator, other: Operator, ppt: str) -> None:
    identity = chain(operator, other, 1).replace(";ppt=div-o", ppt)
    [verdict], _ = verify(call_to(CALLED[1], identity), [operator, other])
    assert verdict.ok


def test_without_another_identity_the_others_are_as_ever(operator: Operator, other: Operator) -> None:
    call = call_to(CALLED[1], shaken(operator), chain(operator, other, 1), "nonsense")
    assert unfold(call).sizes == [1, 2, 1]
    verdicts, judged = verify(call, [operator, other])
    assert (len(verdicts), len(judged)) == (3, 4)
    assert [verdict.step for verdict in verdicts][1:] == ["", "E6 info"]
    plain = call_to(CALLED[0], shaken(operator))
    assert (unfold(plain).call, unfold(plain).sizes) == (plain, [1])
    assert unfold(plain).call is plain


def resigned(other: Operator, identity: str, change: Any) -> str:
    """The Identity with its payload changed and signed again."""
    token, _, rest = identity.partition(";")
    header, payload, _ = token.split(".")
    changed = json.loads(base64url.decode(payload))
    change(changed)
    signed = f"{header}.{base64url.encode(json.dumps(changed, separators=(',', ':')).encode())}"
    return f"{signed}.{base64url.encode(other.signer.sign(signed.encode()))};{rest}"


@pytest.mark.parametrize(
    ("step", "change"),
    [
        ("E14 claims", lambda payload: payload.pop("opt")),
        ("E14 claims", lambda payload: payload.update(opt=7)),
        ("E14 claims", lambda payload: payload.update(opt="..c2ln")),
        ("E14 claims", lambda payload: payload.update(opt="x" * (MAX_OPT_LENGTH + 1))),
        ("E16 diversion", lambda payload: payload["div"].update(tn=str(CALLED[5]))),
        ("E16 numbers", lambda payload: payload["orig"].update(tn="493023125002")),
        ("E18 signature", lambda payload: payload.update(opt=payload["opt"][:-8] + "AAAAAAAA")),
    ],
)
def test_chains_that_do_not_hold(operator: Operator, other: Operator, step: str, change: Any) -> None:
    identity = resigned(other, chain(operator, other, 1), change)
    [verdict], judged = verify(call_to(CALLED[1], identity), [operator, other])
    assert not verdict.ok
    assert step in [each.step for each in judged]


def test_the_diverting_party_needs_authority_over_its_number(operator: Operator) -> None:
    """The caller's own operator cannot say that another operator's number diverts the call."""
    other = make_operator()
    boundless: Any = type("Boundless", (), {
        "profile": other.credential.profile, "info": other.credential.info, "signer": other.signer,
        "authorises": lambda self, tn: True,
    })()  # fmt: skip
    identity = chain(operator, replace(other, credential=boundless), 1)
    [verdict], _ = verify(call_to(CALLED[1], identity), [operator, other])
    assert (verdict.step, verdict.verstat, verdict.about_caller) == ("E17 authority", Verstat.FAILED, True)


def test_a_chain_that_was_used(operator: Operator, other: Operator) -> None:
    replays, identity = ReplayCache(100, 120), chain(operator, other, 1)
    first, second = (replace(call_to(CALLED[1], identity), call_id=call_id) for call_id in ("1", "2"))
    assert verify(first, [operator, other], replays)[0][0].ok
    assert verify(second, [operator, other], replays)[0][0].step == "E21 replay"


def test_more_tokens_than_are_looked_at(operator: Operator, other: Operator) -> None:
    identities = [chain(operator, other, 2)] * 10
    unfolded = unfold(call_to(CALLED[2], *identities))
    assert len(unfolded.call.identities) == 16
    assert sum(unfolded.sizes) == 16
    assert unfolded.sizes == [3, 3, 3, 1, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("identity", ["", ";;", "é", ";ppt=div-o"])
def test_what_cannot_be_read_holds_no_token(identity: str) -> None:
    call = call_to(CALLED[1], identity)
    assert unfold(call).call is call


def test_a_token_of_another_type_holds_none_whatever_its_header_field_says(
    operator: Operator, other: Operator
) -> None:
    identity = chain(operator, other, 1)
    token, _, rest = identity.partition(";")
    header, payload, signature = token.split(".")
    named = json.loads(base64url.decode(header))
    for ppt, size in (("div-o", 2), ("div", 1), ("shaken", 1), (None, 1)):
        other_header = base64url.encode(json.dumps({**named, "ppt": ppt}).encode())
        assert unfold(call_to(CALLED[1], f"{other_header}.{payload}.{signature};{rest}")).sizes == [size]


def test_the_length_of_a_token_inside() -> None:
    longest = f"e30.e30.{'A' * 4088}"
    assert read_opt(longest) == longest
    for value in (f"{longest}AA", 7, None):
        with pytest.raises(MalformedError, match="at most 4096 characters"):
            read_opt(value)


def test_no_more_than_six_tokens_are_taken_out_of_one_another(operator: Operator, other: Operator) -> None:
    """Unsigned and of short names, for signed ones of six levels are longer than a token may be."""
    jose = base64url.encode(b'{"ppt":"div-o"}')
    claims = {"dest": {"tn": ["1"]}, "div": {"tn": "2"}, "iat": 1, "orig": {"tn": "3"}}
    token = "e30.e30.AA"
    for depth in range(1, 9):
        payload = base64url.encode(json.dumps({**claims, "opt": token}, separators=(",", ":")).encode())
        token = f"{jose}.{payload}.AA"
        assert unfold(call_to(CALLED[1], token)).sizes == [1 + min(depth, 6)]


def request(**members: Any) -> bytes:
    given = {"ppt": "div-o", "orig": {"tn": CALLER}, "dest": {"tn": [CALLED[1]]}, "iat": NOW_S}
    return json.dumps({"signingRequest": {**given, "div": {"tn": CALLED[0]}, **members}}).encode()


def test_signing_requests(operator: Operator, other: Operator) -> None:
    inner = token_of(shaken(operator))
    asked = read_signing(request(opt=inner)).what
    identity = sign_call(asked, other.credential, NOW_S).serialize()
    assert verify(call_to(CALLED[1], identity), [operator, other])[0][0].ok
    compact = operator.call(key_mgmt=()).identities[0].rpartition(".")[2]
    cases: list[tuple[str, dict[str, Any]]] = [
        ("opt", {}),
        ("opt", {"opt": "x"}),
        ("opt", {"opt": f"..{compact}"}),
        ("opt", {"opt": inner, "orig": {"tn": "493023125002"}}),
        ("opt", {"opt": inner, "div": {"tn": CALLED[3]}}),
        ("opt", {"opt": "e30.e30.e30"}),
        ("opt", {"opt": "e30.W10.e30"}),
        ("opt", {"opt": "e30.e31.e30"}),
        ("dest", {"opt": inner, "dest": {"tn": [CALLED[0]]}}),
        ("div", {"opt": inner, "div": None}),
        ("opt", {"opt": inner, "ppt": "div"}),
    ]
    for name, members in cases:
        with pytest.raises(RequestError) as failure:
            read_signing(request(**members))
        assert f"'{name}'" in failure.value.sentence


def test_the_answer_of_a_verification(operator: Operator, other: Operator) -> None:
    body = {"from": {"tn": CALLER}, "to": {"tn": CALLED[0]}, "dest": {"tn": CALLED[1]}, "time": NOW_S}
    members = {**body, "identityHeaders": [chain(operator, other, 1)]}
    asked = read_verification(json.dumps({"verificationRequest": members}).encode())
    told = json.loads(asked.answer(verify(asked.what, [operator, other])[0]))["verificationResponse"]
    assert told["verstatValue"] == "TN-Validation-Passed"
    assert told["divResult"] == [{"div": {"tn": CALLED[0]}, "verstatValue": "TN-Validation-Passed"}]
    (row,) = told["verifyResults"]
    assert (row["verifyResult"]["ppt"], row["verifyResult"]["status"]) == ("div-o", "pass")


def test_only_a_token_may_be_inside() -> None:
    with pytest.raises(ClaimError, match="opt"):
        DivOClaims.parse(b'{"opt":[]}')
