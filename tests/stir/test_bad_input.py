"""Bad input to both services in both forms of the HTTP interface: each has its documented answer.

The table in docs/stir-http.md says the same; what reaches a server before it reads a body is in tests/shell.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from voice_dpki.codec import base64url, canonical_json
from voice_dpki.stir import forms
from voice_dpki.stir.examine import Examined, Policy
from voice_dpki.stir.faults import RequestError
from voice_dpki.stir.identity import MAX_IDENTITY_LENGTH, IdentityHeader
from voice_dpki.stir.passport import MAX_TOKEN_LENGTH
from voice_dpki.stir.replay import ReplayCache
from voice_dpki.stir.several import examine_all, judge_all
from voice_dpki.stir.sign import SigningRefused, sign_call
from voice_dpki.stir.verdict import overall

from .conftest import NOW_S, Operator

UUID = "5f4e3b1c-7d2a-4b8e-9c1d-2e3f4a5b6c7d"
FORMS = ("atis", "3gpp")
DOCUMENT = Path(__file__).parents[2] / "docs" / "stir-http.md"
HUGE = "9" * 5000
"""More digits than Python converts by default."""


def signing(form: str, *members: str) -> bytes:
    """A signing request with further members in JSON; those of the same name are replaced, not doubled."""
    given = {
        "attest": '"A"',
        "orig": '{"tn":"493023125001"}',
        "dest": '{"tn":["442079460001"]}',
        "iat": str(NOW_S),
        "origid": f'"{UUID}"',
        **({"ppt": '"shaken"'} if form == "3gpp" else {}),
    }
    for member in members:
        name, _, value = member.partition(":")
        given[name] = value
    return ('{"signingRequest":{' + ",".join(f'"{name}":{value}' for name, value in given.items()) + "}}").encode()


def refused(form: str, body: bytes, message_id: str, name: str) -> None:
    """See that a signing request is refused, in its own form, with an error that names the member."""
    with pytest.raises(RequestError) as failure:
        forms.read_signing(body)
    assert (failure.value.message_id, failure.value.status) == (message_id, 400)
    told = json.loads(failure.value.body())
    assert list(told) == ["error" if form == "3gpp" else "requestError"]
    assert f"'{name}'" in failure.value.sentence
    assert HUGE[:40] not in failure.value.sentence
    assert len(failure.value.sentence) < 400


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("message_id", "name", "member"),
    [
        ("SVC4005", "iat", f"iat:{HUGE[:40]}"),
        ("SVC4005", "iat", "iat:-1"),
        ("SVC4005", "iat", f"iat:{1 << 40}"),
        ("SVC4005", "iat", "iat:1e-3"),
        ("SVC4005", "iat", "iat:1790000000.5"),
        ("SVC4005", "orig.tn", 'orig:{"tn":493023125001}'),
        ("SVC4005", "orig.tn", f'orig:{{"tn":"{"1" * 33}"}}'),
        ("SVC4005", "orig.tn", f'orig:{{"tn":"{HUGE}"}}'),
        ("SVC4005", "orig.tn", 'orig:{"tn":"4930 23125001"}'),
        ("SVC4005", "orig.tn", 'orig:{"tn":"493023125001\\u0000"}'),
        ("SVC4005", "orig.tn", 'orig:{"tn":"\\u0664\\u0669"}'),
        ("SVC4005", "orig.tn", 'orig:{"tn":""}'),
        ("SVC4005", "dest.tn", f'dest:{{"tn":["{"1" * 33}"]}}'),
        ("SVC4005", "dest.tn", 'dest:{"tn":[442079460001]}'),
        ("SVC4005", "dest.tn", 'dest:{"tn":[[]]}'),
        ("SVC4005", "dest.uri", f'dest:{{"uri":["sip:{"a" * 256}@b.example"]}}'),
        ("SVC4005", "dest.uri", 'dest:{"uri":["sip:a\\r\\nIdentity: x@b.example"]}'),
        ("SVC4005", "ppt", 'ppt:"msg"'),
        ("SVC4005", "ppt", 'ppt:["shaken"]'),
        ("SVC4005", "ppt", f'ppt:"{HUGE}"'),
        ("SVC4001", "div", 'ppt:"div"'),
        ("SVC4001", "rph", 'ppt:"rph"'),
        ("SVC4005", "div", 'div:{"tn":"493023125009"}'),
        ("SVC4005", "rph", 'rph:{"auth":["ets.0"]}'),
        ("SVC4005", "passport", 'passport:"e30.e30.c2ln"'),
    ],
)
def test_signing(form: str, message_id: str, name: str, member: str) -> None:
    is_ms = form == "3gpp" or member.partition(":")[0] in ("ppt", "div", "rph")
    refused("3gpp" if is_ms else form, signing(form, member), message_id, name)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("digits", [15, 16, 32])
def test_a_number_too_long_for_a_certificate_is_read_and_has_no_signature(
    operator: Operator, form: str, digits: int
) -> None:
    """RFC 8224 §8.3 sets no limit to numbers, RFC 8226 §9 has 15 digits."""
    asked = forms.read_signing(signing(form, f'orig:{{"tn":"{"4" * digits}"}}'))
    assert len(asked.what.orig) == digits
    with pytest.raises(SigningRefused, match="not among those") as failure:
        sign_call(asked.what, operator.credential, NOW_S)
    assert failure.value.code == "no-authority"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("read", [forms.read_signing, forms.read_verification])
@pytest.mark.parametrize(
    "member",
    ['"x":1,"x":1', '"x":{"y":[{"z":1,"\\u007a":2}]}', '"attest":"A","attest":"A"', f'"x":{HUGE}', '"x":"\\ud800"'],
)
def test_what_is_no_json_that_all_read_alike(form: str, read: Any, member: str) -> None:
    """Before a body is read its form is not known, and the error is ATIS's."""
    body = signing(form)[:-2] + f",{member}}}}}".encode()
    with pytest.raises(RequestError) as failure:
        read(body)
    assert failure.value.message_id == "SVC4006"
    assert list(json.loads(failure.value.body())) == ["requestError"]


