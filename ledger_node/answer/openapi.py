"""The OpenAPI 3.1 document of a ledger node, made from its routes and the Structs that parse their bodies.

docs/spec says what the answers mean and how a verifier judges them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import msgspec

from ledger_node.answer.questions import QUESTIONS, LeavesQuestion, StatusesQuestion
from ledger_node.answer.submissions import Renewal, StatusChange
from voice_dpki.codec.openapi import OPENAPI_PATH, Document, encode
from voice_dpki.ledger.answer_forms import AnswerForm, BatchForm, LeavesForm, PrefixForm
from voice_dpki.ledger.changes import ChangesForm
from voice_dpki.ledger.header import SignedHeaderForm, ValidatorForm
from voice_dpki.ledger.names import KINDS_OF_NAMES
from voice_dpki.ledger.records import CertStatus
from voice_dpki.ledger.replica import BlockForm
from voice_dpki.shell.http import Response, Route
from voice_dpki.wire.ledger.client import CHANGES

_ROOTS: Final = (
    AnswerForm,
    BatchForm,
    PrefixForm,
    LeavesForm,
    ChangesForm,
    BlockForm,
    SignedHeaderForm,
    ValidatorForm,
    StatusesQuestion,
    LeavesQuestion,
    StatusChange,
    Renewal,
)

_JSON: Final = "application/json"
_PROBLEM: Final = "application/problem+json"
_DER: Final = "application/pkix-cert"
_CBOR: Final = "application/cbor"

_SERVER: Final = (400, 405, 408, 413, 414, 417, 429, 431, 500, 501, 503, 505)
"""Statuses with which the HTTP server or the guard of any handler can answer."""

_HEX: Final = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_DIGEST: Final = {"type": "string", "pattern": "^[0-9a-fA-F]{64}$"}
_TEXT: Final = {"type": "string"}
_COUNT: Final = {"type": "integer", "minimum": 0}
_NUMBER: Final = {"type": "string", "pattern": "^[0-9]{1,15}$"}
_STATUS: Final = {"enum": [str(status) for status in CertStatus]}
_NAME: Final = {"type": "string", "minLength": 1, "maxLength": 64}


def _ref(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(optional: Sequence[str] = (), /, **properties: Any) -> Document:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def _null_or(schema: Mapping[str, Any]) -> Document:
    return {"anyOf": [dict(schema), {"type": "null"}]}


def _list(schema: Mapping[str, Any]) -> Document:
    return {"type": "array", "items": dict(schema)}


@dataclass(frozen=True, slots=True)
class _Told:
    """A route's description in the document, beyond what the route itself declares."""

    name: str
    summary: str
    answers: Mapping[str, Any]
    """Schema of a 200 by media type."""
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)
    """Schema of the body by media type."""
    created: bool = False
    """Whether a 201 has the same form."""
    refused: Mapping[str, Any] = field(default_factory=dict)
    """Schema of a 422 by media type."""
    problems: tuple[int, ...] = ()
    """Statuses of problem documents besides those of the HTTP server."""
    unhealthy: bool = False
    """Whether a 503 has the form of a 200."""


_WAIT: Final = {"wait_ms": _NUMBER}

_RECEIPT: Final[Mapping[str, Any]] = {
    "answers": {_JSON: _ref("Receipt")},
    "refused": {_PROBLEM: _ref("Refusal")},
    "problems": (401, 404),
}

