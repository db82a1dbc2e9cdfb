import contextlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.names import CertDigest, Tn
from voice_dpki.stir import atis
from voice_dpki.stir.call import Call, SigningRequest
from voice_dpki.stir.div import Diverting
from voice_dpki.stir.faults import RequestError, error_of_refusal, error_of_status
from voice_dpki.stir.forms import check_headers
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.members import decode
from voice_dpki.stir.passport import Destinations, key_mgmt_digests
from voice_dpki.stir.sign import SigningRefused
from voice_dpki.stir.verdict import KeyMgmt, SdpBinding, Step, Verdict, VerificationFailed, Verstat, verdict_of

VECTORS = Path(__file__).parents[1] / "vectors" / "stir"
TWICE = "not a JSON object: a member name is given twice"
UUID = "5f4e3b1c-7d2a-4b8e-9c1d-2e3f4a5b6c7d"
SIGNING = {
    "attest": "A",
    "orig": {"tn": "+49(30)2312-50.01"},
    "dest": {"tn": ["+442079460001"]},
    "iat": 1443208345,
    "origid": UUID,
}
VERIFICATION = {
    "from": {"tn": "+493023125001"},
    "to": {"tn": ["442079460001"]},
    "time": 1443208345,
    "identity": "e30.e30.c2ln",
}


def signing(**changes: Any) -> bytes:
    return msgspec.json.encode({"signingRequest": {**SIGNING, **changes}})


def verification(**changes: Any) -> bytes:
    return msgspec.json.encode({"verificationRequest": {**VERIFICATION, **changes}})


def read_signing(body: bytes) -> SigningRequest:
    return atis.parse_signing_request(decode(body))


def read_verification(body: bytes) -> Call:
    return atis.parse_verification_request(decode(body))


def test_parses_a_signing_request() -> None:
    expected = SigningRequest("A", Tn("493023125001"), Destinations((Tn("442079460001"),)), 1443208345, UUID)
    assert read_signing(signing()) == expected
    assert read_signing(signing(later={"x": 1})) == expected


def test_parses_a_verification_request() -> None:
    expected = Call(Tn("493023125001"), Destinations((Tn("442079460001"),)), 1443208345, ("e30.e30.c2ln",))
    assert read_verification(verification()) == expected


def test_key_mgmt_that_is_not_told_differs_from_none_at_all() -> None:
    assert read_verification(verification()).key_mgmt is None
    assert read_verification(verification(keyMgmt=[])).key_mgmt == ()
    assert read_signing(signing(keyMgmt=["mikey AQ"])).key_mgmt == ("mikey AQ",)


def test_the_digest_of_the_session_description() -> None:
    member = {"alg": "sha-256", "dig": "A" * 43}
    assert read_verification(verification()).sdp is None
    assert read_verification(verification(sdp=member)).sdp == bytes(32)
    assert read_signing(signing()).sdp is None
    assert read_signing(signing(sdp=member)).sdp == bytes(32)


def test_destinations_may_be_uris() -> None:
    request = read_signing(signing(dest={"uri": ["sip:Help@B.example;user=phone"]}))
    assert request.dest == Destinations(uris=("sip:help@b.example",))


