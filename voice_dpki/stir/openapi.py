"""The OpenAPI 3.1 documents of the STIR services, made of the Structs that validate requests.

A server's document describes every form of its operation. In a form's schema, members that it refuses because they
would change the meaning (`voice_dpki.stir.members`), and those that mark another form, can only be null.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from voice_dpki.codec.openapi import OPENAPI_PATH, Document
from voice_dpki.stir.call import DEFAULT_PPT
from voice_dpki.stir.faults import STATUSES, texts_of
from voice_dpki.stir.forms import (
    FORMS,
    MEDIA_TYPE,
    SIGNING_PATH,
    SIP_MEDIA_TYPES,
    SIP_PATH,
    VERIFICATION_PATH,
    Bodies,
    Form,
)
from voice_dpki.stir.kind import Kind
from voice_dpki.stir.kinds import KINDS, Kinds
from voice_dpki.stir.members import CLAIMS

Schemas = dict[str, dict[str, Any]]

_X: Final = "X-RequestID"
_REQUEST_ID: Final = {"type": "string", "pattern": "^[!-~]{1,128}$"}
_ASKED_ID: Final = {
    "name": _X,
    "in": "header",
    "description": "A name for the request. One that is not of 1 to 128 visible characters is replaced.",
    "schema": {"type": "string"},
}
_INVITE: Final = {"type": "string", "minLength": 1}
_UNSUPPORTED: Final = {
    "type": "null",
    "description": "A member that this form does not have, and that would change the meaning of the request.",
}
_TEMPLATE: Final = "#/components/schemas/{name}"


@dataclass(frozen=True, slots=True)
class _Operation:
    """One of the two services."""

    program: str
    path: str
    name: str
    title: str
    summary: str
    answered: str
    text: str
    """The answer to an INVITE, for the end of its summary."""


_OPERATIONS: Final = {
    "signing": _Operation(
        "authn-server",
        SIGNING_PATH,
        "sign",
        "Authentication server",
        "Sign a call: returns the value of its Identity header field (RFC 8224 §6.1).",
        "The call is signed.",
        "it has its Identity, and a Date if it had none.",
    ),
    "verification": _Operation(
        "verify-server",
        VERIFICATION_PATH,
        "verify",
        "Verification server",
        "Verify the Identity header fields of a call (RFC 8224 §6.2).",
        "The verdict; a call that fails is answered with 200, too.",
        "its P-Asserted-Identity names the caller with a verstat. If rules reject the call, it is the response.",
    ),
}

PROGRAMS: Final = {operation.program: name for name, operation in _OPERATIONS.items()}
"""The operation of each program."""


def document(operation: str, forms: Sequence[Form] = FORMS, kinds: Kinds = KINDS) -> Document:
    """Return the document of "signing" or "verification"."""
    told = _OPERATIONS[operation]
    bodies = [form.bodies[operation] for form in forms]
    roots = [root for each in bodies for root in (each.body, each.answer)]
    roots += [form.error for form in forms]
    references, schemas = msgspec.json.schema_components(roots, ref_template=_TEMPLATE)
    for each in bodies:
        own = kinds if operation == "signing" else ()
        if operation == "signing":
            _complete(schemas, each, own)
        admitted = {name for kind in own for name in (*kind.members, *kind.options)} & set(each.marks)
        others = [mark for other in bodies if other is not each for mark in other.marks]
        # In a verification, `identity` alone decides the form: marks of other forms need no exclusion.
        _close(schemas, each, admitted, others if operation == "signing" else ())
    schemas["Unsupported"] = dict(_UNSUPPORTED)
    schemas = {name: _beside_references(schema) for name, schema in schemas.items()}
    asked, answered = references[: 2 * len(forms) : 2], references[1 : 2 * len(forms) : 2]
    schemas["Error"] = {"anyOf": list(references[2 * len(forms) :])}
    standards = " and ".join(form.standard for form in forms)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{told.title} ({told.program})",
            "version": "1.0.0",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": f"STIR over HTTP in the forms of {standards}. A request's members tell its form.",
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "paths": {
            told.path: {"post": _post(told, asked, answered)},
            told.path + SIP_PATH: {"post": _post_text(told)},
            **_operations_paths(),
        },
        "components": {
            "schemas": schemas,
            "headers": {_X: {"description": "The request's own, or a new one.", "schema": _REQUEST_ID}},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _beside_references(schema: Any) -> Any:
    """Put references with other keywords beside them into `allOf`: tools of OpenAPI 3.0 overlook the others."""
    if isinstance(schema, list):
        return [_beside_references(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    told = {name: _beside_references(each) for name, each in schema.items()}
    if len(told) > 1 and isinstance(told.get("$ref"), str):
        told["allOf"] = [{"$ref": told.pop("$ref")}, *told.get("allOf", [])]
    return told


def _complete(schemas: Schemas, bodies: Bodies, kinds: Iterable[Kind[Any]]) -> None:
    """Add the members that each of the `kinds` of PASSporT demands of a signing request.

    A form without ppt asks for the default kind.
    """
    schema = schemas[bodies.request.__name__]
    properties = schema["properties"]
    if "ppt" not in properties:
        default = [kind for kind in kinds if kind.ppt == DEFAULT_PPT]
        schema["required"] = sorted({*schema["required"], *(name for kind in default for name in kind.members)})
        return
    known = [kind for kind in kinds if properties.keys() >= kind.members.keys()]
    properties["ppt"]["enum"] = [None, "", *(kind.ppt for kind in known)]
    own = {name for kind in known for name in (*kind.members, *kind.options)} & set(CLAIMS)
    schema["allOf"] = [{"if": _asks_for(kind), "then": _demands(kind, own)} for kind in known]


def _asks_for(kind: Kind[Any]) -> Document:
    if kind.ppt != DEFAULT_PPT:
        return {"required": ["ppt"], "properties": {"ppt": {"const": kind.ppt}}}
    return {"properties": {"ppt": {"enum": [None, "", kind.ppt]}}}


def _demands(kind: Kind[Any], own: Iterable[str]) -> Document:
    """Return a schema with the members that this kind needs, and without those of `own` that it does not read."""
    names = sorted(kind.members)
    closed = sorted(name for name in own if kind.reader(name) is None)
    closed += [] if kind.proves_caller else ["keyMgmt", "sdp"]
    needed = {name: {"not": {"type": "null"}} for name in names}
    return {
        "required": names,
        "properties": {**needed, **{name: {"$ref": "#/components/schemas/Unsupported"} for name in closed}},
    }


def _close(schemas: Schemas, bodies: Bodies, admitted: Container[str], marks: Iterable[str]) -> None:
    """Exclude the members that the form refuses, but for those `admitted`, and the `marks` of the other forms."""
    properties = schemas[bodies.request.__name__]["properties"]
    for place, names in bodies.meanings.items():
        closed = schemas[properties[place]["$ref"].rpartition("/")[2]]["properties"] if place else properties
        for name in names if place else (*names, *marks):
            if name not in admitted:
                closed.setdefault(name, {"$ref": "#/components/schemas/Unsupported"})


def _post(told: _Operation, asked: Sequence[Any], answered: Sequence[Any]) -> Document:
    error = [{"$ref": "#/components/schemas/Error"}]
    refusals = {str(status): _response(" ".join(texts_of(status)), error) for status in STATUSES}
    return {
        "operationId": told.name,
        "summary": told.summary,
        "parameters": [dict(_ASKED_ID)],
        "requestBody": {"required": True, "content": _content(asked)},
        "responses": {
            "200": _response(told.answered, answered),
            **refusals,
            "default": _response("Refused by the HTTP server.", error),
        },
    }


def _post_text(told: _Operation) -> Document:
    """Return the operation whose request is the INVITE itself; its errors are ATIS-1000082's."""
    post = _post(told, [_INVITE], [])
    content = {each: {"schema": _INVITE} for each in SIP_MEDIA_TYPES}
    post["operationId"] = f"{told.name}Invite"
    post["summary"] = f"{told.summary} The request is the INVITE as text, and the answer as well: {told.text}"
    post["requestBody"]["content"] = post["responses"]["200"]["content"] = content
    return post