_OWN: Final = {
    ("GET", "/ledger/v1/status/{digest}"): _Told(
        "status", "The status of a certificate, proved.", {_JSON: _ref("Answer")}
    ),
    ("POST", "/ledger/v1/status"): _Told(
        "statusOfCertificate", "The same for a certificate.", {_JSON: _ref("Answer")}, body={_DER: {}}
    ),
    ("GET", "/ledger/v1/certificates/{digest}"): _Told(
        "certificate",
        "The same with the certificate; with .der behind the digest, the certificate alone, unproved.",
        {_JSON: _ref("Answer"), _DER: {}},
        problems=(404,),
    ),
    ("GET", "/ledger/v1/headers/{height}"): _Told(
        "header", "A header with its commit and its validators.", {_JSON: _ref("LightBlock")}, problems=(404, 410)
    ),
    ("POST", "/ledger/v1/statuses"): _Told(
        "statuses",
        "The statuses of several certificates, proved.",
        {_JSON: _ref("Batch")},
        body={_JSON: _ref("StatusesQuestion")},
    ),
    ("POST", "/ledger/v1/leaves"): _Told(
        "leaves", "Leaves by their keys, proved.", {_JSON: _ref("Leaves")}, body={_JSON: _ref("LeavesQuestion")}
    ),
    ("GET", "/ledger/v1/prefix/{prefix}"): _Told(
        "prefix", "All certificates whose digest begins with these digits, proved.", {_JSON: _ref("Prefix")}
    ),
    ("GET", "/ledger/v1/names"): _Told(
        "names",
        "The lists of all certificates of a name of one kind, proved; organization goes with subject.",
        {_JSON: _ref("Leaves")},
        query={**dict.fromkeys(KINDS_OF_NAMES, _TEXT), "organization": _TEXT},
    ),
    ("GET", "/ledger/v1/search"): _Told(
        "search",
        "Certificates by part of a name, unproved. An edge has no catalogue.",
        {_JSON: _ref("Found")},
        query={"subject": _TEXT, "organization": _TEXT},
        problems=(404,),
    ),
    ("GET", "/ledger/v1/node"): _Told("node", "The node's description of itself, unproved.", {_JSON: _ref("Node")}),
    ("GET", "/ledger/v1/changes"): _Told(
        "changes",
        "The leaves that changed since the state with the AppHash root, as soon as there is a header above height.",
        {_JSON: _ref("Changes")},
        query={"root": {"type": "string", "pattern": "^([0-9a-f]{64})?$"}, "height": _NUMBER, **_WAIT},
    ),
    ("GET", "/ledger/v1/blocks"): _Told(
        "blocks",
        "Blocks from a height on.",
        {_JSON: _object(blocks=_list(_ref("Block")))},
        query={"from": _NUMBER, "count": _NUMBER, **_WAIT},
        problems=(404, 410),
    ),
    ("GET", "/ledger/v1/blocks/{height}"): _Told(
        "block", "A block.", {_JSON: _ref("Block")}, query=_WAIT, problems=(404, 410)
    ),
    ("POST", "/ledger/v1/transactions"): _Told(
        "transact",
        "Send a transaction; the result comes when its block is durable.",
        {_JSON: _ref("Result")},
        body={_CBOR: {}},
        refused={_JSON: _ref("Result")},
        problems=(404,),
    ),
    ("GET", "/healthz"): _Told("health", "The node's health.", {_JSON: _ref("Health")}, unhealthy=True),
    ("GET", "/readyz"): _Told(
        "ready", "The state of all that the node needs.", {_JSON: _ref("Readiness")}, unhealthy=True
    ),
    ("GET", "/metrics"): _Told("metrics", "Metrics for Prometheus.", {"text/plain": {}}),
    ("GET", OPENAPI_PATH): _Told("describe", "This document.", {_JSON: {"type": "object"}}),
    ("POST", "/ledger/v1/submissions"): _Told(
        "submit", "Have a certificate recorded.", body={_DER: {}}, created=True, **_RECEIPT
    ),
    ("POST", "/ledger/v1/renewals"): _Told(
        "renew", "Have a certificate's successor recorded.", body={_JSON: _ref("Renewal")}, created=True, **_RECEIPT
    ),
    **{
        ("POST", path): _Told(
            path.rpartition("/")[2], f"Make a certificate {status}.", body={_JSON: _ref("StatusChange")}, **_RECEIPT
        )
        for status, path in CHANGES.items()
    },
}