@pytest.mark.parametrize(
    ("message_id", "variables", "body"),
    [
        ("SVC4000", [], b""),
        ("SVC4006", ["the body is not JSON"], b"{"),
        ("SVC4006", ["the body is not JSON"], b"\xff"),
        ("SVC4006", ["the body is not JSON"], b"[" * 50_000),
        ("SVC4006", ["the body is not a JSON object"], b"[]"),
        ("SVC4006", [f"the body is {TWICE}"], b'{"signingRequest":{"attest":"A","attest":"B"}}'),
        ("SVC4006", [f"the body is {TWICE}"], b'{"signingRequest":{},"signing\\u0052equest":{}}'),
        ("SVC4006", [f"the body is {TWICE}"], b'{"signingRequest":{"x":[{"y":1,"y":1}]}}'),
        ("SVC4001", ["signingRequest"], b"{}"),
        ("SVC4001", ["attest"], signing(attest=None)),
        ("SVC4001", ["orig"], signing(orig=None)),
        ("SVC4001", ["orig.tn"], signing(orig={})),
        ("SVC4001", ["dest.tn"], signing(dest={})),
        ("SVC4001", ["iat"], signing(iat=None)),
        ("SVC4001", ["origid"], signing(origid=None)),
        ("SVC4005", ["signingRequest"], b'{"signingRequest":7}'),
        ("SVC4005", ["attest"], signing(attest="D")),
        ("SVC4005", ["attest"], signing(attest=["A"])),
        ("SVC4005", ["orig.tn"], signing(orig={"tn": "alice"})),
        ("SVC4005", ["orig.tn"], signing(orig={"tn": ["493023125001"]})),
        ("SVC4005", ["dest.tn"], signing(dest={"tn": "493023125001"})),
        ("SVC4005", ["dest.tn"], signing(dest={"tn": ["1"] * 17})),
        ("SVC4005", ["dest.uri"], signing(dest={"uri": ["tel:7946;phone-context=+4420"]})),
        ("SVC4005", ["dest"], signing(dest={"tn": []})),
        ("SVC4005", ["dest"], signing(dest={"tn": ["1"] * 16, "uri": ["sip:a@b"]})),
        ("SVC4005", ["iat"], signing(iat="1443208345")),
        ("SVC4005", ["iat"], signing(iat=True)),
        ("SVC4005", ["iat"], signing(iat=1.5)),
        ("SVC4005", ["iat"], signing(iat=-1)),
        ("SVC4005", ["iat"], b'{"signingRequest":{"attest":"A","orig":{"tn":"1"},"dest":{"tn":["1"]},"iat":1e30}}'),
        ("SVC4005", ["origid"], signing(origid="x")),
        ("SVC4005", ["origid"], signing(origid=UUID.replace("-", ""))),
        ("SVC4001", ["div"], signing(ppt="div")),
        ("SVC4005", ["ppt"], signing(ppt="msg")),
        ("SVC4005", ["ppt"], signing(ppt="Shaken")),
        ("SVC4005", ["ppt"], signing(ppt=7)),
        ("SVC4005", ["div"], signing(div={"tn": "1"})),
        ("SVC4005", ["rph"], signing(ppt="shaken", rph={"auth": ["ets.0"]})),
        ("SVC4005", ["sph"], signing(sph="psap-callback")),
        ("SVC4005", ["rcd"], signing(rcd={"nam": "x"})),
        ("SVC4005", ["crn"], signing(crn="x")),
        ("SVC4005", ["mky"], signing(mky=[])),
        ("SVC4005", ["exp"], signing(exp=0)),
        ("SVC4005", ["orig.uri"], signing(orig={"tn": "1", "uri": "sip:a@b"})),
        ("SVC4005", ["orig.uri"], signing(orig={"uri": "sip:a@b"})),
        ("SVC4005", ["keyMgmt"], signing(keyMgmt="mikey AQ")),
        ("SVC4005", ["keyMgmt"], signing(keyMgmt=[""])),
        ("SVC4005", ["keyMgmt"], signing(keyMgmt=["m" * 4097])),
        ("SVC4005", ["keyMgmt"], signing(keyMgmt=["m"] * 17)),
        ("SVC4001", ["sdp"], signing(sdp=None)),
        ("SVC4005", ["sdp"], signing(sdp="A" * 43)),
        ("SVC4005", ["sdp"], signing(sdp={"alg": "md5", "dig": "A" * 43})),
        ("SVC4005", ["sdp"], signing(sdp={"alg": "sha-256", "dig": "A" * 42 + "="})),
        ("SVC4005", ["sdp"], signing(sdp={"alg": "sha-256", "dig": "A" * 86})),
    ],
)
def test_signing_requests_that_cannot_be_used(message_id: str, variables: list[str], body: bytes) -> None:
    with pytest.raises(RequestError) as refused:
        read_signing(body)
    assert refused.value.message_id == message_id
    error = json.loads(refused.value.body())["requestError"]["serviceException"]
    assert error["messageId"] == message_id
    assert error["variables"][: len(variables)] == variables
    assert refused.value.status == 400
    assert "%1" not in refused.value.sentence


@pytest.mark.parametrize(
    ("message_id", "variable", "body"),
    [
        ("SVC4001", "verificationRequest", b"{}"),
        ("SVC4001", "from", verification(**{"from": None})),
        ("SVC4001", "from.tn", verification(**{"from": {}})),
        ("SVC4001", "to.tn", verification(to={})),
        ("SVC4001", "time", verification(time=None)),
        ("SVC4001", "identity", verification(identity=None)),
        ("SVC4005", "identity", verification(identity=["e30"])),
        ("SVC4005", "ppt", verification(ppt="div")),
        ("SVC4005", "identityHeader", verification(identityHeader="e30.e30.c2ln", identity=None)),
        ("SVC4005", "identityHeaders", verification(identityHeaders=[])),
        ("SVC4005", "dest", verification(dest={"tn": "1"})),
        ("SVC4005", "rph", verification(rph={})),
        ("SVC4005", "from.uri", verification(**{"from": {"tn": "1", "uri": "sip:a@b"}})),
        ("SVC4005", "from.tn", verification(**{"from": {"tn": "anonymous"}})),
    ],
)
def test_verification_requests_that_cannot_be_used(message_id: str, variable: str, body: bytes) -> None:
    with pytest.raises(RequestError) as refused:
        read_verification(body)
    assert refused.value.message_id == message_id
    assert json.loads(refused.value.body())["requestError"]["serviceException"]["variables"][0] == variable