def parts(operator: Operator) -> tuple[dict[str, Any], dict[str, Any]]:
    token = IdentityHeader.parse(operator.call(key_mgmt=()).identities[0]).token
    jose, payload = (dict(canonical_json.decode_object(base64url.decode(part))) for part in token.split(".")[:2])
    return jose, payload


def identity(operator: Operator, jose: object, payload: object, tail: str | None = None) -> str:
    """An Identity signed over these parts: a JSON object, or its text."""
    texts = [part if isinstance(part, str) else json.dumps(part) for part in (jose, payload)]
    signed = ".".join(base64url.encode(text.encode("utf-8", "surrogatepass")) for text in texts)
    token = f"{signed}.{base64url.encode(operator.signer.sign(signed.encode()))}"
    return token + (f";info=<{operator.credential.info}>;alg=ES256;ppt=shaken" if tail is None else tail)


def asked(form: str, *identities: str) -> tuple[forms.Asked[Any, Any], bool]:
    """Read a verification request with the first Identity, or with all of them where the form can hold them."""
    common = {"from": {"tn": "493023125001"}, "time": NOW_S}
    if form == "atis":
        members: dict[str, Any] = {**common, "to": {"tn": ["442079460001"]}, "identity": identities[0]}
    else:
        first, *others = identities
        members = {**common, "to": {"tn": "442079460001"}, "identityHeader": first, "identityHeaders": others}
    return forms.read_verification(json.dumps({"verificationRequest": members}).encode()), form == "3gpp"


