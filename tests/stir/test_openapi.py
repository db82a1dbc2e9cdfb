"""The OpenAPI documents are valid, are those in docs/openapi, and tell what the servers do."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.openapi import documents
from voice_dpki.codec.openapi import encode
from voice_dpki.stir import forms
from voice_dpki.stir.faults import MESSAGE_IDS, RequestError
from voice_dpki.stir.openapi import document
from voice_dpki.stir.sign import sign_call

from .conftest import NOW_S, Operator, Verifier
from .test_kinds import BOTH, DIVERTED
from .test_ms import ATIS, SIGNING, VERIFICATION, asked_about, rows, signing, verdicts, verification

BEYOND_SCHEMAS = {
    "a diversion by a URI without a number",
    "a tel URI of a context",
}
"""Whether a URI has a number is said in words."""


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_the_committed_documents_are_those_of_the_code(path: Path) -> None:
    assert path.read_bytes() == documents()[path], "run `make openapi`"


@pytest.mark.parametrize("operation", ["signing", "verification"])
def test_the_documents_are_openapi(operation: str) -> None:
    OpenAPIV31SpecValidator(json.loads(encode(document(operation)))).validate()


@pytest.mark.parametrize("operation", ["signing", "verification"])
def test_the_text_of_an_invite_has_a_path_of_its_own(operation: str) -> None:
    post = document(operation)["paths"][f"/stir/v1/{operation}/sip"]["post"]
    assert list(post["requestBody"]["content"]) == list(post["responses"]["200"]["content"])
    assert list(post["requestBody"]["content"]) == ["message/sip", "application/sip", "text/plain"]
    assert list(post["responses"]["400"]["content"]) == ["application/json"]


def test_the_judge_finds_faults() -> None:
    told = document("signing")
    del told["components"]["schemas"]["Destination"]
    with pytest.raises(Exception, match="Destination"):
        OpenAPIV31SpecValidator(told).validate()


def schema_of(operation: str, part: str, told: dict[str, Any] | None = None) -> Draft202012Validator:
    told = told or document(operation)
    post = told["paths"][f"/stir/v1/{operation}"]["post"]
    place = post["requestBody"] if part == "request" else post["responses"][part]
    schema = place["content"]["application/json"]["schema"]
    return Draft202012Validator({**schema, "components": told["components"]})


REQUESTS = {"signing": schema_of("signing", "request"), "verification": schema_of("verification", "request")}


@pytest.mark.parametrize("row", rows("ms-signing.jsonl"))
def test_signing_requests(row: dict[str, Any]) -> None:
    agree(REQUESTS["signing"], json.loads(signing(**row["members"])), row)


@pytest.mark.parametrize("row", rows("ms-verification.jsonl"))
def test_verification_requests(row: dict[str, Any]) -> None:
    agree(REQUESTS["verification"], json.loads(verification(**row["members"])), row)


NOT_IN_SCHEMAS = {
    *BEYOND_SCHEMAS,
    "eleven Identities",
    "protected header fields without a token",
    "a protected header field that is none",
    "a Resource-Priority that is none",
    "div to where it was",
    "sph beside another namespace",
}
"""What concerns several members together, too, and what SIP says of header fields."""


def agree(schema: Draft202012Validator, body: dict[str, Any], row: dict[str, Any]) -> None:
    is_good = "error" not in row or row["about"] in NOT_IN_SCHEMAS
    assert schema.is_valid(without_null(body)) is is_good


def without_null(body: dict[str, Any]) -> dict[str, Any]:
    """Leave members out that are null: that is the same to the servers, and a schema tells it for some only."""
    return {
        name: {key: value for key, value in members.items() if value is not None} for name, members in body.items()
    }


@pytest.mark.parametrize(
    ("changes", "is_good"),
    [
        ({}, True),
        ({"dest": {"uri": ["urn:service:sos"]}}, True),
        ({"attest": "D"}, False),
        ({"origid": "x"}, False),
        ({"iat": "now"}, False),
        ({"orig": {"tn": "alice"}}, False),
        ({"orig": {"tn": "1" * 33}}, False),
        ({"orig": {"tn": "+49 (30) 1".replace(" ", ".")}}, True),
        ({"dest": {"tn": []}}, False),
        ({"keyMgmt": [""]}, False),
        ({"sdp": {"alg": "md5", "dig": "A" * 43}}, False),
        ({"rcd": {"nam": "x"}}, False),
        ({"orig": {"tn": "1", "uri": "sip:a@b"}}, False),
    ],
)
def test_signing_requests_of_atis(changes: dict[str, object], is_good: bool) -> None:
    body = signing(**changes)
    assert REQUESTS["signing"].is_valid(json.loads(body)) is is_good
    if is_good:
        assert forms.read_signing(body)
    else:
        with pytest.raises(RequestError):
            forms.read_signing(body)


def test_verification_requests_of_atis() -> None:
    body = without_null(json.loads(verification(**ATIS)))
    assert REQUESTS["verification"].is_valid(body)
    for name, value in {"ppt": "div", "rph": {}, "to": {"tn": "1"}, "identityHeader": "x"}.items():
        bad = {"verificationRequest": {**body["verificationRequest"], name: value}}
        assert not REQUESTS["verification"].is_valid(bad), name


def test_answers(operator: Operator, new_verifier: type[Verifier]) -> None:
    for changes in ({}, {"ppt": "shaken", "requestId": "12378"}):
        asked = forms.read_signing(signing(**changes))
        answer = json.loads(asked.answer(sign_call(asked.what, operator.credential, NOW_S)))
        schema_of("signing", "200").validate(answer)
    for call in (operator.call(), operator.call(iat_s=NOW_S - 300)):
        ms = asked_about(call)
        atis = forms.read_verification(verification(**{**ATIS, "identity": call.identities[0]}))
        for about in (ms, atis):
            found = verdicts(about.what, operator, new_verifier())
            schema_of("verification", "200").validate(json.loads(about.answer(found)))


@pytest.mark.parametrize("message_id", MESSAGE_IDS)
def test_errors(message_id: str) -> None:
    for form in forms.FORMS:
        error = RequestError(message_id, "a", "b").written_by(form.write_error)
        schema_of("signing", str(error.status)).validate(json.loads(error.body()))
    assert not schema_of("signing", str(error.status)).is_valid({"fault": "x"})


def test_a_second_kind_changes_what_a_request_must_have() -> None:
    schema = schema_of("signing", "request", document("signing", kinds=BOTH))
    common = {name: SIGNING[name] for name in ("orig", "dest", "iat")}
    assert schema.is_valid({"signingRequest": {**common, "ppt": "div", "div": {"tn": DIVERTED}}})
    assert not schema.is_valid({"signingRequest": {**common, "ppt": "rph"}})
    assert VERIFICATION