def test_a_request_for_another_type_is_not_signed_as_shaken() -> None:
    """Members of SHAKEN beside it change nothing, since the type is named."""
    request = read_signing((VECTORS / "signing-ppt-div.json").read_bytes())
    assert (request.ppt, request.attest, request.origid) == ("div", "", "")
    assert request.own == {"div": Diverting(Tn("493023125009"))}


@pytest.mark.parametrize(
    "changes", [{"ppt": "shaken"}, {"ppt": ""}, {"ppt": None, "div": None}, {"requestId": "x"}]
)
def test_members_that_change_nothing_are_let_be(changes: dict[str, Any]) -> None:
    assert read_signing(signing(**changes)) == read_signing(signing())


def forms() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (VECTORS / "signing-dest-forms.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("form", forms(), ids=lambda form: json.dumps(form["dest"]))
def test_forms_of_destinations_that_proxies_send(form: dict[str, Any]) -> None:
    body = signing(dest=form["dest"])
    if "refuses" in form:
        with pytest.raises(RequestError) as refused:
            read_signing(body)
        assert (
            json.loads(refused.value.body())["requestError"]["serviceException"]["variables"][0] == form["refuses"]
        )
    else:
        dest = read_signing(body).dest
        assert {"tn": list(dest.tns), "uri": list(dest.uris)} == {"tn": [], "uri": [], **form["signs"]}


HEADERS = {"content-length": "2", "content-type": "application/json", "accept": "application/json"}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"accept": None},
        {"accept": "text/html, application/*;q=0.5"},
        {"accept": "*/*"},
        {"accept": "Application/JSON;charset=utf-8"},
        {"content-type": "application/json; charset=utf-8"},
        {"content-type": "Application/JSON"},
    ],
)
def test_headers_that_admit_json(changes: dict[str, str | None]) -> None:
    check_headers({name: value for name, value in {**HEADERS, **changes}.items() if value})


@pytest.mark.parametrize(
    ("message_id", "status", "changes"),
    [
        ("SVC4007", 411, {"content-length": None}),
        ("SVC4004", 415, {"content-type": None}),
        ("SVC4004", 415, {"content-type": "text/plain"}),
        ("SVC4004", 415, {"content-type": "application/jsonp"}),
        ("SVC4002", 406, {"accept": "text/html"}),
        ("SVC4002", 406, {"accept": "application/json;q=0"}),
        ("SVC4002", 406, {"accept": "application/json; q=0.000"}),
    ],
)
def test_headers_that_do_not(message_id: str, status: int, changes: dict[str, str | None]) -> None:
    with pytest.raises(RequestError) as refused:
        check_headers({name: value for name, value in {**HEADERS, **changes}.items() if value})
    assert (refused.value.message_id, refused.value.status) == (message_id, status)


@pytest.mark.parametrize(
    ("status", "message_id"),
    [(404, "SVC4003"), (405, "POL4050"), (413, "POL4130"), (500, "POL5000"), (418, "POL5000"), (400, "SVC4006")],
)
def test_errors_before_a_service_have_the_interfaces_form(status: int, message_id: str) -> None:
    error = error_of_status(status, "why")
    assert error.message_id == message_id
    kind = "policyException" if message_id.startswith("POL") else "serviceException"
    assert list(json.loads(error.body())["requestError"]) == [kind]


@pytest.mark.parametrize("code", ["no-authority", "stale-iat", "credential-not-valid"])
def test_refusals_are_policy_exceptions_with_a_reason(code: str) -> None:
    error = error_of_refusal(SigningRefused(code, "the reason"))
    assert error.status == 403
    assert json.loads(error.body())["requestError"]["policyException"]["variables"] == ["the reason"]
    assert "the reason" in error.sentence


def test_answers() -> None:
    header = IdentityHeader("e30.e30.c2ln", "https://c/x", "ES256", "shaken")
    assert json.loads(atis.signing_response(header)) == {
        "signingResponse": {"identity": header.serialize(), "identityHeader": header.serialize()}
    }
    passed = Verdict(
        Verstat.PASSED,
        signer="Operator A",
        certificate=CertDigest(bytes(32)),
        attest="A",
        key_mgmt=KeyMgmt.VERIFIED,
        sdp=SdpBinding.VERIFIED,
    )
    assert json.loads(atis.verification_response(passed)) == {
        "verificationResponse": {
            "verstat": "TN-Validation-Passed",
            "signer": "Operator A",
            "certificate": "00" * 32,
            "attest": "A",
            "keyMgmt": "verified",
            "sdp": "verified",
        }
    }