def verdict(operator: Operator, form: str, *identities: str) -> tuple[str, int | None, str]:
    """Return step, code and verstat, as the answer tells them about the first Identity."""
    question, is_ms = asked(form, *identities)
    found = examine_all(question.what, Policy(), NOW_S)
    records = {each.digest: operator.record for each in found if isinstance(each, Examined)}
    verdicts = judge_all(question.what, found, records, Policy(), ReplayCache(9, 120), NOW_S, NOW_S)
    answer = json.loads(question.answer(verdicts))["verificationResponse"]
    assert len(overall(verdicts).reasondesc) < 300
    if is_ms:
        first = answer["verifyResults"][0]["verifyResult"]
        return first.get("step", ""), first.get("reasonCode"), answer["verstatValue"]
    return answer.get("step", ""), answer.get("reasoncode"), answer["verstat"]


NONE = "No-TN-Validation"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("step", "code", "jose", "payload"),
    [
        ("E9 crit", 438, {"crit": ["exp"]}, {}),
        ("E9 crit", 438, {"crit": []}, {}),
        ("E9 header claims", 436, {"alg": 1}, {}),
        ("E9 header claims", 436, {"x5u": ["x"]}, {}),
        ("E12 alg", 437, {"alg": "none"}, {}),
        ("E13 ppt", 438, {"ppt": "shaken "}, {}),
        ("E14 claims", 438, {}, {"iat": 1 << 48}),
        ("E14 claims", 438, {}, {"iat": -1}),
        ("E14 claims", 438, {}, {"iat": True}),
        ("E14 claims", 438, {}, {"orig": {"tn": "1" * 33}}),
        ("E14 claims", 438, {}, {"orig": {"tn": 493023125001}}),
        ("E14 claims", 438, {}, {"orig": {"tn": "493023125001", "uri": "sip:a@b.example"}}),
        ("E14 claims", 438, {}, {"dest": {"tn": "442079460001"}}),
        ("E14 claims", 438, {}, {"dest": {"tn": ["442079460001"] * 17}}),
        ("E14 claims", 438, {}, {"dest": {"uri": ["sip:" + "a" * 256]}}),
        ("E14 claims", 438, {}, {"origid": "x" * 65}),
        ("E14 claims", 438, {}, {"attest": "A" * 17}),
        ("E16 numbers", 438, {}, {"orig": {"tn": "4930231250011234"}}),
        ("E19 attest", 438, {}, {"attest": "a"}),
    ],
)
def test_tokens(
    operator: Operator, form: str, step: str, code: int, jose: dict[str, Any], payload: dict[str, Any]
) -> None:
    header, claims = parts(operator)
    assert verdict(operator, form, identity(operator, header, claims)) == ("", None, "TN-Validation-Passed")
    bad = identity(operator, {**header, **jose}, {**claims, **payload})
    assert verdict(operator, form, bad) == (step, code, NONE)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("member", ['"iat":1,', '"x":{"y":1,"y":2},', '"\\u0069at":1,', f'"x":{HUGE},'])
def test_members_twice_and_huge_numbers_in_a_token(operator: Operator, form: str, member: str) -> None:
    header, claims = (json.dumps(part) for part in parts(operator))
    bad = identity(operator, header, "{" + member + claims[1:])
    assert verdict(operator, form, bad) == ("E14 claims", 438, NONE)
    bad = identity(operator, "{" + member.replace("iat", "alg").replace("0069at", "0061lg") + header[1:], claims)
    assert verdict(operator, form, bad) == ("E9 header claims", 436, NONE)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("step", "code", "tail"),
    [
        ("", None, ";\r\n info=<X5U>;\r\n\talg=ES256;\r\n ppt=shaken"),
        ("", None, ";info=<X5U>;alg=ES256;ppt=shaken;x=" + "y" * 1000),
        ("E4 form", 438, ";info=<X5U>;alg=ES256;ppt=shaken;x=" + "y" * MAX_IDENTITY_LENGTH),
        ("E4 form", 438, ";info=<X5U>;info=<X5U>;ppt=shaken"),
        ("E4 form", 438, ";info=<X5U>" + "".join(f";x{n}=1" for n in range(16))),
        ("E4 form", 438, ";info=<X5U>;ppt=shaken\r\nX: y"),
        ("E4 form", 438, ";info=<X5U>\x00;ppt=shaken"),
        ("E4 form", 438, ";info=<X5U>;ppt=\u017fhaken"),
        ("E5 ppt parameter", 438, ";info=<X5U>;ppt=x"),
        ("E6 info", 436, ";ppt=shaken"),
        ("E7 info URL", 436, ";info=<https://certs.a.example/" + "x" * 600 + ">;ppt=shaken"),
        ("E12 alg", 437, ";info=<X5U>;alg=ES384;ppt=shaken"),
    ],
)
def test_header_fields(operator: Operator, form: str, step: str, code: int | None, tail: str) -> None:
    given = identity(operator, *parts(operator), tail.replace("X5U", operator.credential.info))
    assert verdict(operator, form, given) == (step, code, NONE if step else "TN-Validation-Passed")


