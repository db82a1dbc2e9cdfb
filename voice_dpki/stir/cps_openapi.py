"""The OpenAPI 3.1 document of a call placement service, made of the Structs of its bodies."""

from typing import Any, Final

import msgspec

from voice_dpki.codec.openapi import OPENAPI_PATH, Document
from voice_dpki.stir.access import MAX_NAME
from voice_dpki.stir.cps import CALL_PATH, PUBLISHER_PATH, PassportsForm, PlacedForm
from voice_dpki.stir.tn import MAX_TN_LENGTH

PROGRAM: Final = "cps-server"

_JSON: Final = "application/json"
_PROBLEM: Final = "application/problem+json"
_TN: Final[Document] = {"type": "string", "pattern": f"^[0-9*#]{{1,{MAX_TN_LENGTH}}}$"}
_SPC: Final[Document] = {"type": "string", "minLength": 1, "maxLength": MAX_NAME}
_PARAMETERS: Final = {
    "spc": ("The publisher: a service provider code, or the organisation as on the ledger.", _SPC),
    "dest": ("The called number.", _TN),
    "orig": ("The calling number.", _TN),
}
_REFUSALS: Final = {
    "400": "The path or the body cannot be read.",
    "401": "The access token cannot be read, is not of now, was used, or its certificate is not trusted.",
    "403": "The access token is for another request, or this operator is no partner of the call.",
    "413": "The body is too large.",
    "429": "The issuer's share is full, or the client asks too often.",
    "503": "The ledger cannot be asked, so nothing is known of the issuer; or there is no room.",
}
_ACCESS: Final = (
    "A JWT (ES256) for this request alone, signed with a certificate that is on the ledger: x5u or x5c; action, "
    "aud, dest, iat, iss, jti, orig; spc or sub; to publish also passports, and exp. See docs/stir-oob.md."
)


def document() -> Document:
    """Return the document."""
    references, schemas = msgspec.json.schema_components(
        (PassportsForm, PlacedForm), ref_template="#/components/schemas/{name}"
    )
    passports, placed = references
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Call placement service ({PROGRAM})",
            "version": "1.0.0",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "PASSporTs of calls whose path loses them, as in ATIS-1000105 and ATIS-1000096.",
        },
        "servers": [{"url": "/"}],
        "security": [{"access": []}],
        "paths": {
            PUBLISHER_PATH: _path("UnderName", passports, placed, "spc"),
            CALL_PATH: _path("", passports, placed),
            "/health": _get("check", "The same as /healthz.", {"200": "It can.", "503": "It cannot."}),
            "/healthz": _get(
                "health", "Whether the service can do its work.", {"200": "It can.", "503": "It cannot."}
            ),
            "/readyz": _get(
                "ready", "The state of all that it needs, check by check.", {"200": "Ready.", "503": "Not."}
            ),
            "/metrics": _get("metrics", "Metrics for Prometheus.", {"200": "The metrics."}, "text/plain"),
            OPENAPI_PATH: _get("describe", "This document.", {"200": "The document."}),
        },
        "components": {
            "schemas": {**schemas, "Problem": _problem()},
            "securitySchemes": {
                "access": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": _ACCESS}
            },
        },
    }


def _path(suffix: str, passports: Any, placed: Any, *first: str) -> Document:
    return {
        "parameters": [_parameter(name) for name in (*first, "dest", "orig")],
        "post": {
            "operationId": f"publish{suffix}",
            "summary": "Publish the PASSporTs of a call, which prove its caller's number now.",
            "requestBody": {"required": True, "content": {_JSON: {"schema": passports}}},
            "responses": {"201": _response("They are kept.", _JSON, placed), **_refusals()},
        },
        "get": {
            "operationId": f"retrieve{suffix}",
            "summary": "Retrieve the PASSporTs of a call, the newest first.",
            "responses": {
                "200": _response("What is kept.", _JSON, passports),
                "404": _response("There is none.", _PROBLEM, _reference("Problem")),
                **_refusals(),
            },
        },
    }


def _parameter(name: str) -> Document:
    description, schema = _PARAMETERS[name]
    return {"name": name, "in": "path", "required": True, "description": description, "schema": dict(schema)}


def _refusals() -> Document:
    problem = _reference("Problem")
    told = {status: _response(text, _PROBLEM, problem) for status, text in _REFUSALS.items()}
    return {**told, "default": _response("Refused by the HTTP server.", _PROBLEM, problem)}


def _response(description: str, media_type: str, schema: Any) -> Document:
    return {"description": description, "content": {media_type: {"schema": schema}}}


def _reference(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{name}"}


def _problem() -> Document:
    """Return the schema of a problem document (RFC 9457)."""
    texts = {name: {"type": "string"} for name in ("title", "detail")}
    return {
        "type": "object",
        "required": ["title", "status", "detail"],
        "properties": {**texts, "status": {"type": "integer"}},
    }


def _get(name: str, summary: str, responses: dict[str, str], media_type: str = _JSON) -> Document:
    told = {status: _response(text, media_type, {}) for status, text in responses.items()}
    return {"get": {"operationId": name, "summary": summary, "security": [], "responses": told}}
