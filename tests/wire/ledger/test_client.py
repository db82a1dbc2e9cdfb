"""The client over real sockets: what fails on the way is an error with its code, never an answer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from tests.ports import free_port
from tests.present import present
from voice_dpki.ledger.answer_forms import MAX_ANSWER_BYTES
from voice_dpki.ledger.answers import InquiryCode, InquiryError
from voice_dpki.ledger.header import SignedHeader
from voice_dpki.ledger.light import LightBlock
from voice_dpki.ledger.records import CertStatus
from voice_dpki.names import CertDigest
from voice_dpki.shell.config import Listen
from voice_dpki.shell.http import HttpApp, Request, Response, Route, json_response, problem, serve
from voice_dpki.wire.ledger.client import (
    MAX_SOFTWARE_LENGTH,
    MAX_VERSIONS,
    LedgerClient,
    SubmissionError,
    light_client,
)

pytestmark = pytest.mark.undescribed

DIGEST = CertDigest(bytes(range(32)))
SUBMISSIONS = "/ledger/v1/submissions"
REVOCATIONS = "/ledger/v1/revocations"


@asynccontextmanager
async def node(federation: Any, *routes: Route, timeout_s: float = 60) -> AsyncIterator[LedgerClient]:
    """Serve canned answers, and give a client for them."""
    async with serve(HttpApp(routes), Listen(port=0)) as port:
        url = f"http://127.0.0.1:{port}"
        async with LedgerClient.of_genesis(url, federation.genesis, timeout_s=timeout_s) as client:
            yield client


def canned(response: Response) -> Callable[[Request], Awaitable[Response]]:
    async def handler(_request: Request) -> Response:
        return response

    return handler


async def slow(_request: Request) -> Response:
    await asyncio.sleep(2)
    return Response(200)


async def inquiry_code(client: LedgerClient) -> InquiryCode:
    with pytest.raises(InquiryError) as caught:
        await client.resolve(DIGEST)
    return caught.value.code


@pytest.mark.parametrize(
    ("handler", "code"),
    [
        (canned(problem(503, "Service Unavailable", "no block yet")), InquiryCode.UNREACHABLE),
        (canned(json_response(302, {}, (("Location", "/"),))), InquiryCode.UNREACHABLE),
        (canned(Response(200, b"<html>")), InquiryCode.MALFORMED),
        (canned(Response(200, b'"\xff"')), InquiryCode.MALFORMED),
        (canned(Response(200, b" " * (MAX_ANSWER_BYTES + 1))), InquiryCode.MALFORMED),
        (slow, InquiryCode.UNREACHABLE),
    ],
)
async def test_failures_of_an_inquiry(federation: Any, handler: Any, code: InquiryCode) -> None:
    route = Route("GET", f"/ledger/v1/certificates/{DIGEST.hex()}", handler)
    async with node(federation, route, timeout_s=0.5 if handler is slow else 60) as client:
        assert await inquiry_code(client) is code


async def test_nobody_there(federation: Any) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    async with LedgerClient.of_genesis(url, federation.genesis) as client:
        assert await inquiry_code(client) is InquiryCode.UNREACHABLE
        with pytest.raises(SubmissionError, match="does not answer") as caught:
            await client.submit(b"", "token")
        assert (caught.value.name, caught.value.code) == ("unavailable", None)


class FixedClock:
    def __init__(self, at_s: float) -> None:
        self.at_s = at_s

    def now_s(self) -> float:
        return self.at_s

    def steady_s(self) -> float:
        return 0.0


async def test_a_witness_with_another_history_ends_all_trust(federation: Any, chain: Any) -> None:
    """Its evidence is kept; a witness whose header is not signed, or that has none, changes nothing."""
    chain.take(chain.next_block())
    ours, theirs = chain.next_block(), chain.next_block(time_ns=chain.replica.last.header.time_ns + 5)
    light, clock = light_client(federation.genesis), FixedClock(theirs.header.time_ns / 1e9)
    light.verify(chain.blocks[0].signed_header, None, clock.at_s)
    light.verify(ours.signed_header, None, clock.at_s)

    def block(signed_header: SignedHeader) -> Any:
        return json_response(200, LightBlock(signed_header, federation.genesis.validators).to_json())

    unsigned = replace(theirs.signed_header, commit=replace(theirs.signed_header.commit, round=1))
    headers = "/ledger/v1/headers/2"
    for response, code in (
        (block(ours.signed_header), None),
        (problem(404, "Not Found", ""), InquiryCode.UNREACHABLE),
        (json_response(200, {}), InquiryCode.MALFORMED),
        (block(unsigned), InquiryCode.UNPROVEN),
        (block(theirs.signed_header), InquiryCode.FORK),
        (block(ours.signed_header), InquiryCode.FORK),
    ):
        async with node(federation, Route("GET", headers, canned(response))) as witness:
            async with LedgerClient("http://127.0.0.1:9", light, clock=clock) as client:
                if code is None:
                    await client.compare(witness)
                    continue
                with pytest.raises(InquiryError) as caught:
                    await client.compare(witness)
                assert caught.value.code is code
                assert (client.fork is not None) is (code is InquiryCode.FORK)
    assert present(light.fork).conflicting == theirs.signed_header


@pytest.mark.parametrize("body", [b"{}", b'{"name": "\xff"}'])
async def test_a_node_that_describes_itself_badly(federation: Any, body: bytes) -> None:
    async with node(federation, Route("GET", "/ledger/v1/node", canned(Response(200, body)))) as client:
        with pytest.raises(InquiryError) as caught:
            await client.node_info()
        assert caught.value.code is InquiryCode.MALFORMED


REFUSED = {"title": "Refused", "detail": "The certificate has expired.", "code": 125, "name": "expired"}


@pytest.mark.parametrize(
    ("response", "name", "code"),
    [
        (problem(401, "Unauthorized", "no token"), "unauthorized", None),
        (problem(503, "Service Unavailable", "busy"), "unavailable", None),
        (json_response(422, REFUSED), "expired", 125),
        (problem(400, "Bad Request", "no digest"), "refused", None),
        (Response(500, b"oops"), "unavailable", None),
        (Response(422, b'{"detail": "\xff"}'), "unavailable", None),
        (Response(200, b"{}"), "unavailable", None),
    ],
)
async def test_failures_of_a_submission(federation: Any, response: Response, name: str, code: int | None) -> None:
    async with node(federation, Route("POST", SUBMISSIONS, canned(response))) as client:
        with pytest.raises(SubmissionError) as caught:
            await client.submit(b"der", "token")
        assert (caught.value.name, caught.value.code) == (name, code)


DESCRIPTION = {
    "name": "a",
    "role": "engine",
    "chain_id": "test-1",
    "height": 7,
    "app_hash": "",
    "time": None,
    "age_s": None,
}


@pytest.mark.parametrize(
    ("said", "versions"),
    [
        ({}, (1,)),
        ({"software": "voice-dpki 2", "rules": {"versions": [1, 2], "present": 2, "next": None}}, (1, 2)),
        ({"software": "x" * MAX_SOFTWARE_LENGTH, "rules": {"versions": [3] * MAX_VERSIONS}}, (3,) * MAX_VERSIONS),
        ({"software": "x" * (MAX_SOFTWARE_LENGTH + 1)}, None),
        ({"rules": {"versions": [3] * (MAX_VERSIONS + 1)}}, None),
    ],
)
async def test_what_a_node_says_of_itself(
    federation: Any, said: dict[str, Any], versions: tuple[int, ...] | None
) -> None:
    """A release from before versions of the rules says less, and has version 1."""
    route = Route("GET", "/ledger/v1/node", canned(json_response(200, {**DESCRIPTION, **said})))
    async with node(federation, route) as client:
        if versions is not None:
            assert (await client.node_info()).rules.versions == versions
            return
        with pytest.raises(InquiryError) as caught:
            await client.node_info()
        assert caught.value.code is InquiryCode.MALFORMED


async def test_what_a_submission_sends_and_returns(federation: Any) -> None:
    seen = []

    async def record(request: Request) -> Response:
        seen.append((request.headers["authorization"], request.body))
        return json_response(200, {"digest": "", "status": "revoked", "height": 5, "repeated": True})

    async with node(federation, Route("POST", REVOCATIONS, record)) as client:
        receipt = await client.revoke(DIGEST, "keyCompromise", "secret")
    assert (receipt.digest, receipt.status, receipt.height) == (DIGEST, CertStatus.REVOKED, 5)
    assert receipt.repeated
    assert seen == [("Bearer secret", f'{{"digest":"{DIGEST.hex()}","reason":"keyCompromise"}}'.encode())]