@pytest.mark.parametrize("form", FORMS)
def test_endless_tokens(operator: Operator, form: str) -> None:
    header, claims = parts(operator)
    assert (
        verdict(operator, form, identity(operator, header, {**claims, "x": "y" * MAX_TOKEN_LENGTH}))[0] == "E4 form"
    )
    assert verdict(operator, form, identity(operator, header, {**claims, "x": "y" * 4000}))[0] == ""


@pytest.mark.parametrize("ppt", ["vper", "msg", "msec", "x" * 1000, "493023125001"])
def test_a_token_of_a_foreign_type_beside_a_good_one(operator: Operator, ppt: str) -> None:
    good = identity(operator, *parts(operator))
    foreign = identity(
        operator, {**parts(operator)[0], "ppt": ppt}, {}, f";info=<{operator.credential.info}>;ppt={ppt}"
    )
    for order in ((good, foreign), (foreign, good)):
        question, _ = asked("3gpp", *order)
        found = examine_all(question.what, Policy(), NOW_S)
        records = {each.digest: operator.record for each in found if isinstance(each, Examined)}
        verdicts = judge_all(question.what, found, records, Policy(), ReplayCache(9, 120), NOW_S, NOW_S)
        answer = json.loads(question.answer(verdicts))["verificationResponse"]
        assert answer["verstatValue"] == "TN-Validation-Passed"
        assert {each.step for each in verdicts} == {"", "E5 ppt parameter"}
        assert ppt not in json.dumps(answer) or len(ppt) < 16


def test_eleven_identities(operator: Operator) -> None:
    good = identity(operator, *parts(operator))
    asked("3gpp", *[good] * 10)
    with pytest.raises(RequestError, match="'identityHeaders'") as failure:
        asked("3gpp", *[good] * 11)
    assert (failure.value.message_id, list(json.loads(failure.value.body()))) == ("SVC4005", ["error"])


def test_no_answer_repeats_a_subscribers_number(operator: Operator) -> None:
    """A verdict's sentence is for logs and for other networks."""
    call = replace(operator.call(key_mgmt=()))
    header, claims = parts(operator)
    for payload in ({**claims, "orig": {"tn": "4" * 40}}, {**claims, "dest": {"tn": [{"4" * 12: 1}]}}):
        (found,) = examine_all(replace(call, identities=(identity(operator, header, payload),)), Policy(), NOW_S)
        assert "4444" not in str(found)


def test_the_document_tells_the_same() -> None:
    """Each row of the table of bad input names the step or the error that the tests above have."""
    table = DOCUMENT.read_text().partition("## Bad input\n")[2].partition("\n## ")[0]
    for step in (
        "E4 form",
        "E5 ppt parameter",
        "E9 crit",
        "E9 header claims",
        "E12 alg",
        "E14 claims",
        "E16 numbers",
    ):
        assert step in table
    for message_id in ("SVC4001", "SVC4005", "SVC4006", "POL4030", "POL4130"):
        assert message_id in table