def _about_leaf(argument: str, kind: str) -> _Told:
    answer = _object(**{argument: _TEXT, kind: _ref("Member"), **_TAIL})
    return _Told(kind, f"The leaf of a {kind}, or its absence, proved.", {_JSON: answer})


_TAIL: Final = {"height": _COUNT, "signed_header": _ref("SignedHeader")}

_TOLD: Final[Mapping[tuple[str, str], _Told]] = {
    (question.method, question.pattern): _about_leaf(question.leaf.lookup.argument.name, question.leaf.kind)
    for question in QUESTIONS
    if question.leaf is not None and question.leaf.lookup is not None
} | _OWN

_ARGUMENTS: Final = {
    "digest": _DIGEST,
    "height": _NUMBER,
    "prefix": {"type": "string", "pattern": "^[0-9a-f]{1,64}$"},
    "organization": _NAME,
    "tn": {"type": "string", "pattern": r"^\+?[0-9]{1,15}$"},
}
_CERTIFICATE: Final = {"type": "string", "pattern": r"^[0-9a-fA-F]{64}(\.der)?$"}


def described(routes: Sequence[Route]) -> list[Route]:
    """Return the routes, and one more that serves the document of them all."""

    @cache
    def response() -> Response:
        return Response(200, encode(document(found)))

    found = [*routes, Route("GET", OPENAPI_PATH, lambda _request: response())]
    return found


def document(routes: Iterable[Route]) -> Document:
    """Return the document of a node with these routes; raises KeyError for one that is not described here."""
    paths: dict[str, Document] = {}
    for route in routes:
        told = _TOLD[route.method, route.pattern]
        paths.setdefault(route.pattern, {})[route.method.lower()] = _operation(route, told)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Ledger node (ledger-node)",
            "version": "1.0.0",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Questions to a federation's ledger, and transactions. docs/spec says how an answer is "
            "judged. A client ignores members of answers that it does not know, but for those of headers.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "responses": {"Problem": _response("Refused; the document says why.", {_PROBLEM: _ref("Problem")})},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, told: _Told) -> Document:
    operation: Document = {
        "operationId": told.name,
        "summary": told.summary,
        "x-cost": route.cost,
        "security": [{"bearer": []}] if route.authorize else [],
        "parameters": [*_path_parameters(route.pattern), *_query_parameters(told.query)],
        "responses": _responses(told),
    }
    if told.body:
        operation["requestBody"] = {"required": True, "content": _content(told.body)}
        operation["x-max-body-bytes"] = route.max_body_bytes
    return operation


def _path_parameters(pattern: str) -> Iterable[Document]:
    for segment in pattern.split("/"):
        if segment.startswith("{"):
            name = segment[1:-1]
            schema = _CERTIFICATE if "certificates" in pattern else _ARGUMENTS[name]
            yield {"name": name, "in": "path", "required": True, "schema": schema}


def _query_parameters(query: Mapping[str, Any]) -> Iterable[Document]:
    return ({"name": name, "in": "query", "schema": schema} for name, schema in query.items())


def _responses(told: _Told) -> Document:
    problem = {"$ref": "#/components/responses/Problem"}
    responses = {str(status): dict(problem) for status in sorted({*_SERVER, *told.problems})}
    responses["200"] = _response("The answer.", told.answers)
    if told.created:
        responses["201"] = _response("It is recorded now.", told.answers)
    if told.refused:
        responses["422"] = _response("The ledger refused it.", told.refused)
    if told.unhealthy:
        responses["503"] = _response("It cannot do its work.", told.answers)
    return dict(sorted(responses.items()))


def _response(description: str, schemas: Mapping[str, Any]) -> Document:
    return {"description": description, "content": _content(schemas)}


def _content(schemas: Mapping[str, Any]) -> Document:
    return {media_type: {"schema": schema} for media_type, schema in schemas.items()}


