"""No refusal of the verification server tells a subscriber's number, in its answer, its trace or its log."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.no_numbers import NUMBER, asked, bent_members, bent_texts, logged, spoiled
from voice_dpki.codec import base64url
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.wire.http_client import HttpClient

from .conftest import TOKEN, Caller, in_3gpp_form, verification
from .test_service import PATH, Domain, domain  # noqa: F401 - the fixture

SAMPLE = Path(__file__).parents[1] / "vectors" / "stir" / "payload-number-in-log.json"


def tokens(caller: Caller, der: bytes) -> Iterator[str]:
    """Identities whose header or payload holds the number in a wrong place, signed as the caller signs."""
    received = IdentityHeader.parse(caller.identity(der))
    header, payload, _ = (base64url.decode(part) for part in received.token.split("."))
    headers = [json.dumps(members).encode() for members in bent_members(json.loads(header))]
    payloads = [json.dumps(members).encode() for members in bent_members(json.loads(payload))]
    sample = SAMPLE.read_bytes().replace(b"493023125001.5", f"{NUMBER}.5".encode())
    pairs = [(header, sample), *((header, each) for each in [*payloads, *spoiled(payload)])]
    pairs += [(each, payload) for each in [*headers, *spoiled(header)]]
    for parts in pairs:
        signing_input = ".".join(map(base64url.encode, parts))
        signature = base64url.encode(caller.signer.sign(signing_input.encode()))
        yield IdentityHeader(f"{signing_input}.{signature}", received.info, "ES256", "shaken").serialize()
    yield from bent_texts(received.serialize())


def bodies(caller: Caller, der: bytes) -> Iterator[bytes]:
    request = verification(caller.identity(der), orig=f"+{NUMBER}")
    yield json.dumps(request).encode()
    for members in bent_members(request["verificationRequest"]):
        yield json.dumps({"verificationRequest": members}).encode()
    yield from spoiled(json.dumps(request).encode())
    request = in_3gpp_form(caller.identity(der), orig=f"+{NUMBER}")
    yield json.dumps(request).encode()
    for members in bent_members(request["verificationRequest"]):
        yield json.dumps({"verificationRequest": members}).encode()
    for identity in tokens(caller, der):
        yield json.dumps(verification(identity)).encode()


async def test_every_refusal(domain: Domain, caplog: pytest.LogCaptureFixture) -> None:  # noqa: F811
    caplog.set_level(logging.DEBUG)
    domain.resolver.tell(domain.digest, domain.der)
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    client = HttpClient(str(domain.client.base_url), timeout_s=30, max_answer_bytes=1 << 16, headers=headers)
    steps = set()
    for body, answer in await asked(client, PATH, bodies(domain.caller, domain.der)):
        assert NUMBER.encode() not in answer.body, (body, answer.body)
        verdict = json.loads(answer.body).get("verificationResponse", {})
        steps.add(verdict.get("step") or verdict.get("verstat") or verdict.get("verstatValue") or answer.status)
    assert len(steps) > 8, steps
    for target in (f"{PATH}/{NUMBER}", f"/{NUMBER}?{NUMBER}"):
        assert NUMBER.encode() not in (await client.request("GET", target)).body
    await client.aclose()
    assert NUMBER not in logged(caplog.records)
    assert NUMBER not in domain.trace.read_text()


@pytest.mark.parametrize("shown", [f"{NUMBER}.5", f'"{NUMBER}"'])
def test_the_search_finds_numbers(shown: str) -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "an event", None, None)
    vars(record)["fields"] = {"reason": f"numbers must be integers, and {shown} is none"}
    assert NUMBER in logged([record])