def test_a_verdict_that_fails_tells_step_and_reason() -> None:
    verdict = verdict_of(VerificationFailed(Step.IAT, "it is stale"))
    assert json.loads(atis.verification_response(verdict)) == {
        "verificationResponse": {
            "reasoncode": 403,
            "reasontext": "Stale Date",
            "reasondesc": "It is stale.",
            "verstat": "No-TN-Validation",
            "step": "E15 iat",
            "keyMgmt": "not-checked",
            "sdp": "not-checked",
        }
    }


json_ = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["tn", "uri", "attest", "x"]), inner)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*SIGNING, *VERIFICATION, "keyMgmt", "sdp"]), json_))
def test_any_json_is_a_request_or_refused(members: dict[str, Any]) -> None:
    with contextlib.suppress(RequestError):
        read_signing(json.dumps({"signingRequest": {**SIGNING, **members}}).encode())
    with contextlib.suppress(RequestError):
        call = read_verification(json.dumps({"verificationRequest": {**VERIFICATION, **members}}).encode())
        key_mgmt_digests(call.key_mgmt or ())


@given(st.binary(max_size=100))
def test_any_bytes_are_refused_as_a_request(body: bytes) -> None:
    for parse in (read_signing, read_verification):
        with pytest.raises(RequestError):
            parse(body)


@given(st.dictionaries(st.sampled_from([*HEADERS]), st.text(max_size=40)))
def test_any_headers_are_admitted_or_refused(headers: dict[str, str]) -> None:
    with contextlib.suppress(RequestError):
        check_headers(headers)


def test_what_is_wrong_with_a_member_is_said_within_a_sentence() -> None:
    with pytest.raises(
        RequestError, match="Parameter 'iat' has a value that cannot be used: expected `int`, got `str`"
    ):
        read_signing(signing(iat="1443208345"))


@pytest.mark.parametrize("types", [("application/json",), ("application/json", "application/x", "text/x")])
def test_the_type_of_a_body_is_told_and_the_first_one_is_asked_for(types: tuple[str, ...]) -> None:
    for each in types:
        headers = {"content-length": "1", "content-type": f" {each.upper()} ; charset=utf-8"}
        assert check_headers(headers, types) == each
    with pytest.raises(RequestError, match="must be of type 'application/json'"):
        check_headers({"content-length": "1", "content-type": "text/plain"}, types)


def test_an_error_before_a_service_says_why_where_its_text_does() -> None:
    assert "way too long" in error_of_status(413, "way too long").sentence
    assert error_of_status(404, "way too long").sentence == "There is no such resource."
    known = {400, 404, 405, 408, 413, 414, 417, 429, 431, 501, 503, 505}
    assert {status for status in range(300, 700) if error_of_status(status, "x").message_id != "POL5000"} == known
    for status in (400, 404, 405, 408, 413, 414, 417, 429, 431, 500, 501, 503, 505):
        assert "%" not in error_of_status(status, "why").sentence


@pytest.mark.parametrize(
    ("code", "is_own"),
    [
        ("no-authority", False),
        ("claims", False),
        ("stale-iat", False),
        ("credential-not-valid", True),
        ("not-on-ledger", True),
        ("key-unavailable", True),
        ("no-rule", False),
        ("rule", False),
    ],
)
def test_only_a_fault_of_the_signers_own_lets_a_call_go_on_without_signature(code: str, is_own: bool) -> None:
    error = error_of_refusal(SigningRefused(code, "why"), "c")
    assert error.bypass == ("c" if is_own else "")
    assert json.loads(error.body()).get("bypass") == ("c" if is_own else None)
    assert error_of_refusal(SigningRefused(code, "why")).bypass == ""


@pytest.mark.parametrize(
    ("given", "is_refused"), [({}, True), ({"outOfBand": False}, True), ({"outOfBand": True}, False)]
)
def test_only_a_call_whose_tokens_come_out_of_band_needs_no_identity(
    given: dict[str, bool], is_refused: bool
) -> None:
    members = {**VERIFICATION, **given}
    del members["identity"]
    body = decode(json.dumps({"verificationRequest": members}).encode())
    if is_refused:
        with pytest.raises(RequestError, match="'identity' is missing"):
            atis.parse_verification_request(body)
        return
    assert atis.parse_verification_request(body).identities == ()


def test_what_is_told_of_where_a_call_comes_from() -> None:
    body = decode(json.dumps({"verificationRequest": {**VERIFICATION, "trunk": "t1", "callId": "c1"}}).encode())
    call = atis.parse_verification_request(body, "proxy")
    assert (call.source.peer, call.source.trunk, call.call_id, call.is_answer) == ("proxy", "t1", "c1", False)
