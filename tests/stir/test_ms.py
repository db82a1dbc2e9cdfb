"""The form of 3GPP TS 24.229 Annex V, told from ATIS-1000082's by its members and answered in kind."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.codec import base64url
from voice_dpki.stir import forms
from voice_dpki.stir.call import Call
from voice_dpki.stir.examine import Policy
from voice_dpki.stir.faults import MESSAGE_IDS, RequestError
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.sign import sign_call
from voice_dpki.stir.verdict import Step, Verdict, VerificationFailed, Verstat, verdict_of

from .conftest import NOW_S, Operator, Verifier
from .test_kinds import BOTH, DIVERTED, diverted

VECTORS = Path(__file__).parents[1] / "vectors" / "stir"
UUID = "5f4e3b1c-7d2a-4b8e-9c1d-2e3f4a5b6c7d"
SIGNING = {
    "attest": "A",
    "orig": {"tn": "+493023125001"},
    "dest": {"tn": ["442079460001"]},
    "iat": NOW_S,
    "origid": UUID,
}
VERIFICATION = {
    "identityHeader": "e30.e30.c2ln",
    "from": {"tn": "493023125001"},
    "to": {"tn": "442079460001"},
    "time": NOW_S,
}


def rows(name: str) -> list[Any]:
    lines = [json.loads(line) for line in (VECTORS / name).read_text().splitlines()]
    return [pytest.param(line, id=line["about"]) for line in lines]


def signing(**changes: object) -> bytes:
    return json.dumps({"signingRequest": {**SIGNING, **changes}}).encode()


def verification(**changes: object) -> bytes:
    return json.dumps({"verificationRequest": {**VERIFICATION, **changes}}).encode()


def refused(error: RequestError, row: dict[str, Any]) -> None:
    assert error.status == 400
    told = json.loads(error.body())
    assert list(told) == ["error"]
    assert told["error"].startswith(f"{row['error']}. ")
    assert f"arameter '{row['names']}' " in told["error"]
    assert row.get("says", "") in told["error"]


@pytest.mark.parametrize("row", rows("ms-signing.jsonl"))
def test_signing_requests(row: dict[str, Any], operator: Operator) -> None:
    body = signing(**row["members"])
    if "error" in row:
        with pytest.raises(RequestError) as failure:
            forms.read_signing(body)
        refused(failure.value, row)
        return
    asked = forms.read_signing(body)
    dest = {"tn": list(asked.what.dest.tns), "uri": list(asked.what.dest.uris)}
    assert {"orig": asked.what.orig, "dest": {name: each for name, each in dest.items() if each}} == row["signs"]
    namespaces = frozenset(("ets", "wps", "esnet"))
    identity = sign_call(asked.what, replace(operator.credential, namespaces=namespaces), NOW_S)
    payload = json.loads(base64url.decode(identity.token.split(".")[1]))
    assert payload.items() >= row.get("claims", {"attest": "A", "origid": UUID}).items()
    assert identity.ppt == (row["members"].get("ppt") or "shaken")
    labels = {"requestId": row["members"]["requestId"]} if "requestId" in row["members"] else {}
    assert json.loads(asked.answer(identity)) == {
        "signingResponse": {"identityHeader": identity.serialize(), **labels}
    }


@pytest.mark.parametrize("row", rows("ms-verification.jsonl"))
def test_verification_requests(row: dict[str, Any]) -> None:
    body = verification(**row["members"])
    if "error" in row:
        with pytest.raises(RequestError) as failure:
            forms.read_verification(body)
        refused(failure.value, row)
        return
    call = forms.read_verification(body).what
    dest = {"tn": list(call.dest.tns), "uri": list(call.dest.uris)}
    told = {"dest": {name: each for name, each in dest.items() if each}, "identities": len(call.identities)}
    assert told == row["asks"]
    assert (call.orig, call.time_s, call.key_mgmt, call.sdp) == ("493023125001", NOW_S, None, None)


def test_the_media_are_bound_as_in_the_other_form() -> None:
    member = {"alg": "sha-256", "dig": "A" * 43}
    request = forms.read_signing(signing(ppt="shaken", keyMgmt=["mikey AQ"], sdp=member)).what
    assert (request.key_mgmt, request.sdp) == (("mikey AQ",), bytes(32))
    call = forms.read_verification(verification(keyMgmt=[], sdp=member)).what
    assert (call.key_mgmt, call.sdp) == ((), bytes(32))


def test_a_request_that_both_forms_know_is_answered_for_both(operator: Operator) -> None:
    asked = forms.read_signing(signing())
    identity = sign_call(asked.what, operator.credential, NOW_S)
    value = identity.serialize()
    assert json.loads(asked.answer(identity)) == {"signingResponse": {"identity": value, "identityHeader": value}}


ATIS = {"identityHeader": None, "identity": "e30.e30.c2ln", "to": {"tn": ["442079460001"]}}


@pytest.mark.parametrize(
    ("changes", "is_ms"),
    [
        ({}, True),
        ({"identityHeader": None}, True),
        ({"identityHeader": None, "to": {"uri": "sip:jack@b.example"}}, True),
        ({"identityHeader": None, "identityHeaders": []}, True),
        ({"to": {"tn": ["442079460001"]}}, True),
        (ATIS, False),
        ({**ATIS, "identity": None}, False),
        ({**ATIS, "to": {"tn": "442079460001"}}, False),
        ({**ATIS, "identityHeader": "e30.e30.c2ln"}, False),
        ({**ATIS, "identity": None, "dest": {"tn": "442079460001"}}, True),
        ({**ATIS, "identity": None, "from": {"uri": "sip:+4420@b.example;user=phone"}}, True),
    ],
)
def test_the_members_tell_the_form(changes: dict[str, object], is_ms: bool) -> None:
    """`time` is wrong, so that each is refused, in its own form."""
    with pytest.raises(RequestError) as failure:
        forms.read_verification(verification(**changes, time="now"))
    assert list(json.loads(failure.value.body())) == ["error" if is_ms else "requestError"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"{}", b'{"signingRequest":7}', b'{"verificationRequest":[]}', signing(ppt=None)[:-1]]
)
def test_whatever_has_no_form_is_refused_as_atis_has_it(body: bytes) -> None:
    for read in (forms.read_signing, forms.read_verification):
        with pytest.raises(RequestError) as failure:
            read(body)
        assert list(json.loads(failure.value.body())) == ["requestError"]


@pytest.mark.parametrize(
    ("message_id", "status", "text"),
    [
        ("SVC4000", 400, "Missing request body"),
        ("SVC4001", 400, "Missing mandatory parameter"),
        ("SVC4002", 406, "Requested response body type is not supported"),
        ("SVC4003", 404, "Requested resource not found"),
        ("SVC4004", 415, "Unsupported request body type"),
        ("SVC4005", 400, "Invalid parameter value"),
        ("SVC4006", 400, "Failed to parse message body"),
        ("SVC4007", 411, "Missing mandatory Content-Length headers"),
        ("POL4050", 405, "Method not allowed"),
        ("POL5000", 500, "Internal server error"),
    ],
)
def test_errors_have_the_texts_and_statuses_of_the_standard(message_id: str, status: int, text: str) -> None:
    error = RequestError(message_id, "a", "b").written_by(forms.MS.write_error)
    assert error.status == status
    assert json.loads(error.body())["error"] == f"{text}. {error.sentence}"


@pytest.mark.parametrize("message_id", MESSAGE_IDS)
def test_every_error_has_a_sentence(message_id: str) -> None:
    text = json.loads(RequestError(message_id, "a", "b").written_by(forms.MS.write_error).body())["error"]
    assert text.endswith(RequestError(message_id, "a", "b").sentence)


def asked_about(call: Call, **changes: object) -> forms.Asked[Call, Any]:
    first, *others = call.identities
    members = {"identityHeader": first, "identityHeaders": others or None, "from": {"tn": call.orig}}
    return forms.read_verification(verification(**{**members, **changes}))


def verdicts(call: Call, operator: Operator, verifier: Verifier) -> list[Verdict]:
    found = []
    for identity in call.identities:
        try:
            found.append(verifier.verify(replace(call, identities=(identity,)), operator.record))
        except VerificationFailed as failure:
            found.append(verdict_of(failure))
    return found


def test_a_good_call(operator: Operator, new_verifier: type[Verifier]) -> None:
    asked = asked_about(operator.call(key_mgmt=()), requestId="45690", displayName="James Smith")
    answer = json.loads(asked.answer(verdicts(asked.what, operator, new_verifier())))
    assert answer == {
        "verificationResponse": {
            "verstatValue": "TN-Validation-Passed",
            "verifyResults": [
                {
                    "verifyResult": {
                        "ppt": "shaken",
                        "status": "pass",
                        "validClaims": {
                            "attest": "A",
                            "dest": {"tn": ["442079460001"]},
                            "iat": NOW_S,
                            "orig": {"tn": "493023125001"},
                            "origid": UUID,
                        },
                        "signer": "Operator A",
                        "certificate": operator.credential.profile.digest.hex(),
                        "keyMgmt": "not-checked",
                        "sdp": "not-signed",
                    }
                }
            ],
            "requestId": "45690",
            "displayName": "James Smith",
        }
    }


def results(asked: forms.Asked[Call, Any], found: list[Verdict]) -> tuple[str | None, list[dict[str, Any]]]:
    response = json.loads(asked.answer(found))["verificationResponse"]
    return response.get("verstatValue"), [row["verifyResult"] for row in response["verifyResults"]]


def test_a_call_that_fails_says_why_and_gives_the_token_back(
    operator: Operator, new_verifier: type[Verifier]
) -> None:
    call = operator.call(iat_s=NOW_S - 300)
    asked = asked_about(call)
    verstat, [result] = results(asked, verdicts(asked.what, operator, new_verifier()))
    assert (verstat, result["status"], result["reasonCode"]) == ("No-TN-Validation", "fail", 403)
    assert (result["reasonText"], result["step"]) == ("Stale Date", "E15 iat")
    assert "iat lies 300 s before" in result["reasonDescription"]
    assert result["passport"] == IdentityHeader.parse(call.identities[0]).token
    assert "validClaims" not in result


def test_a_retargeted_call_is_not_proven_by_a_token_for_another_party(
    operator: Operator, new_verifier: type[Verifier]
) -> None:
    asked = asked_about(operator.call(), dest={"tn": "442079460002"})
    verstat, [result] = results(asked, verdicts(asked.what, operator, new_verifier()))
    assert (verstat, result["reasonCode"], result["step"]) == ("No-TN-Validation", 438, "E16 numbers")


def test_a_type_that_is_not_supported_fails_by_itself(operator: Operator, new_verifier: type[Verifier]) -> None:
    call = operator.call()
    call = replace(call, identities=(*call.identities, call.identities[0].replace("ppt=shaken", "ppt=msg")))
    asked = asked_about(call)
    verstat, [shaken, msg] = results(asked, verdicts(asked.what, operator, new_verifier()))
    assert (verstat, shaken["status"]) == ("TN-Validation-Passed", "pass")
    assert (msg["ppt"], msg["status"], msg["reasonCode"]) == ("msg", "fail", 438)
    assert "none of div, div-o, rcd, rph, rsp and shaken, which alone are supported" in msg["reasonDescription"]


def test_types_that_prove_no_caller_have_no_verstat(operator: Operator, new_verifier: type[Verifier]) -> None:
    call = diverted(operator)
    asked = asked_about(call, identityHeader=None, identityHeaders=list(call.identities))
    verstat, [div] = results(asked, verdicts(asked.what, operator, new_verifier(Policy(kinds=BOTH))))
    assert (verstat, div["ppt"], div["status"]) == (None, "div", "pass")
    assert div["validClaims"]["div"] == {"tn": DIVERTED}


def test_a_shaken_among_the_others_counts(operator: Operator, new_verifier: type[Verifier]) -> None:
    call = operator.call()
    asked = asked_about(call, identityHeader=None, identityHeaders=[call.identities[0].replace(";ppt=shaken", "")])
    verstat, [result] = results(asked, verdicts(asked.what, operator, new_verifier()))
    assert (verstat, result["ppt"], result["status"]) == ("TN-Validation-Passed", "shaken", "pass")


@pytest.mark.parametrize("ppt", ["493023125001", "x" * 17, "<x>"])
def test_what_cannot_be_a_type_is_not_repeated(operator: Operator, new_verifier: type[Verifier], ppt: str) -> None:
    call = operator.call()
    asked = asked_about(call, identityHeader=call.identities[0].replace("ppt=shaken", f'ppt="{ppt}"'))
    verstat, [result] = results(asked, verdicts(asked.what, operator, new_verifier()))
    assert (verstat, result["ppt"], result["status"]) == ("No-TN-Validation", "", "fail")


def test_what_is_no_identity_is_not_repeated(operator: Operator, new_verifier: type[Verifier]) -> None:
    asked = asked_about(operator.call(), identityHeader="+493023125001;;;")
    verstat, [result] = results(asked, verdicts(asked.what, operator, new_verifier()))
    assert (verstat, result["step"], result["ppt"]) == ("No-TN-Validation", "E4 form", "")
    assert "passport" not in result


@pytest.mark.parametrize("token", ["e31.e30.c2ln", "e30.e30", "W10.e30.c2ln", "..c2ln"])
def test_what_cannot_be_decoded_is_not_given_back(operator: Operator, token: str) -> None:
    """It may hold anything, as it is no token."""
    asked = asked_about(operator.call(), identityHeader=f"{token};info=<x>;ppt=shaken")
    _, [result] = results(asked, [FAILED])
    assert (result["ppt"], result["status"], result.get("passport", "")) == ("shaken", "fail", "")


def test_a_second_kind_is_signed_in_this_form_too(operator: Operator) -> None:
    common = {name: SIGNING[name] for name in ("orig", "dest", "iat")}
    body = {"signingRequest": {**common, "ppt": "div", "div": {"tn": DIVERTED}}}
    asked = forms.read_signing(json.dumps(body).encode(), BOTH)
    identity = sign_call(asked.what, operator.credential, NOW_S, kinds=BOTH)
    answer = json.loads(asked.answer(identity))["signingResponse"]["identityHeader"]
    assert answer.endswith(";ppt=div")


def test_what_is_told_of_where_a_call_comes_from() -> None:
    call = forms.read_verification(verification(trunk="t1", callId="c1", answer=True), "proxy").what
    assert (call.source.peer, call.source.trunk, call.call_id, call.is_answer) == ("proxy", "t1", "c1", True)
    call = forms.read_verification(verification()).what
    assert (call.source.peer, call.source.trunk, call.call_id, call.is_answer) == ("", "", "", False)


FAILED = verdict_of(VerificationFailed(Step.IAT, "it is old"))
NOTHING_SAID = Verdict(Verstat.NONE, about_caller=False)


@pytest.mark.parametrize(
    ("ppt", "found", "verstat"),
    [
        ("shaken", FAILED, "No-TN-Validation"),
        ("rcd", NOTHING_SAID, None),
        ("zzz", FAILED, None),
        ("", Verdict(Verstat.PASSED), "TN-Validation-Passed"),
    ],
)
def test_the_verstat_is_told_where_somebody_says_something_of_the_caller(
    operator: Operator, ppt: str, found: Verdict, verstat: str | None
) -> None:
    call = operator.call(key_mgmt=())
    asked = asked_about(call, identityHeader=None, identityHeaders=[token_named(call.identities[0], ppt)])
    assert results(asked, [found])[0] == verstat


def token_named(identity: str, ppt: str) -> str:
    """The Identity with another name of its type, in the token as well, whose signature does not matter here."""
    header = IdentityHeader.parse(identity)
    jose, payload, signature = header.token.split(".")
    members = {**json.loads(base64url.decode(jose)), "ppt": ppt}
    if not ppt:
        del members["ppt"]
    token = f"{base64url.encode(json.dumps(members).encode())}.{payload}.{signature}"
    return replace(header, token=token, ppt=ppt or None).serialize()


def test_each_identity_has_its_verdict(operator: Operator) -> None:
    call = operator.call(key_mgmt=())
    asked = asked_about(replace(call, identities=call.identities * 2))
    for found in ([FAILED], [FAILED] * 3):
        with pytest.raises(ValueError, match="zip"):
            asked.answer(found)


@pytest.mark.parametrize(
    ("div", "found", "rows"),
    [
        (
            {"tn": "442079460001"},
            NOTHING_SAID,
            [{"div": {"tn": "442079460001"}, "verstatValue": "TN-Validation-Passed"}],
        ),
        ({"tn": "442079460001"}, FAILED, [{"div": {"tn": "442079460001"}, "verstatValue": "No-TN-Validation"}]),
        ({"tn": "alice"}, FAILED, None),
        (None, FAILED, None),
    ],
)
def test_diversions_are_told_with_who_diverted(
    operator: Operator, div: object, found: Verdict, rows: object
) -> None:
    payload = {"dest": {"tn": ["1"]}, "div": div, "iat": NOW_S, "orig": {"tn": "2"}}
    for ppt, text in (("div", json.dumps(payload)), ("shaken", json.dumps(payload)), ("div", "[]")):
        token = f"{base64url.encode(json.dumps({'ppt': ppt}).encode())}.{base64url.encode(text.encode())}.AA"
        asked = asked_about(operator.call(), identityHeader=f"{token};info=<x>;ppt={ppt}")
        given = found if text != "[]" else FAILED
        told = json.loads(asked.answer([given]))["verificationResponse"].get("divResult")
        assert told == (rows if ppt == "div" and text != "[]" else None)


@pytest.mark.parametrize(
    ("tokens", "asked_for", "is_told"),
    [
        ([("rph", ["ets.0"])], "ets.0", True),
        ([("rph", ["ETS.0", "wps.1"])], "ets.0", True),
        ([("rph", ["ets.0"]), ("rph", ["wps.1"])], "ets.0, wps.1", True),
        ([("rph", ["ets.0"])], "ets.0, wps.1", False),
        ([("rph", ["ets.0"])], None, True),
        ([("rcd", ["ets.0"])], None, False),
        ([("rph", None)], None, False),
        ([], None, False),
    ],
)
def test_a_priority_passes_where_tokens_that_passed_grant_all_of_it(
    operator: Operator, tokens: list[tuple[str, list[str] | None]], asked_for: str | None, is_told: bool
) -> None:
    identities, found = [operator.call(key_mgmt=()).identities[0]], [Verdict(Verstat.PASSED)]
    for ppt, granted in tokens:
        jose, payload = json.dumps({"ppt": ppt}), json.dumps({"rph": {"auth": granted}})
        token = f"{base64url.encode(jose.encode())}.{base64url.encode(payload.encode())}.AA"
        identities.append(f"{token};info=<x>;ppt={ppt}")
        found.append(NOTHING_SAID if granted else FAILED)
    protected = {"protectedHeaders": f"Resource-Priority: {asked_for}"} if asked_for else {}
    asked = asked_about(replace(operator.call(), identities=tuple(identities)), **protected)
    told = json.loads(asked.answer(found))["verificationResponse"].get("verstatPriority")
    assert told == ("RPH-Validation-Passed" if is_told else None)


json_ = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["tn", "uri", "x"]), inner),
    max_leaves=8,
)
NAMES = ["ppt", "requestId", "dest", "identityHeaders", "protectedHeaders", "displayName", "keyMgmt", "sdp"]


@given(st.dictionaries(st.sampled_from([*SIGNING, *VERIFICATION, *NAMES]), json_))
def test_any_json_is_a_request_or_refused(members: dict[str, object]) -> None:
    for read, body in ((forms.read_signing, signing), (forms.read_verification, verification)):
        try:
            assert read(body(**members))
        except RequestError as error:
            (name,) = json.loads(error.body())
            assert name in {"error", "requestError"}