def _content(schemas: Sequence[Any]) -> Document:
    return {MEDIA_TYPE: {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": list(schemas)}}}


def _response(description: str, schemas: Sequence[Any]) -> Document:
    headers = {_X: {"$ref": f"#/components/headers/{_X}"}}
    return {"description": description, "headers": headers, "content": _content(schemas)}


def _operations_paths() -> Mapping[str, Document]:
    """Return the paths for monitoring and for this document; they need no token."""
    return {
        OPENAPI_PATH: _get("describe", "This document.", MEDIA_TYPE, {"200": "The document."}),
        "/healthz": _get(
            "health", "Whether the server can serve calls now.", MEDIA_TYPE, {"200": "It can.", "503": "It cannot."}
        ),
        "/readyz": _get(
            "ready", "The state of all that it needs, check by check.", MEDIA_TYPE, {"200": "Ready.", "503": "Not."}
        ),
        "/metrics": _get("metrics", "Metrics for Prometheus.", "text/plain", {"200": "The metrics."}),
    }


def _get(name: str, summary: str, media_type: str, responses: Mapping[str, str]) -> Document:
    told = {
        status: {"description": text, "content": {media_type: {"schema": {}}}} for status, text in responses.items()
    }
    return {"get": {"operationId": name, "summary": summary, "security": [], "responses": told}}
