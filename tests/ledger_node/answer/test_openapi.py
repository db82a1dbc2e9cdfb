"""The ledger node's OpenAPI document is valid, and what it does not describe is noticed."""

import json
from typing import Any

import httpx
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from ledger_node.answer.openapi import document
from tests.exchanges import UNDESCRIBED, Described
from tests.openapi import documents, ledger_routes
from voice_dpki.shell.config import Listen
from voice_dpki.shell.http import HttpApp, Response, Route, json_response, serve
from voice_dpki.shell.metrics import HEALTH_ROUTE

NODE = {
    "name": "n",
    "role": "follower",
    "chain_id": "test-1",
    "height": 1,
    "app_hash": "00",
    "time": None,
    "age_s": None,
    "software": "s",
    "rules": {"versions": [1], "present": None, "next": None},
}
PROBLEM = {"title": "Bad Request", "status": 400, "detail": "why"}
DIGEST = "0a" * 32


def described() -> Described:
    return Described(document(ledger_routes()))


def test_the_document_is_openapi() -> None:
    OpenAPIV31SpecValidator(document(ledger_routes())).validate()


def test_it_is_the_committed_one() -> None:
    (path,) = (path for path in documents() if path.name == "ledger-node.json")
    assert path.read_bytes() == documents()[path], "run `make openapi`"


def test_a_route_without_a_description_is_none() -> None:
    with pytest.raises(KeyError):
        document([*ledger_routes(), Route("GET", "/ledger/v1/another", lambda _: Response(200))])


def test_every_node_serves_the_document_of_its_routes() -> None:
    routes = ledger_routes()
    (own,) = (route for route in routes if route.pattern == "/openapi.json")
    answer: Any = own.handler(None)  # type: ignore[arg-type]
    assert json.loads(answer.body)["paths"].keys() == {route.pattern for route in routes}


@pytest.mark.parametrize(
    ("target", "status", "kind", "body"),
    [
        ("/ledger/v1/node", 200, "application/json", NODE),
        ("/ledger/v1/node", 400, "application/problem+json", PROBLEM),
        ("/ledger/v1/nothing", 404, "application/problem+json", PROBLEM),
        (f"/ledger/v1/certificates/{DIGEST}.der", 200, "application/pkix-cert", {}),
    ],
)
def test_what_is_described(target: str, status: int, kind: str, body: Any) -> None:
    described().check("GET", target, b"", status, kind, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("target", "status", "kind", "body"),
    [
        ("/ledger/v1/node", 200, "application/json", NODE | {"more": 1}),
        ("/ledger/v1/node", 200, "application/json", NODE | {"height": "1"}),
        ("/ledger/v1/node", 200, "application/json", {**NODE, "rules": {}}),
        ("/ledger/v1/node", 200, "text/plain", NODE),
        ("/ledger/v1/node", 204, "application/json", NODE),
        ("/ledger/v1/node", 404, "application/problem+json", PROBLEM),
        ("/ledger/v1/node", 400, "application/problem+json", PROBLEM | {"more": 1}),
        ("/ledger/v1/node?more=1", 200, "application/json", NODE),
        ("/ledger/v1/nothing", 200, "application/json", NODE),
        (f"/ledger/v1/certificates/{DIGEST}.pem", 200, "application/pkix-cert", {}),
    ],
)
def test_what_is_not_described(target: str, status: int, kind: str, body: Any) -> None:
    with pytest.raises(AssertionError):
        described().check("GET", target, b"", status, kind, json.dumps(body).encode())


def test_a_request_that_is_accepted_is_described() -> None:
    result = json.dumps({"digest": DIGEST, "status": "revoked", "height": 1, "repeated": False}).encode()
    check = described().check
    path, good = "/ledger/v1/revocations", {"digest": DIGEST, "reason": "superseded"}
    check("POST", path, json.dumps(good).encode(), 200, "application/json", result)
    with pytest.raises(AssertionError):
        check("POST", path, json.dumps({**good, "more": 1}).encode(), 200, "application/json", result)


@pytest.mark.undescribed
async def test_clients_are_watched() -> None:
    routes = [HEALTH_ROUTE, Route("GET", "/ledger/v1/node", lambda _: json_response(200, {"more": 1}))]
    async with serve(HttpApp(routes), Listen(port=0)) as port, httpx.AsyncClient(trust_env=False) as client:
        url = f"http://127.0.0.1:{port}"
        await client.get(f"{url}/healthz")
        assert not UNDESCRIBED
        await client.get(f"{url}/ledger/v1/node")
        (fault,) = UNDESCRIBED
        assert "GET /ledger/v1/node 200" in fault
