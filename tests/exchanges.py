"""Holds what the suite's clients and ledger nodes say to each other to the node's OpenAPI document.

`watch` has httpx and the project's own client note each exchange. Answers are held to the document with every
object closed: a member that the document does not name is a fault, though clients ignore it. Requests are held to
it where the node accepts them, for tests send bad ones as well.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, unquote

import httpx
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from voice_dpki.wire.http_client import HttpAnswer, HttpClient

PREFIX = "/ledger/v1/"
UNDESCRIBED: list[str] = []
"""What clients and ledger nodes said to each other and the document does not describe."""

_JSON = re.compile(r"application/([a-z]+\+)?json")


class Described:
    """The exchanges that a document describes."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._paths = [(re.compile(re.sub(r"\{[a-z]+\}", "[^/]+", path)), path) for path in document["paths"]]
        self._known: set[tuple[str, str, bytes, int, bytes]] = set()
        """Exchanges that were checked, so that a test with many alike takes no longer."""
        self._validators: dict[str, Draft202012Validator] = {}

    def check(self, method: str, target: str, sent: bytes, status: int, media_type: str, body: bytes) -> None:
        """Raise AssertionError for an exchange that is not described; `media_type` is "" if it is not known."""
        known = (method, target, sent, status, body)
        if known not in self._known:
            self._check(method, target, sent, status, media_type, body)
            self._known.add(known)

    def _check(self, method: str, target: str, sent: bytes, status: int, media_type: str, body: bytes) -> None:
        path, _, query = target.partition("?")
        found = [pattern for regex, pattern in self._paths if regex.fullmatch(path)]
        asked = "get" if method == "HEAD" else method.lower()
        operations = [self._document["paths"][pattern] for pattern in found]
        if not any(asked in each for each in operations):
            wanted = 405 if operations else 404
            assert status in (wanted, 400), f"{method} {path}: {status} instead of {wanted}"
            return
        operation = next(each[asked] for each in operations if asked in each)
        response = operation["responses"].get(str(status))
        assert response is not None, f"{method} {path}: no answer with {status} is described"
        if method != "HEAD":
            self._check_content(f"{method} {path} {status}", self._resolved(response)["content"], media_type, body)
        if status < 300:
            self._check_request(f"{method} {path}", operation, path, query, sent)

    def _resolved(self, value: Mapping[str, Any]) -> Mapping[str, Any]:
        if "$ref" not in value:
            return value
        return self._document["components"]["responses"][value["$ref"].rpartition("/")[2]]

    def _check_content(self, what: str, content: Mapping[str, Any], media_type: str, body: bytes) -> None:
        kind = media_type.partition(";")[0] or (next(iter(content)) if _is_json(body) or len(content) == 1 else "")
        kind = kind or next(each for each in content if not _JSON.fullmatch(each))
        assert kind in content, f"{what}: the media type {kind} is not described"
        if _JSON.fullmatch(kind):
            self._check_value(what, content[kind]["schema"], json.loads(body), closed=True)

    def _check_request(self, what: str, operation: Mapping[str, Any], path: str, query: str, sent: bytes) -> None:
        given = dict(parse_qsl(query, keep_blank_values=True))
        told = {each["name"]: each for each in operation["parameters"]}
        names = {name for name, each in told.items() if each["in"] == "query"}
        assert given.keys() <= names, f"{what}: the parameters {given.keys() - names} are not described"
        for name, value in given.items():
            self._check_value(f"{what} {name}", told[name]["schema"], value)
        for name in told.keys() - names:
            self._check_value(f"{what} {name}", told[name]["schema"], unquote(path.rpartition("/")[2]))
        content = operation.get("requestBody", {}).get("content", {})
        assert content or not sent, f"{what}: no body is described"
        if "application/json" in content:
            self._check_value(what, content["application/json"]["schema"], json.loads(sent), closed=True)

    def _check_value(self, what: str, schema: Mapping[str, Any], value: object, *, closed: bool = False) -> None:
        key = json.dumps([schema, closed])
        if key not in self._validators:
            whole = {**schema, "components": self._document["components"]}
            self._validators[key] = Draft202012Validator(_closed(whole) if closed else whole)
        faults = [f"{error.json_path}: {error.message:.200}" for error in self._validators[key].iter_errors(value)]
        assert not faults, f"{what}: {faults[:3]}"


def _is_json(body: bytes) -> bool:
    return body[:1] in (b"{", b"[")


def _closed(schema: Any) -> Any:
    """Return a schema whose objects have no members but those that it names."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: _closed(value) for key, value in schema.items()}
    if schema.get("type") == "object" and "properties" in schema:
        inner.setdefault("additionalProperties", False)
    return inner


@cache
def ledger() -> Described:
    """Return what the committed document of a ledger node with all roles describes."""
    from tests.openapi import FOLDER  # it imports services, which not every test needs

    return Described(json.loads((FOLDER / "ledger-node.json").read_bytes()))


@contextmanager
def watch() -> Iterator[None]:
    """Have every exchange with a ledger node checked, and add to UNDESCRIBED what is not described."""

    def note(method: str, target: str, sent: bytes, status: int, media_type: str, body: bytes) -> None:
        _, slash, rest = target.partition(PREFIX)
        if slash:
            try:
                ledger().check(method, slash + rest, sent, status, media_type, body)
            except (AssertionError, ValueError) as fault:
                UNDESCRIBED.append(str(fault))

    with pytest.MonkeyPatch.context() as patch:
        _watch_httpx(patch, note)
        _watch_own(patch, note)
        yield


def _watch_httpx(patch: pytest.MonkeyPatch, note: Any) -> None:
    send, send_async = httpx.Client.send, httpx.AsyncClient.send

    def noted(request: httpx.Request, response: httpx.Response) -> httpx.Response:
        in_pieces = "transfer-encoding" in request.headers  # httpx does not keep such a body
        if not in_pieces and (response.is_stream_consumed or response.is_closed):
            kind = response.headers.get("content-type", "")
            target = request.url.raw_path.decode("ascii")
            note(request.method, target, request.content, response.status_code, kind, response.content)
        return response

    def watched(self: httpx.Client, request: httpx.Request, **how: Any) -> httpx.Response:
        return noted(request, send(self, request, **how))

    async def watched_async(self: httpx.AsyncClient, request: httpx.Request, **how: Any) -> httpx.Response:
        return noted(request, await send_async(self, request, **how))

    patch.setattr(httpx.Client, "send", watched)
    patch.setattr(httpx.AsyncClient, "send", watched_async)


def _watch_own(patch: pytest.MonkeyPatch, note: Any) -> None:
    request = HttpClient.request

    async def watched(self: HttpClient, method: str, target: str, body: bytes = b"", **how: Any) -> HttpAnswer:
        answer = await request(self, method, target, body, **how)
        note(method, target, body, answer.status, "", answer.body)
        return answer

    patch.setattr(HttpClient, "request", watched)