def _schemas() -> dict[str, Document]:
    """Return all schemas: those of the Structs, and those of members that no proof covers."""
    _, found = msgspec.json.schema_components(_ROOTS, ref_template="#/components/schemas/{name}")
    schemas: dict[str, Document] = _renamed(found)
    for schema in schemas.values():
        if "signed_header" in schema.get("properties", {}):
            schema["properties"]["signed_header"] = _ref("SignedHeader")
    for name, properties in _UNPROVED.items():
        schemas[name]["properties"] |= properties
    return {**schemas, **_OWN_SCHEMAS}


def _renamed(schema: Any) -> Any:
    """Leave "_" and "Form" out of names, and write the ends of patterns as ECMA-262 does."""
    if isinstance(schema, dict):
        return {_clean(key): _renamed(value) for key, value in schema.items()}
    if isinstance(schema, list | tuple):
        return [_renamed(each) for each in schema]
    return _clean(schema) if isinstance(schema, str) else schema


def _clean(text: str) -> str:
    before, slash, name = text.rpartition("/")
    if name.endswith("Form"):
        return before + slash + name.removesuffix("Form").removeprefix("_")
    return text.removesuffix(r"\Z") + "$" if text.endswith(r"\Z") else text


_UNPROVED: Final[Mapping[str, Document]] = {
    "Answer": {"digest": _HEX, "status": _STATUS, "height": _COUNT},
    "Batch": {"height": _COUNT},
    "Prefix": {"prefix": {"type": "string", "pattern": "^[0-9a-f]{1,64}$"}, "height": _COUNT},
    "Leaves": {"height": _COUNT},
    "Changes": {"height": _COUNT},
}
"""Members of answers that no verifier reads."""

_PROBLEM_MEMBERS: Final = {"title": _TEXT, "status": {"type": "integer"}, "detail": _TEXT}
_VERSION: Final = {"type": "integer", "minimum": 1}

_OWN_SCHEMAS: Final[Mapping[str, Document]] = {
    "LightBlock": _object(signed_header=_ref("SignedHeader"), validators=_list(_ref("Validator"))),
    "Result": _object(code=_COUNT, name=_TEXT, detail=_TEXT, height=_null_or(_COUNT)),
    "Receipt": _object(digest=_HEX, status=_STATUS, height=_COUNT, repeated={"type": "boolean"}),
    "Refusal": _object(**_PROBLEM_MEMBERS, code=_VERSION, name=_TEXT),
    "Problem": _object(**_PROBLEM_MEMBERS),
    "Health": {
        "type": "object",
        "properties": {"status": _TEXT, "notes": _list(_TEXT)},
        "required": ["status"],
        "additionalProperties": _TEXT,
    },
    "Readiness": {
        "type": "object",
        "properties": {
            "status": {"enum": ["ready", "not ready"]},
            "checks": {"type": "object", "additionalProperties": _ref("Check")},
            "notes": _list(_TEXT),
        },
        "required": ["status", "checks"],
        "additionalProperties": False,
    },
    "Check": {
        "type": "object",
        "properties": {"state": {"enum": ["ok", "warning", "failed"]}, "reason": _TEXT},
        "required": ["state"],
        "additionalProperties": False,
    },
    "Found": _object(
        height=_COUNT,
        results=_list(
            _object(
                digest=_HEX,
                organization=_TEXT,
                common_name=_null_or(_TEXT),
                names=_list(_TEXT),
                not_before_s=_COUNT,
                not_after_s=_COUNT,
                recorded_height=_COUNT,
                status=_null_or(_STATUS),
            )
        ),
    ),
    "Node": _object(
        name=_TEXT,
        role=_TEXT,
        chain_id=_TEXT,
        height=_COUNT,
        app_hash={"type": "string", "pattern": "^[0-9a-f]*$"},
        time=_null_or(_TEXT),
        age_s=_null_or({"type": "number"}),
        software=_TEXT,
        rules=_object(
            versions=_list(_VERSION),
            present=_null_or(_VERSION),
            next=_null_or(_object(version=_VERSION, height=_COUNT)),
        ),
    ),
}
